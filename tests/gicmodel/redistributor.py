"""The two frames of a GICv3 Redistributor: RD_base (control, LPIs) and SGI_base (INTIDs 0-31)."""

from __future__ import annotations

from .irqregs import CONFIG_END, first_intid, read_array, write_array
from .lpi import LpiUnit
from .state import GicState, affinity

CTLR, TYPER = 0x00, 0x08
PROPBASER, PENDBASER = 0x70, 0x78
INVLPIR, INVALLR = 0xA0, 0xB0
SGI_BASE = 0x10000
SGI_CONFIG = 0xC00

CTLR_CES_IR = 0b110
DPG_SHIFT = 24  # DPG0 and DPG1NS; DPG1S is RAZ/WI as GICD_CTLR.DS is 1
TYPER_PLPIS, TYPER_LAST, TYPER_DPGS = 1 << 0, 1 << 4, 1 << 5
PROPBASER_FIELDS = 0x1F | 0x1F << 7 | 0xFFFFFFFFFF << 12 | 7 << 56
PENDBASER_FIELDS = 0x1F << 7 | 0xFFFFFFFFF << 16 | 7 << 56
PTZ = 1 << 62


def part(register: int, offset: int, size: int) -> int:
    """A 64-bit register as an access of 8 bytes, or of 4 bytes to either half, sees it."""
    return register if size == 8 else register >> 8 * (offset & 4) & 0xFFFFFFFF


def merge(register: int, offset: int, size: int, value: int) -> int:
    """The new value of a 64-bit register after such a write."""
    if size == 8:
        return value
    shift = 8 * (offset & 4)
    return register & ~(0xFFFFFFFF << shift) | value << shift


class Redistributors:
    __slots__ = ("lpi", "state")

    def __init__(self, state: GicState, lpi: LpiUnit) -> None:
        self.state = state
        self.lpi = lpi

    def read(self, target: int, offset: int, size: int) -> int:
        if offset & (size - 1):
            return 0
        if offset >= SGI_BASE:
            offset -= SGI_BASE
            if size in (1, 4) and self._is_private_array(offset):
                return read_array(self.state.banks[target][:32], offset, size)
            return 0
        return self._read_control(target, offset, size)

    def write(self, target: int, offset: int, size: int, value: int) -> None:
        if offset & (size - 1):
            return
        value &= (1 << 8 * size) - 1
        if offset >= SGI_BASE:
            offset -= SGI_BASE
            # ICFGR0 is read-only by the architecture, ICFGR1 in this implementation
            if size in (1, 4) and offset < SGI_CONFIG and self._is_private_array(offset):
                write_array(self.state, self.state.banks[target][:32], offset, size, value)
        else:
            self._write_control(target, offset, size, value)

    @staticmethod
    def _is_private_array(offset: int) -> bool:
        return (
            0x80 <= offset < CONFIG_END
            and first_intid(offset) < 32
            and not 0x800 <= offset < SGI_CONFIG
        )

    # ---- RD_base

    def _typer(self, cpu: int) -> int:
        last = TYPER_LAST if cpu == len(self.state.cpus) - 1 else 0
        lpis = TYPER_PLPIS if self.state.lpis else 0
        return affinity(cpu) << 32 | cpu << 8 | TYPER_DPGS | last | lpis

    def _read_control(self, target: int, offset: int, size: int) -> int:
        if size < 4:
            return 0
        if offset & ~4 == TYPER:
            return part(self._typer(target), offset, size)
        if offset == CTLR and size == 4:
            enabled = 1 if self.lpi.tables[target].enabled else 0
            return (
                enabled
                | (CTLR_CES_IR if self.state.lpis else 0)
                | self.state.cpus[target].dpg << DPG_SHIFT
            )
        if self.state.lpis:
            if offset & ~4 == PROPBASER:
                return part(self.lpi.tables[target].propbase, offset, size)
            if offset & ~4 == PENDBASER:
                return part(self.lpi.tables[target].pendbase, offset, size)
        return 0  # WAKER (always awake), SYNCR (never busy) and all others

    def _write_control(self, target: int, offset: int, size: int, value: int) -> None:
        if offset == CTLR and size == 4:
            self._write_ctlr(target, value)
        elif size >= 4 and self.state.lpis:
            self._write_lpi(target, offset, size, value)

    def _write_ctlr(self, target: int, value: int) -> None:
        cpu = self.state.cpus[target]
        dpg = value >> DPG_SHIFT & 3
        if dpg != cpu.dpg:
            cpu.dpg = dpg
            self.state.reroute_one_of_n()
        if self.state.lpis:
            self.lpi.set_enabled(target, bool(value & 1))

    def _write_lpi(self, target: int, offset: int, size: int, value: int) -> None:
        tables = self.lpi.tables[target]
        if (
            offset == INVLPIR
        ):  # "when written with a 32-bit write the data is zero-extended" (GICR_INVLPIR)
            self.lpi.invalidate_one(target, value & 0xFFFFFFFF)
        elif offset == INVALLR:
            self.lpi.invalidate_cpu(target)
        elif tables.enabled:
            return  # IHI 0069 GICR_PROPBASER, GICR_PENDBASER: not writable while EnableLPIs is 1
        elif offset & ~4 == PROPBASER:
            tables.propbase = merge(tables.propbase, offset, size, value) & PROPBASER_FIELDS
        elif offset & ~4 == PENDBASER:
            written = merge(tables.pendbase, offset, size, value)
            tables.pendbase = written & PENDBASER_FIELDS
            if size == 8 or offset & 4:
                tables.zero = bool(written & PTZ)
