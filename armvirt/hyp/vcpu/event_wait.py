"""The wait of a vCPU in WFE: the exclusive monitor, and the events that end the wait (DDI 0487
D1.6.1).

The engine (the CPU emulator Unicorn) has the event register of the vCPU. If the register is set,
WFE completes at once. If the register is clear, WFE exits to EL2, and `EventWait` records the wait.
An event ends the wait: a SEV of another vCPU, the clearing of the exclusive monitor, the event
stream, or the timeout of WFET. A virtual interrupt or an SError that the vCPU can take also ends
the wait.

If another vCPU stores to the granule that the exclusive monitor marks, the store is an event. The
engine has no global monitor. Therefore, at the end of each time slice of another vCPU, EL2 compares
the granule with its contents at the start of the wait. If a device or the VMM writes to the
granule, the event register is set at once. The comparison misses a store that does not change the
granule. Therefore EL2 also clears the monitor after `UNSEEN_TURNS` time slices of other vCPUs, and
when no other vCPU can make progress. The architecture allows the additional event that this
clearing causes, but a missing event is an error.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from armvirt.arch.timer import CNTKCTL_EL1
from armvirt.hyp.vcpu import events as vcpu_events
from armvirt.hyp.vcpu.events import InFlight
from armvirt.hyp.vcpu.parts import VcpuPart
from armvirt.state import State, checked

if TYPE_CHECKING:
    from armvirt.hw.pe import Pe
    from armvirt.hyp.vcpu.protocols import VcpuCore

STATE_VERSION = 1

EVENT_NS = 1000
"""The virtual time in ns from an event to the wake-up of the vCPU. The engine reports a SEV only at
the end of a translated block, which has at most 512 instructions. With a smaller value, the time of
the wake-up would depend on the ends of the blocks."""

UNSEEN_TURNS = 64


class EventWait(VcpuPart):
    """The wait of one vCPU in WFE or WFET. ``active`` is true during the wait. ``until`` is the
    virtual count at which WFET times out; None for WFE."""

    __slots__ = ("_monitor", "_others", "_turns", "active", "until", "vcpu")

    def __init__(self, vcpu: VcpuCore) -> None:
        self.vcpu = vcpu
        self.active = False
        self.until: int | None = None
        self._turns = self._others = 0
        self._monitor: tuple[int, int, int] | None = None  # the migrated monitor, for `vcpu_load`

    def reset(self) -> None:
        """Cancel the wait, and set the event register. The event register is set because EL2 enters
        the guest by an exception return, and an exception return is an event."""
        self.forget()
        self._monitor = None
        context = self.vcpu.context
        context.take_event(self.vcpu.host.clock.now)
        context.event_register = True

    def vcpu_load(self, pe: Pe) -> None:
        """Clear the exclusive monitor, unless the vCPU waits in WFE. During a wait the monitor
        stays, because its clearing would end the wait. After `resume`, the first call restores the
        monitor that was migrated."""
        context = self.vcpu.context
        if not self.active:
            context.clear_exclusive()
        if self._monitor is not None:
            context.exclusive, self._monitor = self._monitor, None

    def begin(self) -> None:
        """Start the wait. The caller has found the event register clear at a WFE or WFET."""
        self.active = True
        self._turns, self._others = 0, 0
        if self.vcpu.context.watch_line():
            self._others = self._retired_by_others()

    def in_flight(self, asleep: bool, wfit: int | None) -> InFlight:
        """Return the state that a migration transfers: the event register, the wait in WFE and the
        exclusive monitor. ``asleep`` and ``wfit`` describe a wait in WFI or WFIT (see `InFlight`).
        This method only copies them into the result."""
        context = self.vcpu.context
        age = self.vcpu.host.clock.now - context.event_cleared
        monitor = self._monitor or context.exclusive
        return InFlight(asleep, wfit, monitor, context.event_register, age, self.active, self.until)

    def resume(self, state: InFlight) -> None:
        """Restore the state that `in_flight` returned on the source of the migration. This vCPU is
        on the destination."""
        context, now = self.vcpu.context, self.vcpu.host.clock.now
        self._monitor = state.monitor
        context.take_event(max(0, now - state.event_age))
        if state.event:
            context.set_event()
        if state.waits:
            context.exclusive = state.monitor
            self.begin()
            self.until = state.wfet

    def forget(self) -> None:
        """Mark the vCPU as not waiting. The caller has either seen an event, or cancels the
        wait."""
        self.active, self.until = False, None
        self.vcpu.context.forget_line()

    # -- the conditions that end the wait --

    @property
    def watches(self) -> bool:
        """Whether the vCPU waits in WFE for a store by another vCPU to the granule that its
        exclusive monitor marks."""
        return self.active and self.vcpu.context.watches

    @property
    def next_event(self) -> int | None:
        """The virtual time in ns at which EL2 has to check the wait, if no other vCPU sends an
        event before. It is the earliest of three times: the next event of the event stream, the
        timeout of WFET, and the next rising edge of a timer line. None if there is none of the
        three."""
        timer, cntkctl = self.vcpu.timer, self.vcpu.context.system(CNTKCTL_EL1)
        end = None if self.until is None else timer.ns_of_virtual_count(self.until)
        times = [ns for ns in (timer.next_event(cntkctl), end, timer.next_rise()) if ns is not None]
        return min(times) if times else None

    def ends(self, pe: Pe) -> bool:
        """End the wait if an event has occurred, or if the vCPU can take a virtual interrupt or an
        SError. Return whether the wait has ended. The caller loads the vCPU on ``pe``, and updates
        the timer lines and the list registers, before the call."""
        vcpu, context, now = self.vcpu, self.vcpu.context, self.vcpu.host.clock.now
        event = (
            context.event_register
            or (self.until is not None and vcpu.timer.virtual_count() >= self.until)
            or vcpu.timer.event_since(context.system(CNTKCTL_EL1), context.event_cleared)
        )
        serror = vcpu.traps.serror_pending and vcpu_events.can_take_serror(context)
        if not (event or serror or pe.interrupts):
            return False
        self.forget()
        context.clear_exclusive()  # the engine's monitor misses stores of other vCPUs
        if event:
            context.take_event(now)
        return True

    # -- events from other vCPUs --

    def event(self, ns: int | None) -> None:
        """Schedule the wake-up of the vCPU. The vCPU's context calls this method when another vCPU
        or the VMM sets the event register. ``ns`` is the virtual time of the event; None means now.
        The call has no effect if the vCPU is not in WFE."""
        if self.active:
            now = self.vcpu.host.clock.now
            self.vcpu.wake_at((now if ns is None else ns) + EVENT_NS)

    def turn_over(self) -> None:
        """Compare the monitored granule with its contents at the start of the wait. If the contents
        differ, clear the exclusive monitor and wake the vCPU up. Do the same at call number
        `UNSEEN_TURNS` of one wait, even if the contents are equal. The host calls this method at
        the end of each time slice of another vCPU."""
        self._turns += 1
        if self.vcpu.context.line_changed() or self._turns >= UNSEEN_TURNS:
            self._lost()

    def take_for_lost(self) -> bool:
        """Clear the exclusive monitor and wake the vCPU up, if other vCPUs have executed
        instructions since the wait began. One of these instructions may be a store that EL2 has not
        detected. Return True if the monitor was cleared. The host calls this method when no vCPU
        can make progress."""
        lost = self.watches and self._retired_by_others() != self._others
        if lost:
            self._lost()
        return lost

    def _lost(self) -> None:
        self.vcpu.context.clear_exclusive()
        self.vcpu.context.forget_line()
        self.vcpu.wake()

    def _retired_by_others(self) -> int:
        return self.vcpu.host.insns - self.vcpu.context.insns

    # -- state --

    def state(self) -> State:
        return {
            "version": STATE_VERSION,
            "active": self.active, "until": self.until, "turns": self._turns, "others": self._others,
        }  # fmt: skip

    def load(self, state: State) -> None:
        checked(state, "EventWait", STATE_VERSION)
        self.active, self.until = state["active"], state["until"]
        self._turns, self._others = state["turns"], state["others"]
        self._monitor = None
