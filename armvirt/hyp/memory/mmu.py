"""The memory slots of a VM, and its stage-2 tables (arch/arm64/kvm/mmu.c).

Guest RAM is memory of the armvirt process. Each vCPU has an engine (Unicorn), which executes the
guest's instructions. The physical memory of the engine contains the memory of each slot, at a
physical address that equals the slot's IPA. Therefore stage 2 maps each IPA in a slot to the same
physical address.

The first fault in a 2 MiB block maps all pages of the block that are in the slot, execute-never. A
page becomes executable at its first instruction fetch, and stays writable. Execute-never makes
stores fast, because the engine's store to an executable page is six times slower. The coherence of
translated code does not depend on execute-never.
"""

from __future__ import annotations

import ctypes as C
from collections.abc import Callable, Iterable, Iterator
from enum import Enum

from armvirt.arch import translation as s2
from armvirt.arch.esr import CM, S1PTW, WNR
from armvirt.errors import KvmError
from armvirt.hw.context import Context, ShareableDomain
from armvirt.hyp.memory.dirty_log import WORD_PAGES, DirtyBitmap, ManualProtect
from armvirt.hyp.memory.memslot import (
    MEM_LOG_DIRTY_PAGES,
    MEM_READONLY,
    Change,
    HostMemory,
    MemorySlot,
    check_number,
    plan,
)

__all__ = [
    "MEM_LOG_DIRTY_PAGES", "MEM_READONLY", "BusMaster", "FaultOutcome", "HostMemory", "MemorySlot", "Mmu", "Stage2",
]  # fmt: skip

TABLE_BASE = 1 << 40
"""The address of the stage-2 tables in the engine's physical memory. Stage 2 maps no IPA to this
address."""
TABLE_SPACE = 1 << 30  # bytes; the host allocates only the pages that are used
L3_SPAN = s2.PAGE_SIZE * s2.ENTRIES
COPY = 1 << 26  # bytes that one Python statement copies


class Stage2:
    """The stage-2 tables of one VM."""

    def __init__(self, shape: s2.Geometry, vmid: int = 1) -> None:
        self.shape, self.vmid = shape, vmid
        self._memory = HostMemory(TABLE_SPACE)
        self._words = (C.c_uint64 * (TABLE_SPACE // 8)).from_buffer(self._memory.map)
        self._next = shape.tables * s2.PAGE_SIZE
        self._leaves: dict[int, int] = {}

    @property
    def vttbr(self) -> int:
        """VTTBR_EL2: the table base and the VMID."""
        return TABLE_BASE | self.vmid << s2.VTTBR_VMID_SHIFT

    def attach(self, context: Context) -> None:
        """Map the memory of the stage-2 tables into the physical memory of a vCPU's engine.
        ``context`` is the CPU state of this vCPU."""
        context.map_memory(TABLE_BASE, TABLE_SPACE, self._memory.address)

    def _table(self) -> int:
        at = self._next
        self._next += s2.PAGE_SIZE
        return at

    def _leaf_table(self, ipa: int) -> int:
        """The offset in bytes of the level-3 table of ``ipa`` in the memory of the tables. If the
        level-3 table does not exist, this function creates the level-3 table and the missing tables
        of the levels above."""
        key = ipa // L3_SPAN
        at = self._leaves.get(key)
        if at is None:
            table = 0
            for level in range(self.shape.start_level, 3):
                index = s2.index(
                    ipa, level
                )  # concatenated tables: the index at the start level can have more than 9 bits
                word = table // 8 + (
                    index if level == self.shape.start_level else index & s2.INDEX_MASK
                )
                if not self._words[word]:
                    self._words[word] = TABLE_BASE + self._table() | s2.VALID | s2.TABLE
                table = (self._words[word] & s2.ADDRESS_MASK) - TABLE_BASE
            at = self._leaves[key] = table
        return at

    def map_around(self, ipa: int, slot: MemorySlot) -> None:
        """Map the pages of the slot that are in the 2 MiB block of ``ipa``, execute-never. Pages
        that are mapped already are not changed.

        The pages are mapped read-only if the slot is read-only or has dirty logging. With dirty
        logging, the first store to each page then causes a fault.
        """
        start = max(ipa // L3_SPAN * L3_SPAN, slot.ipa)
        end = min(ipa // L3_SPAN * L3_SPAN + L3_SPAN, slot.end)
        slot.memory.touch(start - slot.ipa + slot.offset, end - slot.ipa + slot.offset)
        attributes = (
            s2.NORMAL_PAGE
            | s2.XN
            | (0 if slot.readonly or slot.dirty is not None else s2.S2AP_WRITE)
        )
        word = self._leaf_table(ipa) // 8
        words = self._words
        for page in range(start, end, s2.PAGE_SIZE):
            at = word + (page >> s2.PAGE_SHIFT & s2.INDEX_MASK)
            if not words[at]:
                words[at] = page | attributes

    def entry(self, ipa: int) -> int:
        """The leaf descriptor of ``ipa``, 0 if ``ipa`` is not mapped."""
        at = self._leaves.get(ipa // L3_SPAN)
        return 0 if at is None else self._words[at // 8 + (ipa >> s2.PAGE_SHIFT & s2.INDEX_MASK)]

    def set_entry(self, ipa: int, descriptor: int) -> None:
        self._words[self._leaf_table(ipa) // 8 + (ipa >> s2.PAGE_SHIFT & s2.INDEX_MASK)] = (
            descriptor
        )

    def protect(self, ipa: int) -> None:
        """Write-protect the page of ``ipa``. The caller flushes the TLBs."""
        descriptor = self.entry(ipa)
        if descriptor & s2.S2AP_WRITE:
            self.set_entry(ipa, descriptor & ~s2.S2AP_WRITE)

    def clear(self) -> None:
        """Unmap all pages. The caller flushes the TLBs."""
        self._memory.discard()
        self._next = self.shape.tables * s2.PAGE_SIZE
        self._leaves.clear()


class FaultOutcome(Enum):
    """What the run loop has to do after a stage-2 abort (kvm_handle_guest_abort)."""

    MAPPED = "mapped"  # mapped now: retry the access
    MMIO = "mmio"  # outside of the slots, or a write to a read-only slot
    INSTRUCTION_ABORT = "instruction-abort"  # a fetch outside of the slots
    EXTERNAL_ABORT = "external-abort"  # a stage-1 walk outside of the slots
    SKIP = "skip"  # cache maintenance outside of the slots or in a read-only slot


class Mmu:
    """The memory of a VM: the memory slots and the stage-2 tables. The guest's stores write the
    memory directly. All other writes use the method `write`."""

    def __init__(self, domain: ShareableDomain, vmid: int = 1) -> None:
        self.domain, self.vmid = domain, vmid
        self.slots: dict[int, MemorySlot] = {}
        self._order: tuple[MemorySlot, ...] = ()
        self._stage2: Stage2 | None = None
        self._attached: list[Context] = []
        self._executable: set[int] = set()
        self.manual_protect = ManualProtect.NONE

    @property
    def stage2(self) -> Stage2:
        if self._stage2 is None:
            top = max((slot.end for slot in self._order), default=1)
            self._stage2 = Stage2(s2.geometry(top), self.vmid)
        return self._stage2

    def set_slot(self, slot: MemorySlot | None, number: int) -> None:
        """Create a slot, move it, or change its flags. ``number`` is the slot id. If ``slot`` is
        None, delete the slot. The errors are the errors of `armvirt.hyp.memory.memslot.plan`.
        KvmError EINVAL if the slot to delete does not exist.

        The first vCPU fixes the IPA range of the stage-2 tables. The range is 16 GiB, or 40 bits if
        a slot ends above 16 GiB. After that, a slot beyond this range causes KvmError EINVAL.
        """
        check_number(number)
        if slot is None:
            self._delete(number)
            return
        change = plan(slot, self.slots)
        if self._stage2 is not None and slot.end > 1 << self._stage2.shape.ipa_bits:
            raise KvmError(
                "EINVAL", "a slot above 16 GiB must be set before the first vCPU is created"
            )
        if change is Change.NOTHING:
            return
        old = self.slots.get(number)
        slot = slot._replace(dirty=self._bitmap(slot, old))
        if change is Change.MOVE:
            self._delete(number)
        self.slots[number] = slot
        self._changed()
        if change is Change.FLAGS_ONLY:
            self._logging_changed(slot)
            return
        for context in self._attached:
            context.map_memory(slot.ipa, slot.size, slot.address)

    def _delete(self, number: int) -> None:
        old = self.slots.pop(number, None)
        if old is None:
            raise KvmError("EINVAL", f"memory slot {number} does not exist")
        self._changed()
        for context in self._attached:
            context.unmap_memory(old.ipa, old.size)
        self.flush()

    # -- dirty log --

    def _bitmap(self, slot: MemorySlot, old: MemorySlot | None) -> DirtyBitmap | None:
        """The dirty bitmap of a slot after a change. The result is the old bitmap if the slot
        already had dirty logging, a new bitmap if dirty logging starts, and None if the slot has no
        dirty logging."""
        if not slot.flags & MEM_LOG_DIRTY_PAGES:
            return None
        if old is not None and old.dirty is not None:
            return old.dirty
        return DirtyBitmap(slot.pages, full=ManualProtect.INITIALLY_SET in self.manual_protect)

    def _logging_changed(self, slot: MemorySlot) -> None:
        """Change the stage-2 mapping of a slot after user space has enabled or disabled dirty
        logging.

        If dirty logging was disabled, unmap all pages of the VM. If dirty logging was enabled with
        INITIALLY_SET, do nothing, because the first KVM_CLEAR_DIRTY_LOG write-protects the pages.
        If dirty logging was enabled without INITIALLY_SET, write-protect the mapped pages of the
        slot.
        """
        if slot.dirty is None:
            self.flush()
        elif ManualProtect.INITIALLY_SET not in self.manual_protect:
            self._protect(slot, range(slot.pages))

    def _protect(self, slot: MemorySlot, pages: Iterable[int]) -> None:
        """Write-protect pages of a slot, so that the next store to each page causes a fault
        (kvm_arch_mmu_enable_log_dirty_pt_masked)."""
        if self._stage2 is None:
            return
        for page in pages:
            self.stage2.protect(slot.ipa + page * s2.PAGE_SIZE)
        self._flush_tlbs()

    def _flush_tlbs(self) -> None:
        for context in self.domain.contexts:
            context.queue_tlb()
            context.request_stop()  # so that the engine flushes before the next instruction

    def _logged(self, number: int) -> tuple[MemorySlot, DirtyBitmap]:
        slot = self.slots.get(number)
        if slot is None or slot.dirty is None:
            raise KvmError("ENOENT", f"memory slot {number} has no dirty log")
        return slot, slot.dirty

    def get_dirty_log(self, number: int) -> bytes:
        """Return the dirty bitmap of a slot (KVM_GET_DIRTY_LOG). Without manual protection, also
        clear the bitmap and write-protect the dirty pages again. KvmError EINVAL if the slot id is
        out of range, ENOENT if the slot has no dirty log."""
        check_number(number)
        slot, dirty = self._logged(number)
        bits = dirty.bits()
        if ManualProtect.ENABLE not in self.manual_protect:
            self._protect(slot, dirty.clear(list(dirty.dirty())))
        return bits

    def clear_dirty_log(self, number: int, first_page: int, num_pages: int, bitmap: bytes) -> None:
        """Mark the pages in ``bitmap`` as clean, and write-protect these pages again
        (KVM_CLEAR_DIRTY_LOG). KvmError EINVAL if the slot id is out of range, or if ``first_page``
        is not a multiple of 64. KvmError ENOENT if the slot has no dirty log. The other errors are
        the errors of `DirtyBitmap.chosen`."""
        check_number(number)
        if first_page < 0 or num_pages < 0 or first_page % WORD_PAGES:
            raise KvmError("EINVAL", f"page {first_page} is no multiple of {WORD_PAGES}")
        slot, dirty = self._logged(number)
        self._protect(slot, dirty.clear(dirty.chosen(first_page, num_pages, bitmap)))

    def _stored_to(self, ipa: int, slot: MemorySlot) -> None:
        """Handle a store to a write-protected page of a slot with dirty logging: make the page
        writable, and mark the page as dirty."""
        self.stage2.set_entry(ipa, self.stage2.entry(ipa) | s2.S2AP_WRITE)
        if slot.dirty is not None:
            slot.dirty.mark_bytes(ipa - slot.ipa, 1)

    def _changed(self) -> None:
        self._order = tuple(sorted(self.slots.values(), key=lambda s: s.ipa))

    def attach(self, context: Context) -> None:
        """Map all slots and the stage-2 tables into the physical memory of a new vCPU's engine.
        ``context`` is the CPU state of this vCPU."""
        self.stage2.attach(context)
        for slot in self._order:
            context.map_memory(slot.ipa, slot.size, slot.address)
        self._attached.append(context)

    def find(self, ipa: int) -> MemorySlot | None:
        """The slot that contains ``ipa``. None if no slot contains ``ipa``."""
        for slot in self._order:
            if slot.ipa <= ipa < slot.end:
                return slot
        return None

    def flush(self) -> None:
        """Unmap all pages of stage 2. Flush all TLB entries, and all code that the engines have
        translated."""
        self.stage2.clear()
        self._executable.clear()
        for context in self.domain.contexts:
            context.queue_tlb()
            context.queue_all_code()

    # -- faults --

    def abort(self, esr: int, ipa: int, is_fetch: bool) -> FaultOutcome:
        """Handle a stage-2 abort at ``ipa``, and return what the run loop has to do. The order of
        the checks is the order of kvm_handle_guest_abort."""
        slot = self.find(ipa)
        if slot is None and not is_fetch and not esr & (S1PTW | CM):
            return FaultOutcome.MMIO  # the usual case: neither S1PTW nor CM
        s1ptw, is_write = bool(esr & S1PTW), bool(esr & WNR) and not is_fetch
        if slot is None or (slot.readonly and is_write and not s1ptw):
            if is_fetch:
                return FaultOutcome.EXTERNAL_ABORT if s1ptw else FaultOutcome.INSTRUCTION_ABORT
            if s1ptw:
                return FaultOutcome.EXTERNAL_ABORT
            if esr & CM:
                return FaultOutcome.SKIP
            return FaultOutcome.MMIO
        if not self.stage2.entry(ipa):
            self.stage2.map_around(ipa, slot)
        if is_fetch and not s1ptw:
            self._open(ipa)
        elif slot.dirty is not None and is_write and not esr & (S1PTW | CM):
            self._stored_to(ipa, slot)
        return FaultOutcome.MAPPED

    def _open(self, ipa: int) -> None:
        """Make a page executable after the first instruction fetch from the page. No TLB flush is
        necessary, because this change only adds a permission."""
        page = ipa & ~(s2.PAGE_SIZE - 1)
        self.stage2.set_entry(page, self.stage2.entry(page) & ~s2.XN)
        self._executable.add(page)

    def populated_pages(
        self, tick: Callable[[], None] = lambda: None
    ) -> Iterator[tuple[int, bytes]]:
        """All pages of guest memory that are not all zero, as (IPA, bytes), in the order of the
        IPAs. Read-only slots are not included. Only pages that were mapped to a guest or written by
        `write` are searched. ``tick()`` is called before the search of each 2 MiB. An exception of
        ``tick`` ends the search."""
        for slot in self._order:
            if not slot.readonly:
                for at, page in slot.memory.populated(slot.offset, slot.offset + slot.size, tick):
                    yield slot.ipa + at - slot.offset, page

    # -- access by hypervisor and devices --

    def read(self, ipa: int, size: int) -> bytes:
        """Read ``size`` bytes of guest memory from ``ipa`` on. KvmError EFAULT if an address is
        outside the slots."""
        out = bytearray()
        for slot, at, count in self._pieces(ipa, size):
            at += slot.offset
            out += slot.memory.map[at : at + count]
        return bytes(out)

    def write(self, ipa: int, data: bytes) -> None:
        """Write ``data`` to guest memory from ``ipa`` on, also in read-only slots. Discard the code
        that the engines of the vCPUs have translated from these bytes. KvmError EFAULT if an
        address is outside the slots."""
        done, view = 0, memoryview(data)
        for slot, at, count in self._pieces(ipa, len(data)):
            start = at + slot.offset
            for part in range(0, count, COPY):  # Python handles signals after each part
                size = min(COPY, count - part)
                slot.memory.map[start + part : start + part + size] = view[
                    done + part : done + part + size
                ]
            slot.memory.touch(start, start + count)
            if slot.dirty is not None:
                slot.dirty.mark_bytes(at, count)
            done += count
        self.domain.memory_written(ipa, len(data))
        first = ipa & ~(s2.PAGE_SIZE - 1)
        if self._executable and any(
            p in self._executable for p in range(first, ipa + len(data), s2.PAGE_SIZE)
        ):
            self.domain.code_written(ipa, len(data))

    def _pieces(self, ipa: int, size: int) -> list[tuple[MemorySlot, int, int]]:
        pieces = []
        while size:
            slot = self.find(ipa)
            if slot is None:
                raise KvmError("EFAULT", f"no memory slot at {ipa:#x}")
            count = min(size, slot.end - ipa)
            pieces.append((slot, ipa - slot.ipa, count))
            ipa, size = ipa + count, size - count
        return pieces


class BusMaster:
    """Guest memory, for accesses by a bus master of the SoC. For example, the GIC accesses its
    tables in guest memory."""

    def __init__(self, mmu: Mmu) -> None:
        self._mmu = mmu

    def read(self, ipa: int, size: int) -> bytes:
        """Read guest memory. The arguments and the errors are the same as in `Mmu.read`."""
        return self._mmu.read(ipa, size)

    def write(self, ipa: int, data: bytes) -> None:
        """Write guest memory. The arguments and the errors are the same as in `Mmu.write`. Also
        KvmError EFAULT if an address is in a read-only slot."""
        if any(slot.readonly for slot, _, _ in self._mmu._pieces(ipa, len(data))):
            raise KvmError("EFAULT", f"the memory at {ipa:#x} is read-only")
        self._mmu.write(ipa, data)
