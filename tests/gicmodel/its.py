"""The Interrupt Translation Service: GITS_* registers and the command queue. IHI 0069 chapter 5 and
12.19.

The translation state is private to the model: no ITS table in memory is written, and only the
level-1 entries of a two-level device table are read. A command with an error is skipped, the queue
never stalls.
"""

from __future__ import annotations

from .itsmap import ItsMap
from .memory import Memory
from .redistributor import merge, part

CTLR, TYPER, CBASER, CWRITER, CREADR, BASER0, BASER1 = (
    0x000,
    0x008,
    0x080,
    0x088,
    0x090,
    0x100,
    0x108,
)
ENABLED, QUIESCENT = 1 << 0, 1 << 31
TYPER_VALUE = (
    1 | (8 - 1) << 4 | 15 << 8 | 15 << 13
)  # PLPIS, 8-byte ITEs, 16 EventID and DeviceID bits, PTA 0
VALID = 1 << 63
INDIRECT = 1 << 62
CACHE_FIELDS = 7 << 59 | 7 << 53 | 3 << 10
CBASER_FIELDS = VALID | CACHE_FIELDS | 0xFFFFFFFFF << 16 | 0xFF
BASER_FIELDS = VALID | CACHE_FIELDS | 0xFFFFFFFFF << 12 | 0xFF
BASER_FIXED = 7 << 48 | 2 << 8  # 8-byte entries, 64 KiB pages
DEVICE_TYPE, COLLECTION_TYPE = 1 << 56, 4 << 56
QUEUE_OFFSET = 0xFFFE0
COMMAND_SIZE = 32
PAGE = 1 << 16
ENTRY = 8

MOVI, INT, CLEAR, SYNC = 0x01, 0x03, 0x04, 0x05
MAPD, MAPC, MAPTI, MAPI = 0x08, 0x09, 0x0A, 0x0B
INV, INVALL, MOVALL, DISCARD = 0x0C, 0x0D, 0x0E, 0x0F


class Its:
    __slots__ = ("baser0", "baser1", "cbaser", "creadr", "cwriter", "enabled", "map", "memory")

    def __init__(self, mapping: ItsMap, memory: Memory) -> None:
        self.map = mapping
        self.memory = memory
        self.enabled = False
        self.cbaser = self.creadr = self.cwriter = 0
        self.baser0 = DEVICE_TYPE | BASER_FIXED
        self.baser1 = COLLECTION_TYPE | BASER_FIXED

    # ---- registers

    def read(self, offset: int, size: int) -> int:
        if offset & (size - 1) or size < 4:
            return 0
        if offset == CTLR:
            # Quiescent is UNKNOWN while Enabled is 1 (IHI 0069 GITS_CTLR): zero here
            return (ENABLED if self.enabled else QUIESCENT) if size == 4 else 0
        return part(self._register(offset & ~4), offset, size)

    def _register(self, offset: int) -> int:
        if offset == TYPER:
            return TYPER_VALUE
        if offset == CBASER:
            return self.cbaser
        if offset == CWRITER:
            return self.cwriter
        if offset == CREADR:
            return self.creadr
        if offset == BASER0:
            return self.baser0
        return self.baser1 if offset == BASER1 else 0

    def write(self, offset: int, size: int, value: int) -> None:
        if offset & (size - 1) or size < 4:
            return
        value &= (1 << 8 * size) - 1
        register = offset & ~4
        if offset == CTLR:
            if size == 4:
                self._write_ctlr(value)
        elif register == CWRITER:
            self._write_cwriter(merge(self.cwriter, offset, size, value) & QUEUE_OFFSET)
        elif register in (CBASER, BASER0, BASER1):
            self._write_base(register, offset, size, value)

    def _write_ctlr(self, value: int) -> None:
        enable = bool(value & ENABLED)
        if enable and not (self.cbaser & self.baser0 & self.baser1 & VALID):
            return
        self.enabled = enable
        self._run()

    def _write_cwriter(self, value: int) -> None:
        if value < self._queue_size():
            self.cwriter = value
            self._run()

    def _write_base(self, register: int, offset: int, size: int, value: int) -> None:
        if self.enabled:
            self.map.state.note("an ITS table register was written while the ITS was enabled")
            return
        if register == CBASER:
            written = merge(self.cbaser, offset, size, value)
            if written >> 12 & 15:
                # IHI 0069 GITS_CBASER: bits [15:12] not all zeros is CONSTRAINED UNPREDICTABLE;
                # treated as zero
                self.map.state.note("GITS_CBASER is not aligned to 64 KiB")
            self.cbaser = written & CBASER_FIELDS
            self.creadr = self.cwriter = 0
        elif register == BASER0:
            before = self.baser0
            self.baser0 = (
                merge(before, offset, size, value) & (BASER_FIELDS | INDIRECT)
                | DEVICE_TYPE
                | BASER_FIXED
            )
            if not self.baser0 & VALID:
                self.map.free_devices()
            elif self.map.devices and before != self.baser0:
                self.map.state.note("GITS_BASER0 changed while devices are mapped")
        else:
            before = self.baser1
            self.baser1 = (
                merge(before, offset, size, value) & BASER_FIELDS | COLLECTION_TYPE | BASER_FIXED
            )
            if not self.baser1 & VALID:
                self.map.free_collections()
            elif self.map.collections and before != self.baser1:
                self.map.state.note("GITS_BASER1 changed while collections are mapped")

    # ---- table sizes

    def _table_bytes(self, baser: int) -> int:
        return ((baser & 0xFF) + 1) * PAGE if baser & VALID else 0

    def _device_in_table(self, device: int) -> bool:
        entries = self._table_bytes(self.baser0) // ENTRY
        if device >> 16:  # GITS_TYPER.Devbits
            return False
        if not self.baser0 & INDIRECT:
            return device < entries
        index = device // (PAGE // ENTRY)
        if index >= entries:
            return False
        # with 64 KiB pages, [15:12] of the register hold address bits [51:48] (IHI 0069
        # GITS_BASER<n>)
        base = self.baser0 & 0xFFFFFFFF0000 | (self.baser0 >> 12 & 15) << 48
        return bool(self.memory.read(base + index * ENTRY, 8) & VALID)

    def _collection_in_table(self, collection: int) -> bool:
        return collection < self._table_bytes(self.baser1) // ENTRY

    # ---- the command queue

    def _queue_size(self) -> int:
        return ((self.cbaser & 0xFF) + 1) * 4096

    def _run(self) -> None:
        base = self.cbaser & 0xFFFFFFFFF0000
        while self.enabled and self.creadr != self.cwriter:
            at = base + self.creadr
            words = [self.memory.read(at + 8 * index, 8) for index in range(4)]
            self._execute(words[0], words[1], words[2], words[3])
            self.creadr = (self.creadr + COMMAND_SIZE) % self._queue_size()

    def _execute(self, word0: int, word1: int, word2: int, word3: int) -> None:
        op = word0 & 0xFF
        device, event = word0 >> 32, word1 & 0xFFFFFFFF
        collection = word2 & 0xFFFF
        if op == MAPD:
            self._mapd(device, word1 & 0x1F, bool(word2 & VALID))
        elif op == MAPC:
            if self._collection_in_table(collection):
                self.map.mapc(collection, word2 >> 16 & 0x7FFFFFFFF, bool(word2 & VALID))
        elif op == MAPTI or op == MAPI:
            if self._collection_in_table(collection):
                self.map.mapti(device, event, word1 >> 32 if op == MAPTI else event, collection)
        elif op == MOVI:
            self.map.movi(device, event, collection)
        elif op == MOVALL:
            self.map.movall(word2 >> 16 & 0x7FFFFFFFF, word3 >> 16 & 0x7FFFFFFFF)
        elif op == INVALL:
            self.map.invall(collection)
        elif op == DISCARD:
            self.map.discard(device, event)
        elif op == INT:
            self.map.trigger(device, event)
        elif op == CLEAR:
            self.map.clear(device, event)
        elif op == INV:
            self.map.inv(device, event)
        # SYNC and unknown commands: everything is complete already

    def _mapd(self, device: int, size: int, valid: bool) -> None:
        if self._device_in_table(device) and not (valid and size + 1 > 16):
            self.map.mapd(device, size + 1, valid)

    # ---- devices

    def msi(self, device: int, event: int) -> bool:
        """A write of GITS_TRANSLATER by `device`; False if it is dropped."""
        return self.enabled and self.map.trigger(device, event)

    def snapshot(self) -> dict[str, object]:
        return {
            "enabled": self.enabled,
            "cbaser": self.cbaser,
            "creadr": self.creadr,
            "cwriter": self.cwriter,
            "baser": [self.baser0, self.baser1],
            **self.map.snapshot(),
        }
