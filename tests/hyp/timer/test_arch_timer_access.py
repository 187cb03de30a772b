"""Who reaches the timers of a vCPU: the guest by trap, user space by ONE_REG and device attributes;
the offsets between what each of them sees."""

from __future__ import annotations

from functools import partial

import pytest
from arch_timer_rig import Machine

from armvirt.arch import timer as arch
from armvirt.arch.bits import MASK64
from armvirt.arch.timer import CTL_ENABLE, CTL_IMASK, CTL_ISTATUS
from armvirt.errors import KvmError
from armvirt.events import Event, Stamp, TimerLine, TimerWrite
from armvirt.hw.clock import Clock
from armvirt.hw.timer import COUNTER_START, SystemCounter
from armvirt.hyp.timer import registers
from armvirt.hyp.timer.arch_timer import ArchTimer
from armvirt.hyp.timer.context import ArchTimerVmData, TimerId


@pytest.fixture(params=["vtimer", "ptimer"])
def m(request: pytest.FixtureRequest) -> Machine:
    return Machine(which=request.param)


# Offsets and counters ---------------------------------------------------------------------------


def test_the_virtual_count_starts_at_zero_at_creation() -> None:
    machine = Machine()
    assert machine.read(arch.CNTVCT_EL0) == 0
    assert machine.read(arch.CNTPCT_EL0) == COUNTER_START


def test_a_vm_that_is_created_late_or_with_a_start_of_its_own() -> None:
    clock = Clock()
    clock.advance_to(5000)
    counter = SystemCounter(clock, 1_000_000_000)
    assert counter.count() - ArchTimerVmData(counter).voffset == 0
    assert counter.count() - ArchTimerVmData(counter, 777).voffset == 777
    assert ArchTimerVmData(counter, MASK64).voffset == counter.count() + 1


def test_all_vcpus_share_the_offset() -> None:
    machine = Machine()
    other = ArchTimer(
        machine.vm_data,
        1,
        machine.clock,
        machine.vgic,
        machine.set_phys_active,
        machine.wake,
        name="other",
    )
    machine.vm_data.set_count(TimerId.VTIMER, 99)
    assert (
        registers.get_one_reg(other, arch.CNTV_CVAL_EL0)
        == registers.get_one_reg(machine.timer, arch.CNTV_CVAL_EL0)
        == 99
    )
    assert machine.read(arch.CNTVCT_EL0) == 99


def test_set_counter_offset_moves_both_and_freezes_cnt() -> None:
    machine = Machine()
    machine.vm_data.set_counter_offset(1000)
    assert machine.read(arch.CNTVCT_EL0) == machine.read(arch.CNTPCT_EL0) == COUNTER_START - 1000
    registers.set_one_reg(machine.timer, arch.CNTV_CVAL_EL0, 5)
    registers.set_one_reg(machine.timer, arch.CNTPCT_EL0, 5)
    assert machine.read(arch.CNTVCT_EL0) == machine.read(arch.CNTPCT_EL0) == COUNTER_START - 1000


def test_the_physical_count_traps_only_while_it_is_offset() -> None:
    machine = Machine()
    assert not machine.hw.traps_to_el2(arch.CNTPCT_EL0)
    assert machine.hw.traps_to_el2(arch.CNTP_CTL_EL0)
    machine.vm_data.set_count(TimerId.PTIMER, 0)
    assert machine.hw.traps_to_el2(arch.CNTPCT_EL0)
    assert registers.trap(machine.timer, arch.CNTPCT_EL0, False) == 0
    machine.timer.vcpu_put()
    assert not machine.hw.traps_to_el2(arch.CNTP_CTL_EL0), "the host uses its own timer"


# Traps ------------------------------------------------------------------------------------------


def test_trapped_reads_and_writes() -> None:
    machine = Machine(which="ptimer")
    trap = partial(registers.trap, machine.timer)
    assert trap(arch.CNTP_CVAL_EL0, True, 1 << 63) == 0
    assert trap(arch.CNTP_CVAL_EL0, False) == 1 << 63
    trap(arch.CNTP_TVAL_EL0, True, -5 & 0xFFFF_FFFF)
    assert trap(arch.CNTP_CVAL_EL0, False) == COUNTER_START - 5
    assert trap(arch.CNTP_TVAL_EL0, False) == 0xFFFF_FFFB
    trap(arch.CNTP_CTL_EL0, True, 0xFF)
    assert trap(arch.CNTP_CTL_EL0, False) == CTL_ENABLE | CTL_IMASK | CTL_ISTATUS


def test_istatus_of_a_disabled_timer() -> None:
    """UNKNOWN. The guest reads the same of an emulated timer as of one on hardware; user space gets
    the condition, as in KVM."""
    for which in ("ptimer", "vtimer"):
        machine = Machine(which=which)
        machine.write(machine.cval, 0)
        assert machine.read(machine.ctl) == 0
        encoding = {"ptimer": arch.CNTP_CTL_EL0, "vtimer": arch.CNTV_CTL_EL0}[which]
        assert registers.get_one_reg(machine.timer, encoding) == CTL_ISTATUS


@pytest.mark.parametrize("encoding", [arch.CNTFRQ_EL0, arch.CNTKCTL_EL1, 0xC000])
def test_registers_that_are_not_the_timers_are_undefined(encoding: int) -> None:
    with pytest.raises(KeyError):
        registers.trap(Machine().timer, encoding, False)


@pytest.mark.parametrize("counter", [arch.CNTPCT_EL0, arch.CNTVCT_EL0])
def test_a_guest_cannot_write_counters(counter: int) -> None:
    with pytest.raises(KeyError):
        registers.trap(Machine().timer, counter, True, 0)


def test_a_direct_timer_that_is_reached_by_trap_goes_through_save_and_restore() -> None:
    machine = Machine()
    registers.trap(machine.timer, arch.CNTV_CVAL_EL0, True, 77)
    registers.trap(machine.timer, arch.CNTV_CTL_EL0, True, CTL_ENABLE)
    assert (machine.hw.vtimer.cval, machine.hw.vtimer.ctl) == (77, CTL_ENABLE)
    assert registers.trap(machine.timer, arch.CNTV_TVAL_EL0, False) == 77
    registers.trap(machine.timer, arch.CNTV_TVAL_EL0, True, 9)
    assert (
        registers.trap(machine.timer, arch.CNTVCT_EL0, False) == 0 and machine.hw.vtimer.cval == 9
    )


def test_a_trap_of_the_physical_timer_leaves_the_virtual_one_alone() -> None:
    machine = Machine()
    machine.write(arch.CNTV_TVAL_EL0, 0)
    machine.write(arch.CNTV_CTL_EL0, CTL_ENABLE)
    lines: list[object] = []

    def sink(_stamp: Stamp, event: Event) -> None:
        lines.append(event)

    machine.bus.subscribe(sink)
    machine.write(arch.CNTP_TVAL_EL0, 0)
    machine.write(arch.CNTP_CTL_EL0, CTL_ENABLE)
    machine.write(arch.CNTP_CTL_EL0, 0)
    assert lines == [
        TimerWrite("ptimer", "tval", 0),
        TimerWrite("ptimer", "ctl", 1),
        TimerLine("ptimer", 1),
        TimerWrite("ptimer", "ctl", 0),
        TimerLine("ptimer", 0),
    ]


# User space -------------------------------------------------------------------------------------


def test_one_reg_ids_of_cval_and_cnt_are_swapped_for_the_virtual_timer_only() -> None:
    machine = Machine()
    timer = machine.timer
    machine.timer.vcpu_put()
    registers.set_one_reg(timer, 0xDF02, 0x1111)  # KVM_REG_ARM_TIMER_CVAL
    registers.set_one_reg(timer, 0xDF1A, 0x2222)  # KVM_REG_ARM_TIMER_CNT
    registers.set_one_reg(timer, 0xDF19, 0x7)  # KVM_REG_ARM_TIMER_CTL
    registers.set_one_reg(timer, 0xDF12, 0x3333)
    registers.set_one_reg(timer, 0xDF01, 0x4444)
    registers.set_one_reg(timer, 0xDF11, 0x2)
    assert (timer.cpu.vtimer.cval, timer.now(timer.cpu.vtimer), timer.cpu.vtimer.ctl) == (
        0x1111,
        0x2222,
        3,
    )
    assert (timer.cpu.ptimer.cval, timer.now(timer.cpu.ptimer), timer.cpu.ptimer.ctl) == (
        0x3333,
        0x4444,
        2,
    )
    assert [registers.get_one_reg(timer, e) for e in (0xDF02, 0xDF1A, 0xDF12, 0xDF01)] == [
        0x1111,
        0x2222,
        0x3333,
        0x4444,
    ]
    assert registers.get_one_reg(timer, 0xDF19) == 7  # ISTATUS is computed for the reader


@pytest.mark.parametrize("intid", [0, 15, 32, -1, 1020])
def test_a_timer_interrupt_must_be_a_ppi(intid: int) -> None:
    with pytest.raises(KvmError, match="EINVAL"):
        Machine().vm_data.set_ppi(TimerId.VTIMER, intid)


def test_timer_interrupts_are_fixed_after_the_first_run() -> None:
    with pytest.raises(KvmError, match="EBUSY"):
        Machine().vm_data.set_ppi(TimerId.VTIMER, 20)


def test_two_timers_on_one_ppi_fail_at_the_first_run_only() -> None:
    machine = Machine(load=False)
    machine.vm_data.set_ppi(TimerId.VTIMER, 30)
    with pytest.raises(KvmError, match="EINVAL: two timers share a PPI"):
        machine.timer.enable()


def test_another_ppi_is_used_everywhere() -> None:
    machine = Machine(load=False)
    machine.vm_data.set_ppi(TimerId.VTIMER, 20)
    machine.timer.enable()
    machine.timer.vcpu_load(machine.hw)
    machine.write(machine.tval, 0)
    machine.write(machine.ctl, CTL_ENABLE)
    assert machine.vgic.level == {20: True} and 20 in machine.vgic.mapped
