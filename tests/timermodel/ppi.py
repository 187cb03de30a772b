"""The timers' private peripheral interrupts at a CPU interface of the GIC (IHI 0069, IHI 0048).

The PPIs are level-sensitive: pending follows the line, and a latch that software may set. Only
these interrupts are modelled; the CPU interface starts open (PMR 0xFF, group enabled), unlike one
out of reset.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from timermodel.timer import Which

INTID: dict[Which, int] = {
    "v": 27,
    "p": 30,
}  # BSA; the order in which equal priorities are taken here
IDLE_PRIORITY = 0xFF


@dataclass
class Ppi:
    """GICR_ISENABLER0, GICR_IPRIORITYR, GICR_ISACTIVER0 and the pending latch of one PPI. Reset:
    all zero."""

    enabled: bool = False
    priority: int = 0
    active: bool = False
    latch: bool = False

    def pending(self, line: bool) -> bool:
        """IHI 0048B 4.3.8, pending status of a level-sensitive interrupt: the input, or the latch
        of ISPENDR."""
        return line or self.latch


@dataclass
class CpuInterface:
    """PMR, group enable and active priorities of one PE.

    `running` holds (interrupt, group priority) of what was acknowledged and not dropped yet, the
    last one at the end. `group_priority_mask` is the part of a priority that decides pre-emption,
    as the binary point sets it.
    """

    ppis: dict[Which, Ppi] = field(default_factory=lambda: {"v": Ppi(), "p": Ppi()})
    priority_mask: int = 0xFF
    group_enabled: bool = True
    group_priority_mask: int = 0xFF
    running: list[tuple[Which, int]] = field(default_factory=list)

    @property
    def running_priority(self) -> int:
        """The highest active group priority (lowest number), idle 0xFF (IHI 0069, ICC_RPR_EL1)."""
        return min((priority for _, priority in self.running), default=IDLE_PRIORITY)

    def accepts(self, which: Which) -> bool:
        """Whether the interrupt would be signalled to the PE if it is pending: all that is not the
        timer's.

        Enabled, not active (active and pending waits for deactivation), group enabled, priority
        above PMR, and group priority above the running priority (IHI 0069 4.8, "Interrupt
        prioritization"). Lower numbers are higher.
        """
        ppi = self.ppis[which]
        above_mask = ppi.priority < self.priority_mask
        preempts = (
            not self.running or ppi.priority & self.group_priority_mask < self.running_priority
        )
        return ppi.enabled and not ppi.active and self.group_enabled and above_mask and preempts

    def deliverable(self, lines: Mapping[Which, bool]) -> set[Which]:
        """The interrupts that are pending and accepted."""
        return {
            which
            for which, ppi in self.ppis.items()
            if ppi.pending(lines[which]) and self.accepts(which)
        }

    def candidates(self, lines: Mapping[Which, bool]) -> set[Which]:
        """Those of the highest priority: which of several equal ones is taken is IMPLEMENTATION
        DEFINED."""
        deliverable = self.deliverable(lines)
        best = min((self.ppis[which].priority for which in deliverable), default=IDLE_PRIORITY)
        return {which for which in deliverable if self.ppis[which].priority == best}

    def ack(self, lines: Mapping[Which, bool], prefer: Which | None) -> Which | None:
        """A read of ICC_IAR1_EL1: make the candidate active, drop its latch; None for INTID 1023.

        A candidate whose line stays high is active and pending afterwards. PSTATE.I plays no part.
        """
        candidates = self.candidates(lines)
        if not candidates:
            return None
        which = prefer if prefer in candidates else min(candidates, key=INTID.__getitem__)
        ppi = self.ppis[which]
        ppi.active, ppi.latch = True, False
        self.running.append((which, ppi.priority & self.group_priority_mask))
        return which

    def drop_priority(self, which: Which) -> None:
        """A write of ICC_EOIR1_EL1 with EOImode 1. ValueError where it does not match the last
        acknowledge.

        IHI 0069, ICC_EOIR1_EL1: the write must correspond to the most recent valid read of the IAR.
        """
        if not self.running or self.running[-1][0] != which:
            raise ValueError(
                f"end of interrupt of {which!r}, running: {[name for name, _ in self.running]}"
            )
        self.running.pop()

    def eoi(self, which: Which) -> None:
        """A write of ICC_EOIR1_EL1 with EOImode 0: priority drop and deactivation."""
        self.drop_priority(which)
        self.ppis[which].active = False
