"""The oracle against the architecture: its closed forms against stepping ns by ns with the defining
formulas."""

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from timermodel import Readable, Register, TimerModel, Which

TOP = 1 << 64
ENABLE, IMASK, ISTATUS = 1, 2, 4
WINDOW_NS = 2500

FREQUENCIES = st.sampled_from(
    [1_000_000, 19_200_000, 24_000_000, 62_500_000, 333_333_333, 10**9]
) | st.integers(1_000_000, 10**9)
EDGES = st.sampled_from([0, 1, 1 << 31, 1 << 32, (1 << 63) - 1, 1 << 63, TOP - 1])
COUNTS = (
    EDGES
    | st.builds(lambda edge, delta: (edge + delta) % TOP, EDGES, st.integers(-40, 40))
    | st.integers(0, TOP - 1)
)
WHICH = st.sampled_from(("v", "p"))


def count_at(ns: int, frequency_hz: int, start: int, offset: int = 0) -> int:
    """D12.2.1 and D12.2.2, straight: the counter at `ns`, less the offset, modulo 2^64."""
    return (start + ns * frequency_hz // 10**9 - offset) % TOP


def first(instants: range, holds: Callable[[int], bool]) -> int | None:
    return next((ns for ns in instants if holds(ns)), None)


def armed(frequency_hz: int, start: int, offset: int, which: Which, cval: int) -> TimerModel:
    """One vCPU at time 0 with one timer enabled."""
    model = TimerModel(1, frequency_hz, start)
    (model.set_voffset if which == "v" else model.set_poffset)(offset)
    model.write(0, which, "cval", cval)
    model.write(0, which, "ctl", ENABLE)
    return model


@settings(deadline=None)  # steps each ns
@given(FREQUENCIES, COUNTS, COUNTS, WHICH, st.integers(-3, 40), st.integers(0, 5000))
def test_edges_of_the_line_are_those_found_by_stepping_each_ns(
    frequency_hz: int, start: int, offset: int, which: Which, distance: int, elapsed: int
) -> None:
    cval = (count_at(elapsed, frequency_hz, start, offset) + distance) % TOP
    model = armed(frequency_hz, start, offset, which, cval)
    model.advance(elapsed)
    window = range(elapsed, elapsed + WINDOW_NS)
    high = {ns: count_at(ns, frequency_hz, start, offset) >= cval for ns in window}
    for instant, expected in (
        (model.next_rise(0, which), first(window, lambda ns: high[ns])),
        (model.next_fall(0, which), first(window, lambda ns: not high[ns])),
    ):
        assert (
            instant == expected
            if expected is not None
            else instant is None or instant >= window.stop
        )
    assert model.line(0, which) == model.istatus(0, which) == high[elapsed]


@given(FREQUENCIES, COUNTS, COUNTS, COUNTS, WHICH, st.integers(0, 10**12), st.data())
def test_an_edge_however_far_is_the_first_one(
    frequency_hz: int,
    start: int,
    offset: int,
    cval: int,
    which: Which,
    elapsed: int,
    data: st.DataObject,
) -> None:
    def high_at(ns: int) -> bool:
        return count_at(ns, frequency_hz, start, offset) >= cval

    model = armed(frequency_hz, start, offset, which, cval)
    model.advance(elapsed)
    rise, fall = model.next_rise(0, which), model.next_fall(0, which)
    assert rise is not None and high_at(rise)
    assert (fall is None) == (cval == 0)
    if rise > elapsed:
        assert fall == elapsed and not high_at(rise - 1)
        assert not high_at(data.draw(st.integers(elapsed, rise - 1)))
        model.advance(rise - 1 - elapsed)
        assert not model.line(0, which) and model.next_rise(0, which) == rise
        model.advance(1)
        assert model.line(0, which)
    elif fall is not None:
        assert high_at(fall - 1) and not high_at(fall)
        assert high_at(data.draw(st.integers(elapsed, fall - 1)))


@given(FREQUENCIES, COUNTS, st.integers(0, 10**15), st.integers(0, 10**15))
def test_time_in_one_step_or_two_is_the_same(frequency_hz: int, start: int, a: int, b: int) -> None:
    once, twice = TimerModel(1, frequency_hz, start), TimerModel(1, frequency_hz, start)
    once.advance(a + b)
    twice.advance(a)
    twice.advance(b)
    assert once.physical_count == twice.physical_count == count_at(a + b, frequency_hz, start)


@pytest.mark.parametrize("cval", [1 << 63, TOP - 1])
def test_deadlines_at_the_far_end_of_the_counter(cval: int) -> None:
    model = armed(10**9, 0, 0, "v", cval)
    assert model.next_rise(0, "v") == cval
    assert armed(1_000_000, 0, 0, "v", cval).next_rise(0, "v") == cval * 1000
    assert armed(3_000_000, 0, 0, "v", cval).next_rise(0, "v") == -(-cval * 1000 // 3)
    model.advance(cval)
    assert model.next_fall(0, "v") == TOP
    model.advance(TOP - cval)
    assert not model.line(0, "v")
    assert model.next_rise(0, "v") == TOP + cval


def test_roll_over_of_the_view_lowers_the_line() -> None:
    model = armed(10**9, TOP - 3, 0, "p", TOP - 2)
    levels = []
    for _ in range(5):
        levels.append((model.read(0, "p", "cnt"), model.line(0, "p")))
        model.advance(1)
    assert levels == [(TOP - 3, False), (TOP - 2, True), (TOP - 1, True), (0, False), (1, False)]


def test_compare_is_unsigned() -> None:
    assert not armed(10**9, 5, 0, "v", TOP - 1).line(0, "v")
    assert armed(10**9, TOP - 1, 0, "v", 5).line(0, "v")


def test_an_offset_beyond_the_count_wraps_the_view() -> None:
    model = TimerModel(2, 10**9, counter_start=100, voffset=TOP - 1)
    assert [model.read(0, which, "cnt") for which in ("v", "p")] == [101, 100]
    model.set_voffset(101)
    assert model.read(1, "v", "cnt") == TOP - 1
    model.write(1, "v", "cval", 1000)
    model.write(1, "v", "ctl", ENABLE)
    assert model.line(1, "v") and model.next_fall(1, "v") == 1
    model.set_voffset(0)  # lowers a line that is up
    assert not model.line(1, "v") and model.next_rise(1, "v") == 900


def test_the_offset_of_a_vcpu_adds_to_that_of_the_vm() -> None:
    model = TimerModel(2, 10**9, counter_start=1000, voffset=TOP - 10)
    model.set_poffset(300)
    model.set_vcpu_offset(1, "v", 30)
    model.set_vcpu_offset(1, "p", 800)
    views = [model.read(vcpu, which, "cnt") for vcpu in (0, 1) for which in ("v", "p")]
    assert views == [1010, 700, 980, TOP - 100]


@pytest.mark.parametrize(
    ("count", "tval", "cval", "fires"),
    [
        (1000, 0, 1000, True),
        (1000, 1, 1001, False),
        (1000, 0xFFFF_FFFF, 999, True),
        (0, 0xFFFF_FFFF, TOP - 1, False),  # -1 from 0: the far end of the counter, not the past
        (1000, 0x7FFF_FFFF, 1000 + (1 << 31) - 1, False),
        (1000, 0x8000_0000, TOP + 1000 - (1 << 31), False),
        (1 << 33, 0x8000_0000, (1 << 33) - (1 << 31), True),
        (TOP - 1, 5, 4, True),  # CompareValue wraps: an unsigned compare is met at once
        (1000, 0xABCD_0000_0002, 1002, False),  # only [31:0] count
    ],
)
def test_tval_write_sets_cval(count: int, tval: int, cval: int, fires: bool) -> None:
    model = TimerModel(1, 10**9, counter_start=count)
    model.write(0, "v", "ctl", ENABLE)
    model.write(0, "v", "tval", tval)
    assert model.read(0, "v", "cval") == cval
    assert model.read(0, "v", "tval") == tval & 0xFFFF_FFFF
    assert model.line(0, "v") is fires


@given(FREQUENCIES, COUNTS, COUNTS, COUNTS, st.integers(0, 10**12))
def test_tval_counts_down(
    frequency_hz: int, start: int, offset: int, cval: int, elapsed: int
) -> None:
    model = armed(frequency_hz, start, offset, "v", cval)
    model.advance(elapsed)
    assert model.read(0, "v", "tval") == (cval - count_at(elapsed, frequency_hz, start, offset)) % (
        1 << 32
    )


@given(FREQUENCIES, COUNTS, COUNTS, st.integers(-(1 << 31), (1 << 31) - 1), st.integers(0, 10**12))
def test_tval_round_trip(
    frequency_hz: int, start: int, offset: int, tval: int, elapsed: int
) -> None:
    model = armed(frequency_hz, start, offset, "v", 0)
    model.advance(elapsed)
    model.write(0, "v", "tval", tval)
    assert model.read(0, "v", "tval") == tval % (1 << 32)
    assert (
        model.read(0, "v", "cval") == (count_at(elapsed, frequency_hz, start, offset) + tval) % TOP
    )


@pytest.mark.parametrize(
    ("ctl", "read", "line"), [(0, 0, False), (1, 5, True), (2, 2, False), (3, 7, False)]
)
def test_ctl_bits(ctl: int, read: int, line: bool) -> None:
    model = TimerModel(1, 10**9, counter_start=10)
    model.write(0, "p", "ctl", ctl | 0xFFFF_FFF8)
    assert model.read(0, "p", "ctl") == read
    assert model.line(0, "p") is line
    assert model.next_rise(0, "p") == (0 if line else None)
    assert model.next_fall(0, "p") == (None if line else 0)


def test_istatus_is_read_only() -> None:
    model = armed(10**9, 0, 0, "v", 100)
    model.write(0, "v", "ctl", ENABLE | ISTATUS)
    assert model.read(0, "v", "ctl") == ENABLE


def test_what_is_unknown_while_disabled() -> None:
    model = TimerModel(1, 10**9, counter_start=10)
    registers: tuple[Readable, ...] = ("ctl", "cval", "tval", "cnt")
    assert [model.unknown_bits(0, "v", register) for register in registers] == [
        ISTATUS,
        0,
        0xFFFF_FFFF,
        0,
    ]
    model.write(0, "v", "ctl", ENABLE | IMASK)
    assert not any(model.unknown_bits(0, "v", register) for register in registers)
    assert model.unknown_bits(0, "p", "ctl") == ISTATUS


def test_timers_are_banked() -> None:
    model = TimerModel(2, 10**9, counter_start=1000)
    targets: list[tuple[int, Which]] = [(0, "v"), (0, "p"), (1, "v"), (1, "p")]
    for number, (vcpu, which) in enumerate(targets):
        model.write(vcpu, which, "cval", 2000 + number)
        model.write(vcpu, which, "ctl", ENABLE)
    assert [model.next_rise(vcpu, which) for vcpu, which in targets] == [1000, 1001, 1002, 1003]


def test_what_is_refused() -> None:
    with pytest.raises(ValueError, match="1 Hz to 1 GHz"):
        TimerModel(1, 10**9 + 1)
    model = TimerModel(1, 10**9)
    with pytest.raises(ValueError, match="time does not go back"):
        model.advance(-1)
    register: Register = "cnt"  # type: ignore[assignment]
    with pytest.raises(ValueError, match="'cnt' is not a writable timer register"):
        model.write(0, "v", register, 0)
