"""The timers' interrupts in the oracle: level-sensitive PPIs at a CPU interface."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from timermodel import TimerModel, Which
from timermodel.test_timermodel import COUNTS, FREQUENCIES, TOP, count_at

ENABLE, IMASK = 1, 2


def machine(
    v: int | None = None, p: int | None = None, priority: dict[Which, int] | None = None
) -> TimerModel:
    """One vCPU at 1 GHz and count 0, PPIs enabled; the timers given a CompareValue run."""
    model = TimerModel(1, 10**9)
    deadlines: dict[Which, int | None] = {"v": v, "p": p}
    for which, cval in deadlines.items():
        model.enable(0, which, priority=(priority or {}).get(which, 0xA0))
        if cval is not None:
            model.write(0, which, "cval", cval)
            model.write(0, which, "ctl", ENABLE)
    return model


def test_life_of_a_level_sensitive_interrupt() -> None:
    model = machine(v=100)
    assert model.deliverable(0) == set() and model.ack(0) is None
    assert model.delivery_instant(0, "v") == 100
    model.advance(100)
    assert model.deliverable(0) == {"v"} and model.ack(0) == "v"
    # Active and pending: waits for the deactivation, then comes again while the line is up.
    assert model.pending(0, "v") and model.ppi(0, "v").active and model.deliverable(0) == set()
    assert model.delivery_instant(0, "v") is None
    model.eoi(0, "v")
    assert model.deliverable(0) == {"v"} and model.delivery_instant(0, "v") == 100
    assert model.ack(0) == "v"
    model.write(0, "v", "tval", 50)
    assert not model.pending(0, "v") and model.ppi(0, "v").active
    model.eoi(0, "v")
    assert model.deliverable(0) == set() and model.delivery_instant(0, "v") == 150


def test_imask_withdraws_what_was_not_acknowledged() -> None:
    model = machine(v=0)
    model.write(0, "v", "ctl", ENABLE | IMASK)
    assert not model.pending(0, "v") and model.ack(0) is None


def test_the_latch_outlives_the_line_until_acknowledged() -> None:
    model = machine(v=1000)
    model.ppi(0, "v").latch = True
    assert model.pending(0, "v") and model.delivery_instant(0, "v") == 0
    assert model.ack(0) == "v" and not model.pending(0, "v")
    model.eoi(0, "v")
    assert model.delivery_instant(0, "v") == 1000


def test_clearing_the_latch_leaves_the_line() -> None:
    model = machine(v=0)
    model.ppi(0, "v").latch = True
    model.ppi(0, "v").latch = False
    assert model.pending(0, "v")


@pytest.mark.parametrize("mask", ["disabled", "pmr", "group", "active"])
def test_what_holds_an_interrupt_back(mask: str) -> None:
    model = machine(v=0)
    assert model.deliverable(0) == {"v"}
    if mask == "disabled":
        model.enable(0, "v", False)
    elif mask == "pmr":
        model.interface(0).priority_mask = 0xA0  # equal is not enough
    elif mask == "group":
        model.interface(0).group_enabled = False
    else:
        model.ppi(0, "v").active = True
    assert model.pending(0, "v")
    assert model.deliverable(0) == set()
    assert model.ack(0) is None
    assert model.delivery_instant(0, "v") is None
    assert model.next_delivery(0) is None


def test_pstate_i_holds_back_delivery_but_not_acknowledge() -> None:
    model = machine(v=0)
    assert model.delivery_instant(0, "v", pstate_i=True) is None
    assert model.next_delivery(0, pstate_i=True) is None
    assert model.deliverable(0) == {"v"} and model.ack(0) == "v"


def test_the_lowest_priority_is_never_delivered() -> None:
    assert machine(v=0, priority={"v": 0xFF}).deliverable(0) == set()


def test_a_higher_priority_preempts() -> None:
    model = machine(v=0, p=10, priority={"v": 0x80, "p": 0x40})
    assert model.ack(0) == "v"
    assert model.delivery_instant(0, "p") == 10
    model.advance(10)
    assert model.ack(0) == "p"
    with pytest.raises(ValueError, match=r"end of interrupt of 'v', running: \['v', 'p'\]"):
        model.eoi(0, "v")
    model.eoi(0, "p")
    model.eoi(0, "v")
    assert model.deliverable(0) == {"v", "p"} and model.candidates(0) == {"p"}


@pytest.mark.parametrize(("p", "taken"), [(0x80, "p"), (0x84, "p"), (0x87, "v"), (0x90, "v")])
def test_the_whole_priority_decides_among_the_pending(p: int, taken: Which) -> None:
    model = machine(v=0, p=0, priority={"v": 0x87, "p": p})
    model.interface(0).group_priority_mask = 0xF8
    assert model.ack(0, prefer="v") == taken


def test_a_subpriority_does_not_preempt() -> None:
    model = machine(v=0, p=5, priority={"v": 0x87, "p": 0x80})
    model.interface(0).group_priority_mask = 0xF8
    assert model.ack(0) == "v"
    assert model.delivery_instant(0, "p") is None
    model.interface(0).drop_priority("v")  # EOImode 1: still active, but others may come
    assert model.delivery_instant(0, "p") == 5 and model.delivery_instant(0, "v") is None


def test_equal_priorities_are_either_ones_choice() -> None:
    model = machine(v=0, p=0)
    assert model.candidates(0) == {"v", "p"}
    assert model.next_delivery(0) == (0, {"v", "p"})
    assert machine(v=0, p=0).ack(0, prefer="p") == "p"
    assert model.ack(0) == "v"
    assert model.deliverable(0) == set()
    model.write(0, "v", "ctl", 0)
    model.eoi(0, "v")
    assert model.ack(0) == "p"


def test_next_delivery_is_the_first_in_time() -> None:
    priority: dict[Which, int] = {"v": 0x80, "p": 0x40}
    assert machine(v=10, p=20, priority=priority).next_delivery(0) == (10, {"v"})
    assert machine(v=20, p=20, priority=priority).next_delivery(0) == (20, {"p"})
    assert machine(p=7).next_delivery(0) == (7, {"p"})


@settings(deadline=None)  # steps each ns
@given(FREQUENCIES, COUNTS, COUNTS, st.integers(-2, 30), st.booleans(), st.integers(0, 3000))
def test_delivery_is_where_stepping_each_ns_finds_it(
    frequency_hz: int, start: int, offset: int, distance: int, latch: bool, elapsed: int
) -> None:
    cval = (count_at(elapsed, frequency_hz, start, offset) + distance) % TOP
    model = TimerModel(1, frequency_hz, start, offset)
    model.enable(0, "v", priority=0x80)
    model.write(0, "v", "cval", cval)
    model.write(0, "v", "ctl", ENABLE)
    model.ppi(0, "v").latch = latch
    model.advance(elapsed)
    window = range(elapsed, elapsed + 2000)
    expected = next(
        (ns for ns in window if latch or count_at(ns, frequency_hz, start, offset) >= cval), None
    )
    instant = model.delivery_instant(0, "v")
    assert instant is not None
    assert instant == expected if expected is not None else instant >= window.stop
    assert model.next_delivery(0) == (instant, {"v"})
    assert model.deliverable(0) == ({"v"} if instant == elapsed else set())
