"""The Distributor's frame: GICD_* of a GICv2 (4 KiB) and of a GICv3 with affinity routing (64
KiB)."""

from __future__ import annotations

from . import sgi
from .irq import FIRST_SPECIAL, FIRST_SPI
from .irqregs import BITS_FIRST, CONFIG_END, first_intid, read_array, write_array
from .state import GicState

CTLR, TYPER = 0x000, 0x004
TARGETS_FIRST, TARGETS_END = 0x800, 0xC00
SGIR = 0xF00
CPENDSGIR, SPENDSGIR, SPENDSGIR_END = 0xF10, 0xF20, 0xF30
ROUTER_FIRST = 0x6000
V2_FRAME = 0x1000

ARE, DS = 1 << 4, 1 << 6
ENABLE_GROUPS = 3
ROUTER_FIELDS = (
    1 << 31 | 0xFFFFFF
)  # Interrupt_Routing_Mode, Aff2.Aff1.Aff0; no Aff3 as TYPER.A3V is 0
TYPER_LPIS = 1 << 17
TYPER_IDBITS_SHIFT = 19


class Distributor:
    __slots__ = ("nr_irqs", "state", "typer")

    def __init__(self, state: GicState, nr_irqs: int) -> None:
        self.state = state
        self.nr_irqs = nr_irqs
        lines = nr_irqs // 32 - 1
        if state.version == 2:
            self.typer = lines | (len(state.cpus) - 1) << 5  # SecurityExtn, LSPI: 0
        elif state.lpis:
            self.typer = lines | 15 << TYPER_IDBITS_SHIFT | TYPER_LPIS
        else:
            self.typer = lines | 9 << TYPER_IDBITS_SHIFT

    # ---- both versions

    def read(self, cpu: int, offset: int, size: int) -> int:
        if offset & (size - 1):
            return 0
        if self.state.version == 3:
            return self._read_v3(offset, size)
        return self._read_v2(cpu, offset, size)

    def write(self, cpu: int, offset: int, size: int, value: int) -> None:
        if offset & (size - 1):
            return
        value &= (1 << 8 * size) - 1
        if self.state.version == 3:
            self._write_v3(offset, size, value)
        else:
            self._write_v2(cpu, offset, size, value)

    def _write_ctlr(self, value: int) -> None:
        self.state.grpen = value & ENABLE_GROUPS
        self.state.refresh_cpus()

    # ---- GICv3: DS and ARE are RAO/WI, so ITARGETSR, SGIR and [CS]PENDSGIR are RAZ/WI (IHI 0069 12.9)

    def _read_v3(self, offset: int, size: int) -> int:
        if offset >= ROUTER_FIRST:
            return self._read_router(offset, size)
        if size == 4:
            if offset == CTLR:
                return self.state.grpen | ARE | DS
            if offset == TYPER:
                return self.typer
        if size in (1, 4) and self._is_spi_array(offset):
            return read_array(self.state.banks[0], offset, size)
        return 0

    def _write_v3(self, offset: int, size: int, value: int) -> None:
        if offset >= ROUTER_FIRST:
            self._write_router(offset, size, value)
        elif offset == CTLR:
            if size == 4:
                self._write_ctlr(value)
        elif size in (1, 4) and self._is_spi_array(offset):
            write_array(self.state, self.state.banks[0], offset, size, value)

    @staticmethod
    def _is_spi_array(offset: int) -> bool:
        # with ARE the fields of INTIDs 0-31 are in the Redistributors and RAZ/WI here
        return BITS_FIRST <= offset < CONFIG_END and first_intid(offset) >= FIRST_SPI

    def _read_router(self, offset: int, size: int) -> int:
        intid = offset - ROUTER_FIRST >> 3
        if size < 4 or offset & 4 or not FIRST_SPI <= intid < min(self.nr_irqs, FIRST_SPECIAL):
            return 0
        return self.state.banks[0][intid].route

    def _write_router(self, offset: int, size: int, value: int) -> None:
        intid = offset - ROUTER_FIRST >> 3
        if size < 4 or offset & 4 or not FIRST_SPI <= intid < min(self.nr_irqs, FIRST_SPECIAL):
            return
        irq = self.state.banks[0][intid]
        irq.route = value & ROUTER_FIELDS
        if irq.route >> 31:
            self.state.one_of_n.add(irq)
        else:
            self.state.one_of_n.discard(irq)
        self.state.settle(irq)

    # ---- GICv2: private fields are banked by the accessing CPU (IHI 0048 4.1.4)

    def _read_v2(self, cpu: int, offset: int, size: int) -> int:
        if size not in (1, 4):
            return 0
        if TARGETS_FIRST <= offset < TARGETS_END:
            return self._read_targets(cpu, offset - TARGETS_FIRST, size)
        if CPENDSGIR <= offset < SPENDSGIR_END:
            return self._read_sgi_sources(cpu, offset & 15, size)
        if offset < BITS_FIRST:
            if size == 4 and offset == CTLR:
                return self.state.grpen
            return self.typer if size == 4 and offset == TYPER else 0
        return read_array(self.state.banks[cpu], offset, size) if offset < CONFIG_END else 0

    def _write_v2(self, cpu: int, offset: int, size: int, value: int) -> None:
        if size not in (1, 4) or offset >= V2_FRAME:
            return
        if TARGETS_FIRST <= offset < TARGETS_END:
            self._write_targets(offset - TARGETS_FIRST, size, value)
        elif CPENDSGIR <= offset < SPENDSGIR_END:
            self._write_sgi_sources(cpu, offset, size, value)
        elif BITS_FIRST <= offset < CONFIG_END:
            write_array(self.state, self.state.banks[cpu], offset, size, value)
        elif size == 4 and offset == CTLR:
            self._write_ctlr(value)
        elif size == 4 and offset == SGIR:
            sgi.send_v2(self.state, cpu, value)

    def _read_targets(self, cpu: int, first: int, size: int) -> int:
        # IHI 0048 4.3.12: ITARGETSR0-7 are read-only and each field holds the number of the reading
        # CPU
        value = 0
        for irq in reversed(self.state.banks[cpu][first : first + size]):
            value = value << 8 | (irq.route if irq.intid >= FIRST_SPI else 1 << cpu)
        return value

    def _write_targets(self, first: int, size: int, value: int) -> None:
        for irq in self.state.banks[0][first : first + size]:
            if irq.intid >= FIRST_SPI:
                irq.route = value & 0xFF & self.state.all_cpus
                self.state.settle(irq)
            value >>= 8

    def _read_sgi_sources(self, cpu: int, first: int, size: int) -> int:
        value = 0
        for irq in reversed(self.state.banks[cpu][first : first + size]):
            value = value << 8 | irq.sources
        return value

    def _write_sgi_sources(self, cpu: int, offset: int, size: int, value: int) -> None:
        first = offset & 15
        for irq in self.state.banks[cpu][first : first + size]:
            named = value & 0xFF & self.state.all_cpus
            if named:
                sources = irq.sources | named if offset >= SPENDSGIR else irq.sources & ~named
                self.state.set_sgi_sources(irq, sources)
            value >>= 8
