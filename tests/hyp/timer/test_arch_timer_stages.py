"""The stages of KVM's selftests arch_timer and arch_timer_edge_cases, without guest code, for both
timers."""

from __future__ import annotations

import pytest
from arch_timer_rig import DEF, INT32_MIN, TVAL_MAX, Machine

from armvirt.arch.bits import MASK64
from armvirt.arch.timer import CTL_ENABLE, CTL_IMASK
from armvirt.hyp.timer import registers


@pytest.fixture(params=["vtimer", "ptimer"])
def m(request: pytest.FixtureRequest) -> Machine:
    return Machine(which=request.param)


@pytest.fixture(params=["vtimer", "ptimer"])
def which_timer(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.parametrize("migrate", [False, True])
@pytest.mark.parametrize("register", ["cval", "tval"])
@pytest.mark.parametrize("frequency", [1_000_000_000, 62_500_000, 24_000_000])
def test_one_interrupt_per_program(
    which_timer: str, register: str, frequency: int, migrate: bool
) -> None:
    machine = Machine(frequency, which_timer)
    for _ in range(5):
        period = 240
        start = machine.now()
        if register == "cval":
            machine.write(machine.cval, start + period)
        else:
            machine.write(machine.tval, period)
        machine.write(machine.ctl, CTL_ENABLE)
        if migrate:
            machine.migrate()
        machine.advance((period - 1) * 10**9 // frequency)
        assert not machine.pending()
        machine.advance(2 * 10**9 // frequency)
        assert machine.pending() and period <= machine.now() - start <= period + 2
        machine.handle()
        machine.advance(3 * period * 10**9 // frequency)
        assert not machine.pending()


def test_tval_sanity(m: Machine) -> None:
    m.user_set_count(DEF)
    m.write(m.cval, m.now() - 1)
    for _ in range(2):
        assert m.read(m.tval) & INT32_MIN, "a deadline in the past is a negative TVAL"
        m.migrate()
    m.write(m.tval, 0xFFFF_FFFF)
    assert m.read(m.cval) == m.now() - 1
    m.write(m.cval, m.now() + TVAL_MAX + 100)
    assert m.read(m.tval) & INT32_MIN
    m.write(m.cval, m.now() + 2 * TVAL_MAX + 100)
    assert m.read(m.tval) == 98
    m.user_set_count(1000)
    m.write(m.tval, -10_000 & 0xFFFF_FFFF)
    assert m.read(m.cval) == 1000 - 10_000 & MASK64
    m.write(m.tval, 0)
    m.advance(3)
    assert m.read(m.tval) == -3 & 0xFFFF_FFFF


@pytest.mark.parametrize(
    "program", ["cval past", "tval past", "cval zero", "tval zero", "tval min"]
)
def test_past_deadlines_fire_at_once(m: Machine, program: str) -> None:
    m.user_set_count(INT32_MIN + DEF)
    register, kind = program.split()
    value = {"past": (m.now() if register == "cval" else 0) - DEF, "zero": 0, "min": INT32_MIN}[
        kind
    ]
    m.write(m.cval if register == "cval" else m.tval, value & MASK64)
    m.write(m.ctl, CTL_ENABLE)
    assert m.pending()
    m.handle()
    assert not m.pending()


@pytest.mark.parametrize(
    ("old", "register", "value", "new"),
    [
        (0, "cval", DEF, DEF + 1),
        (MASK64, "cval", 1, 2),
        (0, "tval", -1, DEF + 1),
        (0, "tval", -1, TVAL_MAX),
        (0, "tval", TVAL_MAX, TVAL_MAX + 1),
    ],
)
def test_moving_the_counter_ahead_of_the_timer_fires(
    m: Machine, old: int, register: str, value: int, new: int
) -> None:
    m.user_set_count(old)
    m.advance(1)  # the guest's program takes place a little after the counter was set
    m.write(m.cval if register == "cval" else m.tval, value & MASK64)
    m.write(m.ctl, CTL_ENABLE)
    m.user_set_count(new)
    assert m.pending()
    m.handle()
    m.advance(DEF)
    assert not m.pending()


@pytest.mark.parametrize(("register", "value"), [("cval", DEF - 1), ("tval", -1)])
@pytest.mark.parametrize("loaded", [False, True])
def test_moving_the_counter_back_retracts_a_high_line(
    m: Machine, register: str, value: int, loaded: bool
) -> None:
    m.user_set_count(DEF)
    m.write(m.cval if register == "cval" else m.tval, value & MASK64)
    m.write(m.ctl, CTL_ENABLE)
    assert m.pending()
    if loaded:
        registers.set_one_reg(m.timer, m.cnt_one_reg, 0)
        m.host()
    else:
        m.user_set_count(0)
    assert not m.pending() and not m.phys_active
    m.advance(DEF - 2)
    assert not m.pending()
    m.advance(1)
    assert m.pending(), "the deadline is still there"


def test_the_counter_rolls_over_before_the_deadline() -> None:
    machine = Machine(which="ptimer")
    machine.user_set_count(0)
    machine.write(machine.cval, DEF)
    machine.write(machine.ctl, CTL_ENABLE)
    machine.timer.vcpu_put()
    registers.set_one_reg(machine.timer, machine.cnt_one_reg, MASK64)
    machine.clock.advance_to(machine.clock.now + 1)
    machine.timer.vcpu_load(machine.hw)
    assert machine.now() == 0 and not machine.pending()


def test_a_deadline_beyond_tval_max(m: Machine) -> None:
    m.user_set_count(0)
    m.write(m.cval, TVAL_MAX + DEF)
    m.write(m.ctl, CTL_ENABLE)
    m.advance(DEF)
    assert not m.pending()
    m.user_set_count(TVAL_MAX)
    m.advance(DEF - 1)
    assert not m.pending()
    m.advance(1)
    assert m.pending()


@pytest.mark.parametrize(("first", "second"), [(5 * DEF, DEF), (DEF, 5 * DEF)])
def test_reprogramming_gives_one_interrupt(m: Machine, first: int, second: int) -> None:
    m.write(m.tval, first)
    m.write(m.ctl, CTL_ENABLE)
    start = m.now()
    m.write(m.tval, second)
    m.advance(second - 1)
    assert not m.pending()
    m.advance(1)
    assert m.pending() and m.now() >= start + second
    m.handle()
    m.advance(10 * DEF)
    assert not m.pending()


def test_fires_ten_times_by_ctl_alone(m: Machine) -> None:
    m.write(m.tval, 0)
    for _ in range(10):
        m.write(m.ctl, CTL_ENABLE)
        m.handle()
        assert not m.pending()


def test_a_masked_timer_that_is_past_fires_when_unmasked(m: Machine) -> None:
    m.advance(DEF)
    m.write(m.tval, -1 & 0xFFFF_FFFF)
    m.write(m.ctl, CTL_ENABLE | CTL_IMASK)
    m.advance(DEF)
    assert not m.pending()
    m.write(m.ctl, CTL_ENABLE)
    m.handle()
    assert not m.pending()
