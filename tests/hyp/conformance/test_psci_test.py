"""KVM's psci_test selftest, and CPU_OFF while interrupts are pending or active, by guest code."""

from __future__ import annotations

import pytest
from gic_vm import RAM, Asm, make_gic, make_vm
from hyp_tools import errno_of

from armvirt.arch.gic import ICC_REGISTERS
from armvirt.arch.psci import PsciFunction as F
from armvirt.errors import KvmError
from armvirt.hyp.kvm import Cap, MpState, Start, SystemEventExit, Vcpu, Vm

ENTRY, CONTEXT = RAM + 0x8000, 0xDEAD_C0DE
RESULTS = RAM + 0x10_0000
PSCI_VERSION = 0x6030_0000_0014_0000
PC, X0 = 0x6030_0000_0010_0040, 0x6030_0000_0010_0000
NOT_SUPPORTED, INVALID_PARAMETERS, INTERNAL_FAILURE, DENIED = -1, -2, -6, -3


def call(a: Asm, function: int, *args: int) -> None:
    a.mov(0, function)
    for n, value in enumerate(args, start=1):
        a.mov(n, value)
    a.hvc(0)


def record(a: Asm, slot: int) -> None:
    a.mov(20, RESULTS)
    a.str_(0, 20, 8 * slot)


def signed(vm: Vm, slot: int) -> int:
    return int.from_bytes(vm.read_memory(RESULTS + 8 * slot, 8), "little", signed=True)


def source(vm: Vm, a: Asm) -> Vcpu:
    """vCPU 0 with a program that ends in SYSTEM_OFF; the other vCPUs wait for CPU_ON."""
    call(a, F.SYSTEM_OFF)
    vm.write_memory(a.base, a.code())
    for vcpu in vm.vcpus:
        vcpu.init(power_off=True)
    vm.vcpu(0).start(Start(a.base, 0))
    return vm.vcpu(0)


# -- CPU_ON --


@pytest.mark.parametrize("pcpus", [1, 2])
def test_cpu_on(pcpus: int) -> None:
    """Userspace sees the target's pc and x0 before the target runs; AFFINITY_INFO says ON from
    then."""
    vm = make_vm((0, 1), pcpus=pcpus)
    a = Asm(RAM)
    call(a, F.AFFINITY_INFO_64, 1, 0)
    record(a, 0)
    call(a, F.CPU_ON_64, 1, ENTRY, CONTEXT)
    record(a, 1)
    call(a, F.AFFINITY_INFO_64, 1, 0)
    record(a, 2)
    call(a, F.CPU_ON_64, 1, ENTRY, 0)
    record(a, 3)
    vcpu, target = source(vm, a), vm.vcpu(1)
    here = Asm(ENTRY)
    here.label("here")
    here.b("here")
    vm.write_memory(ENTRY, here.code())
    while not target.runnable:
        assert vcpu.run(until=vm.host.clock.now + 1) is None
    assert target.context.insns == 0
    assert (target.get_one_reg(PC), target.get_one_reg(X0)) == (ENTRY, CONTEXT)
    assert vcpu.run() == SystemEventExit("shutdown", 0)
    assert [signed(vm, n) for n in range(4)] == [1, 0, 0, -4]


def test_affinity_info_while_a_cpu_starts() -> None:
    """From CPU_ON until the target is there, whichever CPU has its turn: never anything but ON or
    OFF, ON at last."""
    for pcpus in (1, 2):
        vm = make_vm((0, 1), pcpus=pcpus, quantum_ns=1_000)
        target = Asm(ENTRY)
        target.mov(20, RESULTS)
        target.str_(0, 20, 8)  # its context id: it has run
        target.label("end")
        target.b("end")
        vm.write_memory(ENTRY, target.code())
        a = Asm(RAM)
        call(a, F.CPU_ON_64, 1, ENTRY, CONTEXT)
        a.mov(20, RESULTS)
        a.str_(0, 20)
        a.mov(21, 0)  # every answer, ORed: ON is 0, OFF 1
        a.label("ask")
        call(a, F.AFFINITY_INFO_64, 1, 0)
        a.mov(20, RESULTS)
        a.orr(21, 21, 0)
        a.str_(21, 20, 16)
        a.str_(0, 20, 24)
        a.ldr(4, 20, 8)
        a.cbz(4, "ask")
        assert source(vm, a).run() == SystemEventExit("shutdown", 0)
        assert (signed(vm, 0), signed(vm, 1)) == (0, CONTEXT)
        assert signed(vm, 2) in (0, 1) and signed(vm, 3) == 0


# -- SYSTEM_SUSPEND --


def suspend_program() -> Asm:
    a = Asm(RAM)
    for slot, function in enumerate((F.SYSTEM_SUSPEND, F.SYSTEM_SUSPEND_64)):
        call(a, F.FEATURES, function)
        record(a, slot)
    call(a, F.SYSTEM_SUSPEND_64, ENTRY, CONTEXT)
    record(a, 2)
    return a


def test_system_suspend_needs_the_capability() -> None:
    vm = make_vm()
    assert source(vm, suspend_program()).run() == SystemEventExit("shutdown", 0)
    assert [signed(vm, n) for n in range(3)] == [NOT_SUPPORTED] * 3


def test_another_capability_is_refused() -> None:
    vm = make_vm()
    assert errno_of(lambda: vm.enable_cap(9999)) == "EINVAL"
    assert errno_of(lambda: vm.enable_cap(Cap.ARM_SYSTEM_SUSPEND, 0, 1)) == "EINVAL"
    assert not vm.smccc.psci.suspend_enabled and vm.check_extension(Cap.ARM_SYSTEM_SUSPEND) == 1


def test_system_suspend_is_the_vmms_to_deny() -> None:
    vm = make_vm()
    vm.enable_cap(Cap.ARM_SYSTEM_SUSPEND)
    vcpu = source(vm, suspend_program())
    assert vcpu.run() == SystemEventExit("suspend", 0, ENTRY, CONTEXT)
    assert (signed(vm, 0), signed(vm, 1)) == (0, 0)
    assert vcpu.get_one_reg(X0) == F.SYSTEM_SUSPEND_64, "as the guest left it"
    vcpu.set_one_reg(X0, DENIED % (1 << 64))
    assert vcpu.run() == SystemEventExit("shutdown", 0)
    assert signed(vm, 2) == DENIED


def test_system_suspend_resumes_where_the_guest_asked() -> None:
    vm = make_vm()
    vm.enable_cap(Cap.ARM_SYSTEM_SUSPEND)
    resumed = Asm(ENTRY)
    record(resumed, 3)
    call(resumed, F.SYSTEM_OFF)
    vm.write_memory(ENTRY, resumed.code())
    vcpu = source(vm, suspend_program())
    event = vcpu.run()
    assert isinstance(event, SystemEventExit)
    vcpu.start(Start(event.entry, event.context_id))
    assert vcpu.run() == SystemEventExit("shutdown", 0)
    assert (signed(vm, 2), signed(vm, 3)) == (0, CONTEXT)


# -- SYSTEM_OFF2 --


@pytest.mark.parametrize("kind", [0, 1])
def test_system_off2(kind: int) -> None:
    vm = make_vm()
    a = Asm(RAM)
    call(a, F.FEATURES, F.SYSTEM_OFF2_64)
    record(a, 0)
    call(a, F.SYSTEM_OFF2_64, kind, 1)
    record(a, 1)
    call(a, F.SYSTEM_OFF2_64, kind, 0)
    record(a, 2)
    vcpu = source(vm, a)
    assert vcpu.run() == SystemEventExit("shutdown", 1)
    assert (signed(vm, 0), signed(vm, 1)) == (1, INVALID_PARAMETERS)
    assert not vcpu.runnable and vcpu.get_one_reg(X0) == INTERNAL_FAILURE % (1 << 64)
    vcpu.set_mp_state(
        MpState.RUNNABLE
    )  # a VMM that runs on: the call returns, and says that it has failed
    assert vcpu.run() == SystemEventExit("shutdown", 0)
    assert signed(vm, 2) == INTERNAL_FAILURE


@pytest.mark.parametrize("version", [0x2, 0x1_0000, 0x1_0001, 0x1_0002])
def test_system_off2_needs_version_1_3(version: int) -> None:
    vm = make_vm()
    a = Asm(RAM)
    call(a, F.VERSION)
    record(a, 0)
    call(a, F.SYSTEM_OFF2, 1, 0)
    record(a, 1)
    vcpu = source(vm, a)
    vcpu.set_one_reg(PSCI_VERSION, version)
    assert vcpu.run() == SystemEventExit("shutdown", 0)
    assert (signed(vm, 0), signed(vm, 1)) == (version, NOT_SUPPORTED)


def test_versions_that_do_not_exist() -> None:
    vcpu = make_vm().vcpu(0)
    vcpu.init()
    before = vcpu.get_one_reg(PSCI_VERSION)
    with pytest.raises(KvmError, match="EINVAL"):
        vcpu.set_one_reg(PSCI_VERSION, 0x1_0004)
    assert vcpu.get_one_reg(PSCI_VERSION) == before == 0x1_0003


# -- CPU_SUSPEND --


def test_cpu_suspend_waits_and_keeps_the_state() -> None:
    """A standby state: the virtual timer ends it, the next instruction follows, x0 is SUCCESS and
    the rest is kept."""
    vm = make_vm()
    make_gic(vm)
    a = Asm(RAM)
    enable_timer(a, 1000)
    a.mov(9, 77)
    call(a, F.CPU_SUSPEND_64, 0x1_0000, ENTRY, CONTEXT)
    record(a, 0)
    a.str_(9, 20, 8)
    a.mrs(4, "CNTVCT_EL0")
    a.str_(4, 20, 16)
    assert source(vm, a).run() == SystemEventExit("shutdown", 0)
    assert (signed(vm, 0), signed(vm, 1)) == (0, 77) and 1000 <= signed(vm, 2) < 1010


# -- CPU_OFF with work in flight --

GICD, GICR, FRAME = 0x0800_0000, 0x080A_0000, 0x2_0000


def enable_timer(a: Asm, cval: int, cpu: int = 0) -> None:
    """The distributor, the interface and PPI 27 of ``cpu``; the virtual timer set for ``cval``.
    Interrupts masked."""
    store(a, GICD, 2)
    store(a, GICR + FRAME * cpu + 0x1_0100, 1 << 27)
    for name, value in (("ICC_PMR_EL1", 0xF0), ("ICC_IGRPEN1_EL1", 1)):
        a.mov(1, value)
        a.msr(ICC_REGISTERS[name], 1)
    a.mov(1, cval)
    a.msr("CNTV_CVAL_EL0", 1)
    a.mov(1, 1)
    a.msr("CNTV_CTL_EL0", 1)


def store(a: Asm, address: int, value: int) -> None:
    a.mov(5, address)
    a.mov(6, value)
    a.str_w(6, 5)


def test_a_cpu_that_went_off_with_an_active_timer_interrupt_starts_afresh() -> None:
    """vCPU 1 acknowledges its timer interrupt and goes off without ending it. On again, it finds
    its timer off, its CPU interface reset, and gets the next timer interrupt."""
    vm = make_vm((0, 1))
    make_gic(vm)
    second = Asm(ENTRY)
    second.mov(20, RESULTS)
    for n, register in enumerate(("PMR", "IGRPEN1", "RPR", "AP1R0")):
        second.mrs(4, ICC_REGISTERS[f"ICC_{register}_EL1"])
        second.str_(4, 20, 8 * n)
    second.mrs(4, "CNTV_CTL_EL0")
    second.str_(4, 20, 32)
    second.str_(0, 20, 40)
    second.mrs(4, "CNTVCT_EL0")
    enable_timer(second, 0, cpu=1)
    second.wfi()
    second.mrs(4, ICC_REGISTERS["ICC_IAR1_EL1"])
    second.str_(4, 20, 48)
    call(second, F.CPU_OFF)
    vm.write_memory(ENTRY, second.code())

    first = Asm(RAM)
    for round_ in range(2):
        call(first, F.CPU_ON_64, 1, ENTRY, CONTEXT + round_)
        first.label(f"wait{round_}")
        call(first, F.AFFINITY_INFO_64, 1, 0)
        first.cbz(0, f"wait{round_}")
        first.mov(20, RESULTS)
        for n in range(7):
            first.ldr(4, 20, 8 * n)
            first.str_(4, 20, 8 * (n + 8 * (round_ + 1)))
            first.str_(31, 20, 8 * n)
    assert source(vm, first).run() == SystemEventExit("shutdown", 0)
    for round_ in range(2):
        seen = [signed(vm, 8 * (round_ + 1) + n) for n in range(7)]
        assert seen == [0, 0, 0xFF, 0, 0, CONTEXT + round_, 27], round_
