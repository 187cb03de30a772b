"""Rows of KVM's arch_timer selftest: real guest code, both timers from one body, on nVHE and VHE
hosts."""

from __future__ import annotations

import pytest
from gic_vm import make_gic, make_vm, run_vcpu
from hyp_tools import DEVICE, RAM, Asm, errno_of
from timer_vm import HOSTS, TIMERS, WAITS, TimerGuest, ticks_of_us

from armvirt.arch.timer import CTL_ENABLE, CTL_IMASK
from armvirt.hyp.kvm import Start, VcpuGroup, Vm

PERIOD = ticks_of_us(10)
both = pytest.mark.parametrize("which", TIMERS)
every_host = pytest.mark.parametrize("host", HOSTS)
VTIMER, PTIMER, HVTIMER, HPTIMER = range(4)
MASK64 = (1 << 64) - 1


@both
@every_host
@pytest.mark.parametrize("register", ["cval", "tval"])
@pytest.mark.parametrize("method", WAITS)
def test_each_program_gives_one_interrupt(
    which: str, host: str, register: str, method: str
) -> None:
    guest = TimerGuest(which, host)
    for _ in range(3):
        start = guest.get(guest.CNT)
        guest.arm(register, start + PERIOD if register == "cval" else PERIOD)
        guest.wait(method)
        assert guest.seen()[0] >= start + PERIOD
        assert guest.get(guest.CTL) & 3 == CTL_IMASK
        assert guest.poll() == 0


@both
@every_host
def test_wfi_wakes_at_the_instruction_that_it_should(which: str, host: str) -> None:
    """The handler's first counter read comes a known number of instructions after the deadline."""
    guest = TimerGuest(which, host)
    guest.arm("cval", deadline := guest.get(guest.CNT) + PERIOD)
    guest.wait("wfi")
    assert deadline <= guest.seen()[0] <= deadline + 1


@both
def test_nvhe_and_vhe_are_the_same_to_the_instruction(which: str) -> None:
    def run(host: str) -> tuple[object, ...]:
        guest = TimerGuest(which, host)
        for method in WAITS:
            guest.arm("tval", PERIOD)
            guest.wait(method)
        return guest.seen(), guest.vm.timers.now, guest.vcpu.context.insns

    assert run("nvhe") == run("vhe") == run("vhe-cntpoff")


@both
@every_host
@pytest.mark.parametrize("offset", [12345, 1 << 63, MASK64 - 5, MASK64 - (1 << 40)])
def test_set_counter_offset_shifts_both_counters(which: str, host: str, offset: int) -> None:
    guest = TimerGuest(which, host)
    guest.vm.set_counter_offset(offset)
    physical = guest.vm.host.pe.timer.count()
    assert physical - offset & MASK64 <= guest.get(guest.CNT) <= (physical - offset & MASK64) + 10
    for method in WAITS:
        guest.arm("tval", PERIOD)
        guest.wait(method)
    guest.set_count(0)  # accepted, and ignored
    assert guest.get(guest.CNT) >= physical - offset & MASK64


@both
@every_host
def test_a_far_deadline_stays_far_under_an_offset(which: str, host: str) -> None:
    guest = TimerGuest(which, host)
    guest.vm.set_counter_offset(1000)
    for deadline in (MASK64, MASK64 - 500, 1 << 63):
        guest.arm("cval", deadline)
        assert guest.poll() == 0
        assert guest.get(guest.CVAL) == deadline and guest.get(guest.CTL) & 7 == CTL_ENABLE


def test_set_counter_offset_errors() -> None:
    vm = make_vm()
    assert errno_of(lambda: vm.set_counter_offset(0, 1)) == "EINVAL"
    vm.set_counter_offset(0)
    vm.set_counter_offset(7)  # as often as one likes


@pytest.mark.parametrize("pcpus", [1, 2])
def test_set_counter_offset_needs_every_vcpu_at_rest(pcpus: int) -> None:
    """Whatever physical CPU the caller's exit came from."""
    vm = make_vm((0, 1), pcpus=pcpus)
    a = Asm(RAM)
    a.mov(20, DEVICE)
    a.ldr(1, 20)
    vm.write_memory(RAM, a.code())
    errnos: list[str] = []

    def on_exit(_vcpu: object, _exit: object) -> bool:
        errnos.append(errno_of(lambda: vm.set_counter_offset(1)))
        return True

    for vcpu in vm.vcpus:
        vcpu.exit_handler = on_exit
        vcpu.start(Start(RAM, 0))
    for _ in range(2):
        vm.host.run(
            5_000_000
        )  # the first vCPU goes on to what is no code, and faults for the rest of its turn
    assert errnos == ["EBUSY"] * 2


# -- PPIs by vCPU attributes ---------------------------------------------------------------------


def vm_with_gic(vcpus: tuple[int, ...] = (0, 1)) -> Vm:
    vm = make_vm(vcpus)
    make_gic(vm)
    return vm


def test_default_ppis_are_the_same_on_all_vcpus() -> None:
    for vcpu in vm_with_gic().vcpus:
        assert [vcpu.get_device_attr(VcpuGroup.TIMER_CTRL, attr) for attr in range(4)] == [
            27,
            30,
            28,
            26,
        ]


@pytest.mark.parametrize("attr", range(4))
def test_setting_on_one_vcpu_applies_to_all(attr: int) -> None:
    vm = vm_with_gic()
    vm.vcpu(1).set_device_attr(VcpuGroup.TIMER_CTRL, attr, 20)
    assert vm.vcpu(0).get_device_attr(VcpuGroup.TIMER_CTRL, attr) == 20
    vm.vcpu(0).has_device_attr(VcpuGroup.TIMER_CTRL, attr)


def test_attribute_errors() -> None:
    bare, vm = make_vm().vcpu(0), vm_with_gic()
    vcpu = vm.vcpu(0)
    assert errno_of(lambda: bare.set_device_attr(VcpuGroup.TIMER_CTRL, VTIMER, 27)) == "EINVAL"
    assert errno_of(lambda: vcpu.set_device_attr(VcpuGroup.TIMER_CTRL, VTIMER, None)) == "EFAULT"
    for intid in (15, 32, -1):
        assert (
            errno_of(lambda intid=intid: vcpu.set_device_attr(VcpuGroup.TIMER_CTRL, VTIMER, intid))
            == "EINVAL"
        )
    for call in (
        lambda: vcpu.set_device_attr(VcpuGroup.TIMER_CTRL, 4, 27),
        lambda: vcpu.get_device_attr(VcpuGroup.TIMER_CTRL, 4),
        lambda: vcpu.has_device_attr(VcpuGroup.TIMER_CTRL, 4),
        lambda: vcpu.has_device_attr(77, 0),
    ):
        assert errno_of(call) == "ENXIO"


def test_two_timers_on_one_ppi_fail_at_the_first_run_only() -> None:
    """Not where they are set; and the VM has not run then: they can be set apart."""
    vm = vm_with_gic((0,))
    vm.vcpu(0).set_device_attr(VcpuGroup.TIMER_CTRL, PTIMER, 27)
    for _ in range(2):
        assert errno_of(lambda: run_vcpu(vm, 0)) == "EINVAL" and not vm.has_run
    vm.vcpu(0).set_device_attr(VcpuGroup.TIMER_CTRL, PTIMER, 30)
    run_vcpu(vm, 0)
    assert vm.has_run


def test_ppis_are_frozen_at_the_first_run() -> None:
    vm = vm_with_gic((0,))
    vm.vcpu(0).set_device_attr(VcpuGroup.TIMER_CTRL, VTIMER, 20)
    run_vcpu(vm, 0)
    assert errno_of(lambda: vm.vcpu(0).set_device_attr(VcpuGroup.TIMER_CTRL, VTIMER, 20)) == "EBUSY"
    assert errno_of(lambda: vm.vcpu(0).set_device_attr(VcpuGroup.TIMER_CTRL, 9, 20)) == "EBUSY"
    assert vm.vcpu(0).get_device_attr(VcpuGroup.TIMER_CTRL, VTIMER) == 20


# -- showing -------------------------------------------------------------------------------------


def test_the_timer_shows_itself() -> None:
    guest = TimerGuest("vtimer")
    guest.arm("cval", 0x1234_5678)
    rows = {row["timer"]: row for row in guest.vcpu.timer.rows()}
    assert (rows["vtimer"]["map"], rows["vtimer"]["owner"], rows["vtimer"]["cval"]) == (
        "direct", "comparator", 0x1234_5678,
    )  # fmt: skip
    assert (rows["ptimer"]["map"], rows["ptimer"]["owner"]) == ("emulated", "nobody")
    assert "0x12345678" in str(guest.vcpu.timer) and "nVHE" in str(guest.vcpu.timer)
    assert [row["map"] for row in TimerGuest("ptimer", "vhe").vcpu.timer.rows()] == [
        "direct",
        "direct",
    ]
