"""All interrupts and CPU interfaces of one GIC, and the rule by which an interrupt reaches a CPU.

Every change ends in `settle(irq)`, which puts the interrupt into the candidate set of the CPU to
which it is deliverable now: after each action the whole model is consistent, nothing is in flight.
"""

from __future__ import annotations

from .cpuif import CpuInterface
from .irq import FIRST_SPECIAL, FIRST_SPI, NOWHERE, Irq, Lpi


def affinity(cpu: int) -> int:
    """Aff2.Aff1.Aff0 of CPU `cpu`: sixteen CPUs a cluster."""
    return cpu & 15 | cpu >> 4 << 8


class GicState:
    __slots__ = (
        "all_cpus",
        "banks",
        "cpus",
        "grpen",
        "lpis",
        "one_of_n",
        "spis",
        "unpredictable",
        "version",
    )

    def __init__(self, version: int, cpus: int, nr_irqs: int, prio_bits: int, lpis: bool) -> None:
        self.version = version
        self.lpis = lpis
        self.unpredictable = ""
        self.grpen = 0  # GICD_CTLR.EnableGrp0, EnableGrp1
        self.all_cpus = (1 << cpus) - 1
        self.cpus = [CpuInterface(self, number, prio_bits) for number in range(cpus)]
        group = 1 if version == 3 else 0
        self.spis = [
            Irq(intid, NOWHERE, group) for intid in range(FIRST_SPI, min(nr_irqs, FIRST_SPECIAL))
        ]
        for spi in self.spis:
            spi.route = 0 if version == 3 else 1  # both name CPU 0
        # banks[cpu][intid]: the interrupts as CPU `cpu` sees them; the SPI objects are shared
        self.banks = [
            [Irq(intid, cpu, group) for intid in range(FIRST_SPI)] + self.spis
            for cpu in range(cpus)
        ]
        self.one_of_n: set[Irq] = set()  # SPIs with IROUTER.Interrupt_Routing_Mode 1

    def note(self, reason: str) -> None:
        """Record the first UNPREDICTABLE (or unfixed IMPLEMENTATION DEFINED) case since the driver
        looked."""
        if not self.unpredictable:
            self.unpredictable = reason

    def lookup(self, cpu: int, intid: int) -> Irq | None:
        """The SGI, PPI or SPI `intid` as CPU `cpu` sees it; None for any other INTID."""
        bank = self.banks[cpu]
        return bank[intid] if 0 <= intid < len(bank) else None

    # ---- routing

    def target(self, irq: Irq) -> int:
        """The CPU to which `irq` would be delivered now, NOWHERE if there is none."""
        if irq.cpu != NOWHERE:
            return irq.cpu
        route = irq.route
        if self.version == 2:
            return (
                route & -route
            ).bit_length() - 1  # the lowest CPU of the mask; an empty mask gives NOWHERE
        if route >> 31:
            return self._one_of_n_target(irq.group)
        cpu = route & 15 | route >> 4 & 0xFF0
        return cpu if cpu < len(self.cpus) and affinity(cpu) == route & 0xFFFFFF else NOWHERE

    def _one_of_n_target(self, group: int) -> int:
        # IHI 0069 3.1.2 "1 of N": a PE is a participating one if its Redistributor is awake (here
        # always), GICR_CTLR.DPG of the group is 0 and the group is enabled in its CPU interface.
        for cpu in self.cpus:
            if cpu.grpen >> group & 1 and not cpu.dpg >> group & 1:
                return cpu.number
        return NOWHERE

    def reroute_one_of_n(self) -> None:
        for irq in self.one_of_n:
            self.settle(irq)

    # ---- the effect of a change

    def settle(self, irq: Irq) -> None:
        """Put an SGI, PPI or SPI where it is deliverable, or nowhere. An active interrupt is not
        deliverable."""
        if irq.enabled and not irq.active and (irq.latch or (irq.line and not irq.edge)):
            self.place(irq, self.target(irq))
        else:
            self.place(irq, NOWHERE)

    def place(self, irq: Irq, cpu: int) -> None:
        was = irq.where
        if was != NOWHERE:
            holder = self.cpus[was]
            holder.fresh = False
            if was == cpu:
                return
            holder.candidates.discard(irq)
        if cpu != NOWHERE:
            holder = self.cpus[cpu]
            holder.fresh = False
            holder.candidates.add(irq)
        irq.where = cpu

    def refresh_cpus(self) -> None:
        for cpu in self.cpus:
            cpu.fresh = False

    # ---- life cycle of an interrupt

    def activate(self, irq: Irq, cpu: int, source: int) -> None:
        """Pending to active (IHI 0069 4.1.2 transition B, or D for a level that stays high)."""
        irq.sources &= ~(1 << source)
        irq.latch = irq.sources != 0
        if isinstance(irq, Lpi):
            irq.cpu = (
                irq.home
            )  # IHI 0069 5.1: no active state, the acknowledge only removes the pending state
        else:
            self._make_active(irq, cpu)
            irq.active_source = source
        self.place(irq, NOWHERE)

    def _make_active(self, irq: Irq, cpu: int) -> None:
        irq.active = True
        irq.active_on = cpu
        irq.active_prio = irq.prio
        irq.active_group = irq.group

    def force_active(self, irq: Irq) -> None:
        """GICD_ISACTIVER: the active state only, never the active-priority registers (IHI 0048
        4.3.9)."""
        if irq.active:
            return
        if self.version == 2 and irq.intid < 16:
            self.note("the CPUID of an SGI made active by GICD_ISACTIVER0 is unknown")
            irq.active_source = 0
        self._make_active(irq, self.target(irq))
        self.settle(irq)

    def deactivate(self, irq: Irq) -> None:
        irq.active = False
        irq.active_on = NOWHERE
        self.settle(irq)

    def deactivate_by_dir(self, cpu: int, intid: int, source: int) -> None:
        """GICC_DIR, ICC_DIR_EL1. The active state of an SPI is not banked: any CPU may deactivate
        it.

        Without a preceding EOI the interrupt is deactivated and its active priority stays (IHI 0069
        ICC_DIR_EL1).
        """
        irq = self.lookup(cpu, intid)
        if irq is None or not irq.active:
            return
        if self.version == 2 and intid < 16 and irq.active_source != source:
            self.note("DIR of an SGI with a CPUID that is not the active one")
            return
        self.deactivate(irq)

    # ---- wires and SGIs

    def set_line(self, irq: Irq, level: bool) -> None:
        if level and not irq.line and irq.edge:
            irq.latch = True
        irq.line = level
        self.settle(irq)

    def send_sgi(self, irq: Irq, source: int) -> None:
        """Make an SGI of the target CPU pending; a GICv2 keeps one pending instance for each source
        CPU."""
        if self.version == 2:
            irq.sources |= 1 << source
        irq.latch = True
        self.settle(irq)

    def set_sgi_sources(self, irq: Irq, sources: int) -> None:
        """GICD_SPENDSGIR, GICD_CPENDSGIR of a GICv2."""
        irq.sources = sources
        irq.latch = sources != 0
        self.settle(irq)
