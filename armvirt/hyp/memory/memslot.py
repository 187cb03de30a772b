"""Memory slots, and the checks of KVM_SET_USER_MEMORY_REGION (virt/kvm/kvm_main.c:
__kvm_set_memory_region).

The functions have no side effects. `plan` checks a call and returns the kind of change.
`armvirt.hyp.memory.mmu` makes the change.
"""

from __future__ import annotations

import ctypes as C
import mmap
from collections.abc import Callable, Iterator, Mapping
from enum import Enum

from armvirt.arch import translation as s2
from armvirt.errors import KvmError, UserError
from armvirt.hyp.memory.dirty_log import DirtyBitmap
from armvirt.records import NamedTuple

MEM_LOG_DIRTY_PAGES = 1 << 0
MEM_READONLY = 1 << 1
NR_MEMSLOTS = 32767  # KVM_MEM_SLOTS_NUM: SHRT_MAX
MAP_NORESERVE = 0x4000
CHUNK = 2 << 20
"""The size in bytes (2 MiB) of a block of memory. `HostMemory` records for each block whether the
block may have been written. `HostMemory.populated` searches only these blocks for pages that have a
byte other than zero."""
_ZERO_PAGE = bytes(s2.PAGE_SIZE)


class HostMemory:
    """``size`` bytes of memory in the armvirt process (an anonymous mapping). The operating system
    allocates a page when the page is accessed for the first time."""

    def __init__(self, size: int) -> None:
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_NORESERVE
        try:
            self.map = mmap.mmap(-1, size, flags=flags, prot=mmap.PROT_READ | mmap.PROT_WRITE)
        except (OSError, OverflowError, ValueError, MemoryError) as error:
            what = f"the host does not give {size} bytes of memory: {error}"
            raise UserError(f"{what}; raise ulimit -v, or use a smaller --mem") from error
        self.size = size
        self._anchor = C.c_char.from_buffer(self.map)
        self.address = C.addressof(self._anchor)
        self._touched: set[int] = set()

    def __repr__(self) -> str:
        return f"<HostMemory of {self.size:#x} bytes>"

    def discard(self) -> None:
        """Give every page back to the operating system (MADV_DONTNEED). After this call every byte
        reads as zero."""
        self.map.madvise(mmap.MADV_DONTNEED)

    def touch(self, start: int, end: int) -> None:
        """Record that the bytes from offset ``start`` up to offset ``end`` (exclusive) may have
        been written. The caller has mapped these bytes to a guest, or has written these bytes."""
        self._touched.update(range(start // CHUNK, -(-end // CHUNK)))

    def populated(
        self, start: int, end: int, tick: Callable[[], None]
    ) -> Iterator[tuple[int, bytes]]:
        """The 4 KiB pages from offset ``start`` up to offset ``end`` (exclusive) that have a byte
        other than zero, as (offset, bytes). Only memory that `touch` has recorded is searched.
        ``tick()`` is called before the search of each 2 MiB. If ``tick`` raises an exception, the
        search ends with this exception."""
        for chunk in range(start // CHUNK, -(-end // CHUNK)):
            if chunk not in self._touched:
                continue
            tick()
            for at in range(max(start, chunk * CHUNK), min(end, (chunk + 1) * CHUNK), s2.PAGE_SIZE):
                page = self.map[at : at + s2.PAGE_SIZE]
                if page != _ZERO_PAGE:
                    yield at, page


class MemorySlot(NamedTuple):
    """A KVM memory slot. The slot is guest memory that begins at the IPA ``ipa``. The contents are
    in ``memory``, beginning ``offset`` bytes after its start. In KVM, userspace_addr has the role
    of ``memory`` and ``offset``."""

    slot: int
    flags: int
    ipa: int
    memory: HostMemory
    offset: int = 0
    length: int | None = None
    dirty: DirtyBitmap | None = None

    @property
    def size(self) -> int:
        """The size of the slot in bytes. If ``length`` is None, the slot ends at the end of
        ``memory``."""
        return self.memory.size - self.offset if self.length is None else self.length

    @property
    def end(self) -> int:
        return self.ipa + self.size

    @property
    def pages(self) -> int:
        return self.size >> s2.PAGE_SHIFT

    @property
    def readonly(self) -> bool:
        return bool(self.flags & MEM_READONLY)

    @property
    def address(self) -> int:
        """The virtual address, in the armvirt process, of the first byte of the slot."""
        return self.memory.address + self.offset


class Change(Enum):
    """The change that a call of KVM_SET_USER_MEMORY_REGION makes (enum kvm_mr_change)."""

    CREATE = "create"
    MOVE = "move"
    FLAGS_ONLY = "flags"
    NOTHING = "nothing"


def check_number(number: int) -> None:
    """Raise KvmError EINVAL if a slot id is out of range. Bits 31:16 of the id are the address
    space. An id of an address space other than 0 is out of range."""
    if not 0 <= number < NR_MEMSLOTS:
        raise KvmError(
            "EINVAL", f"memory slot {number:#x}: there are {NR_MEMSLOTS} in one address space"
        )


def check_call(number: int, flags: int, ipa: int) -> None:
    """Make the first checks of a call of KVM_SET_USER_MEMORY_REGION. These checks also apply to a
    call that deletes a slot. ``number`` is the slot id. KvmError EINVAL if a flag does not exist,
    if ``ipa`` is not page-aligned, or if ``number`` is out of range."""
    if flags & ~(MEM_LOG_DIRTY_PAGES | MEM_READONLY):
        raise KvmError(
            "EINVAL", f"memory slot flags {flags:#x}: there are LOG_DIRTY_PAGES and READONLY"
        )
    if ipa % s2.PAGE_SIZE:
        raise KvmError("EINVAL", "a memory slot must be page-aligned")
    check_number(number)


def plan(slot: MemorySlot, slots: Mapping[int, MemorySlot]) -> Change:
    """Check a call of KVM_SET_USER_MEMORY_REGION that sets ``slot``, and return the kind of change.
    ``slots`` has the present slots of the VM, by slot id.

    KvmError EINVAL if a flag does not exist, if the address, size or offset is not page-aligned, if
    the slot ends beyond the end of ``memory``, or if the call changes the size, the memory or
    READONLY of a slot. KvmError EEXIST if the slot overlaps another slot. KvmError EFAULT if the
    slot ends beyond the IPA space (kvm_arch_prepare_memory_region).
    """
    _check_shape(slot)
    old = slots.get(slot.slot)
    if old is None:
        change = Change.CREATE
    elif (slot.memory is not old.memory or slot.offset != old.offset or slot.size != old.size
          or (slot.flags ^ old.flags) & MEM_READONLY):  # fmt: skip
        raise KvmError(
            "EINVAL",
            f"size, memory and READONLY of memory slot {slot.slot} cannot change; delete it first",
        )
    elif slot.ipa != old.ipa:
        change = Change.MOVE
    else:
        return Change.FLAGS_ONLY if slot.flags != old.flags else Change.NOTHING
    others = (other for number, other in slots.items() if number != slot.slot)
    if any(slot.ipa < other.end and other.ipa < slot.end for other in others):
        raise KvmError("EEXIST", f"memory slot {slot.slot} overlaps another")
    if slot.end > 1 << s2.LARGE.ipa_bits:
        raise KvmError("EFAULT", f"a memory slot must lie in {s2.LARGE.ipa_bits} bits of IPA")
    return change


def _check_shape(slot: MemorySlot) -> None:
    check_call(slot.slot, slot.flags, slot.ipa)
    if (slot.size | slot.offset) % s2.PAGE_SIZE:
        raise KvmError("EINVAL", "a memory slot must be page-aligned")
    if slot.end > 1 << 64:
        raise KvmError("EINVAL", "a memory slot must not wrap around")
    if (
        slot.ipa < 0
        or slot.size <= 0
        or slot.offset < 0
        or slot.offset + slot.size > slot.memory.size
    ):
        raise KvmError("EINVAL", "a memory slot must lie in its memory")
