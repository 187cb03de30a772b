"""KVM's arch_timer on a PE: load and put, mapped interrupts, the background timer of a vCPU that
sleeps, state."""

from __future__ import annotations

import json
from typing import NamedTuple

import pytest
from arch_timer_rig import DEF, HOST_VTIMER, VCPU, FakeVgic, Machine
from hypothesis import given, settings
from hypothesis import strategies as st

from armvirt.arch import timer as arch
from armvirt.arch.bits import MASK64
from armvirt.arch.timer import CTL_ENABLE, CTL_IMASK
from armvirt.hyp.timer import context, registers
from armvirt.hyp.timer.arch_timer import ArchTimer


@pytest.fixture(params=["vtimer", "ptimer"])
def m(request: pytest.FixtureRequest) -> Machine:
    return Machine(which=request.param)


@pytest.fixture(params=["vtimer", "ptimer"])
def which_timer(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.parametrize(
    ("ctl", "can"), [(0, False), (1, True), (2, False), (3, False), (5, True), (7, False)]
)
def test_timer_can_fire(ctl: int, can: bool) -> None:
    assert context.timer_can_fire(ctl) is can


@given(st.integers(0, 3), st.integers(0, MASK64), st.integers(0, MASK64))
def test_timer_should_fire(ctl: int, cval: int, now: int) -> None:
    assert context.timer_should_fire(ctl, cval, now) is (ctl == 1 and now >= cval)


def test_timer_map_of_an_nvhe_host() -> None:
    timer = Machine().timer
    assert timer.map == (timer.cpu.vtimer, None, None, timer.cpu.ptimer)


# Lifecycle --------------------------------------------------------------------------------------


def test_enable_maps_the_virtual_timer_only_and_owns_both() -> None:
    machine = Machine()
    assert set(machine.vgic.mapped) == {27} and machine.vgic.mapped[27][0] == HOST_VTIMER
    assert set(machine.vgic.owners) == {27, 30}
    machine.timer.enable()  # a second first run changes nothing


def test_put_saves_and_stops_the_hardware(m: Machine) -> None:
    m.write(m.cval, 0x1234_5678_9ABC)
    m.write(m.ctl, CTL_ENABLE)
    m.timer.vcpu_put()
    assert m.hw.vtimer.ctl == m.hw.ptimer.ctl == 0 and m.hw.cntvoff == 0
    assert m.clock.deadline() is None
    m.timer.vcpu_load(m.hw)
    assert m.read(m.cval) == 0x1234_5678_9ABC
    assert m.read(m.ctl) & 3 == CTL_ENABLE


def test_put_twice_is_put_once() -> None:
    machine = Machine()
    machine.write(machine.cval, 5)
    machine.timer.vcpu_put()
    machine.timer.vcpu_put()
    assert registers.get_one_reg(machine.timer, arch.CNTVCT_EL0) == 5


def test_restore_programs_offset_and_timer_as_one() -> None:
    machine = Machine()
    machine.write(machine.cval, 50)
    machine.write(machine.ctl, CTL_ENABLE)
    machine.timer.vcpu_put()
    assert (machine.hw.vtimer.ctl, machine.hw.cntvoff) == (0, 0)
    machine.timer.vcpu_load(machine.hw)
    assert (machine.hw.vtimer.ctl, machine.hw.vtimer.cval) == (CTL_ENABLE, 50)
    assert machine.hw.cntvoff == machine.timer.vm_data.voffset


def test_time_passes_while_the_vcpu_is_put(m: Machine) -> None:
    m.write(m.tval, DEF)
    m.write(m.ctl, CTL_ENABLE)
    m.timer.vcpu_put()
    m.clock.advance_to(m.clock.now + DEF)
    assert m.timer.is_pending()
    m.timer.vcpu_load(m.hw)
    assert m.pending()
    m.handle()
    assert not m.pending()


def test_loading_with_the_level_high_makes_the_host_interrupt_active_first() -> None:
    machine = Machine()
    machine.write(machine.tval, DEF)
    machine.write(machine.ctl, CTL_ENABLE)
    machine.timer.vcpu_put()
    machine.clock.advance_to(DEF)
    exits = machine.exits
    machine.timer.vcpu_load(machine.hw)
    machine.host()
    assert machine.line and machine.phys_active
    assert machine.exits == exits, "an entry with the interrupt inactive would exit at once"


def test_loading_while_the_guest_handles_the_interrupt_keeps_it_active() -> None:
    machine = Machine()
    machine.write(machine.tval, 0)
    machine.write(machine.ctl, CTL_ENABLE)
    machine.take()
    machine.write(machine.ctl, CTL_IMASK)
    machine.migrate()
    assert machine.phys_active and not machine.line
    machine.eoi()
    assert not machine.phys_active


def test_loading_an_idle_timer_clears_what_another_vcpu_left() -> None:
    machine = Machine()
    machine.timer.vcpu_put()
    machine.phys_active = True
    machine.timer.vcpu_load(machine.hw)
    assert not machine.phys_active


def test_reset_turns_timers_off_and_keeps_cval(m: Machine) -> None:
    m.advance(10)
    m.write(m.cval, 3)
    m.write(m.ctl, CTL_ENABLE)
    assert m.pending()
    m.timer.vcpu_reset()
    assert m.read(m.ctl) & 3 == 0 and m.read(m.cval) == 3
    assert not m.pending() and not m.line and not m.phys_active
    assert m.vgic.resets == [27]
    assert m.clock.deadline() is None


def test_a_spurious_host_interrupt_is_deactivated() -> None:
    machine = Machine()
    machine.phys_active = True
    assert machine.timer.host_irq(HOST_VTIMER) is False
    assert not machine.phys_active and not machine.pending()


def test_host_interrupts_of_others_are_ignored() -> None:
    machine = Machine()
    assert machine.timer.host_irq(30) is False
    machine.timer.vcpu_put()
    assert machine.timer.host_irq(HOST_VTIMER) is False


def test_a_line_that_falls_before_it_is_taken_is_retracted() -> None:
    machine = Machine()
    machine.write(machine.tval, 0)
    machine.write(machine.ctl, CTL_ENABLE)
    assert machine.pending() and machine.phys_active
    machine.write(machine.tval, DEF)
    assert not machine.pending() and not machine.phys_active
    machine.advance(DEF)
    assert machine.pending() and machine.exits == 2


def test_the_guest_gets_a_level_again_that_it_did_not_lower() -> None:
    machine = Machine()
    machine.write(machine.tval, 0)
    machine.write(machine.ctl, CTL_ENABLE)
    machine.take()
    machine.eoi()
    assert machine.exits == 2 and machine.pending()


def test_the_input_level_callback_samples_the_hardware() -> None:
    machine = Machine()
    _, level = machine.vgic.mapped[27]
    machine.write(machine.tval, 0)
    machine.write(machine.ctl, CTL_ENABLE)
    assert level()
    machine.write(machine.ctl, CTL_IMASK)
    assert not level()


# Blocking ---------------------------------------------------------------------------------------


def block(machine: Machine) -> None:
    machine.timer.vcpu_put()
    machine.timer.blocking()


def test_a_blocked_vcpu_is_woken_at_the_exact_ns(m: Machine) -> None:
    m.write(m.tval, DEF)
    m.write(m.ctl, CTL_ENABLE)
    block(m)
    assert m.clock.deadline() == DEF
    m.clock.advance_to(DEF - 1)
    m.clock.run_due()
    assert m.wakes == 0
    m.clock.advance_to(DEF)
    m.clock.run_due()
    assert m.wakes == 1 and m.timer.is_pending()
    m.timer.vcpu_load(m.hw)
    assert m.pending()


def test_the_earlier_of_both_timers_wakes() -> None:
    machine = Machine()
    for encoding, value in ((arch.CNTV_TVAL_EL0, 500), (arch.CNTP_TVAL_EL0, 300)):
        machine.write(encoding, value)
    machine.write(arch.CNTV_CTL_EL0, 1)
    machine.write(arch.CNTP_CTL_EL0, 1)
    block(machine)
    assert machine.clock.deadline() == 300


@pytest.mark.parametrize("ctl", [0, CTL_IMASK, CTL_ENABLE | CTL_IMASK])
def test_a_timer_that_cannot_fire_arms_nothing(m: Machine, ctl: int) -> None:
    m.write(m.tval, DEF)
    m.write(m.ctl, ctl)
    block(m)
    assert m.clock.deadline() is None and not m.timer.is_pending()


def test_blocking_does_not_wait_for_a_timer_that_the_vgic_was_told_of(m: Machine) -> None:
    m.write(m.tval, 0)
    m.write(m.ctl, CTL_ENABLE)
    block(m)
    told = m.context.irq_level
    assert m.clock.deadline() == (None if told else m.clock.now)


def test_loading_and_unblocking_cancel_the_background_timer(m: Machine) -> None:
    m.write(m.tval, DEF)
    m.write(m.ctl, CTL_ENABLE)
    block(m)
    m.timer.unblocking()
    assert m.clock.deadline() is None
    m.timer.blocking()
    m.timer.vcpu_load(m.hw)
    m.advance(DEF)
    assert m.wakes == 0


def test_a_background_timer_that_wakes_early_sleeps_on(m: Machine) -> None:
    m.write(m.tval, DEF)
    m.write(m.ctl, CTL_ENABLE)
    block(m)
    m.timer._bg.start(5)
    m.clock.advance_to(5)
    m.clock.run_due()
    assert m.wakes == 0 and m.clock.deadline() == DEF


def test_moving_the_counter_moves_the_background_timer(m: Machine) -> None:
    registers.set_one_reg(m.timer, m.cnt_one_reg, 0)
    m.write(m.cval, DEF)
    m.write(m.ctl, CTL_ENABLE)
    block(m)
    registers.set_one_reg(m.timer, m.cnt_one_reg, DEF - 7)
    assert m.clock.deadline() == 7
    registers.set_one_reg(m.timer, m.cnt_one_reg, DEF)
    assert m.clock.deadline() is None and m.timer.is_pending() and m.context.irq_level


def cval_one_reg(m: Machine) -> int:
    return arch.CNTVCT_EL0 if m.which == "vtimer" else arch.CNTP_CVAL_EL0


def test_a_timer_that_the_vmm_starts_wakes_a_vcpu_that_waited_for_none(m: Machine) -> None:
    block(m)
    assert m.clock.deadline() is None
    registers.set_one_reg(
        m.timer, cval_one_reg(m), registers.get_one_reg(m.timer, m.cnt_one_reg) + DEF
    )
    registers.set_one_reg(m.timer, m.ctl, CTL_ENABLE)
    assert m.clock.deadline() == DEF


def test_a_counter_that_is_moved_back_starts_the_background_timer(m: Machine) -> None:
    registers.set_one_reg(m.timer, m.cnt_one_reg, DEF)
    m.write(m.cval, DEF - 7)
    m.write(m.ctl, CTL_ENABLE)
    block(m)
    registers.set_one_reg(m.timer, m.cnt_one_reg, 0)
    assert m.clock.deadline() == DEF - 7 and not m.context.irq_level
    m.timer.unblocking()
    registers.set_one_reg(m.timer, m.cnt_one_reg, 1)
    assert m.clock.deadline() is None, "who does not sleep has no background timer"


def test_a_level_that_fell_without_a_word_is_told_again_to_a_sleeping_vcpu(m: Machine) -> None:
    m.write(m.cval, 0)
    m.write(m.ctl, CTL_ENABLE)
    m.write(m.ctl, CTL_ENABLE | CTL_IMASK)
    assert not m.pending()
    block(m)
    registers.set_one_reg(m.timer, m.ctl, CTL_ENABLE)
    assert m.pending()


def test_that_a_vcpu_sleeps_is_saved(m: Machine) -> None:
    block(m)
    m.timer.load(json.loads(json.dumps(m.timer.state())))
    registers.set_one_reg(m.timer, m.ctl, CTL_ENABLE)
    registers.set_one_reg(
        m.timer, cval_one_reg(m), registers.get_one_reg(m.timer, m.cnt_one_reg) + DEF
    )
    assert m.clock.deadline() == DEF


# Exactness, events, state -----------------------------------------------------------------------


@pytest.mark.parametrize("frequency", [62_500_000, 24_000_000, 999_999_937])
def test_deltas_are_exact_and_rounded_up(which_timer: str, frequency: int) -> None:
    machine = Machine(frequency, which_timer)
    machine.advance(17)
    machine.write(machine.tval, 3)
    machine.write(machine.ctl, CTL_ENABLE)
    context = machine.timer.cpu.vtimer if which_timer == "vtimer" else machine.timer.cpu.ptimer
    delta = machine.timer.compute_delta(context)
    machine.advance(delta - 1)
    assert not machine.timer.should_fire(context) and not machine.pending()
    machine.advance(1)
    assert machine.timer.should_fire(context) and machine.pending()


STEPS = ("tval", "ctl", "wait", "move", "back", "cval")


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(["vtimer", "ptimer"]),
    st.lists(st.tuples(st.sampled_from(STEPS), st.integers(0, 400)), max_size=15),
)
def test_putting_and_loading_anywhere_changes_nothing(
    which: str, steps: list[tuple[str, int]]
) -> None:
    """One machine stays loaded, the other migrates after every step: the guest sees the same."""
    still, moving = Machine(62_500_000, which), Machine(62_500_000, which)
    for kind, value in steps:
        for machine in (still, moving):
            if kind in ("tval", "ctl", "cval"):
                machine.write(getattr(machine, kind), value & 3 if kind == "ctl" else value)
            elif kind == "wait":
                machine.advance(value)
            else:
                machine.user_set_count(
                    machine.now() + (value if kind == "move" else -value) & MASK64
                )
        moving.migrate()
        views = [
            (m.pending(), m.read(m.ctl), m.read(m.cval), m.now(), m.line) for m in (still, moving)
        ]
        assert views[0] == views[1]
        context = still.timer.cpu.vtimer if which == "vtimer" else still.timer.cpu.ptimer
        assert still.pending() == still.timer.should_fire(context)


def test_two_vcpus_share_one_pe() -> None:
    machine = Machine()
    vgic = FakeVgic()
    other = ArchTimer(
        machine.vm_data,
        VCPU,
        machine.clock,
        vgic,
        machine.set_phys_active,
        machine.wake,
        name="second",
    )
    other.enable()
    machine.write(machine.tval, 0)
    machine.write(machine.ctl, CTL_ENABLE)
    machine.timer.vcpu_put()
    other.vcpu_load(machine.hw)
    machine.host()
    assert not machine.line and not machine.phys_active
    assert machine.hw.vtimer.ctl == 0 and not vgic.level.get(27)


class Armed(NamedTuple):
    which: str
    block: bool


@pytest.mark.parametrize("case", [Armed(w, b) for w in ("vtimer", "ptimer") for b in (False, True)])
def test_state_round_trip_with_an_armed_timer(case: Armed) -> None:
    machine = Machine(which=case.which)
    machine.write(machine.tval, DEF)
    machine.write(machine.ctl, CTL_ENABLE)
    machine.timer.vcpu_put()
    if case.block:
        machine.timer.blocking()
    saved = json.loads(
        json.dumps([o.state() for o in (machine.clock, machine.vm_data, machine.timer)])
    )

    other = Machine(which=case.which, load=False)
    other.clock.load(saved[0])
    other.vm_data.load(saved[1])
    other.timer.load(saved[2])
    assert [o.state() for o in (other.clock, other.vm_data, other.timer)] == saved
    assert other.clock.deadline() == (DEF if case.block else None)
    other.timer.vcpu_load(other.hw)
    other.advance(DEF - 1)
    assert not other.pending()
    other.advance(1)
    assert other.pending()


def test_the_state_of_a_loaded_vcpu_is_the_guests_view() -> None:
    machine = Machine()
    machine.write(machine.cval, 12345)
    machine.write(machine.ctl, CTL_ENABLE)
    before = machine.timer.state()
    machine.timer.vcpu_put()
    assert machine.timer.state() == before and before["version"] == 1


def test_rows() -> None:
    machine = Machine()
    machine.write(machine.tval, 10)
    machine.write(machine.ctl, CTL_ENABLE)
    virtual, physical = machine.timer.rows()
    assert (virtual["timer"], virtual["ppi"], virtual["loaded"], virtual["fires_in_ns"]) == (
        "vtimer",
        27,
        True,
        10,
    )
    assert (physical["timer"], physical["ppi"], physical["fires_in_ns"]) == ("ptimer", 30, None)
