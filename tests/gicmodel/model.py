"""The whole GIC: the API by which a driver acts on the model and looks at it."""

from __future__ import annotations

from . import gicc, icc
from .distributor import Distributor
from .irq import FIRST_LPI, FIRST_SPI, NOWHERE, SPURIOUS, Irq
from .its import Its
from .itsmap import ItsMap
from .lpi import LpiUnit
from .memory import Memory
from .redistributor import Redistributors
from .state import GicState


class GicModel:
    """An architectural GICv2 or GICv3 (one Security state), as software at EL1 sees it.

    Every method leaves the model settled. A method that meets a case which the specification leaves
    UNPREDICTABLE sets `unpredictable` to a short reason (if it is empty) and does the deterministic
    thing that its code says; the driver resets it to "".
    """

    def __init__(
        self,
        version: int,
        cpus: int,
        nr_irqs: int = 96,
        *,
        prio_bits: int = 5,
        lpis: bool = False,
        memory: Memory | None = None,
    ) -> None:
        if version not in (2, 3) or (lpis and version == 2):
            raise ValueError(f"no such GIC: version {version}, lpis {lpis}")
        if lpis and memory is None:
            raise ValueError("LPIs need guest memory")
        if nr_irqs % 32 or not 32 <= nr_irqs <= 1024 or not 5 <= prio_bits <= 7:
            raise ValueError(f"nr_irqs {nr_irqs}, prio_bits {prio_bits}")
        if not 1 <= cpus <= (8 if version == 2 else 512):
            raise ValueError(f"{cpus} CPUs")
        self._state = GicState(version, cpus, nr_irqs, prio_bits, lpis)
        self._dist = Distributor(self._state, nr_irqs)
        self._lpi = LpiUnit(self._state, memory)
        self._redist = Redistributors(self._state, self._lpi)
        self._its = (
            Its(ItsMap(self._state, self._lpi), memory) if lpis and memory is not None else None
        )

    @property
    def unpredictable(self) -> str:
        return self._state.unpredictable

    @unpredictable.setter
    def unpredictable(self, reason: str) -> None:
        self._state.unpredictable = reason

    # ---- device side

    def set_line(self, intid: int, level: bool, cpu: int = 0) -> None:
        """The input wire of a PPI of `cpu`, or of an SPI. A rising wire is an edge for an
        edge-triggered one."""
        irq = self._state.lookup(cpu, intid)
        if irq is not None and intid >= 16:
            self._state.set_line(irq, level)

    def pulse(self, intid: int, cpu: int = 0) -> None:
        """The wire goes low, high and low again: an edge, and no lasting level."""
        irq = self._state.lookup(cpu, intid)
        if irq is not None and intid >= 16:
            irq.latch = irq.latch or irq.edge
            irq.line = False
            self._state.settle(irq)

    def msi(self, device_id: int, event_id: int) -> bool:
        """A write of `event_id` to GITS_TRANSLATER by `device_id`; False if the ITS or the
        Redistributor drops it."""
        return self._its is not None and self._its.msi(device_id, event_id)

    # ---- guest MMIO: wrong size or alignment and unknown offsets are RAZ/WI

    def dist_read(self, cpu: int, offset: int, size: int) -> int:
        return self._dist.read(cpu, offset, size)

    def dist_write(self, cpu: int, offset: int, size: int, value: int) -> None:
        self._dist.write(cpu, offset, size, value)

    def redist_read(self, cpu: int, target: int, offset: int, size: int) -> int:
        """`offset` from RD_base of CPU `target`; SGI_base is at 0x10000. Any CPU may access any
        Redistributor."""
        return self._redist.read(target, offset, size) if self._state.version == 3 else 0

    def redist_write(self, cpu: int, target: int, offset: int, size: int, value: int) -> None:
        if self._state.version == 3:
            self._redist.write(target, offset, size, value)

    def its_read(self, offset: int, size: int) -> int:
        return 0 if self._its is None else self._its.read(offset, size)

    def its_write(self, offset: int, size: int, value: int) -> None:
        if self._its is not None:
            self._its.write(offset, size, value)

    # ---- CPU interfaces

    def icc_read(self, cpu: int, reg: str, prefer: int | None = None) -> int:
        """Read ICC_*_EL1; among interrupts of equal top priority IAR and HPPIR take `prefer` if it
        is one of them."""
        return icc.read(self._state, cpu, reg, prefer) if self._state.version == 3 else 0

    def icc_write(self, cpu: int, reg: str, value: int) -> None:
        if self._state.version == 3:
            icc.write(self._state, cpu, reg, value)

    def gicc_read(
        self, cpu: int, offset: int, size: int, prefer: tuple[int, int] | None = None
    ) -> int:
        """Read GICC_*; `prefer` is (INTID, source CPU)."""
        return gicc.read(self._state, cpu, offset, size, prefer) if self._state.version == 2 else 0

    def gicc_write(self, cpu: int, offset: int, size: int, value: int) -> None:
        if self._state.version == 2:
            gicc.write(self._state, cpu, offset, size, value)

    # ---- outputs

    def irq(self, cpu: int) -> bool:
        """nIRQ: Group 1, and on a GICv2 Group 0 too while FIQEn is 0 (IHI 0048 2.3.1)."""
        interface = self._state.cpus[cpu]
        group = interface.asserted()
        return group == 1 or (group == 0 and self._state.version == 2 and not interface.fiqen)

    def fiq(self, cpu: int) -> bool:
        """nFIQ: Group 0, on a GICv2 only while FIQEn is 1."""
        interface = self._state.cpus[cpu]
        return interface.asserted() == 0 and (self._state.version == 3 or interface.fiqen)

    # ---- introspection of the oracle

    def _find(self, intid: int, cpu: int) -> Irq | None:
        return self._lpi.lpis.get(intid) if intid >= FIRST_LPI else self._state.lookup(cpu, intid)

    def pending(self, intid: int, cpu: int = 0) -> bool:
        irq = self._find(intid, cpu)
        return irq is not None and irq.pending()

    def active(self, intid: int, cpu: int = 0) -> bool:
        irq = self._find(intid, cpu)
        return irq is not None and irq.active

    def enabled(self, intid: int, cpu: int = 0) -> bool:
        irq = self._find(intid, cpu)
        return irq is not None and irq.enabled

    def priority(self, intid: int, cpu: int = 0) -> int:
        irq = self._find(intid, cpu)
        return 0 if irq is None else irq.prio

    def group(self, intid: int, cpu: int = 0) -> int:
        irq = self._find(intid, cpu)
        return 0 if irq is None else irq.group

    def target(self, intid: int, cpu: int = 0) -> int:
        """The CPU to which the interrupt would be delivered now, -1 if there is none."""
        irq = self._find(intid, cpu)
        return NOWHERE if irq is None else self._state.target(irq)

    def running_priority(self, cpu: int) -> int:
        return self._state.cpus[cpu].running

    def hppi(self, cpu: int) -> int:
        """The highest pending interrupt of the enabled groups, PMR and running priority ignored;
        1023 if none."""
        top = self._state.cpus[cpu].top()
        return SPURIOUS if top is None else top.intid

    def tie_candidates(self, cpu: int) -> set[tuple[int, int]]:
        """Every (INTID, source CPU) that shares the priority of `hppi(cpu)`; the source is 0 but
        for GICv2 SGIs."""
        ties: set[tuple[int, int]] = set()
        for irq in self._state.cpus[cpu].ties():
            if irq.sources:
                ties.update((irq.intid, source) for source in range(8) if irq.sources >> source & 1)
            else:
                ties.add((irq.intid, 0))
        return ties

    def active_on(self, intid: int) -> set[int]:
        """The CPUs on which the interrupt is active; empty for an SPI that ISACTIVER made active
        with no target."""
        if intid < FIRST_SPI:
            return {number for number, bank in enumerate(self._state.banks) if bank[intid].active}
        irq = self._state.lookup(0, intid)
        return (
            {irq.active_on}
            if irq is not None and irq.active and irq.active_on != NOWHERE
            else set()
        )

    def snapshot(self) -> dict[str, object]:
        """All architectural state as plain data; changes nothing."""
        state = self._state
        return {
            "version": state.version,
            "grpen": state.grpen,
            "cpus": [cpu.snapshot() for cpu in state.cpus],
            "private": [[irq.snapshot() for irq in bank[:FIRST_SPI]] for bank in state.banks],
            "spis": {irq.intid: irq.snapshot() for irq in state.spis},
            "lpis": self._lpi.snapshot() if state.lpis else {},
            "its": {} if self._its is None else self._its.snapshot(),
        }
