"""The Generic Timer of one PE, rule by rule (DDI 0487 D12)."""

from __future__ import annotations

import json

import pytest

from armvirt.arch import timer as arch
from armvirt.arch.bits import MASK64
from armvirt.arch.timer import CTL_ENABLE, CTL_IMASK, CTL_ISTATUS
from armvirt.errors import UserError
from armvirt.events import Event, EventBus, Stamp, TimerLine, TimerWrite
from armvirt.hw.clock import Clock
from armvirt.hw.timer import COUNTER_START, GenericTimer, SystemCounter, output

TIMERS = {
    "vtimer": (arch.CNTV_CTL_EL0, arch.CNTV_CVAL_EL0, arch.CNTV_TVAL_EL0, arch.CNTVCT_EL0),
    "ptimer": (arch.CNTP_CTL_EL0, arch.CNTP_CVAL_EL0, arch.CNTP_TVAL_EL0, arch.CNTPCT_EL0),
}
FREQUENCIES = (
    24_000_000,
    62_500_000,
    1_000_000_000,
    19_200_000,
    1,
    32_768,
    999_999_937,
    (1 << 32) - 1,
)
INT32_MIN = 0x8000_0000


class Bench:
    """A timer, its clock, and what its lines said."""

    def __init__(
        self, frequency: int = 1_000_000_000, start: int = COUNTER_START, which: str = "vtimer"
    ) -> None:
        self.clock, self.bus = Clock(), EventBus()
        self.lines: list[tuple[str, bool]] = []
        self.timer = GenericTimer(
            self.clock, frequency, lambda *line: self.lines.append(line), self.bus, start
        )
        self.which = which
        self.ctl, self.cval, self.tval, self.cnt = TIMERS[which]

    def read(self, encoding: int) -> int:
        return self.timer.read(encoding)

    def write(self, encoding: int, value: int) -> None:
        self.timer.write(encoding, value)

    def now(self) -> int:
        return self.timer.read(self.cnt)

    def advance(self, ns: int) -> None:
        self.clock.advance_to(self.clock.now + ns)
        self.timer.update()

    @property
    def line(self) -> bool:
        return self.timer.comparator(self.which).line


@pytest.fixture(params=TIMERS)
def bench(request: pytest.FixtureRequest) -> Bench:
    return Bench(which=request.param)


# The counter ------------------------------------------------------------------------------------


@pytest.mark.parametrize("frequency", FREQUENCIES)
def test_counter_is_exact(frequency: int) -> None:
    counter = SystemCounter(Clock(), frequency, 5)
    for ns in (0, 1, 999, 10**9 - 1, 10**9, 10**9 + 1, 3 * 10**18 + 12345):
        elapsed = counter.count_at(ns) - 5
        assert elapsed * 10**9 <= ns * frequency < (elapsed + 1) * 10**9
    assert counter.count_at(7 * 10**9) == 5 + 7 * frequency


@pytest.mark.parametrize("frequency", FREQUENCIES)
def test_ns_of_count_is_the_first_such_ns(frequency: int) -> None:
    counter = SystemCounter(Clock(), frequency)
    for ticks in (1, 2, 3, 1000, 12_345_678_901):
        ns = counter.ns_of_count(counter.start + ticks)
        assert counter.count_at(ns) >= counter.start + ticks > counter.count_at(ns - 1)
    assert counter.ns_of_count(0) == counter.ns_of_count(counter.start) == 0


def test_counter_starts_at_a_documented_nonzero_count() -> None:
    timer = Bench().timer
    assert timer.count() == COUNTER_START != 0
    assert timer.count_at(100) == timer.count() + 100


def test_counter_wraps() -> None:
    bench = Bench(start=MASK64)
    assert bench.timer.count() == MASK64
    bench.advance(1)
    assert bench.timer.count() == 0


@pytest.mark.parametrize("frequency", [0, -1, 1 << 32])
def test_impossible_frequencies_are_refused(frequency: int) -> None:
    with pytest.raises(UserError, match=f"counter frequency {frequency} Hz"):
        Bench(frequency=frequency)


def test_virtual_count_is_physical_less_offset() -> None:
    bench = Bench()
    bench.timer.set(arch.CNTVOFF_EL2, COUNTER_START)
    bench.advance(42)
    assert bench.read(arch.CNTVCT_EL0) == 42
    assert bench.read(arch.CNTPCT_EL0) == COUNTER_START + 42
    bench.timer.set(arch.CNTVOFF_EL2, COUNTER_START + 43)
    assert bench.read(arch.CNTVCT_EL0) == MASK64


def test_frequency_register() -> None:
    bench = Bench(frequency=24_000_000)
    assert bench.read(arch.CNTFRQ_EL0) == 24_000_000
    with pytest.raises(KeyError):
        bench.write(arch.CNTFRQ_EL0, 1)


@pytest.mark.parametrize("counter", [arch.CNTVCT_EL0, arch.CNTPCT_EL0])
def test_counters_cannot_be_written(counter: int) -> None:
    with pytest.raises(KeyError):
        Bench().write(counter, 0)


# CTL, CVAL, TVAL --------------------------------------------------------------------------------


def test_reset_state(bench: Bench) -> None:
    assert bench.read(bench.ctl) == 0
    assert not bench.line and bench.timer.deadline() is None


def test_ctl_keeps_two_bits(bench: Bench) -> None:
    bench.write(bench.cval, MASK64)
    bench.write(bench.ctl, MASK64)
    assert bench.read(bench.ctl) == CTL_ENABLE | CTL_IMASK


def test_istatus_follows_the_condition_whatever_imask_says(bench: Bench) -> None:
    bench.write(bench.cval, bench.now() + 10)
    bench.write(bench.ctl, CTL_ENABLE | CTL_IMASK)
    bench.advance(9)
    assert not bench.read(bench.ctl) & CTL_ISTATUS
    bench.advance(1)
    assert bench.read(bench.ctl) == CTL_ENABLE | CTL_IMASK | CTL_ISTATUS
    assert not bench.lines


def test_tval_is_a_signed_view_that_counts_down(bench: Bench) -> None:
    bench.write(bench.tval, 5)
    assert bench.read(bench.cval) == bench.now() + 5
    bench.advance(5)
    assert bench.read(bench.tval) == 0
    bench.advance(1)
    assert bench.read(bench.tval) == 0xFFFF_FFFF


def test_tval_shows_the_low_half_of_a_far_deadline(bench: Bench) -> None:
    bench.write(bench.cval, bench.now() + (3 << 32) + 7)
    assert bench.read(bench.tval) == 7


def test_negative_tval_beyond_the_count_wraps_and_does_not_fire() -> None:
    bench = Bench(start=1000, which="ptimer")
    bench.write(bench.ctl, CTL_ENABLE)
    bench.write(bench.tval, INT32_MIN)
    assert bench.read(bench.cval) == 1000 - 0x8000_0000 & MASK64
    assert not bench.line


def test_unknown_registers_are_key_errors() -> None:
    bench = Bench()
    with pytest.raises(KeyError):
        bench.read(0xC000)
    with pytest.raises(KeyError):
        bench.write(0xC000, 0)


# The line ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ctl", "met", "level"),
    [
        (CTL_ENABLE, True, True),
        (CTL_ENABLE, False, False),
        (0, True, False),
        (3, True, False),
        (2, True, False),
    ],
)
def test_output(ctl: int, met: bool, level: bool) -> None:
    assert output(ctl, 10, 10 if met else 9) is level


@pytest.mark.parametrize(
    "past", ["cval now", "cval past", "cval 0", "tval 0", "tval -1", "tval min"]
)
def test_a_deadline_in_the_past_fires_at_once(bench: Bench, past: str) -> None:
    bench.advance(0x9000_0000)
    kind, amount = past.split()
    value = {"now": bench.now(), "past": bench.now() - 99, "0": 0, "-1": -1, "min": INT32_MIN}[
        amount
    ]
    bench.write(bench.cval if kind == "cval" else bench.tval, value)
    bench.write(bench.ctl, CTL_ENABLE)
    assert bench.lines == [(bench.which, True)]


def test_the_last_cval_never_fires(bench: Bench) -> None:
    bench.write(bench.cval, MASK64)
    bench.write(bench.ctl, CTL_ENABLE)
    bench.advance(10**12)
    assert not bench.line


def test_a_deadline_beyond_tval_max_is_not_early(bench: Bench) -> None:
    bench.write(bench.cval, bench.now() + 0x8000_0000)
    bench.write(bench.ctl, CTL_ENABLE)
    assert not bench.line
    assert bench.timer.deadline() == 0x8000_0000
    bench.advance(0x7FFF_FFFF)
    assert not bench.line
    bench.advance(1)
    assert bench.line


@pytest.mark.parametrize("how", ["cval", "tval", "disable", "mask"])
def test_the_line_is_a_level_that_drops(bench: Bench, how: str) -> None:
    bench.write(bench.tval, 0)
    bench.write(bench.ctl, CTL_ENABLE)
    if how == "cval":
        bench.write(bench.cval, bench.now() + 5)
    elif how == "tval":
        bench.write(bench.tval, 5)
    else:
        bench.write(bench.ctl, 0 if how == "disable" else CTL_ENABLE | CTL_IMASK)
    assert bench.lines == [(bench.which, True), (bench.which, False)]


def test_rearming_by_ctl_alone_fires_ten_times(bench: Bench) -> None:
    bench.write(bench.tval, 0)
    for _ in range(10):
        bench.write(bench.ctl, CTL_ENABLE)
        bench.write(bench.ctl, CTL_IMASK)
    assert bench.lines == [(bench.which, True), (bench.which, False)] * 10


@pytest.mark.parametrize(("first", "second"), [(1000, 10), (10, 1000)])
def test_reprogramming_while_armed(bench: Bench, first: int, second: int) -> None:
    bench.write(bench.tval, first)
    bench.write(bench.ctl, CTL_ENABLE)
    bench.write(bench.tval, second)
    assert bench.timer.deadline() == second
    bench.advance(second - 1)
    assert not bench.lines
    bench.advance(1)
    assert bench.lines == [(bench.which, True)]


def test_the_timers_are_independent() -> None:
    bench = Bench()
    bench.write(arch.CNTP_TVAL_EL0, 0)
    bench.write(arch.CNTP_CTL_EL0, CTL_ENABLE)
    assert bench.lines == [("ptimer", True)]
    assert bench.read(arch.CNTV_CTL_EL0) == 0


def test_moving_cntvoff_moves_the_virtual_line_both_ways() -> None:
    bench = Bench(start=1000)
    bench.write(arch.CNTV_CVAL_EL0, 500)
    bench.write(arch.CNTV_CTL_EL0, CTL_ENABLE)
    assert bench.line
    bench.timer.set(arch.CNTVOFF_EL2, 600)
    assert not bench.line
    assert bench.timer.deadline() == 100
    bench.timer.set(arch.CNTVOFF_EL2, 500)
    assert bench.line


def test_the_line_falls_where_the_count_wraps() -> None:
    bench = Bench(start=MASK64)
    bench.write(arch.CNTV_CVAL_EL0, 5)
    bench.write(arch.CNTV_CTL_EL0, CTL_ENABLE)
    assert bench.line
    bench.advance(1)
    assert not bench.line
    assert bench.timer.deadline() == 6


# Deadlines --------------------------------------------------------------------------------------


@pytest.mark.parametrize("frequency", FREQUENCIES)
@pytest.mark.parametrize("skew", [0, 1, 15])
def test_deadline_is_the_first_ns(frequency: int, skew: int) -> None:
    bench = Bench(frequency=frequency)
    bench.advance(skew)
    bench.write(bench.tval, 3)
    bench.write(bench.ctl, CTL_ENABLE)
    deadline = bench.timer.deadline()
    assert deadline is not None
    bench.advance(deadline - bench.clock.now - 1)
    assert not bench.line
    bench.advance(1)
    assert bench.line and bench.timer.deadline() is None


def test_deadline_is_the_earlier_of_both_timers() -> None:
    bench = Bench()
    for encoding, value in ((arch.CNTV_TVAL_EL0, 20), (arch.CNTP_TVAL_EL0, 10)):
        bench.write(encoding, value)
    bench.write(arch.CNTV_CTL_EL0, CTL_ENABLE)
    assert bench.timer.deadline() == 20
    bench.write(arch.CNTP_CTL_EL0, CTL_ENABLE)
    rise = bench.timer.next_rise()
    assert rise is not None and rise == (10, "ptimer")


def test_masked_and_disabled_timers_have_no_deadline(bench: Bench) -> None:
    bench.write(bench.tval, 10)
    for ctl in (0, CTL_IMASK, CTL_ENABLE | CTL_IMASK):
        bench.write(bench.ctl, ctl)
        assert bench.timer.deadline() is None


def test_a_line_that_was_not_recomputed_is_due_now(bench: Bench) -> None:
    bench.write(bench.tval, 5)
    bench.write(bench.ctl, CTL_ENABLE)
    bench.clock.advance_to(50)
    assert bench.timer.deadline() == 50
    assert not bench.line


# Traps, events, state ---------------------------------------------------------------------------


def test_cntkctl_guards_el0(bench: Bench) -> None:
    guards = {
        arch.CNTVCT_EL0: 1 << 1,
        arch.CNTPCT_EL0: 1 << 0,
        arch.CNTV_CTL_EL0: 1 << 8,
        arch.CNTP_CVAL_EL0: 1 << 9,
    }
    for encoding, bit in guards.items():
        bench.write(arch.CNTKCTL_EL1, 0)
        assert not bench.timer.el0_allowed(encoding)
        bench.write(arch.CNTKCTL_EL1, bit)
        assert bench.timer.el0_allowed(encoding)
        assert not any(bench.timer.el0_allowed(other) for other in guards if other != encoding)
    assert bench.timer.el0_allowed(arch.CNTFRQ_EL0) is False  # only EL0PTEN is left
    bench.write(arch.CNTKCTL_EL1, 1)
    assert bench.timer.el0_allowed(arch.CNTFRQ_EL0)


def test_cnthctl_bits_say_what_does_not_trap() -> None:
    timer = Bench().timer
    physical = (arch.CNTPCT_EL0, arch.CNTP_CTL_EL0, arch.CNTP_CVAL_EL0, arch.CNTP_TVAL_EL0)
    assert not any(map(timer.traps_to_el2, physical))
    timer.set(arch.CNTHCTL_EL2, 1)
    assert [timer.traps_to_el2(encoding) for encoding in physical] == [False, True, True, True]
    timer.set(arch.CNTHCTL_EL2, 2)
    assert [timer.traps_to_el2(encoding) for encoding in physical] == [True, False, False, False]
    timer.set(arch.CNTHCTL_EL2, 0)
    assert not any(map(timer.traps_to_el2, (arch.CNTVCT_EL0, arch.CNTV_CTL_EL0, arch.CNTFRQ_EL0)))


def test_guest_writes_are_events_and_hypervisor_writes_are_not(bench: Bench) -> None:
    events: list[object] = []

    def sink(_stamp: Stamp, event: Event) -> None:
        events.append(event)

    bench.bus.subscribe(sink)
    bench.timer.set(bench.cval, 7)
    bench.write(bench.tval, 0)
    bench.write(bench.ctl, CTL_ENABLE)
    assert events == [
        TimerWrite(bench.which, "tval", 0),
        TimerWrite(bench.which, "ctl", 1),
        TimerLine(bench.which, 1),
    ]


def test_on_change_follows_every_mutation(bench: Bench) -> None:
    calls: list[int | None] = []
    bench.timer.on_change = lambda: calls.append(bench.timer.deadline())
    bench.write(bench.tval, 9)
    bench.write(bench.ctl, CTL_ENABLE)
    assert calls == [None, 9]


def test_state_round_trip() -> None:
    bench = Bench(frequency=24_000_000, start=77)
    bench.advance(1000)
    for encoding, value in (
        (arch.CNTVOFF_EL2, 12),
        (arch.CNTKCTL_EL1, 0x302),
        (arch.CNTHCTL_EL2, 1),
        (arch.CNTP_TVAL_EL0, 9),
        (arch.CNTP_CTL_EL0, 1),
        (arch.CNTV_CVAL_EL0, 3),
        (arch.CNTV_CTL_EL0, 1),
    ):
        bench.timer.set(encoding, value)
    saved = json.loads(json.dumps(bench.timer.state()))
    other = Bench()
    other.clock.load(bench.clock.state())
    other.timer.load(saved)
    assert other.timer.state() == saved and saved["version"] == 1
    assert not other.lines, "a restored line is no edge"
    assert other.timer.deadline() == bench.timer.deadline()
    assert other.timer.count() == bench.timer.count()


def test_reset_is_the_state_of_a_new_timer(bench: Bench) -> None:
    fresh = bench.timer.state()
    bench.write(bench.tval, 0)
    bench.write(bench.ctl, CTL_ENABLE)
    bench.timer.set(arch.CNTVOFF_EL2, 5)
    bench.timer.reset()
    assert bench.timer.state() == fresh


def test_rows_describe_both_timers() -> None:
    bench = Bench()
    bench.write(arch.CNTV_TVAL_EL0, 4)
    bench.write(arch.CNTV_CTL_EL0, 1)
    virtual, physical = bench.timer.rows()
    assert (virtual["timer"], virtual["line"], virtual["rises_ns"]) == ("vtimer", False, 4)
    assert (physical["timer"], physical["rises_ns"]) == ("ptimer", None)
