"""CNTKCTL_EL1 in the oracle: the event stream against stepping ns by ns, and EL0 access row by
row."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from timermodel import TimerModel
from timermodel.test_timermodel import COUNTS, FREQUENCIES, TOP, count_at

EVNTEN, EVNTDIR, EVNTIS = 1 << 2, 1 << 3, 1 << 17
CONTROLS = st.integers(0, 15).map(lambda evnti: evnti << 4)


def is_event(ns: int, frequency_hz: int, start: int, offset: int, bit: int, falling: bool) -> bool:
    """D12.2.3: the trigger bit makes its transition between `ns` - 1 and `ns`."""
    before, after = (
        count_at(instant, frequency_hz, start, offset) >> bit & 1 for instant in (ns - 1, ns)
    )
    return (before, after) == ((1, 0) if falling else (0, 1))


@settings(deadline=None)  # steps each ns
@given(FREQUENCIES, COUNTS, COUNTS, st.integers(0, 3), st.booleans(), st.integers(0, 5000))
def test_events_are_those_found_by_stepping_each_ns(
    frequency_hz: int, start: int, offset: int, bit: int, falling: bool, elapsed: int
) -> None:
    model = TimerModel(1, frequency_hz, start, offset)
    model.set_cntkctl(0, EVNTEN | (EVNTDIR if falling else 0) | bit << 4)
    model.advance(elapsed)
    window = range(elapsed + 1, elapsed + 3000)
    expected = next(
        (ns for ns in window if is_event(ns, frequency_hz, start, offset, bit, falling)), None
    )
    instant = model.event_stream_next(0)
    assert instant is not None
    assert instant == expected if expected is not None else instant >= window.stop


@given(FREQUENCIES, COUNTS, COUNTS, CONTROLS, st.booleans(), st.booleans(), st.integers(0, 10**12))
def test_the_period_is_twice_the_weight_of_the_trigger_bit(
    frequency_hz: int,
    start: int,
    offset: int,
    evnti: int,
    falling: bool,
    scaled: bool,
    elapsed: int,
) -> None:
    bit = (evnti >> 4) + (8 if scaled else 0)
    model = TimerModel(1, frequency_hz, start)
    model.set_vcpu_offset(0, "v", offset)
    model.set_cntkctl(0, EVNTEN | evnti | (EVNTDIR if falling else 0) | (EVNTIS if scaled else 0))
    model.advance(elapsed)
    instant = model.event_stream_next(0)
    assert instant is not None and is_event(instant, frequency_hz, start, offset, bit, falling)
    # No event was passed over: less than a period of ticks away, or just a period.
    ticks = instant * frequency_hz // 10**9 - elapsed * frequency_hz // 10**9
    assert 1 <= ticks <= 2 << bit
    model.advance(instant - elapsed)
    following = model.event_stream_next(0)
    assert following is not None
    assert following * frequency_hz // 10**9 - instant * frequency_hz // 10**9 == 2 << bit


@pytest.mark.parametrize(("direction", "expected"), [(0, 12), (EVNTDIR, 4)])
def test_events_across_the_roll_over(direction: int, expected: int) -> None:
    model = TimerModel(1, 10**9, counter_start=TOP - 4)
    model.set_cntkctl(0, EVNTEN | direction | 3 << 4)
    assert model.event_stream_next(0) == expected


def test_no_event_stream_unless_enabled() -> None:
    model = TimerModel(2, 10**9)
    model.set_cntkctl(0, EVNTDIR | EVNTIS | 0xF0)
    model.set_cntkctl(1, EVNTEN)
    assert (model.event_stream_next(0), model.event_stream_next(1)) == (None, 1)


def test_the_scale_needs_ecv() -> None:
    model = TimerModel(1, 10**9, ecv=False)
    model.set_cntkctl(0, EVNTEN | EVNTIS)
    assert model.event_stream_next(0) == 1


def test_the_stream_follows_the_virtual_count_alone() -> None:
    model = TimerModel(1, 10**9, counter_start=0)
    model.set_cntkctl(0, EVNTEN | 7 << 4)
    model.set_poffset(100)
    assert model.event_stream_next(0) == 128
    model.set_voffset(100)
    assert model.event_stream_next(0) == 228


COUNTER_P = {"CNTPCT_EL0", "CNTPCTSS_EL0"}
COUNTER_V = {"CNTVCT_EL0", "CNTVCTSS_EL0"}
TIMER_P = {"CNTP_CTL_EL0", "CNTP_CVAL_EL0", "CNTP_TVAL_EL0"}
TIMER_V = {"CNTV_CTL_EL0", "CNTV_CVAL_EL0", "CNTV_TVAL_EL0"}
ALL = COUNTER_P | COUNTER_V | TIMER_P | TIMER_V | {"CNTFRQ_EL0"}


@pytest.mark.parametrize(
    ("control", "allowed"),
    [
        (0, set()),
        (1 << 0, COUNTER_P | {"CNTFRQ_EL0"}),
        (1 << 1, COUNTER_V | {"CNTFRQ_EL0"}),
        (1 << 8, TIMER_V),
        (1 << 9, TIMER_P),
        (0x303, ALL),
        (~0x303, set()),
    ],
)
def test_el0_access(control: int, allowed: set[str]) -> None:
    model = TimerModel(2, 10**9)
    model.set_cntkctl(1, control)
    assert {register for register in ALL if model.el0_access_allowed(1, register)} == allowed
    assert not model.el0_access_allowed(0, "CNTFRQ_EL0")


def test_a_register_out_of_its_reach() -> None:
    with pytest.raises(ValueError, match="CNTKCTL_EL1 does not control CNTVOFF_EL2"):
        TimerModel(1, 10**9).el0_access_allowed(0, "CNTVOFF_EL2")
