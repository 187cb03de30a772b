"""The API alone moves a VM: to another VM of the same host or of another host, at another host
time. The guest's time stands still during the move."""

from __future__ import annotations

from typing import NamedTuple

import pytest
from hyp_tools import DEVICE, GICD, GICR, RAM, RAM_SIZE, Asm, power_off

from armvirt.arch import timer
from armvirt.arch.gic import ICC_REGISTERS
from armvirt.hyp.kvm import (
    HostMemory,
    Kvm,
    MmioExit,
    MpState,
    Start,
    SystemEventExit,
    Vcpu,
    VgicAddress,
    VgicCtrl,
    VgicDevice,
    VgicGroup,
    Vm,
)
from armvirt.machine import vgic_save
from armvirt.machine.migrate import PSTATE, TIMER_ORDER

ONE_REG = 0x6030_0000_0013_0000
COUNTS = {"V": ONE_REG | timer.CNTV_CVAL_EL0, "P": ONE_REG | timer.CNTPCT_EL0}
PPI = {"V": 27, "P": 30}
DELAY = 20_000  # ticks
MS = 1_000_000


class Guest(NamedTuple):
    vm: Vm
    vcpu: Vcpu
    gic: VgicDevice


def build(kvm: Kvm) -> Guest:
    """An empty VM of the shape that both sides have."""
    vm = kvm.create_vm()
    vm.set_user_memory_region(0, RAM, HostMemory(RAM_SIZE))
    vcpu = vm.create_vcpu(0)
    gic = vm.create_device("arm-vgic-v3")
    gic.set_attr(VgicGroup.NR_IRQS, 0, 64)
    gic.set_attr(VgicGroup.ADDR, VgicAddress.V3_DIST, GICD)
    gic.set_attr(VgicGroup.ADDR, VgicAddress.V3_REDIST, GICR)
    gic.set_attr(VgicGroup.CTRL, VgicCtrl.INIT)
    vcpu.init(power_off=True)
    return Guest(vm, vcpu, gic)


def start(kvm: Kvm, letter: str) -> Guest:
    """A guest that tells its count, arms a timer for `DELAY` ticks later and sleeps; the handler of
    its interrupt tells count and INTID."""
    guest = build(kvm)
    a = Asm(RAM)
    a.set_vectors()
    a.mov(20, DEVICE)
    for address, value in ((GICD, 2), (GICR + 0x1_0100, 1 << PPI[letter])):
        a.mov(1, address)
        a.mov(2, value)
        a.str_w(2, 1)
    for name, value in (("PMR", 0xF0), ("IGRPEN1", 1)):
        a.mov(1, value)
        a.msr(ICC_REGISTERS[f"ICC_{name}_EL1"], 1)
    a.mrs(3, f"CNT{letter}CT_EL0")
    a.mov(4, DELAY)
    a.add(4, 4, 3)
    a.msr(f"CNT{letter}_CVAL_EL0", 4)
    a.mov(5, 1)
    a.msr(f"CNT{letter}_CTL_EL0", 5)
    a.str_(3, 20)
    a.daifclr(2)
    a.label("sleep")
    a.wfi()
    a.b("sleep")

    def handler(a: Asm, offset: int) -> None:
        a.mrs(6, f"CNT{letter}CT_EL0")
        a.mrs(7, ICC_REGISTERS["ICC_IAR1_EL1"])
        a.str_(6, 20, 8)
        a.str_(7, 20, 16)
        a.msr(ICC_REGISTERS["ICC_EOIR1_EL1"], 7)
        power_off(a)

    a.vectors(handler)
    guest.vm.write_memory(RAM, a.code())
    guest.vcpu.start(Start(RAM, 0))
    return guest


def move(old: Guest, new: Guest) -> None:
    """All that a VMM does: registers with the timers last, controller, memory, MP state."""

    def order(register: int) -> tuple[int, int]:
        return (
            (2, TIMER_ORDER.index(register))
            if register in TIMER_ORDER
            else (int(register != PSTATE), 0)
        )

    registers = [
        (each, old.vcpu.get_one_reg(each)) for each in sorted(old.vcpu.get_reg_list(), key=order)
    ]
    rows = vgic_save.save_v3(old.gic, [old.vcpu.mpidr & 0xFF_FFFF])
    state = MpState.SUSPENDED if old.vcpu.in_wfi else old.vcpu.get_mp_state()
    old.vcpu.set_mp_state(MpState.STOPPED)
    for at, page in old.vm.populated_pages():
        new.vm.write_memory(at, page)
    for register, value in registers:
        new.vcpu.set_one_reg(register, value)
    vgic_save.restore(new.gic, rows)
    new.vcpu.set_mp_state(state)


def mmio(guest: Guest, offset: int) -> int:
    exit = guest.vcpu.run()
    while exit == SystemEventExit("wakeup"):
        guest.vcpu.set_mp_state(MpState.RUNNABLE)
        exit = guest.vcpu.run()
    assert isinstance(exit, MmioExit) and exit.phys_addr == DEVICE + offset, exit
    return exit.data


@pytest.mark.parametrize("letter", ["V", "P"])
@pytest.mark.parametrize("slept", [0, 5_000, 19_990])
@pytest.mark.parametrize("pause", [0, 1, 7 * MS])
@pytest.mark.parametrize("same_host", [True, False])
def test_the_guests_time_stands_still_while_it_moves(
    letter: str, slept: int, pause: int, same_host: bool
) -> None:
    """``repeat_wakeups`` ticks after it has armed its timer the guest moves, and is run again ``pause`` ns
    later."""
    kvm = Kvm(pcpus=2)
    old = start(kvm, letter)
    armed_at = mmio(old, 0)
    assert old.vcpu.run(kvm.host.clock.now + 16 * slept + 1) is None
    other = kvm if same_host else Kvm(counter_start=1 << 50)
    new = build(other)
    count = old.vcpu.get_one_reg(COUNTS[letter])
    move(old, new)
    assert new.vcpu.get_one_reg(COUNTS[letter]) == count, "no jump"
    other.host.clock.advance_to(other.host.clock.now + pause)
    moved_at = new.vcpu.get_one_reg(COUNTS[letter])
    assert moved_at - count in (pause // 16, pause // 16 + 1), "it goes on from the restore"
    fired = mmio(new, 8)
    assert mmio(new, 16) == PPI[letter]
    assert fired >= armed_at + DELAY
    assert fired <= max(armed_at + DELAY, moved_at) + 3, "neither early nor late"
    assert new.vcpu.run() == SystemEventExit("shutdown")


@pytest.mark.parametrize("letter", ["V", "P"])
def test_a_timer_that_is_due_when_it_arrives(letter: str) -> None:
    """Pending when it was saved, or due while it stood: the interrupt comes once, at once."""
    kvm = Kvm()
    old = start(kvm, letter)
    armed_at = mmio(old, 0)
    old.vcpu.run(kvm.host.clock.now + 3)
    new = build(kvm)
    move(old, new)
    new.vcpu.set_one_reg(COUNTS[letter], armed_at + 5 * DELAY)
    fired = mmio(new, 8)
    assert armed_at + 5 * DELAY <= fired <= armed_at + 5 * DELAY + 3
    assert mmio(new, 16) == PPI[letter]


def test_there_and_back_again() -> None:
    """As often as one likes; the two VMs of one host take turns."""
    kvm = Kvm()
    guest = start(kvm, "V")
    armed_at = mmio(guest, 0)
    for _ in range(10):
        assert guest.vcpu.run(kvm.host.clock.now + 16_000) is None
        fresh = build(kvm)
        move(guest, fresh)
        guest = fresh
    assert armed_at + DELAY <= mmio(guest, 8) <= armed_at + DELAY + 3
