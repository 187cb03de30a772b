"""Rows of KVM's arch_timer_edge_cases selftest: real guest code, both timers from one body, nVHE and VHE hosts."""

from __future__ import annotations

import pytest
from timer_vm import HOSTS, TIMERS, WAITS, TimerGuest, ticks_of_us

from armvirt.arch.timer import CTL_ENABLE, CTL_IMASK, CTL_ISTATUS, MASK64

WAIT = ticks_of_us(10)
DEF = ticks_of_us(1000)
TVAL_MAX, TVAL_MIN = 0x7FFF_FFFF, -0x8000_0000

pytestmark = [pytest.mark.parametrize("which", TIMERS), pytest.mark.parametrize("host", HOSTS)]


def signed(tval: int) -> int:
    return tval - (1 << 32) if tval >> 31 else tval


@pytest.mark.parametrize(("register", "value"), [("cval", 0), ("tval", 0), ("tval", TVAL_MIN), ("tval", -WAIT)])
def test_a_past_timer_fires_at_once(which: str, host: str, register: str, value: int) -> None:
    guest = TimerGuest(which, host)
    guest.set_count(TVAL_MAX + DEF)
    guest.arm(register, value)
    guest.wait("poll")
    assert guest.poll() == 0


@pytest.mark.parametrize(
    ("count", "register", "value", "moved"),
    [
        (0, "cval", DEF, DEF + 1),
        (MASK64 >> 8, "cval", 1, 2),
        (0, "tval", TVAL_MAX, TVAL_MAX + DEF),
        (0, "cval", 1 << 63, 1 << 63),
        (0, "cval", MASK64 - DEF, MASK64 - DEF),
    ],
)
@pytest.mark.parametrize("method", WAITS)
def test_the_counter_moved_ahead_fires(
    which: str, host: str, count: int, register: str, value: int, moved: int, method: str
) -> None:
    guest = TimerGuest(which, host)
    guest.set_count(count)
    guest.arm(register, value)
    guest.set_count(moved)
    guest.wait(method)
    assert guest.poll() == 0


@pytest.mark.parametrize(("register", "value"), [("cval", DEF - 1), ("tval", -1)])
def test_the_counter_moved_back_retracts_the_line(which: str, host: str, register: str, value: int) -> None:
    """Enabled, unmasked and high; the PE's interrupts are masked meanwhile."""
    guest = TimerGuest(which, host)
    guest.set_count(DEF)
    guest.arm(register, value)
    assert guest.get(guest.CTL) & CTL_ISTATUS
    guest.set_count(0)
    assert not guest.get(guest.CTL) & CTL_ISTATUS
    assert guest.poll() == 0


def test_a_counter_at_its_end_rolls_over_and_does_not_fire(which: str, host: str) -> None:
    guest = TimerGuest(which, host)
    guest.set_count(0)
    guest.arm("cval", DEF)
    guest.set_count(MASK64)
    guest.do("load", guest.frame(guest.intid) + 0x200)  # a few instructions with interrupts masked: it is past zero
    assert guest.get(guest.CNT) < DEF and guest.poll() == 0


def test_a_deadline_beyond_tval_max_is_not_early(which: str, host: str) -> None:
    guest = TimerGuest(which, host)
    guest.set_count(0)
    guest.arm("cval", TVAL_MAX + DEF)
    assert guest.poll() == 0
    assert not guest.get(guest.CTL) & CTL_ISTATUS
    guest.set_count(TVAL_MAX + DEF - WAIT)
    guest.wait("wfi")


def test_tval_is_a_view(which: str, host: str) -> None:
    """The selftest's sanity rows, before and after a migration."""
    guest = TimerGuest(which, host)
    for _ in range(2):
        guest.set_count(DEF)
        guest.set(guest.CVAL, 0)
        assert signed(guest.get(guest.TVAL)) < 0
        guest.set(guest.TVAL, -1)
        assert guest.get(guest.CVAL) < guest.get(guest.CNT)
        guest.set(guest.CVAL, guest.get(guest.CNT) + TVAL_MAX + DEF)
        assert signed(guest.get(guest.TVAL)) <= 0
        guest.set_count(ticks_of_us(1000))
        guest.set(guest.TVAL, -ticks_of_us(10_000))
        assert guest.get(guest.CVAL) >= MASK64 - ticks_of_us(10_000)
        guest.set(guest.TVAL, 0)
        guest.poll()  # some ticks
        assert signed(guest.get(guest.TVAL)) < 0
        guest.migrate()


@pytest.mark.parametrize(("first", "second"), [(10 * WAIT, WAIT), (WAIT, 10 * WAIT)])
def test_reprogramming_gives_one_interrupt_at_the_second_time(which: str, host: str, first: int, second: int) -> None:
    guest = TimerGuest(which, host)
    guest.arm("tval", first)
    start = guest.get(guest.CNT)
    guest.set(guest.TVAL, second)
    guest.wait("wfi")
    assert guest.seen()[0] >= start + second
    assert guest.poll() == 0


def test_fires_ten_times_by_ctl_alone(which: str, host: str) -> None:
    guest = TimerGuest(which, host)
    guest.set(guest.TVAL, 0)
    for _ in range(10):
        guest.set(guest.CTL, CTL_ENABLE)
        guest.wait("poll")
        assert guest.poll(5) == 0


def test_a_masked_timer_fires_when_it_is_unmasked(which: str, host: str) -> None:
    guest = TimerGuest(which, host)
    guest.arm("tval", -1, CTL_ENABLE | CTL_IMASK)
    assert guest.poll() == 0
    guest.set(guest.CTL, CTL_ENABLE)
    guest.wait("wfi")
    assert guest.poll() == 0


@pytest.mark.parametrize("register", ["cval", "tval"])
def test_a_long_delay(which: str, host: str, register: str) -> None:
    guest = TimerGuest(which, host)
    delay = ticks_of_us(100_000)
    guest.arm(register, guest.get(guest.CNT) + delay if register == "cval" else delay)
    guest.wait("wfi")
