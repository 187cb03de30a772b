"""A vCPU in WFE: what it waits for, and whether that has come (DDI 0487 D1.6.1).

The event register is the engine's, which completes a WFE that finds it set. A WFE that finds it
clear comes here. It ends at an event (SEV of another vCPU, the loss of the exclusive monitor, the
event stream, the end of WFET), and where a virtual interrupt, or an SError, can be taken.

A store of another vCPU to the monitored granule is an event. The core has no global monitor, so the
granule's contents are compared whenever a turn of another vCPU is over; writes of devices and of
the VMM are seen at once. A store that leaves the granule as it was goes unseen by that, so after
each `UNSEEN_TURNS` turns of others, and where nothing else could go on, the monitor is taken for
lost: an event too many is allowed, one too few is not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from armvirt.arch.timer import CNTKCTL_EL1
from armvirt.hyp.vcpu import events as vcpu_events

if TYPE_CHECKING:
    from armvirt.hw.pe import Pe
    from armvirt.hyp.vcpu.events import InFlight
    from armvirt.hyp.vcpu.vcpu import Vcpu

EVENT_NS = 1000
"""How long an event takes to a vCPU that waits for it. The engine reports a SEV at the end of its
block, which has 512 instructions at most: with less, the moment of the wake-up would depend on
where blocks end."""

UNSEEN_TURNS = 64


class EventWait:
    """The wait of one vCPU. ``active``: it is in WFE, or in WFET until the virtual count
    ``until``."""

    __slots__ = ("_others", "_turns", "active", "until", "vcpu")

    def __init__(self, vcpu: Vcpu) -> None:
        self.vcpu = vcpu
        self.active = False
        self.until: int | None = None
        self._turns = self._others = 0

    def entered(self) -> None:
        """The vCPU starts: by an exception return of EL2, which sets the event register."""
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
        """When time itself may end it: the ns of the event stream's next event, of WFET's end, of a
        timer; None: never."""
        timer, cntkctl = self.vcpu.timer, self.vcpu.context.system(CNTKCTL_EL1)
        end = None if self.until is None else timer.ns_of_virtual_count(self.until)
        times = [ns for ns in (timer.next_event(cntkctl), end, timer.next_rise()) if ns is not None]
        return min(times) if times else None

    def ends(self, pe: Pe) -> bool:
        """Whether the vCPU goes on, which is loaded on ``pe``. The timers' lines and the list
        registers must be up to date."""
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
        context.clear_exclusive()  # others have had their turns: the core's own monitor knows nothing of them
        if event:
            context.take_event(now)
        return True

    # -- what others do --

    def event(self, ns: int | None) -> None:
        """The event register was set at ``ns`` (None: now) by somebody else."""
        if self.active:
            now = self.vcpu.host.clock.now
            self.vcpu.wake_at((now if ns is None else ns) + EVENT_NS)

    def turn_over(self) -> None:
        """A turn of another vCPU is over."""
        self._turns += 1
        if self.vcpu.context.line_changed() or self._turns >= UNSEEN_TURNS:
            self._lost()

    def take_for_lost(self) -> bool:
        """Nothing else can go on: if others have done anything since the wait began, the monitor is
        taken for lost."""
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
            "version": 1, "active": self.active, "until": self.until, "turns": self._turns, "others": self._others,
        }  # fmt: skip

    def load(self, state: dict[str, Any]) -> None:
        self.active, self.until = state["active"], state["until"]
        self._turns, self._others = state["turns"], state["others"]
