"""The PL031 clock: registers, the match interrupt, saved state."""

from __future__ import annotations

import json

import device_time
import pytest
from hypothesis import given
from hypothesis import strategies as st

from armvirt.arch.timer import NS_PER_SECOND
from armvirt.board.devices.pl031 import EPOCH, Pl031, Reg, seconds_until
from armvirt.hw.clock import Clock


class Bench:
    """A clock chip, virtual time, and the history of its line."""

    def __init__(self) -> None:
        self.clock, self.levels = Clock(), list[int]()
        self.rtc = Pl031(self.levels.append, self.clock)

    def advance(self, ns: int) -> None:
        device_time.advance(self.clock, ns)

    def read(self, reg: Reg) -> int:
        return self.rtc.read(reg, 4)

    def write(self, reg: Reg, value: int) -> None:
        self.rtc.write(reg, 4, value)


def test_the_date_is_fixed_and_runs_with_virtual_time() -> None:
    bench = Bench()
    assert bench.read(Reg.DR) == EPOCH
    bench.advance(3 * NS_PER_SECOND - 1)
    assert bench.read(Reg.DR) == EPOCH + 2
    bench.advance(1)
    assert bench.read(Reg.DR) == EPOCH + 3


def test_loading_sets_the_date() -> None:
    bench = Bench()
    bench.advance(NS_PER_SECOND // 2)
    bench.write(Reg.LR, 1000)
    assert (bench.read(Reg.DR), bench.read(Reg.LR)) == (1000, 1000)
    bench.advance(NS_PER_SECOND // 2)
    assert bench.read(Reg.DR) == 1001, "the phase of the second stays"


def test_alarm_fires_at_the_first_ns_of_its_second() -> None:
    bench = Bench()
    bench.advance(123)
    bench.write(Reg.IMSC, 1)
    bench.write(Reg.MR, EPOCH + 2)
    bench.advance(2 * NS_PER_SECOND - 124)
    assert bench.levels == []
    bench.advance(1)
    assert (bench.levels, bench.read(Reg.MIS)) == ([1], 1)
    bench.write(Reg.ICR, 1)
    assert (bench.levels, bench.read(Reg.RIS)) == ([1, 0], 0)


def test_alarm_for_now_fires_at_once_and_masked_only_in_ris() -> None:
    bench = Bench()
    bench.write(Reg.MR, EPOCH)
    assert (bench.read(Reg.RIS), bench.read(Reg.MIS), bench.levels) == (1, 0, [])
    bench.write(Reg.IMSC, 1)
    assert bench.levels == [1]


def test_moving_the_date_moves_the_alarm() -> None:
    bench = Bench()
    bench.write(Reg.IMSC, 1)
    bench.write(Reg.MR, EPOCH + 100)
    bench.write(Reg.LR, EPOCH + 95)
    bench.advance(5 * NS_PER_SECOND)
    assert bench.levels == [1]


def test_control_reads_one_and_identification_is_that_of_a_pl031() -> None:
    bench = Bench()
    bench.write(Reg.CR, 0)
    bench.write(Reg.DR, 5)
    assert (bench.read(Reg.CR), bench.read(Reg.DR)) == (1, EPOCH)
    ids = [bench.rtc.read(offset, 4) for offset in range(0xFE0, 0x1000, 4)]
    assert ids == [0x31, 0x10, 0x14, 0, 0x0D, 0xF0, 5, 0xB1]
    assert bench.rtc.read(0x20, 4) == 0


@pytest.mark.parametrize(
    ("match", "count", "seconds"), [(5, 5, 0), (6, 5, 1), (4, 5, 0xFFFF_FFFF), (0, 0xFFFF_FFFF, 1)]
)
def test_seconds_until_wraps(match: int, count: int, seconds: int) -> None:
    assert seconds_until(match, count) == seconds


@given(st.integers(0, 10), st.integers(1, 5), st.integers(1, 0xFFFF_FFFF))
def test_alarm_against_counting(lead: int, ahead: int, date: int) -> None:
    bench = Bench()
    bench.advance(lead * NS_PER_SECOND // 3)
    bench.write(Reg.IMSC, 1)
    bench.write(Reg.LR, date)
    bench.write(Reg.MR, (date + ahead) & 0xFFFF_FFFF)
    while not bench.levels:
        assert bench.read(Reg.DR) != bench.read(Reg.MR)
        bench.advance(NS_PER_SECOND // 6 + 1)
    assert bench.read(Reg.DR) == bench.read(Reg.MR)


def test_state_survives_json() -> None:
    bench, other = Bench(), Bench()
    bench.write(Reg.IMSC, 1)
    bench.write(Reg.LR, 50)
    bench.write(Reg.MR, 60)
    other.rtc.load(json.loads(json.dumps(bench.rtc.state())))
    other.clock.load(bench.clock.state())
    other.advance(10 * NS_PER_SECOND)
    assert other.levels == [1]
    other.rtc.reset()
    assert (other.levels, other.read(Reg.MR), other.read(Reg.DR)) == ([1, 0], 0, EPOCH + 10)
    assert ("MR", 0, "") in other.rtc.rows()


def test_state_on_another_host() -> None:
    """The date goes on, phase of the second included, and the alarm rings at its second, whatever
    the time is there."""
    bench, other = Bench(), Bench()
    bench.advance(NS_PER_SECOND // 3)
    other.advance(7 * NS_PER_SECOND + 1)
    bench.write(Reg.IMSC, 1)
    bench.write(Reg.LR, 50)
    bench.write(Reg.MR, 52)
    other.rtc.load(json.loads(json.dumps(bench.rtc.state())))
    assert other.rtc.state() == bench.rtc.state()
    other.advance(2 * NS_PER_SECOND - NS_PER_SECOND // 3 - 1)
    assert (other.read(Reg.DR), other.levels) == (51, [])
    other.advance(1)
    assert (other.read(Reg.DR), other.levels) == (52, [1])


def test_a_state_without_an_alarm_takes_away_the_alarm() -> None:
    bench, other = Bench(), Bench()
    other.write(Reg.IMSC, 1)
    other.write(Reg.MR, EPOCH + 1)
    other.rtc.load(bench.rtc.state())
    other.advance(3 * NS_PER_SECOND)
    assert other.levels == []
