"""The physical GIC that EL2 uses: the private interrupts of each CPU.

The emulated host has no devices. Therefore its GIC has only PPIs (timers, maintenance) and the SGIs
with which the hypervisor kicks another CPU. The inputs are level-sensitive. An acknowledged
interrupt stays active until EL2 deactivates it, or until a guest deactivates it through a list
register with HW = 1 (IHI 0069 4.1, 6.3).
"""

from __future__ import annotations

from collections.abc import Callable

from armvirt.arch.gic import NR_PRIVATE, NR_SGIS, SPURIOUS
from armvirt.state import State, checked

STATE_VERSION = 1

_SGIS = (1 << NR_SGIS) - 1


class _CpuState:
    """The interrupts of one CPU. Bit n of each attribute is INTID n. ``line`` has the levels of the
    inputs, and ``latch`` has the pending SGIs."""

    __slots__ = ("active", "enabled", "latch", "line")

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.line = self.latch = self.active = 0
        self.enabled = (
            _SGIS  # SGIs, which kick a CPU, are always enabled; the host enables its PPIs
        )


class PhysicalGic:
    """The interrupt state of ``cpus`` physical CPUs, for INTIDs 0 to 31.

    ``irq_requests[cpu]`` is the value that `deliverable` returns for this CPU. Time-critical code
    reads the list directly. If ``on_change`` is set, ``on_change(cpu)`` is called when
    ``irq_requests[cpu]`` changes. Each method that changes the state of a CPU sets
    ``changed[cpu]``; `armvirt.hw.shadow` clears the flag when it copies the state.
    """

    def __init__(self, cpus: int) -> None:
        if cpus < 1:
            raise ValueError("a GIC needs at least one CPU")
        self._cpus = [_CpuState() for _ in range(cpus)]
        self.irq_requests = [False] * cpus
        self.changed = [True] * cpus
        self.on_change: Callable[[int], None] | None = None

    def __repr__(self) -> str:
        return f"<PhysicalGic of {len(self._cpus)} CPUs>"

    @property
    def cpus(self) -> int:
        return len(self._cpus)

    def reset(self) -> None:
        """Set all lines low and make all interrupts inactive. PPIs are disabled, and SGIs are
        enabled."""
        for cpu, state in enumerate(self._cpus):
            state.reset()
            self.irq_requests[cpu] = False

    # Inputs and EL2's registers ------------------------------------------------------------------

    def set_line(self, cpu: int, intid: int, level: bool) -> None:
        """Set the level of the input of a PPI on one CPU. ``intid`` is the INTID of the PPI."""
        state = self._cpus[cpu]
        state.line = state.line | 1 << intid if level else state.line & ~(1 << intid)
        self.update(cpu)

    def send_sgi(self, cpu: int, intid: int) -> None:
        """Send an SGI to ``cpu``. The SGI is pending until EL2 acknowledges it."""
        self._cpus[cpu].latch |= 1 << intid & _SGIS
        self.update(cpu)

    def enable(self, cpu: int, intid: int, on: bool) -> None:
        """Enable or disable an interrupt, like a write of GICR_ISENABLER0 or GICR_ICENABLER0."""
        state = self._cpus[cpu]
        state.enabled = state.enabled | 1 << intid if on else state.enabled & ~(1 << intid)
        self.update(cpu)

    def set_active(self, cpu: int, intid: int, on: bool) -> None:
        """Set or clear the active state of an interrupt, like a write of GICR_ISACTIVER0 or
        GICR_ICACTIVER0. A hypervisor sets the active state so that the GIC does not signal the
        interrupt again while the guest handles it."""
        state = self._cpus[cpu]
        state.active = state.active | 1 << intid if on else state.active & ~(1 << intid)
        self.update(cpu)

    def acknowledge(self, cpu: int) -> int:
        """Read ICC_IAR1_EL1 at EL2: activate the lowest INTID that is deliverable, and return this
        INTID. Returns 1023 if no interrupt is deliverable.

        In this GIC all interrupts have the same priority, so an interrupt never preempts the
        handler of another interrupt.
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
        """Deactivate an interrupt. EL2 causes this by a write of ICC_DIR_EL1. A guest causes this
        when it deactivates a list register with HW = 1."""
        if 0 <= intid < NR_PRIVATE:
            self.set_active(cpu, intid, False)

    def words(self, cpu: int) -> tuple[int, int, int, int]:
        """The line levels, pending SGIs, active interrupts and enabled interrupts of a CPU, as four
        words. Bit n of each word is INTID n."""
        state = self._cpus[cpu]
        return state.line, state.latch, state.active, state.enabled

    def set_private(self, cpu: int, line: int, active: int) -> None:
        """Set the line levels and active interrupts of a CPU to the values of their shadow copies
        (`armvirt.hw.shadow`)."""
        state = self._cpus[cpu]
        state.line, state.active = line, active
        self.update(cpu)

    # Queries -------------------------------------------------------------------------------------

    @staticmethod
    def _ready(state: _CpuState) -> int:
        return (state.line | state.latch) & state.enabled & ~state.active

    def is_active(self, cpu: int, intid: int) -> bool:
        return bool(self._cpus[cpu].active >> intid & 1)

    def is_enabled(self, cpu: int, intid: int) -> bool:
        return bool(self._cpus[cpu].enabled >> intid & 1)

    def is_pending(self, cpu: int, intid: int) -> bool:
        """Return whether an interrupt is pending. A PPI is pending while its line is high. An SGI
        is pending from `send_sgi` until it is acknowledged."""
        state = self._cpus[cpu]
        return bool((state.line | state.latch) >> intid & 1)

    def deliverable(self, cpu: int) -> bool:
        """Return whether the CPU has an interrupt that is signalled to EL2, which means that the
        interrupt is enabled, pending and not active."""
        return self.irq_requests[cpu]

    def update(self, cpu: int) -> None:
        """Recompute whether an interrupt is signalled to EL2 on one CPU. Every method that changes
        the state of this CPU calls `update` at its end."""
        self.changed[cpu] = True
        deliverable = self._ready(self._cpus[cpu]) != 0
        if deliverable != self.irq_requests[cpu]:
            self.irq_requests[cpu] = deliverable
            if self.on_change is not None:
                self.on_change(cpu)

    # State ---------------------------------------------------------------------------------------

    def rows(self) -> list[dict[str, object]]:
        """All interrupts that are pending or active, and all enabled PPIs, as plain data for a
        table."""
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
        """Restore the state from a dict that `state` returned. Raises ValueError if the dict has
        another number of CPUs. ``on_change`` is not called."""
        checked(state, "PhysicalGic", STATE_VERSION)
        cpus = state["cpus"]
        if not isinstance(cpus, list) or len(cpus) != len(self._cpus):
            raise ValueError(f"saved GIC state does not fit {len(self._cpus)} CPUs")
        for cpu, (own, saved) in enumerate(zip(self._cpus, cpus, strict=True)):
            own.line, own.latch = saved["line"], saved["latch"]
            own.active, own.enabled = saved["active"], saved["enabled"]
            self.irq_requests[cpu] = self._ready(own) != 0
