"""The physical GIC as EL2 sees it: the private interrupts of each CPU.

The host has no devices, so its GIC has PPIs (timers, maintenance) and the SGIs with which the
hypervisor kicks another CPU. Lines are levels: an interrupt that is acknowledged stays active until
somebody deactivates it, be it EL2 or a guest through a list register with HW = 1 (IHI 0069 4.1,
6.3).
"""

from __future__ import annotations

from collections.abc import Callable

from armvirt.arch.gic import NR_PRIVATE, SPURIOUS
from armvirt.state import State, checked

STATE_VERSION = 1

_SGIS = 0xFFFF


class _CpuState:
    """Bit n of each word is INTID n."""

    __slots__ = ("active", "enabled", "latch", "line")

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.line = self.latch = self.active = 0
        self.enabled = _SGIS  # the host's own kicks are always on; it enables the PPIs that it uses


class PhysicalGic:
    """The interrupt state of ``cpus`` physical CPUs; INTIDs are 0 to 31.

    ``on_change(cpu)``, if set, is called when `deliverable` of a CPU changes. ``changed[cpu]`` is
    set by each mutation, and reset by whoever keeps a copy (`armvirt.hw.shadow`).
    """

    def __init__(self, cpus: int) -> None:
        if cpus < 1:
            raise ValueError("a GIC needs at least one CPU")
        self._cpus = [_CpuState() for _ in range(cpus)]
        self._deliverable = [False] * cpus
        self.changed = [True] * cpus
        self.on_change: Callable[[int], None] | None = None

    def __repr__(self) -> str:
        return f"<PhysicalGic of {len(self._cpus)} CPUs>"

    @property
    def cpus(self) -> int:
        return len(self._cpus)

    def reset(self) -> None:
        """Lines low, nothing active, PPIs disabled."""
        for cpu, state in enumerate(self._cpus):
            state.reset()
            self._deliverable[cpu] = False

    # Inputs and EL2's registers ------------------------------------------------------------------

    def set_line(self, cpu: int, intid: int, level: bool) -> None:
        """A level-sensitive input changes."""
        state = self._cpus[cpu]
        state.line = state.line | 1 << intid if level else state.line & ~(1 << intid)
        self.update(cpu)

    def send_sgi(self, cpu: int, intid: int) -> None:
        """An SGI for ``cpu``: pending until it is acknowledged."""
        self._cpus[cpu].latch |= 1 << intid & _SGIS
        self.update(cpu)

    def enable(self, cpu: int, intid: int, on: bool) -> None:
        """GICR_ISENABLER0 / GICR_ICENABLER0."""
        state = self._cpus[cpu]
        state.enabled = state.enabled | 1 << intid if on else state.enabled & ~(1 << intid)
        self.update(cpu)

    def set_active(self, cpu: int, intid: int, on: bool) -> None:
        """GICR_ISACTIVER0 / GICR_ICACTIVER0: how a hypervisor hands an interrupt to a guest, or
        takes it back."""
        state = self._cpus[cpu]
        state.active = state.active | 1 << intid if on else state.active & ~(1 << intid)
        self.update(cpu)

    def acknowledge(self, cpu: int) -> int:
        """EL2 reads ICC_IAR1_EL1: the lowest INTID that is deliverable becomes active; 1023 if
        there is none.

        All priorities are equal, and the host runs one handler at a time: there is no preemption.
        """
        state = self._cpus[cpu]
        ready = self._ready(state)
        if not ready:
            return SPURIOUS
        intid = (ready & -ready).bit_length() - 1
        state.active |= 1 << intid
        state.latch &= ~(1 << intid)
        self.update(cpu)
        return intid

    def deactivate(self, cpu: int, intid: int) -> None:
        """EL2 writes ICC_DIR_EL1, or a guest ends an interrupt whose list register has HW = 1."""
        if 0 <= intid < NR_PRIVATE:
            self.set_active(cpu, intid, False)

    def words(self, cpu: int) -> tuple[int, int, int, int]:
        """Lines, latches, active and enabled interrupts of a CPU: bit n is INTID n."""
        state = self._cpus[cpu]
        return state.line, state.latch, state.active, state.enabled

    def set_private(self, cpu: int, line: int, active: int) -> None:
        """The lines and active interrupts of a CPU, after changes that were made elsewhere
        (`armvirt.hw.shadow`)."""
        state = self._cpus[cpu]
        state.line, state.active = line, active
        self.update(cpu)

    # Questions -----------------------------------------------------------------------------------

    @staticmethod
    def _ready(state: _CpuState) -> int:
        return (state.line | state.latch) & state.enabled & ~state.active

    def is_active(self, cpu: int, intid: int) -> bool:
        return bool(self._cpus[cpu].active >> intid & 1)

    def is_enabled(self, cpu: int, intid: int) -> bool:
        return bool(self._cpus[cpu].enabled >> intid & 1)

    def is_pending(self, cpu: int, intid: int) -> bool:
        """The line is high, or the SGI was sent and not acknowledged."""
        state = self._cpus[cpu]
        return bool((state.line | state.latch) >> intid & 1)

    def deliverable(self, cpu: int) -> bool:
        """Whether EL2 is interrupted: something is enabled, pending and not active."""
        return self._deliverable[cpu]

    def update(self, cpu: int) -> None:
        """Recompute the interrupt request to EL2 on one CPU. Every mutation ends here."""
        self.changed[cpu] = True
        deliverable = self._ready(self._cpus[cpu]) != 0
        if deliverable != self._deliverable[cpu]:
            self._deliverable[cpu] = deliverable
            if self.on_change is not None:
                self.on_change(cpu)

    # State ---------------------------------------------------------------------------------------

    def rows(self) -> list[dict[str, object]]:
        """Every interrupt that is pending, active or an enabled PPI, as plain data for a table."""
        return [
            {
                "cpu": cpu,
                "intid": intid,
                "pending": self.is_pending(cpu, intid),
                "active": self.is_active(cpu, intid),
                "enabled": self.is_enabled(cpu, intid),
            }
            for cpu, state in enumerate(self._cpus)
            for intid in range(NR_PRIVATE)
            if (state.line | state.latch | state.active | state.enabled & ~_SGIS) >> intid & 1
        ]

    def state(self) -> dict[str, object]:
        cpus = [
            {"line": s.line, "latch": s.latch, "active": s.active, "enabled": s.enabled}
            for s in self._cpus
        ]
        return {"version": STATE_VERSION, "cpus": cpus}

    def load(self, state: State) -> None:
        """Restore `state` of a GIC with as many CPUs; nothing is reported."""
        checked(state, "PhysicalGic", STATE_VERSION)
        cpus = state["cpus"]
        if not isinstance(cpus, list) or len(cpus) != len(self._cpus):
            raise ValueError(f"saved GIC state does not fit {len(self._cpus)} CPUs")
        for cpu, (own, saved) in enumerate(zip(self._cpus, cpus, strict=True)):
            own.line, own.latch = saved["line"], saved["latch"]
            own.active, own.enabled = saved["active"], saved["enabled"]
            self._deliverable[cpu] = self._ready(own) != 0
