"""The wait of a vCPU in WFE, and what ends the wait (DDI 0487 D1.6.1).

The engine keeps the event register, and completes a WFE that finds the register set. A WFE that
finds it clear leaves the guest, and the vCPU waits here. The wait ends at an event (SEV of another
vCPU, the loss of the exclusive monitor, the event stream, the end of WFET), and where the vCPU can
take a virtual interrupt or an SError.

A store of another vCPU to the monitored granule is an event. The core has no global monitor, so EL2
compares the granule's contents whenever a turn of another vCPU is over; EL2 sees writes of devices
and of the VMM at once. The comparison misses a store that leaves the granule as it was. Therefore
EL2 treats the monitor as lost after `UNSEEN_TURNS` turns of others, and where no other vCPU can go
on: the architecture allows an additional event, and forbids a missing one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from armvirt.arch.timer import CNTKCTL_EL1
from armvirt.hyp.vcpu import events as vcpu_events
from armvirt.state import State, checked

if TYPE_CHECKING:
    from armvirt.hw.pe import Pe
    from armvirt.hyp.vcpu.events import InFlight
    from armvirt.hyp.vcpu.vcpu import Vcpu

STATE_VERSION = 1

EVENT_NS = 1000
"""The latency of an event in ns. The engine reports a SEV at the end of a block, and a block has
512 instructions at most: with a shorter latency the time of the wake-up would depend on the
blocks."""

UNSEEN_TURNS = 64


class EventWait:
    """The wait of one vCPU. ``active``: the vCPU is in WFE, or in WFET until the virtual count
    ``until``."""

    __slots__ = ("_others", "_turns", "active", "until", "vcpu")

    def __init__(self, vcpu: Vcpu) -> None:
        self.vcpu = vcpu
        self.active = False
        self.until: int | None = None
        self._turns = self._others = 0

    def entered(self) -> None:
        """The vCPU starts. EL2 enters it by an exception return, and that sets the event
        register."""
        self.forget()
        context = self.vcpu.context
        context.take_event(self.vcpu.host.clock.now)
        context.event_register = True

    def begin(self) -> None:
        """WFE has found the event register clear."""
        self.active = True
        self._turns, self._others = 0, 0
        if self.vcpu.context.watch_line():
            self._others = self._retired_by_others()

    def resume(self, state: InFlight) -> None:
        """Take over the register, and the wait, of a vCPU elsewhere."""
        context, now = self.vcpu.context, self.vcpu.host.clock.now
        context.take_event(max(0, now - state.event_age))
        if state.event:
            context.set_event()
        if state.waits:
            context.exclusive = state.monitor
            self.begin()
            self.until = state.wfet

    def forget(self) -> None:
        """The wait is over, or no more."""
        self.active, self.until = False, None
        self.vcpu.context.forget_line()

    # -- what it waits for --

    @property
    def watches(self) -> bool:
        """Whether a store of another vCPU may end it."""
        return self.active and self.vcpu.context.watches

    @property
    def next_event(self) -> int | None:
        """The ns of the next event of the event stream, of the end of WFET or of a timer's rise,
        whichever is first; None: no such event is due."""
        timer, cntkctl = self.vcpu.timer, self.vcpu.context.system(CNTKCTL_EL1)
        end = None if self.until is None else timer.ns_of_virtual_count(self.until)
        times = [ns for ns in (timer.next_event(cntkctl), end, timer.next_rise()) if ns is not None]
        return min(times) if times else None

    def ends(self, pe: Pe) -> bool:
        """Whether the wait is over. The vCPU is loaded on ``pe``, and the timers' lines and the
        list registers are up to date."""
        vcpu, context, now = self.vcpu, self.vcpu.context, self.vcpu.host.clock.now
        event = (
            context.event_register
            or (self.until is not None and vcpu.timer.virtual_count() >= self.until)
            or vcpu.timer.event_since(context.system(CNTKCTL_EL1), context.event_cleared)
        )
        serror = vcpu.serror_pending and vcpu_events.can_take_serror(context)
        if not (event or serror or pe.interrupts):
            return False
        self.forget()
        context.clear_exclusive()  # the core's monitor has not seen the stores of others
        if event:
            context.take_event(now)
        return True

    # -- what others do --

    def event(self, ns: int | None) -> None:
        """Another vCPU, or the VMM, has set the event register at ``ns`` (None: now)."""
        if self.active:
            now = self.vcpu.host.clock.now
            self.vcpu.wake_at((now if ns is None else ns) + EVENT_NS)

    def turn_over(self) -> None:
        """A turn of another vCPU is over: compare the granule."""
        self._turns += 1
        if self.vcpu.context.line_changed() or self._turns >= UNSEEN_TURNS:
            self._lost()

    def take_for_lost(self) -> bool:
        """No other vCPU can go on: treat the monitor as lost if others have run since the wait
        began."""
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

    def state(self) -> dict[str, object]:
        return {
            "version": STATE_VERSION,
            "active": self.active, "until": self.until, "turns": self._turns, "others": self._others,
        }  # fmt: skip

    def load(self, state: State) -> None:
        checked(state, "EventWait", STATE_VERSION)
        self.active, self.until = state["active"], state["until"]
        self._turns, self._others = state["turns"], state["others"]
