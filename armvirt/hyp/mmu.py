"""Memory slots and the stage-2 editor (arch/arm64/kvm/mmu.c).

Guest RAM is host memory, given to each engine as physical memory at its own IPA: the stage-2 map is the identity
where there is a slot. Leaf tables are filled on the first fault in their 2 MiB, every page execute-never; a page
becomes executable on the first fetch and stays writable. Execute-never keeps stores fast (the engine's store path
for executable pages is six times slower); code coherence does not rest on it.
"""

from __future__ import annotations

import ctypes as C
import mmap
from collections.abc import Iterator
from enum import Enum
from typing import NamedTuple

from armvirt.arch import stage2 as s2
from armvirt.errors import KvmError, UserError
from armvirt.hw.context import Context, ShareableDomain
from armvirt.hw.exit import SyncExit

TABLE_BASE = 1 << 40
"""Where the tables lie in the engine's physical memory: no stage-2 output reaches it."""
TABLE_SPACE = 1 << 30  # reserved, not committed
MEM_READONLY = 1 << 1
MAP_NORESERVE = 0x4000
_ZERO_PAGE = bytes(s2.PAGE_SIZE)
L3_SPAN = s2.PAGE_SIZE * s2.ENTRIES


class HostMemory:
    """A lazily populated anonymous mapping of ``size`` bytes."""

    def __init__(self, size: int) -> None:
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_NORESERVE
        try:
            self.map = mmap.mmap(-1, size, flags=flags, prot=mmap.PROT_READ | mmap.PROT_WRITE)
        except (OSError, OverflowError, ValueError, MemoryError) as error:
            raise UserError(f"the host does not give {size} bytes of memory: {error}; use a smaller --mem") from error
        self.size = size
        self._anchor = C.c_char.from_buffer(self.map)
        self.address = C.addressof(self._anchor)

    def discard(self) -> None:
        """Give every page back to the host; they read as zero again."""
        self.map.madvise(mmap.MADV_DONTNEED)

    def populated(self, start: int, end: int) -> Iterator[tuple[int, bytes]]:
        """The 4 KiB pages of [start, end) that are not all zero: (offset, bytes)."""
        for at in range(start, end, s2.PAGE_SIZE):
            page = self.map[at : at + s2.PAGE_SIZE]
            if page != _ZERO_PAGE:
                yield at, page


class MemorySlot(NamedTuple):
    """A KVM memory slot: [ipa, ipa + size) is backed by ``memory``."""

    slot: int
    flags: int
    ipa: int
    memory: HostMemory

    @property
    def size(self) -> int:
        return self.memory.size

    @property
    def end(self) -> int:
        return self.ipa + self.memory.size

    @property
    def readonly(self) -> bool:
        return bool(self.flags & MEM_READONLY)


class Stage2:
    """One VM's stage-2 tables."""

    def __init__(self, shape: s2.Geometry, vmid: int = 1) -> None:
        self.shape, self.vmid = shape, vmid
        self._memory = HostMemory(TABLE_SPACE)
        self._words = (C.c_uint64 * (TABLE_SPACE // 8)).from_buffer(self._memory.map)
        self._next = shape.tables * s2.PAGE_SIZE
        self._leaves: dict[int, int] = {}

    @property
    def vttbr(self) -> int:
        """VTTBR_EL2: the base and the VMID."""
        return TABLE_BASE | self.vmid << 48

    def attach(self, context: Context) -> None:
        """Let a context's engine walk the tables."""
        context.engine.map_memory(TABLE_BASE, TABLE_SPACE, self._memory.address)

    def _table(self) -> int:
        at = self._next
        self._next += s2.PAGE_SIZE
        return at

    def _leaf_table(self, ipa: int) -> int:
        """Offset of the level-3 table of ``ipa``; created, with its way there, if missing."""
        key = ipa // L3_SPAN
        at = self._leaves.get(key)
        if at is None:
            table = 0
            for level in range(self.shape.start_level, 3):
                index = s2.index(ipa, level)  # concatenated tables: the first index is not cut to 9 bits
                word = table // 8 + (index if level == self.shape.start_level else index & 511)
                if not self._words[word]:
                    self._words[word] = TABLE_BASE + self._table() | s2.VALID | s2.TABLE
                table = (self._words[word] & s2.ADDRESS_MASK) - TABLE_BASE
            at = self._leaves[key] = table
        return at

    def map_around(self, ipa: int, slot: MemorySlot) -> None:
        """Map the slot's part of the 2 MiB around ``ipa``, execute-never; pages that are mapped stay as they are."""
        start = max(ipa // L3_SPAN * L3_SPAN, slot.ipa)
        end = min(ipa // L3_SPAN * L3_SPAN + L3_SPAN, slot.end)
        attributes = s2.NORMAL_PAGE | s2.XN | (0 if slot.readonly else s2.S2AP_WRITE)
        word = self._leaf_table(ipa) // 8
        words = self._words
        for page in range(start, end, s2.PAGE_SIZE):
            at = word + (page >> s2.PAGE_SHIFT & 511)
            if not words[at]:
                words[at] = page | attributes

    def has_leaf(self, ipa: int) -> bool:
        """Whether anything was mapped in the 2 MiB of ``ipa``."""
        return ipa // L3_SPAN in self._leaves

    def entry(self, ipa: int) -> int:
        """The leaf descriptor of ``ipa``, 0 if there is none."""
        at = self._leaves.get(ipa // L3_SPAN)
        return 0 if at is None else self._words[at // 8 + (ipa >> s2.PAGE_SHIFT & 511)]

    def set_entry(self, ipa: int, descriptor: int) -> None:
        self._words[self._leaf_table(ipa) // 8 + (ipa >> s2.PAGE_SHIFT & 511)] = descriptor

    def clear(self) -> None:
        """Unmap everything; the caller flushes TLBs."""
        self._memory.discard()
        self._next = self.shape.tables * s2.PAGE_SIZE
        self._leaves.clear()


class FaultOutcome(Enum):
    """What kvm_handle_guest_abort decides."""

    MAPPED = "mapped"  # retry the access
    MMIO = "mmio"  # no slot, or a write to a read-only one
    INSTRUCTION_ABORT = "instruction-abort"  # a fetch where nothing can be executed
    EXTERNAL_ABORT = "external-abort"  # a stage-1 walk where there is no memory
    SKIP = "skip"  # cache maintenance where there is no slot


class Mmu:
    """A VM's memory: slots, stage 2, and the one way in for writes that are not the guest's."""

    def __init__(self, domain: ShareableDomain, vmid: int = 1) -> None:
        self.domain, self.vmid = domain, vmid
        self.slots: dict[int, MemorySlot] = {}
        self._order: tuple[MemorySlot, ...] = ()
        self._stage2: Stage2 | None = None
        self._attached: list[Context] = []
        self._executable: set[int] = set()
        self._written: set[int] = set()

    @property
    def stage2(self) -> Stage2:
        if self._stage2 is None:
            top = max((slot.end for slot in self._order), default=1)
            self._stage2 = Stage2(s2.geometry(top), self.vmid)
        return self._stage2

    def set_slot(self, slot: MemorySlot | None, number: int) -> None:
        """Create or delete a slot. EINVAL: not page-aligned or beyond 40 bits; EEXIST: overlaps another.

        As for KVM, a slot must not be resized; here it must be deleted before it is created anew.
        """
        if slot is None:
            old = self.slots.pop(number, None)
            if old is None:
                raise KvmError("EINVAL", f"memory slot {number} does not exist")
            self._changed()
            for context in self._attached:
                context.engine.unmap_memory(old.ipa, old.size)
            self.flush()
            return
        if slot.ipa % s2.PAGE_SIZE or slot.size % s2.PAGE_SIZE or not slot.size:
            raise KvmError("EINVAL", "a memory slot must be page-aligned")
        if slot.end > 1 << s2.LARGE.ipa_bits:
            raise KvmError("EINVAL", "a memory slot must lie in 40 bits of IPA")
        if number in self.slots or any(slot.ipa < o.end and o.ipa < slot.end for o in self._order):
            raise KvmError("EEXIST", f"memory slot {number} overlaps another")
        if self._stage2 is not None and slot.end > 1 << self._stage2.shape.ipa_bits:
            raise KvmError("EINVAL", "a slot above 16 GiB must be set before the first vCPU is created")
        self.slots[number] = slot
        self._changed()
        for context in self._attached:
            context.engine.map_memory(slot.ipa, slot.size, slot.memory.address)

    def _changed(self) -> None:
        self._order = tuple(sorted(self.slots.values(), key=lambda s: s.ipa))

    def attach(self, context: Context) -> None:
        """Give all slots and the tables to a new context."""
        self.stage2.attach(context)
        for slot in self._order:
            context.engine.map_memory(slot.ipa, slot.size, slot.memory.address)
        self._attached.append(context)

    def find(self, ipa: int) -> MemorySlot | None:
        """The slot that holds ``ipa``."""
        for slot in self._order:
            if slot.ipa <= ipa < slot.end:
                return slot
        return None

    def flush(self) -> None:
        """Forget all translations, as after unmapping (TLBI by IPA, then VMALLE1IS)."""
        self.stage2.clear()
        self._executable.clear()
        for context in self.domain.contexts:
            context.queue_tlb()
            context.queue_all_code()

    # -- faults --

    def abort(self, exit: SyncExit, is_fetch: bool) -> FaultOutcome:
        """Handle a stage-2 abort (order of tests: facts of kvm_handle_guest_abort)."""
        ipa, iss = exit.ipa, exit.esr
        slot = self.find(ipa)
        if slot is None and not is_fetch and not iss & 0x180:
            return FaultOutcome.MMIO  # the usual case: neither S1PTW nor CM
        s1ptw, is_write = bool(iss & 1 << 7), bool(iss & 1 << 6) and not is_fetch
        if slot is None or (slot.readonly and is_write and not s1ptw):
            if is_fetch:
                return FaultOutcome.EXTERNAL_ABORT if s1ptw else FaultOutcome.INSTRUCTION_ABORT
            if s1ptw:
                return FaultOutcome.EXTERNAL_ABORT
            if iss & 1 << 8:
                return FaultOutcome.SKIP
            return FaultOutcome.MMIO
        if not self.stage2.entry(ipa):
            self.stage2.map_around(ipa, slot)
        if is_fetch and not s1ptw:
            self._open(ipa)
        return FaultOutcome.MAPPED

    def _open(self, ipa: int) -> None:
        """First fetch from a page: make it executable. Less strict than before, so no TLB holds a stale refusal."""
        page = ipa & ~(s2.PAGE_SIZE - 1)
        self.stage2.set_entry(page, self.stage2.entry(page) & ~s2.XN)
        self._executable.add(page)

    def populated_pages(self) -> Iterator[tuple[int, bytes]]:
        """Every page with contents, by IPA: only 2 MiB that the guest touched or the VMM wrote are looked at."""
        for slot in self._order:
            if slot.readonly:
                continue
            for span in range(slot.ipa // L3_SPAN * L3_SPAN, slot.end, L3_SPAN):
                if span // L3_SPAN in self._written or self.stage2.has_leaf(span):
                    first, last = max(span, slot.ipa) - slot.ipa, min(span + L3_SPAN, slot.end) - slot.ipa
                    for at, page in slot.memory.populated(first, last):
                        yield slot.ipa + at, page

    # -- access by hypervisor and devices --

    def read(self, ipa: int, size: int) -> bytes:
        """``size`` bytes at ``ipa``; EFAULT outside the slots."""
        out = bytearray()
        for slot, at, count in self._pieces(ipa, size):
            out += slot.memory.map[at : at + count]
        return bytes(out)

    def write(self, ipa: int, data: bytes) -> None:
        """Write guest memory (read-only slots too); translated code of the range is dropped everywhere."""
        done = 0
        for slot, at, count in self._pieces(ipa, len(data)):
            slot.memory.map[at : at + count] = data[done : done + count]
            done += count
        self._written.update(range(ipa // L3_SPAN, (ipa + len(data)) // L3_SPAN + 1))
        first = ipa & ~(s2.PAGE_SIZE - 1)
        if self._executable and any(p in self._executable for p in range(first, ipa + len(data), s2.PAGE_SIZE)):
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
    """Memory as something on the SoC's bus reaches it, such as the GIC for its tables."""

    def __init__(self, mmu: Mmu) -> None:
        self._mmu = mmu

    def read(self, ipa: int, size: int) -> bytes:
        """As `Mmu.read`."""
        return self._mmu.read(ipa, size)

    def write(self, ipa: int, data: bytes) -> None:
        """As `Mmu.write`, but a read-only slot cannot be written: EFAULT."""
        if any(slot.readonly for slot, _, _ in self._mmu._pieces(ipa, len(data))):
            raise KvmError("EFAULT", f"the memory at {ipa:#x} is read-only")
        self._mmu.write(ipa, data)
