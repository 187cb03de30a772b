"""The memory of a VM as its VMM sees it: slots, dirty log, access."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from armvirt.hyp.memory.memslot import HostMemory, MemorySlot, check_call
from armvirt.hyp.memory.mmu import Mmu

if TYPE_CHECKING:
    from armvirt.hyp.host.host import Host


class VmMemory:
    """The part of `armvirt.hyp.kvm.Vm` that is about memory."""

    host: Host
    mmu: Mmu

    def set_user_memory_region(
        self, slot: int, guest_phys_addr: int, memory: HostMemory | None, flags: int = 0, *,
        memory_size: int | None = None, offset: int = 0,
    ) -> None:  # fmt: skip
        """KVM_SET_USER_MEMORY_REGION. ``memory`` from ``offset`` bytes on stands for
        userspace_addr; ``memory_size`` is in bytes, all the rest of it by default.

        A slot that exists can be moved, and LOG_DIRTY_PAGES be changed. None for the memory, or
        size 0, deletes it. Errors as `Mmu.set_slot`.
        """
        check_call(slot, flags, guest_phys_addr)
        self.host.check_open()
        gone = memory is None or memory_size == 0
        new = (
            None
            if gone or memory is None
            else MemorySlot(slot, flags, guest_phys_addr, memory, offset, memory_size)
        )
        self.mmu.set_slot(new, slot)

    def get_dirty_log(self, slot: int) -> bytes:
        """KVM_GET_DIRTY_LOG: a bit per page, bit 0 of byte 0 the first. Errors as
        `Mmu.get_dirty_log`."""
        return self.mmu.get_dirty_log(slot)

    def clear_dirty_log(self, slot: int, first_page: int, num_pages: int, bitmap: bytes) -> None:
        """KVM_CLEAR_DIRTY_LOG: bit 0 of ``bitmap`` is ``first_page``. Errors as
        `Mmu.clear_dirty_log`."""
        self.mmu.clear_dirty_log(slot, first_page, num_pages, bitmap)

    def read_memory(self, ipa: int, size: int) -> bytes:
        """``size`` bytes of guest memory; KvmError EFAULT outside the slots."""
        return self.mmu.read(ipa, size)

    def write_memory(self, ipa: int, data: bytes) -> None:
        """Write guest memory as its VMM does, read-only slots too; the pages become dirty. EFAULT
        outside the slots."""
        self.mmu.write(ipa, data)

    def has_memory(self, ipa: int, size: int) -> bool:
        """Whether [ipa, ipa + size) lies in one slot."""
        slot = self.mmu.find(ipa)
        return slot is not None and ipa + size <= slot.end

    def populated_pages(
        self, tick: Callable[[], None] = lambda: None
    ) -> Iterator[tuple[int, bytes]]:
        """Guest RAM that has contents, page by page; ``tick`` is called now and then on the way."""
        return self.mmu.populated_pages(tick)
