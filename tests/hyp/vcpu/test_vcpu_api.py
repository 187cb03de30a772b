"""The ioctls of a vCPU: init, MP state, events, inputs, debugging, and the exits to the VMM."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hyp_tools import (
    DATA,
    DEVICE,
    NE,
    NOWHERE,
    RAM,
    RAM_SIZE,
    Asm,
    Rig,
    both_engines,
    errno_of,
    power_off,
    program,
)

from armvirt.arch.encoding import sysreg
from armvirt.hyp.kvm import (
    IRQ_TYPE_CPU,
    IRQ_TYPE_SPI,
    SMCCC_FILTER,
    VM_SMCCC_CTRL,
    Cap,
    DebugExit,
    Feature,
    FilterAction,
    FilterRange,
    GuestDebug,
    HostMemory,
    HypercallExit,
    Kvm,
    MmioExit,
    MpState,
    NisvExit,
    Stop,
    SystemEventExit,
    VcpuEvents,
    VcpuInit,
    VgicCtrl,
    VgicGroup,
    Vm,
    irq_line_word,
)

CORE = 0x6030_0000_0010_0000
PC, X0 = CORE | 0x40, CORE
VBAR_EL1 = sysreg(3, 0, 12, 0, 0)


@pytest.fixture
def vm() -> Vm:
    made = Kvm().create_vm()
    made.set_user_memory_region(0, RAM, HostMemory(RAM_SIZE))
    return made


def alone(write: Callable[[Asm], None], kind: str = "auto", **options: object) -> Rig:
    """A rig whose vCPU is driven by `Vcpu.run`."""
    rig = Rig(program(write), kind=kind, **options)  # type: ignore[arg-type]
    rig.vcpu.exit_handler = None
    return rig


# -- KVM_ARM_VCPU_INIT --


def test_nothing_works_before_init(vm: Vm) -> None:
    vcpu = vm.create_vcpu(0)
    for call in (
        vcpu.run,
        vcpu.get_reg_list,
        lambda: vcpu.get_one_reg(PC),
        lambda: vcpu.set_one_reg(PC, 0),
    ):
        assert errno_of(call) == "ENOEXEC"


@pytest.mark.parametrize(
    ("target", "features", "errno"),
    [
        (0, 0, "EINVAL"), (6, Feature.PSCI_0_2, "EINVAL"), (5, 1 << 9, "ENOENT"), (5, 1 << 40, "ENOENT"),
        *((5, feature, "EINVAL") for feature in (Feature.EL1_32BIT, Feature.PMU_V3, Feature.SVE, Feature.HAS_EL2)),
    ],
)  # fmt: skip
def test_init_that_is_refused(vm: Vm, target: int, features: int, errno: str) -> None:
    vcpu = vm.create_vcpu(0)
    before = vcpu.state()
    assert errno_of(lambda: vcpu.vcpu_init(VcpuInit(target, features))) == errno
    assert vcpu.state() == before and not vcpu.initialized


def test_init(vm: Vm) -> None:
    first, second = vm.create_vcpu(0), vm.create_vcpu(1)
    target = vm.preferred_target()
    assert target == VcpuInit(5, 0)
    first.vcpu_init(target._replace(features=Feature.PSCI_0_2))
    second.vcpu_init(target._replace(features=Feature.PSCI_0_2 | Feature.POWER_OFF))
    assert (first.get_mp_state(), second.get_mp_state()) == (MpState.RUNNABLE, MpState.STOPPED)
    assert errno_of(lambda: second.vcpu_init(target)) == "EINVAL", "all have the same features"
    first.set_one_reg(PC, RAM)
    first.vcpu_init(target._replace(features=Feature.PSCI_0_2))
    assert first.get_one_reg(PC) == 0, "again is a reset"


# -- KVM_RUN --


def test_immediate_exit() -> None:
    """The access that was answered is completed, and nothing more."""
    rig = alone(lambda a: (a.mov(1, DEVICE), a.ldr(2, 1), a.nop(), a.nop()))
    exit = rig.vcpu.run()
    assert isinstance(exit, MmioExit)
    exit.data = 77
    rig.vcpu.immediate_exit = True
    at = rig.vcpu.get_one_reg(PC)
    assert errno_of(rig.vcpu.run) == "EINTR"
    assert rig.x(2) == 77 and rig.vcpu.get_one_reg(PC) == at + 4
    assert errno_of(rig.vcpu.run) == "EINTR" and rig.vcpu.get_one_reg(PC) == at + 4
    rig.vcpu.immediate_exit = False
    assert isinstance(rig.vcpu.run(), SystemEventExit)


# -- KVM_{GET,SET}_MP_STATE --


def test_mp_state() -> None:
    rig = alone(lambda a: a.nop())
    assert (
        errno_of(lambda: rig.vcpu.set_mp_state(3)) == "EINVAL"
        and rig.vcpu.get_mp_state() == MpState.RUNNABLE
    )
    rig.vcpu.set_mp_state(MpState.STOPPED)
    assert rig.host.run(1000) is Stop.IDLE and rig.vcpu.context.insns == 0
    rig.vcpu.set_mp_state(MpState.RUNNABLE)
    assert isinstance(rig.vcpu.run(), SystemEventExit)


@both_engines
def test_suspended(kind: str) -> None:
    """It sleeps until an interrupt could be delivered, says so, and runs on where it was once it
    may."""
    rig = alone(lambda a: a.nop(), kind, gic=False)
    rig.vcpu.set_mp_state(MpState.SUSPENDED)
    assert rig.vcpu.get_mp_state() == MpState.SUSPENDED
    assert rig.vcpu.run(5000) is not None or rig.vcpu.context.insns == 0
    rig.vm.irq_line_raw(irq_line_word(IRQ_TYPE_CPU, 0), True)
    for _ in range(2):
        assert (
            rig.vcpu.run() == SystemEventExit("wakeup")
            and rig.vcpu.get_mp_state() == MpState.SUSPENDED
        )
    rig.vcpu.set_mp_state(MpState.RUNNABLE)
    assert rig.vcpu.run() == SystemEventExit("shutdown")


# -- a CPU without an interrupt controller --


@both_engines
@pytest.mark.parametrize(("number", "vector"), [(0, 0x280), (1, 0x300)])
def test_the_inputs_of_a_cpu(kind: str, number: int, vector: int) -> None:
    """KVM_IRQ_LINE of type CPU: the exception is taken where it is unmasked, and again while the
    line is high."""

    def write(a: Asm) -> None:
        a.set_vectors()
        a.mov(5, DEVICE)
        a.ldr(6, 5)
        a.nop()
        a.daifclr(3)
        a.nop()
        a.nop()

    a = Asm(RAM)
    write(a)
    power_off(a)

    def handler(a: Asm, offset: int) -> None:
        a.mov(20, offset)
        a.mrs(22, "ELR_EL1")
        power_off(a)

    a.vectors(handler)
    rig = Rig(a, kind=kind)
    rig.on_mmio = lambda vcpu, exit: rig.vm.irq_line_raw(irq_line_word(IRQ_TYPE_CPU, number), True)
    rig.finish()
    assert rig.x(20) == vector and rig.vm.read_memory(rig.x(22) - 4, 4) == (0xD503_43FF).to_bytes(
        4, "little"
    )


def test_inputs_that_there_are_not(vm: Vm) -> None:
    vm.create_vcpu(0)
    assert errno_of(lambda: vm.irq_line_raw(irq_line_word(IRQ_TYPE_CPU, 2), True)) == "EINVAL"
    assert errno_of(lambda: vm.irq_line_raw(irq_line_word(IRQ_TYPE_CPU, 0, 1), True)) == "EINVAL"
    assert errno_of(lambda: vm.irq_line_raw(irq_line_word(IRQ_TYPE_SPI, 40), True)) == "ENXIO"
    vm.create_device("arm-vgic-v3")
    assert errno_of(lambda: vm.irq_line_raw(irq_line_word(IRQ_TYPE_CPU, 0), True)) == "ENXIO"


# -- KVM_{GET,SET}_VCPU_EVENTS --


def _record(a: Asm, offset: int) -> None:
    a.mov(20, offset)
    a.mrs(21, "ESR_EL1")
    a.mrs(22, "ELR_EL1")
    a.mrs(23, "FAR_EL1")
    power_off(a)


def recording(write: Callable[[Asm], None], kind: str = "auto") -> Rig:
    a = Asm(RAM)
    a.set_vectors()
    write(a)
    power_off(a)
    a.vectors(_record)
    rig = Rig(a, kind=kind)
    rig.vcpu.exit_handler = None
    return rig


@both_engines
def test_an_serror_waits_for_pstate_a(kind: str) -> None:
    rig = recording(lambda a: (a.nop(), a.nop(), a.daifclr(4), a.nop(), a.nop()), kind)
    rig.vcpu.run(until=3)
    rig.vcpu.set_vcpu_events(VcpuEvents(serror_pending=True))
    assert rig.vcpu.get_vcpu_events() == VcpuEvents(serror_pending=True)
    rig.vcpu.run()
    assert rig.x(20) == 0x380 and rig.x(21) >> 26 == 0x2F
    assert rig.vm.read_memory(rig.x(22) - 4, 4) == (0xD503_44FF).to_bytes(4, "little"), (
        "before the next instruction"
    )
    assert not rig.vcpu.get_vcpu_events().serror_pending


def test_events_that_are_refused() -> None:
    rig = recording(lambda a: a.nop())
    before = rig.vcpu.state()
    assert (
        errno_of(lambda: rig.vcpu.set_vcpu_events(VcpuEvents(True, True, serror_esr=1))) == "EINVAL"
    )
    assert (
        errno_of(lambda: rig.vcpu.set_vcpu_events(VcpuEvents(True, ext_dabt_pending=True)))
        == "EINVAL"
    )
    assert rig.vcpu.state() == before


@both_engines
def test_an_external_abort_answers_an_mmio_exit(kind: str) -> None:
    rig = recording(lambda a: (a.mov(1, NOWHERE), a.ldr(2, 1, 8)), kind)
    assert isinstance(rig.vcpu.run(), MmioExit)
    rig.vcpu.set_vcpu_events(VcpuEvents(ext_dabt_pending=True))
    assert not rig.vcpu.get_vcpu_events().ext_dabt_pending
    assert isinstance(rig.vcpu.run(), SystemEventExit)
    assert rig.x(20) == 0x200 and rig.x(21) & 0x3F == 0x10 and rig.x(23) == NOWHERE + 8


# -- KVM_EXIT_ARM_NISV --

LDP = 0xA940_1023  # ldp x3, x4, [x1]


@both_engines
@pytest.mark.parametrize("with_handler", [False, True])
def test_nisv(kind: str, with_handler: bool) -> None:
    """With the capability the VMM gets what the syndrome does not describe, and steps over it."""
    rig = Rig(program(lambda a: (a.mov(1, DEVICE), a.word(LDP), a.add_imm(5, 3, 1))), kind=kind)
    rig.vm.enable_cap(Cap.ARM_NISV_TO_USER)
    seen = []

    def answer(exit: object) -> None:
        seen.append(exit)
        rig.vcpu.set_one_reg(X0 | 2 * 3, 41)
        rig.vcpu.set_one_reg(PC, rig.vcpu.get_one_reg(PC) + 4)

    if with_handler:
        rig.vcpu.exit_handler = lambda vcpu, exit: (
            answer(exit) if isinstance(exit, NisvExit) else True
        )
        rig.finish()
    else:
        rig.vcpu.exit_handler = None
        answer(rig.vcpu.run())
        assert isinstance(rig.vcpu.run(), SystemEventExit)
    (exit,) = seen
    assert isinstance(exit, NisvExit) and exit.fault_ipa == DEVICE and not exit.esr_iss & 1 << 24
    assert rig.x(5) == 42


@both_engines
def test_nisv_and_an_abort(kind: str) -> None:
    rig = recording(lambda a: (a.mov(1, DEVICE), a.word(LDP)), kind)
    rig.vm.enable_cap(Cap.ARM_NISV_TO_USER)
    assert isinstance(rig.vcpu.run(), NisvExit)
    rig.vcpu.set_vcpu_events(VcpuEvents(ext_dabt_pending=True))
    assert isinstance(rig.vcpu.run(), SystemEventExit)
    assert rig.x(20) == 0x200 and rig.x(21) & 0x3F == 0x10 and rig.x(23) == DEVICE


# -- KVM_SET_GUEST_DEBUG --


@pytest.mark.parametrize("control", [1 << 17 | 1, 4 | 1, 1 << 40])
def test_debugging_that_is_refused(control: int) -> None:
    rig = alone(lambda a: a.nop())
    assert (
        errno_of(lambda: rig.vcpu.set_guest_debug(control)) == "EINVAL"
        and rig.vcpu.debug == GuestDebug.NONE
    )
    assert (
        rig.vm.check_extension(Cap.GUEST_DEBUG_HW_BPS)
        == rig.vm.check_extension(Cap.GUEST_DEBUG_HW_WPS)
        == 0
    )


@both_engines
def test_single_steps(kind: str) -> None:
    """Each instruction is an exit; what the guest does is what it does without."""
    rig, plain = (
        alone(lambda a: (a.mov(1, 3), a.label("l"), a.subs_imm(1, 1, 1), a.b_cond(NE, "l")), kind)
        for _ in "ab"
    )
    rig.vcpu.set_guest_debug(GuestDebug.ENABLE | GuestDebug.SINGLESTEP)
    places = []
    while isinstance(exit := rig.vcpu.run(), DebugExit):
        assert exit.hsr >> 26 == 0x32
        places.append(rig.vcpu.get_one_reg(PC) - RAM)
    assert places == [4, 8, 4, 8, 4, 8, 12, 16, 20][: len(places)] and len(places) >= 8
    assert isinstance(exit, SystemEventExit) and isinstance(plain.vcpu.run(), SystemEventExit)
    assert rig.vcpu.context.insns == plain.vcpu.context.insns


@both_engines
def test_a_breakpoint_instruction(kind: str) -> None:
    """The VMM's while it debugs, the guest's own otherwise."""
    rig = recording(lambda a: (a.nop(), a.brk(5), a.nop(), a.brk(6)), kind)
    rig.vcpu.set_guest_debug(GuestDebug.ENABLE | GuestDebug.USE_SW_BP)
    exit = rig.vcpu.run()
    assert isinstance(exit, DebugExit) and exit.hsr >> 26 == 0x3C and exit.hsr & 0xFFFF == 5
    rig.vcpu.set_one_reg(PC, rig.vcpu.get_one_reg(PC) + 4)
    rig.vcpu.set_guest_debug(0)
    assert isinstance(rig.vcpu.run(), SystemEventExit)
    assert rig.x(20) == 0x200 and rig.x(21) & 0xFFFF == 6


# -- the SMCCC filter --


@pytest.mark.parametrize(
    ("new", "errno"),
    [
        (FilterRange(0x8400_0000, 1, 3), "EINVAL"), (FilterRange(0x8400_0000, 0, 1), "EINVAL"),
        (FilterRange(0xFFFF_FFFF, 2, 1), "EINVAL"), (FilterRange(1 << 32, 1, 1), "EINVAL"),
        (FilterRange(0x8000_0000, 1, 1), "EEXIST"), (FilterRange(0xC000_FFFF, 2, 1), "EEXIST"),
        (FilterRange(0x8400_000F, 4, 2), "EEXIST"),
    ],
)  # fmt: skip
def test_filters_that_are_refused(vm: Vm, new: FilterRange, errno: str) -> None:
    vm.set_device_attr(VM_SMCCC_CTRL, SMCCC_FILTER, FilterRange(0x8400_0010, 16, FilterAction.DENY))
    assert errno_of(lambda: vm.set_device_attr(VM_SMCCC_CTRL, SMCCC_FILTER, new)) == errno
    assert vm.smccc.filter.action(0x8400_000F) is FilterAction.HANDLE
    assert (
        errno_of(lambda: vm.has_device_attr(0, 1))
        == errno_of(lambda: vm.has_device_attr(1, 0))
        == "ENXIO"
    )


@both_engines
def test_calls_that_are_filtered(kind: str) -> None:
    def write(a: Asm) -> None:
        for function, call in ((0x8400_0000, a.hvc), (0xC600_0099, a.hvc), (0xC600_0099, a.smc)):
            a.mov(0, function)
            a.mov(1, 0x55)
            call(0)
            a.movr(10, 11)
            a.movr(11, 0)

    rig = alone(write, kind)
    rig.vm.set_device_attr(
        VM_SMCCC_CTRL, SMCCC_FILTER, FilterRange(0x8400_0000, 1, FilterAction.DENY)
    )
    rig.vm.set_device_attr(
        VM_SMCCC_CTRL, SMCCC_FILTER, FilterRange(0xC600_0000, 0x100, FilterAction.FWD_TO_USER)
    )
    for flags, result in ((0, 7), (1, 8)):
        assert rig.vcpu.run() == HypercallExit(0xC600_0099, flags)
        if not flags:
            assert rig.x(11) == (1 << 64) - 1, "the denied one: NOT_SUPPORTED"
        assert rig.vcpu.get_one_reg(X0 | 2) == 0x55
        rig.vcpu.set_one_reg(X0, result)
    assert isinstance(rig.vcpu.run(), SystemEventExit)
    assert (rig.x(10), rig.x(11)) == (7, 8)
    late = FilterRange(0x8600_0000, 1, FilterAction.DENY)
    assert errno_of(lambda: rig.vm.set_device_attr(VM_SMCCC_CTRL, SMCCC_FILTER, late)) == "EBUSY"


# -- ioeventfds --


def test_ioeventfds_that_are_refused(vm: Vm) -> None:
    def one() -> None: ...
    def other() -> None: ...

    vm.ioeventfd(DEVICE, 4, one, 5)
    for address, length, match in (
        (DEVICE, 3, None),
        (DEVICE, 16, None),
        (DEVICE, 0, 1),
        ((1 << 64) - 1, 4, None),
    ):
        assert (
            errno_of(lambda a=address, n=length, m=match: vm.ioeventfd(a, n, other, m)) == "EINVAL"
        )
    for length, match in ((4, 5), (4, None), (0, None)):
        assert errno_of(lambda n=length, m=match: vm.ioeventfd(DEVICE, n, other, m)) == "EEXIST"
    assert errno_of(lambda: vm.ioeventfd(DEVICE, 4, other, 5, deassign=True)) == "ENOENT"
    assert errno_of(lambda: vm.ioeventfd(DEVICE, 4, one, 6, deassign=True)) == "ENOENT"
    vm.ioeventfd(DEVICE, 4, other, 6)
    vm.ioeventfd(DEVICE, 8, other)
    vm.ioeventfd(DEVICE, 4, one, 5, deassign=True)
    vm.ioeventfd(DEVICE, 4, other, 5)


@both_engines
def test_an_ioeventfd_is_no_exit(kind: str) -> None:
    def write(a: Asm) -> None:
        a.mov(1, DEVICE)
        a.mov(2, 5)
        a.str_w(2, 1)  # matches
        a.str_(2, 1)  # another size
        a.mov(2, 6)
        a.str_w(2, 1)  # other data
        a.ldr_w(3, 1)  # no store

    rig = Rig(program(write), kind=kind)
    hits: list[int] = []
    rig.vm.ioeventfd(DEVICE, 4, lambda: hits.append(1), 5)
    rig.finish()
    assert hits == [1]
    assert rig.mmio == [(DEVICE, 8, True, 5), (DEVICE, 4, True, 6), (DEVICE, 4, False, 0)]


# -- capabilities --


def test_capabilities(vm: Vm) -> None:
    for cap in (Cap.NR_MEMSLOTS, Cap.ARM_NISV_TO_USER, Cap.ONE_REG, Cap.IMMEDIATE_EXIT):
        assert vm.check_extension(cap) == Kvm().check_extension(cap) > 0
    assert (
        vm.check_extension(9999)
        == vm.check_extension(Cap.ARM_SVE)
        == vm.check_extension(Cap.ARM_EL1_32BIT)
        == 0
    )
    for cap, flags in ((Cap.ONE_REG, 0), (9999, 0), (Cap.ARM_NISV_TO_USER, 1)):
        assert errno_of(lambda c=cap, f=flags: vm.enable_cap(c, 0, f)) == "EINVAL"
    assert Cap.ARM_NISV_TO_USER not in vm.caps and DATA > RAM


def test_capabilities_that_depend_on_the_host_and_the_vm(vm: Vm) -> None:
    assert Kvm(pcpus=3).check_extension(Cap.NR_VCPUS) == 3, "what is recommended: the host's CPUs"
    assert vm.check_extension(Cap.MAX_VCPUS) == 512
    vm.create_device("arm-vgic-v2")
    assert vm.check_extension(Cap.MAX_VCPUS) == 8 and Kvm().check_extension(Cap.MAX_VCPUS) == 512
    for cap in (Cap.COUNTER_OFFSET, Cap.STEAL_TIME, Cap.PTP_KVM, Cap.ARM_USER_IRQ):
        assert vm.check_extension(cap) == 1


@pytest.mark.parametrize("pstate", [0x3C9, 0x3C8, 0x3CD, 0x3C1, 0x10, 0x13, 0x1F])
def test_a_guest_cannot_be_put_into_another_mode(vm: Vm, pstate: int) -> None:
    """EL2, EL3, what is reserved, AArch32."""
    vcpu = vm.create_vcpu(0)
    vcpu.init()
    before = vcpu.state()
    assert errno_of(lambda: vcpu.set_one_reg(CORE | 0x42, pstate)) == "EINVAL"
    assert vcpu.state() == before


def test_events_need_an_initialised_vcpu(vm: Vm) -> None:
    vcpu = vm.create_vcpu(0)
    assert (
        errno_of(vcpu.get_vcpu_events)
        == errno_of(lambda: vcpu.set_vcpu_events(VcpuEvents(True)))
        == "ENOEXEC"
    )


@pytest.mark.parametrize("vcpu_id", [-1, 512, 1 << 20])
def test_vcpus_that_there_cannot_be(vm: Vm, vcpu_id: int) -> None:
    assert errno_of(lambda: vm.create_vcpu(vcpu_id)) == "EINVAL" and not list(vm.vcpus)


def test_the_order_of_errors_of_create_vcpu(vm: Vm) -> None:
    """A GIC that is initialised refuses every id, one that is taken too."""
    vm.create_vcpu(0)
    assert errno_of(lambda: vm.create_vcpu(0)) == "EEXIST"
    vm.create_device("arm-vgic-v2").set_attr(VgicGroup.CTRL, VgicCtrl.INIT)
    assert errno_of(lambda: vm.create_vcpu(0)) == errno_of(lambda: vm.create_vcpu(1)) == "EBUSY"
    assert errno_of(lambda: vm.create_vcpu(-1)) == "EINVAL"
