"""Virtual time and the event queue."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from armvirt.hw.clock import STALE_LIMIT, Clock

OWNERS = ("uart", "rtc", "vcpu0")
KINDS = ("", "rx")


def recording(clock: Clock, owners: tuple[str, ...] = OWNERS) -> list[tuple[int, str, str]]:
    """Register owners that record (now, owner, kind)."""
    log: list[tuple[int, str, str]] = []
    for owner in owners:
        clock.register(owner, lambda kind, owner=owner: log.append((clock.now, owner, kind)))  # type: ignore[misc]
    return log


def test_time_is_base_plus_progress() -> None:
    clock = Clock()
    clock.advance_to(100)
    clock.progress = lambda: 7
    assert clock.now == 107


def test_time_does_not_go_back_nor_jump_under_a_vcpu() -> None:
    clock = Clock()
    clock.advance_to(100)
    clock.advance_to(50)
    assert clock.now == 100
    clock.progress = lambda: 0
    with pytest.raises(RuntimeError, match="cannot jump"):
        clock.advance_to(200)


def test_an_owner_registers_once() -> None:
    clock = Clock()
    recording(clock)
    with pytest.raises(ValueError, match="'uart' is registered twice"):
        clock.register("uart", lambda kind: None)


def test_rearming_replaces() -> None:
    clock = Clock()
    log = recording(clock)
    clock.arm(10, "uart")
    clock.arm(20, "uart")
    assert (clock.deadline(), clock.armed("uart")) == (20, 20)
    clock.advance_to(30)
    assert clock.run_due() == 1
    assert log == [(30, "uart", "")]
    assert clock.armed("uart") is None


def test_cancel() -> None:
    clock = Clock()
    log = recording(clock)
    clock.arm(10, "uart")
    clock.arm(10, "uart", "rx")
    clock.cancel("uart")
    clock.cancel("rtc")
    clock.advance_to(10)
    clock.run_due()
    assert log == [(10, "uart", "rx")]


def test_a_handler_may_arm_again_and_cancel_others() -> None:
    clock = Clock()
    log: list[str] = []

    def tick(kind: str) -> None:
        log.append("tick")
        clock.cancel("other")
        if clock.now < 30:
            clock.arm(clock.now + 10, "tick")

    clock.register("tick", tick)
    clock.register("other", lambda kind: log.append("other"))
    clock.arm(10, "tick")
    clock.arm(10, "other")
    for now in (10, 20, 30, 40):
        clock.advance_to(now)
        clock.run_due()
    assert log == ["tick", "tick", "tick"]


def test_nothing_runs_early() -> None:
    clock = Clock()
    log = recording(clock)
    clock.arm(10, "uart")
    clock.advance_to(9)
    assert clock.run_due() == 0 and not log


def test_earlier_entries_are_announced() -> None:
    clock = Clock()
    told: list[int | None] = []
    clock.on_earlier = lambda: told.append(clock.deadline())
    clock.arm(50, "uart")
    clock.arm(60, "rtc")
    clock.arm(40, "vcpu0")
    clock.cancel("vcpu0")
    clock.arm(45, "vcpu0")
    assert told == [50, 40, 45]


def test_rearming_for_ever_keeps_the_queue_small() -> None:
    clock = Clock()
    clock.arm(1, "uart")
    for when in range(10_000, 0, -1):
        clock.arm(when + 10, "rtc")
    assert len(clock._queue) <= 2 * 2 + STALE_LIMIT
    assert (clock.deadline(), clock.armed("rtc")) == (1, 11)


def test_a_failing_handler_leaves_the_rest() -> None:
    clock = Clock()
    log = recording(clock, ("rtc",))

    def fail(kind: str) -> None:
        raise RuntimeError("broken device")

    clock.register("uart", fail)
    clock.arm(1, "uart")
    clock.arm(2, "rtc")
    clock.advance_to(5)
    with pytest.raises(RuntimeError, match="broken device"):
        clock.run_due()
    assert clock.run_due() == 1 and log == [(5, "rtc", "")]


def test_reset_keeps_owners() -> None:
    clock = Clock()
    log = recording(clock)
    clock.advance_to(10)
    clock.arm(20, "uart")
    clock.reset()
    assert (clock.now, clock.deadline()) == (0, None)
    clock.arm(0, "uart")
    clock.run_due()
    assert log == [(0, "uart", "")]


ARMINGS = st.lists(
    st.tuples(st.integers(0, 50), st.sampled_from(OWNERS), st.sampled_from(KINDS)), max_size=20
)


@given(ARMINGS)
def test_order_is_time_then_sequence(armings: list[tuple[int, str, str]]) -> None:
    clock = Clock()
    log = recording(clock)
    expected: dict[tuple[str, str], tuple[int, int]] = {}
    for sequence, (when, owner, kind) in enumerate(armings):
        clock.arm(when, owner, kind)
        expected[owner, kind] = when, sequence
    clock.advance_to(50)
    clock.run_due()
    assert [(owner, kind) for _, owner, kind in log] == sorted(expected, key=expected.__getitem__)


@given(ARMINGS, st.integers(0, 50))
def test_a_loaded_queue_runs_as_the_saved_one(
    armings: list[tuple[int, str, str]], cut: int
) -> None:
    logs = []
    for restore in (False, True):
        clock = Clock()
        log = recording(clock)
        for when, owner, kind in armings:
            clock.arm(when, owner, kind)
        clock.advance_to(cut)
        clock.run_due()
        if restore:
            saved = json.loads(json.dumps(clock.state()))
            clock = Clock()
            later = recording(clock)
            clock.load(saved)
            assert clock.state() == saved
            clock.advance_to(60)
            clock.run_due()
            logs.append(log + later)
        else:
            clock.advance_to(60)
            clock.run_due()
            logs.append(log)
    assert logs[0] == logs[1]


class ClockMachine(RuleBasedStateMachine):
    """The clock against a dictionary that is searched from front to back."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.log = recording(self.clock)
        self.model: dict[tuple[str, str], int] = {}

    @rule(delay=st.integers(0, 30), owner=st.sampled_from(OWNERS), kind=st.sampled_from(KINDS))
    def arm(self, delay: int, owner: str, kind: str) -> None:
        self.clock.arm(self.clock.now + delay, owner, kind)
        self.model.pop((owner, kind), None)
        self.model[owner, kind] = self.clock.now + delay

    @rule(owner=st.sampled_from(OWNERS), kind=st.sampled_from(KINDS))
    def cancel(self, owner: str, kind: str) -> None:
        self.clock.cancel(owner, kind)
        self.model.pop((owner, kind), None)

    @rule(ns=st.integers(0, 20))
    def advance(self, ns: int) -> None:
        self.clock.advance_to(self.clock.now + ns)
        due: list[Any] = [key for key, when in self.model.items() if when <= self.clock.now]
        due.sort(key=lambda key: self.model[key])  # stable: the dictionary is in arming order
        self.log.clear()
        assert self.clock.run_due() == len(due)
        assert [(owner, kind) for _, owner, kind in self.log] == due
        for key in due:
            del self.model[key]

    @rule()
    def save_and_load(self) -> None:
        self.clock.load(self.clock.state())

    @invariant()
    def deadline_is_the_earliest(self) -> None:
        assert self.clock.deadline() == min(self.model.values(), default=None)


TestClockMachine = ClockMachine.TestCase
