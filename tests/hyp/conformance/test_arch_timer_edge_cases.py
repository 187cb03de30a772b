"""Rows of KVM's arch_timer_edge_cases selftest: real guest code, both timers from one body, nVHE
and VHE hosts, every wait method of the selftest. "migrate" really moves the vCPU to another
physical CPU, in every round of its wait."""

from __future__ import annotations

import pytest
from timer_vm import HOSTS, NO_WAITS, PES, TIMERS, WAITS, TimerGuest, ticks_of_us

from armvirt.arch.bits import MASK64
from armvirt.arch.timer import CTL_ENABLE, CTL_IMASK, CTL_ISTATUS

WAIT = ticks_of_us(10)
DEF = ticks_of_us(1000)
TVAL_MAX, TVAL_MIN = 0x7FFF_FFFF, -0x8000_0000
CVAL_MAX = MASK64
CVAL_MAX_56 = (
    MASK64 >> 8
)  # of the least width of a counter (DDI 0487 D12.1.1); the newer selftest's

pytestmark = [pytest.mark.parametrize("which", TIMERS), pytest.mark.parametrize("host", HOSTS)]
every_wait = pytest.mark.parametrize("method", WAITS)
every_quiet_wait = pytest.mark.parametrize("method", NO_WAITS)
registers = pytest.mark.parametrize("register", ["cval", "tval"])


def signed(tval: int) -> int:
    return tval - (1 << 32) if tval >> 31 else tval


def istatus(guest: TimerGuest) -> bool:
    """CTL.ISTATUS, and with it the row of every handler: it is (counter >= CVAL), while the timer
    is enabled."""
    ctl = guest.get(guest.CTL)
    assert ctl & CTL_ENABLE
    return bool(ctl & CTL_ISTATUS)


def fires_once(guest: TimerGuest, method: str) -> None:
    """One interrupt, whose handler finds ISTATUS and a count past CVAL, and no second one."""
    guest.wait(method)
    assert guest.poll() == 0


@every_wait
def test_basic(which: str, host: str, method: str) -> None:
    """A CVAL and then a TVAL some way ahead: one interrupt each, not early."""
    guest = TimerGuest(which, host)
    for register in ("cval", "tval"):
        start = guest.get(guest.CNT)
        guest.arm(register, start + DEF if register == "cval" else DEF)
        fires_once(guest, method)
        assert guest.seen()[0] >= start + DEF
    assert len(guest.visited) == (PES if method == "migrate" else 0)


@every_wait
@pytest.mark.parametrize(
    ("register", "value"),
    [("cval", 0), ("cval", "past"), ("tval", 0), ("tval", TVAL_MIN), ("tval", -WAIT)],
)
def test_a_past_timer_fires_at_once(
    which: str, host: str, register: str, value: int | str, method: str
) -> None:
    guest = TimerGuest(which, host)
    guest.set_count(TVAL_MAX + DEF)
    guest.arm(register, guest.get(guest.CNT) - WAIT if isinstance(value, str) else value)
    assert istatus(guest), "without waiting"
    fires_once(guest, method)


@pytest.mark.parametrize(
    ("count", "register", "value", "moved"),
    [
        (0, "cval", DEF, DEF + 1),
        (CVAL_MAX, "cval", 1, 2),
        (CVAL_MAX_56, "cval", 1, 2),
        (0, "tval", -1, DEF + 1),
        (0, "tval", -1, TVAL_MAX),
        (0, "tval", TVAL_MAX, TVAL_MAX + 1),
        (0, "tval", TVAL_MAX, TVAL_MAX + DEF),
        (0, "cval", 1 << 63, 1 << 63),
        (0, "cval", MASK64 - DEF, MASK64 - DEF),
    ],
)
@every_wait
def test_the_counter_moved_ahead_fires(
    which: str, host: str, count: int, register: str, value: int, moved: int, method: str
) -> None:
    guest = TimerGuest(which, host)
    guest.set_count(count)
    if register == "tval" and value < 0:
        guest.let_a_tick_pass()  # TVAL = -1 in the very tick of count 0 would be the far end, and never fire
    guest.arm(register, value)
    guest.set_count(moved)
    fires_once(guest, method)


@every_quiet_wait
@pytest.mark.parametrize(("register", "value"), [("cval", DEF - 1), ("tval", -1)])
def test_the_counter_moved_back_retracts_the_line(
    which: str, host: str, register: str, value: int, method: str
) -> None:
    """Enabled, unmasked and high; the PE's interrupts are masked meanwhile."""
    guest = TimerGuest(which, host)
    guest.set_count(DEF)
    guest.arm(register, value)
    assert istatus(guest)
    guest.set_count(0)
    assert not istatus(guest)
    assert guest.poll(method=method) == 0


@every_quiet_wait
def test_a_counter_at_its_end_rolls_over_and_does_not_fire(
    which: str, host: str, method: str
) -> None:
    guest = TimerGuest(which, host)
    guest.set_count(0)
    guest.arm("cval", DEF)
    guest.set_count(MASK64)
    guest.do(
        "load", guest.frame(guest.intid) + 0x200
    )  # a few instructions with interrupts masked: it is past zero
    assert guest.get(guest.CNT) < DEF and guest.poll(method=method) == 0


@every_wait
def test_a_deadline_beyond_tval_max_is_not_early(which: str, host: str, method: str) -> None:
    """CVAL is no sum of a TVAL: nothing comes before, and then it is on time."""
    guest = TimerGuest(which, host)
    guest.set_count(0)
    guest.arm("cval", TVAL_MAX + DEF)
    for quiet in NO_WAITS:
        assert guest.poll(method=quiet) == 0
    assert not istatus(guest)
    guest.set_count(TVAL_MAX + DEF - WAIT)
    fires_once(guest, method)


@every_wait
def test_a_deadline_beyond_tval_max_fires_when_the_counter_is_there(
    which: str, host: str, method: str
) -> None:
    """The selftest's own numbers: the count goes to TVAL_MAX, and the deadline is ``wait``
    later."""
    guest = TimerGuest(which, host)
    guest.set_count(0)
    guest.arm("cval", TVAL_MAX + WAIT)
    assert guest.poll() == 0
    guest.set_count(TVAL_MAX)
    fires_once(guest, method)
    assert guest.seen()[0] >= TVAL_MAX + WAIT


@every_quiet_wait
def test_a_masked_timer_says_by_istatus_whether_its_time_has_come(
    which: str, host: str, method: str
) -> None:
    """The selftest's two rows without interrupt have IMASK set, so that they could not fail:
    ISTATUS tells.

    Far beyond TVAL_MAX the condition is not met. At the count ``wait``, TVAL = -wait makes CVAL
    about 0: it is.
    """
    guest = TimerGuest(which, host)
    for count, register, value, met in (
        (0, "cval", TVAL_MAX + DEF, False),
        (WAIT, "tval", -WAIT, True),
    ):
        guest.set_count(count)
        guest.arm(register, value, CTL_ENABLE | CTL_IMASK)
        assert guest.poll(method=method) == 0
        assert istatus(guest) == met


def test_tval_is_a_view(which: str, host: str) -> None:
    """The selftest's sanity rows, each on one physical CPU and again on the other."""
    guest = TimerGuest(which, host)
    for _ in range(PES):
        guest.set_count(DEF)
        guest.set(guest.CVAL, 0)
        assert signed(guest.get(guest.TVAL)) < 0
        guest.migrate()
        assert signed(guest.get(guest.TVAL)) < 0
        guest.set(guest.TVAL, -1)
        assert guest.get(guest.CVAL) < guest.get(guest.CNT)
        guest.set(guest.CVAL, guest.get(guest.CNT) + TVAL_MAX + DEF)
        assert signed(guest.get(guest.TVAL)) <= 0
        guest.migrate()
        assert signed(guest.get(guest.TVAL)) <= 0
        guest.set(guest.CVAL, guest.get(guest.CNT) + 2 * TVAL_MAX + DEF)
        assert signed(guest.get(guest.TVAL)) <= DEF
        guest.set_count(ticks_of_us(1000))
        guest.set(guest.TVAL, -ticks_of_us(10_000))
        guest.migrate()
        assert guest.get(guest.CVAL) >= CVAL_MAX - ticks_of_us(10_000)
        guest.set(guest.TVAL, 0)
        guest.poll()  # some ticks
        assert signed(guest.get(guest.TVAL)) < 0
    assert guest.visited == set(range(PES))


@every_wait
@pytest.mark.parametrize(("first", "second"), [(10 * WAIT, WAIT), (WAIT, 10 * WAIT)])
def test_reprogramming_gives_one_interrupt_at_the_second_time(
    which: str, host: str, first: int, second: int, method: str
) -> None:
    guest = TimerGuest(which, host)
    guest.arm("tval", first)
    start = guest.get(guest.CNT)
    guest.set(guest.TVAL, second)
    fires_once(guest, method)
    assert guest.seen()[0] >= start + second


@every_wait
def test_fires_ten_times_by_ctl_alone(which: str, host: str, method: str) -> None:
    guest = TimerGuest(which, host)
    guest.set(guest.TVAL, 0)
    for _ in range(10):
        guest.set(guest.CTL, CTL_ENABLE)
        guest.wait(method)
        assert guest.poll(5) == 0
    assert guest.irqs == 10


@every_wait
def test_a_masked_timer_fires_when_it_is_unmasked(which: str, host: str, method: str) -> None:
    guest = TimerGuest(which, host)
    guest.arm("tval", -1, CTL_ENABLE | CTL_IMASK)
    for quiet in NO_WAITS:
        assert guest.poll(method=quiet) == 0
    guest.set(guest.CTL, CTL_ENABLE)
    fires_once(guest, method)


@every_wait
@registers
def test_a_long_delay(which: str, host: str, register: str, method: str) -> None:
    """100 ms, the selftest's default. A VMM that is yielded to takes a while before it runs the
    vCPU again."""
    guest = TimerGuest(which, host)
    guest.yield_ns = 1_000_000
    delay = ticks_of_us(100_000)
    guest.arm(register, guest.get(guest.CNT) + delay if register == "cval" else delay)
    start = guest.get(guest.CNT)
    fires_once(guest, method)
    assert start + delay - 10 <= guest.seen()[0] < start + delay + ticks_of_us(2_000)
