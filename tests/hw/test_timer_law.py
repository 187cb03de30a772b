"""The timer beside an oracle that counts every nanosecond and has no formula."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from armvirt.arch import timer as arch
from armvirt.events import EventBus
from armvirt.hw.clock import Clock
from armvirt.hw.timer import GenericTimer

WRAP = 1 << 64
REGISTERS = {
    "v": (arch.CNTV_CTL_EL0, arch.CNTV_CVAL_EL0, arch.CNTV_TVAL_EL0),
    "p": (arch.CNTP_CTL_EL0, arch.CNTP_CVAL_EL0, arch.CNTP_TVAL_EL0),
}


@dataclass
class Oracle:
    """A counter that accumulates a fraction each ns, and comparators that compare at each ns."""

    frequency: int
    count: int
    fraction: int = 0
    offset: dict[str, int] = field(default_factory=lambda: {"v": 0, "p": 0})
    ctl: dict[str, int] = field(default_factory=lambda: {"v": 0, "p": 0})
    cval: dict[str, int] = field(default_factory=lambda: {"v": 0, "p": 0})

    def step(self) -> None:
        self.fraction += self.frequency
        while self.fraction >= 1_000_000_000:
            self.fraction -= 1_000_000_000
            self.count = (self.count + 1) % WRAP

    def now(self, timer: str) -> int:
        return (self.count - self.offset[timer]) % WRAP

    def line(self, timer: str) -> bool:
        enabled, masked = self.ctl[timer] % 2 == 1, self.ctl[timer] // 2 % 2 == 1
        return enabled and not masked and self.now(timer) >= self.cval[timer]

    def write(self, timer: str, register: str, value: int) -> None:
        if register == "ctl":
            self.ctl[timer] = value % 4
        elif register == "cval":
            self.cval[timer] = value % WRAP
        else:
            low = value % (1 << 32)
            self.cval[timer] = (
                self.now(timer) + (low - (1 << 32) if low >= 1 << 31 else low)
            ) % WRAP

    def first_rise(self, ns: int, horizon: int) -> int | None:
        """The first ns within ``horizon`` at which a line is high that is low now."""
        probe = Oracle(self.frequency, self.count, self.fraction, self.offset, self.ctl, self.cval)
        low = [timer for timer in "vp" if not self.line(timer)]
        for later in range(horizon + 1):
            if any(probe.line(timer) for timer in low):
                return ns + later
            probe.step()
        return None


NEAR = st.integers(-40, 60)
ACTIONS = st.one_of(
    st.tuples(st.just("advance"), st.integers(0, 120), st.just("")),
    st.tuples(st.just("ctl"), st.integers(0, 7), st.sampled_from("vp")),
    st.tuples(st.just("cval"), st.integers(0, WRAP - 1), st.sampled_from("vp")),
    st.tuples(st.just("cval near"), NEAR, st.sampled_from("vp")),
    st.tuples(st.just("tval"), st.one_of(NEAR, st.integers(0, WRAP - 1)), st.sampled_from("vp")),
    st.tuples(st.just("offset"), st.one_of(NEAR, st.integers(0, WRAP - 1)), st.just("v")),
)
FREQUENCY = st.sampled_from(
    (1_000_000_000, 62_500_000, 24_000_000, 333_333_333, 999_999_937, 2_500_000_000)
)
START = st.one_of(st.integers(0, 50), st.integers(WRAP - 50, WRAP - 1), st.integers(0, WRAP - 1))
HORIZON = 150


class Pair:
    """Both, driven alike."""

    def __init__(self, frequency: int, start: int) -> None:
        self.clock = Clock()
        self.lines = {"v": False, "p": False}
        self.timer = GenericTimer(self.clock, frequency, self._line, EventBus(), start)
        self.oracle = Oracle(frequency, start)

    def _line(self, name: str, level: bool) -> None:
        assert self.lines[name[0]] != level, "a line is reported only when it changes"
        self.lines[name[0]] = level

    def act(self, action: str, value: int, timer: str) -> None:
        if action == "advance":
            self.advance(value)
        elif action == "offset":
            self.oracle.offset["v"] = value % WRAP
            self.timer.set(arch.CNTVOFF_EL2, value % WRAP)
        else:
            if action == "cval near":
                action, value = "cval", self.oracle.now(timer) + value
            self.oracle.write(timer, action, value % WRAP)
            self.timer.write(REGISTERS[timer][("ctl", "cval", "tval").index(action)], value % WRAP)

    def advance(self, ns: int) -> None:
        for _ in range(ns):
            self.oracle.step()
        self.clock.advance_to(self.clock.now + ns)
        self.timer.update()

    def check(self) -> None:
        oracle, timer = self.oracle, self.timer
        assert timer.count() == oracle.count and timer.virtual_count() == oracle.now("v")
        for name, (ctl, cval, tval) in REGISTERS.items():
            assert self.lines[name] == oracle.line(name)
            assert timer.read(cval) == oracle.cval[name]
            assert timer.read(tval) == (oracle.cval[name] - oracle.now(name)) % (1 << 32)
            if oracle.ctl[name] % 2:
                assert bool(timer.read(ctl) & arch.CTL_ISTATUS) == (
                    oracle.now(name) >= oracle.cval[name]
                )

    def check_deadline(self) -> None:
        """The oracle's first rise is the deadline; without one in sight, the deadline is beyond
        sight or None."""
        now, deadline = self.clock.now, self.timer.deadline()
        expected = self.oracle.first_rise(now, HORIZON)
        if expected is not None:
            assert deadline == expected
        else:
            assert deadline is None or deadline > now + HORIZON


@settings(max_examples=150, deadline=None)
@given(FREQUENCY, START, st.lists(ACTIONS, max_size=12))
def test_registers_lines_and_deadlines(
    frequency: int, start: int, actions: list[tuple[str, int, str]]
) -> None:
    pair = Pair(frequency, start)
    for action in actions:
        pair.act(*action)
        pair.check()
        pair.check_deadline()


@settings(max_examples=60, deadline=None)
@given(FREQUENCY, START, st.lists(ACTIONS, max_size=8), st.lists(st.integers(1, 30), max_size=6))
def test_where_time_is_cut_changes_nothing(
    frequency: int, start: int, actions: list[tuple[str, int, str]], cuts: list[int]
) -> None:
    one, many = Pair(frequency, start), Pair(frequency, start)
    for action in actions:
        one.act(*action)
        many.act(*action)
    one.advance(sum(cuts))
    for cut in cuts:
        many.advance(cut)
        many.timer.load(many.timer.state())
    one.check()
    many.check()
    assert one.timer.state() == many.timer.state()
