"""The Generic Timer of one PE: the counters that software on this PE reads, and the EL1 comparators
(DDI 0487 D12).

The counter is ``start + ns * frequency // 10**9`` ticks, where ``ns`` is virtual time. The numbers
are integers, so the counter is exact at any frequency. The output of a comparator is a level;
`GenericTimer.update` recomputes both lines and reports changes. Nothing polls the comparators,
because `GenericTimer.deadline` gives the exact ns at which a low line will rise.
"""

from __future__ import annotations

from collections.abc import Callable

from armvirt.arch import timer as arch
from armvirt.arch.bits import MASK64
from armvirt.arch.timer import (
    CNTHCTL_ECV,
    CNTHCTL_PCEN,
    CNTHCTL_PCTEN,
    CNTHCTL_TVCT,
    CNTHCTL_TVT,
    CTL_ENABLE,
    CTL_ISTATUS,
    CTL_WRITABLE,
    EL1_ENABLES_E2H_SHIFT,
    NS_PER_SECOND,
    PHYSICAL_COUNTERS,
    VIRTUAL_COUNTERS,
)
from armvirt.errors import UserError
from armvirt.events import EventBus, TimerLine, TimerWrite
from armvirt.hw.clock import Clock
from armvirt.hw.config import COUNTER_START
from armvirt.records import NamedTuple
from armvirt.state import State, checked

STATE_VERSION = 1

VTIMER, PTIMER = "vtimer", "ptimer"


class Comparator:
    """The registers of one timer. ``ctl`` has only the writable bits of CTL. ``line`` is the output
    level at the last `GenericTimer.update`. TVAL is not stored, because it is computed from CVAL
    and the count (DDI 0487 D12.2.4)."""

    __slots__ = ("ctl", "cval", "line", "name")

    def __init__(self, name: str) -> None:
        self.name, self.ctl, self.cval, self.line = name, 0, 0, False


class Rise(NamedTuple):
    """The time at which a line will rise: ``ns`` is virtual time, and ``timer`` is vtimer or
    ptimer."""

    ns: int
    timer: str


class Offsets(NamedTuple):
    """The registers that define the counters as EL1 reads them: CNTVOFF_EL2, CNTPOFF_EL2,
    CNTHCTL_EL2, and HCR_EL2.E2H, which selects the layout of CNTHCTL_EL2."""

    cntvoff: int
    cntpoff: int
    cnthctl: int
    e2h: bool


def output(ctl: int, cval: int, now: int) -> bool:
    """Return the comparator's output. It is high if ENABLE is 1, IMASK is 0 and TimerConditionMet
    is true. ``now`` is the physical count minus the timer's offset, in ticks."""
    return ctl & CTL_WRITABLE == CTL_ENABLE and now >= cval


class SystemCounter:
    """The system counter that all PEs of a host share (DDI 0487 D12.1.2). Its value depends only on
    the virtual time.

    Counts are in ticks modulo 2**64; times are ns of virtual time.
    """

    __slots__ = ("clock", "frequency_hz", "start")

    def __init__(self, clock: Clock, frequency_hz: int, start: int = COUNTER_START) -> None:
        if not 0 < frequency_hz <= arch.MAX_FREQUENCY_HZ:
            raise UserError(
                f"counter frequency {frequency_hz} Hz: CNTFRQ_EL0 holds 1 to {arch.MAX_FREQUENCY_HZ} Hz"
            )
        self.clock, self.frequency_hz, self.start = clock, frequency_hz, start & MASK64

    def count_at(self, ns: int) -> int:
        """The count in ticks at the virtual time ``ns``."""
        return self.start + ns * self.frequency_hz // NS_PER_SECOND & MASK64

    def count(self) -> int:
        """The present count in ticks."""
        return self.start + self.clock.now * self.frequency_hz // NS_PER_SECOND & MASK64

    def ns_of_count(self, ticks: int) -> int:
        """The first ns of virtual time at which the count is ``ticks`` or more, or 0 if the count
        is ``ticks`` or more at time 0. A later rollover of the count (from 2**64 - 1 to 0) is not
        considered."""
        return self._ns_of_elapsed(max(0, ticks - self.start))

    def ns_after(self, ticks: int) -> int:
        """The first ns of virtual time at which the count is at least ``ticks`` more than now."""
        now = self.clock.now
        return (
            self._ns_of_elapsed(now * self.frequency_hz // NS_PER_SECOND + ticks) if ticks else now
        )

    def _ns_of_elapsed(self, ticks: int) -> int:
        return -(-ticks * NS_PER_SECOND // self.frequency_hz)


class GenericTimer:
    """The timer of one PE.

    ``on_line(name, level)`` is called when `update` changes a line; ``name`` is vtimer or ptimer. A
    caller uses ``on_line`` to set the input of the physical GIC. ``on_change`` is called after each
    change that may move the deadline, so that a running engine gets the new deadline. Each method
    that changes a register sets ``changed``; `armvirt.hw.shadow` clears the flag when it copies the
    state. If ``ecv`` is True, the PE has FEAT_ECV and the offset of the physical counter
    (FEAT_ECV_POFF).
    """

    def __init__(
        self,
        clock: Clock,
        frequency_hz: int,
        on_line: Callable[[str, bool], None],
        bus: EventBus,
        counter_start: int = COUNTER_START,
        ecv: bool = False,
    ) -> None:
        self.ecv = ecv
        self.counter = SystemCounter(clock, frequency_hz, counter_start)
        self.clock, self.on_line, self.bus = clock, on_line, bus
        self.on_change: Callable[[], None] | None = None
        self.vtimer, self.ptimer = Comparator(VTIMER), Comparator(PTIMER)
        self.cntvoff = self.cntpoff = self.cnthctl = self.cntkctl = 0
        self.e2h = False
        self.changed = True
        self.reset()

    def reset(self) -> None:
        """Warm reset: disable both timers (CTL.ENABLE resets to 0), set both lines low without a
        call of ``on_line``, and clear all offsets and traps."""
        for timer in (self.vtimer, self.ptimer):
            timer.ctl, timer.cval, timer.line = 0, 0, False
        self.cntvoff = self.cntpoff = self.cntkctl = 0
        self.cnthctl = CNTHCTL_PCTEN | CNTHCTL_PCEN
        self.e2h = False

    # The counter ---------------------------------------------------------------------------------

    @property
    def frequency_hz(self) -> int:
        """The frequency of the counter in Hz (CNTFRQ_EL0)."""
        return self.counter.frequency_hz

    def count_at(self, ns: int) -> int:
        """The physical count in ticks at ``ns`` of virtual time."""
        return self.counter.count_at(ns)

    def count(self) -> int:
        """The present physical count in ticks, without an offset."""
        return self.counter.count()

    def virtual_count(self) -> int:
        """The present value of CNTVCT_EL0: the physical count minus CNTVOFF_EL2, modulo 2**64."""
        return self.counter.count() - self.cntvoff & MASK64

    @property
    def physical_offset(self) -> int:
        """The offset that is subtracted when EL1 reads the physical counter: CNTPOFF_EL2 if
        CNTHCTL_EL2.ECV is 1, otherwise 0."""
        return self.cntpoff if self.cnthctl & CNTHCTL_ECV else 0

    def ns_of_count(self, ticks: int) -> int:
        """The first ns of virtual time at which the physical count is ``ticks`` or more. See
        `SystemCounter.ns_of_count`."""
        return self.counter.ns_of_count(ticks)

    # Registers -----------------------------------------------------------------------------------

    def comparator(self, name: str) -> Comparator:
        return self.vtimer if name == VTIMER else self.ptimer

    def timer_count(self, name: str) -> int:
        """The count in ticks that a timer compares with CVAL: the physical count minus the offset
        of this timer. ``name`` is vtimer or ptimer. The offset applies at every EL (DDI 0487
        D12.2)."""
        offset = self.cntvoff if name == VTIMER else self.physical_offset
        return self.counter.count() - offset & MASK64

    def read(self, encoding: int) -> int:
        """Read a timer register (packed encoding) as EL1 reads it. Raises KeyError if the register
        is not a timer register."""
        which = arch.TIMER_REGISTERS.get(encoding)
        if which is None:
            return _READERS[encoding](self)
        timer, now = self.comparator(which.timer), self.timer_count(which.timer)
        if which.register == "cval":
            return timer.cval
        if which.register == "tval":
            return arch.tval_of(timer.cval, now)
        return timer.ctl | (CTL_ISTATUS if timer.ctl & CTL_ENABLE and now >= timer.cval else 0)

    def write(self, encoding: int, value: int) -> None:
        """Write a timer register. The PE calls this method for a write by the guest. ``encoding``
        is the packed encoding of the register. A write of a comparator's register is also a trace
        event.

        Raises KeyError if the register is read-only or is not a timer register.
        """
        which = arch.TIMER_REGISTERS.get(encoding)
        if which is not None and self.bus.active:
            self.bus.emit(TimerWrite(which.timer, which.register, value))
        self.set(encoding, value)

    def set(self, encoding: int, value: int) -> None:
        """Write a timer register. The hypervisor calls this method. ``encoding`` is the packed
        encoding of the register. Unlike `write`, this method emits no trace event. Raises KeyError
        if the register is read-only or is not a timer register."""
        which = arch.TIMER_REGISTERS.get(encoding)
        if which is None:
            setattr(
                self,
                _STORAGE[encoding],
                value & (MASK64 if self.ecv else _WITHOUT_ECV.get(encoding, MASK64)),
            )
        else:
            self._set_comparator(which, value & MASK64)
        self.update()

    def program_virtual(self, cntvoff: int, ctl: int, cval: int) -> None:
        """Write CNTVOFF_EL2, CNTV_CVAL_EL0 and CNTV_CTL_EL0. The hypervisor calls this method
        instead of three single writes, so that the lines are recomputed only once, after the last
        write."""
        self.cntvoff = cntvoff & MASK64
        self.vtimer.ctl, self.vtimer.cval = ctl & CTL_WRITABLE, cval & MASK64
        self.update()

    def program_physical(self, cntpoff: int, ctl: int, cval: int) -> None:
        """Write CNTPOFF_EL2, CNTP_CVAL_EL0 and CNTP_CTL_EL0. The hypervisor calls this method
        instead of three single writes, so that the lines are recomputed only once, after the last
        write. ``cntpoff`` must be 0 if the PE does not have FEAT_ECV_POFF."""
        assert self.ecv or not cntpoff
        self.cntpoff = cntpoff & MASK64
        self.ptimer.ctl, self.ptimer.cval = ctl & CTL_WRITABLE, cval & MASK64
        self.update()

    def set_e2h(self, e2h: bool) -> None:
        """Set HCR_EL2.E2H, which selects the layout of CNTHCTL_EL2."""
        if e2h != self.e2h:
            self.e2h = e2h
            self.update()

    def _set_comparator(self, which: arch.TimerRegister, value: int) -> None:
        timer = self.comparator(which.timer)
        if which.register == "ctl":
            timer.ctl = value & CTL_WRITABLE
        elif which.register == "cval":
            timer.cval = value
        else:
            timer.cval = arch.cval_from_tval(value, self.timer_count(which.timer))

    # Lines ---------------------------------------------------------------------------------------

    def deadline(self) -> int | None:
        """The first ns of virtual time at which a line that is low now will be high if no register
        is written. None if no line will rise.

        A high line can also fall without a write, if its count rolls over from 2**64 - 1 to 0. This
        moment is not a deadline, because no code waits for a falling line. The next `update` sets
        the line low.
        """
        rise = self.next_rise()
        return rise.ns if rise is not None else None

    def next_rise(self) -> Rise | None:
        """The line that will rise first, or None if no line will rise. If both lines will rise at
        the same ns, the result is the line of the virtual timer."""
        ns = self.clock.now
        rises = [
            Rise(when, t.name)
            for t in (self.vtimer, self.ptimer)
            if (when := self._rise(t, ns)) is not None
        ]
        return min(rises, key=lambda rise: rise.ns) if rises else None

    def _rise(self, timer: Comparator, ns: int) -> int | None:
        if timer.ctl & CTL_WRITABLE != CTL_ENABLE:
            return None
        # A count below CVAL reaches CVAL before the count rolls over, so there is no special case
        # for the rollover.
        ticks = timer.cval - self.timer_count(timer.name)
        if ticks > 0:
            return self.counter.ns_after(ticks)
        return (
            None if timer.line else ns
        )  # the condition is met, so the line rises at the next `update`

    def update(self) -> None:
        """Recompute both lines at the clock's present time and report changes. Every method that
        changes a register calls `update` at its end."""
        self.changed = True
        for timer in (self.vtimer, self.ptimer):
            level = output(timer.ctl, timer.cval, self.timer_count(timer.name))
            if level != timer.line:
                timer.line = level
                if self.bus.active:
                    self.bus.emit(TimerLine(timer.name, int(level)))
                self.on_line(timer.name, level)
        if self.on_change is not None:
            self.on_change()

    @property
    def offsets(self) -> Offsets:
        return Offsets(self.cntvoff, self.cntpoff, self.cnthctl, self.e2h)

    # Traps ---------------------------------------------------------------------------------------

    @property
    def controls(self) -> int:
        """The bits of CNTHCTL_EL2 that trap accesses by EL1, always at the positions that they have
        with E2H = 0."""
        enables = self.cnthctl >> EL1_ENABLES_E2H_SHIFT if self.e2h else self.cnthctl
        return enables & (CNTHCTL_PCTEN | CNTHCTL_PCEN) | self.cnthctl & (
            CNTHCTL_TVT | CNTHCTL_TVCT
        )

    def el0_allowed(self, encoding: int) -> bool:
        """Return whether CNTKCTL_EL1 permits EL0 to access this register. If not, the access traps
        to EL1 with EC 0x18 (DDI 0487 D12.2)."""
        return bool(self.cntkctl & arch.EL0_ENABLES[encoding])

    def traps_to_el2(self, encoding: int) -> bool:
        """Return whether CNTHCTL_EL2 traps an access to this register to EL2. The caller has
        already checked that CNTKCTL_EL1 permits an access at EL0."""
        if encoding in PHYSICAL_COUNTERS:
            return not self.controls & CNTHCTL_PCTEN
        if encoding in VIRTUAL_COUNTERS:
            return bool(self.controls & CNTHCTL_TVCT)
        which = arch.TIMER_REGISTERS.get(encoding)
        if which is None:
            return False
        return (
            bool(self.controls & CNTHCTL_TVT)
            if which.timer == VTIMER
            else not self.controls & CNTHCTL_PCEN
        )

    # The event stream ----------------------------------------------------------------------------

    def next_event(self, cntkctl: int) -> int | None:
        """The virtual time in ns of the next event of an event stream. Such an event wakes a PE
        from WFE. The result is None if both event streams are disabled. The event stream of
        CNTKCTL_EL1 (``cntkctl``) follows the virtual count, and the event stream of CNTHCTL_EL2
        follows the physical count."""
        streams = ((cntkctl, self.virtual_count()), (self.cnthctl, self.count()))
        ticks = [
            edge
            for control, count in streams
            if (edge := arch.ticks_to_edge(control, count)) is not None
        ]
        return self.counter.ns_after(min(ticks)) if ticks else None

    # State ---------------------------------------------------------------------------------------

    def rows(self) -> list[dict[str, object]]:
        """Both timers as plain data for a table: timer, ctl, cval, now (ticks), line, rises_ns.
        rises_ns is None if the line will not rise."""
        ns = self.clock.now
        return [
            {
                "timer": t.name,
                "ctl": t.ctl,
                "cval": t.cval,
                "now": self.timer_count(t.name),
                "line": t.line,
                "rises_ns": self._rise(t, ns),
            }
            for t in (self.vtimer, self.ptimer)
        ]

    def state(self) -> dict[str, object]:
        """Return the architectural state. The clock saves the virtual time."""
        timers = {
            t.name: {"ctl": t.ctl, "cval": t.cval, "line": t.line}
            for t in (self.vtimer, self.ptimer)
        }
        return {
            "version": STATE_VERSION,
            "frequency_hz": self.frequency_hz,
            "counter_start": self.counter.start,
            "cntvoff": self.cntvoff,
            "cntpoff": self.cntpoff,
            "cnthctl": self.cnthctl,
            "cntkctl": self.cntkctl,
            **timers,
        }

    def load(self, state: State) -> None:
        """Restore the state from a dict that `state` returned. ``on_line`` is not called, because
        the GIC restores its own inputs."""
        checked(state, "GenericTimer", STATE_VERSION)
        self.counter = SystemCounter(
            self.clock, _int(state, "frequency_hz"), _int(state, "counter_start")
        )
        self.cntvoff, self.cnthctl = _int(state, "cntvoff"), _int(state, "cnthctl")
        self.cntkctl, self.cntpoff = _int(state, "cntkctl"), _int(state, "cntpoff")
        for timer in (self.vtimer, self.ptimer):
            saved = state[timer.name]
            assert isinstance(saved, dict)
            timer.ctl, timer.cval, timer.line = saved["ctl"], saved["cval"], saved["line"]


def _int(state: dict[str, object], key: str) -> int:
    value = state[key]
    assert isinstance(value, int)
    return value


_READERS: dict[int, Callable[[GenericTimer], int]] = {
    arch.CNTFRQ_EL0: lambda timer: timer.frequency_hz,
    arch.CNTPCT_EL0: lambda timer: timer.timer_count(PTIMER),
    arch.CNTPCTSS_EL0: lambda timer: timer.timer_count(PTIMER),
    arch.CNTVCT_EL0: lambda timer: timer.virtual_count(),
    arch.CNTVCTSS_EL0: lambda timer: timer.virtual_count(),
    arch.CNTKCTL_EL1: lambda timer: timer.cntkctl,
    arch.CNTHCTL_EL2: lambda timer: timer.cnthctl,
    arch.CNTVOFF_EL2: lambda timer: timer.cntvoff,
    arch.CNTPOFF_EL2: lambda timer: timer.cntpoff,
}

#: The attribute that stores each writable register outside the comparators.
_STORAGE: dict[int, str] = {
    arch.CNTKCTL_EL1: "cntkctl",
    arch.CNTHCTL_EL2: "cnthctl",
    arch.CNTVOFF_EL2: "cntvoff",
    arch.CNTPOFF_EL2: "cntpoff",
}

#: The bits that are implemented without FEAT_ECV; the others are RES0.
_WITHOUT_ECV = {
    arch.CNTKCTL_EL1: arch.KCTL_BITS,
    arch.CNTHCTL_EL2: arch.HCTL_BITS,
    arch.CNTPOFF_EL2: 0,
}
