"""The KVM API: which errno each call raises, devices, ONE_REG, several VMs."""

from __future__ import annotations

import pytest
from hyp_tools import (
    DATA,
    DEVICE,
    GICD,
    GICR,
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
from armvirt.board.config import BoardConfig
from armvirt.errors import KvmError
from armvirt.hyp import kvm as api
from armvirt.hyp.kvm import (
    HostConfig,
    HostMemory,
    Kvm,
    MmioExit,
    SemihostingExit,
    Start,
    Stop,
    StuckExit,
    SystemEventExit,
    VgicAddress,
    VgicCtrl,
    VgicGroup,
    Vm,
)

CORE, SYSTEM = 0x6030_0000_0010_0000, 0x6030_0000_0013_0000
X0, PC, PSTATE = CORE, CORE | 0x40, CORE | 0x42


@pytest.fixture
def vm() -> Vm:
    made = Kvm().create_vm()
    made.set_user_memory_region(0, RAM, HostMemory(RAM_SIZE))
    return made


def test_everything_public_is_there() -> None:
    assert all(hasattr(api, name) for name in api.__all__)


# -- vCPUs --


def test_a_vcpu_id_is_taken_once(vm: Vm) -> None:
    vm.create_vcpu(0)
    assert errno_of(vm.create_vcpu, 0) == "EEXIST"
    assert [vcpu.id for vcpu in vm.vcpus] == [0]


def test_a_vcpu_is_off_until_it_is_initialised(vm: Vm) -> None:
    vcpu = vm.create_vcpu(0)
    assert not vcpu.runnable and vm.host.run() is Stop.IDLE
    vcpu.init(power_off=True)
    assert not vcpu.runnable and vm.host.run() is Stop.IDLE and vm.host.insns == 0
    vcpu.init()
    assert vcpu.runnable and vcpu.context.pc == 0


def test_mpidr(vm: Vm) -> None:
    """As KVM numbers them: 16 to a cluster."""
    assert [vm.create_vcpu(n).mpidr for n in (0, 15, 16)] == [
        1 << 31,
        1 << 31 | 15,
        1 << 31 | 0x100,
    ]


def test_an_exit_without_a_handler() -> None:
    rig = Rig(program(lambda a: (a.mov(1, DEVICE), a.ldr(2, 1))))
    rig.vcpu.exit_handler = None
    with pytest.raises(KvmError, match="ENOSYS: vCPU 0 has no exit handler for MmioExit"):
        rig.run()


# -- KVM_RUN --


@both_engines
def test_run_to_each_exit(kind: str) -> None:
    """The caller answers in the exit and calls again; the guest sees one access each."""

    def write(a: Asm) -> None:
        a.mov(1, DEVICE)
        a.ldr(2, 1)
        a.add_imm(2, 2, 1)
        a.str_(2, 1, 8)
        a.word(0xA9401023)  # ldp x3, x4, [x1]

    rig = Rig(program(write), kind=kind)
    vcpu = rig.vcpu
    vcpu.exit_handler = None
    seen, data = [], iter((41, 5, 6))
    while not isinstance(exit := vcpu.run(), SystemEventExit):
        assert isinstance(exit, MmioExit)
        seen.append((exit.phys_addr, exit.size, exit.is_write, exit.data))
        if not exit.is_write:
            exit.data = next(data)
    assert seen == [
        (DEVICE, 8, False, 0),
        (DEVICE + 8, 8, True, 42),
        (DEVICE, 8, False, 0),
        (DEVICE + 8, 8, False, 0),
    ]
    assert (rig.x(3), rig.x(4)) == (5, 6)
    assert exit == SystemEventExit("shutdown", 0)
    assert vcpu.context.insns == rig.host.clock.now == 9


def test_run_with_a_limit() -> None:
    rig = Rig(program(lambda a: [a.nop() for _ in range(20)]))
    assert rig.vcpu.run(until=7) is None
    assert (rig.vcpu.context.insns, rig.vcpu.context.pc) == (7, RAM + 28)
    assert isinstance(rig.vcpu.run(), SystemEventExit)


def test_run_into_a_dead_end() -> None:
    rig = Rig(program(lambda a: a.wfi()))
    assert rig.vcpu.run() == StuckExit("waits for ever", RAM + 4, None)


def test_run_and_semihosting() -> None:
    rig = Rig(program(lambda a: (a.mov(0, 4), a.mov(1, DATA), a.hlt(0xF000), a.movr(5, 0))))
    rig.vm.semihosting = True
    exit = rig.vcpu.run()
    assert isinstance(exit, SemihostingExit) and (exit.operation, exit.parameter) == (4, DATA)
    exit.result = 99
    assert isinstance(rig.vcpu.run(), SystemEventExit) and rig.x(5) == 99


# -- devices --


def test_devices(vm: Vm) -> None:
    assert errno_of(vm.create_device, "arm-vgic-v9") == "ENODEV"
    vm.create_device("arm-vgic-v3")
    assert errno_of(vm.create_device, "arm-vgic-v3") == "EEXIST"


def test_interrupts_need_a_controller(vm: Vm) -> None:
    assert errno_of(vm.irq_line, 40, True) == "ENXIO"


@pytest.mark.parametrize("intid", [-1, 15, 96, 1020, 8192])
def test_interrupts_that_there_are_not(intid: int) -> None:
    rig = Rig(gic=True)
    rig.vm.first_run()
    assert errno_of(rig.vm.irq_line, intid, True) == "EINVAL"


def make_gic(vm: Vm, *addresses: tuple[VgicAddress, int]) -> None:
    gic = vm.create_device("arm-vgic-v3")
    gic.set_attr(VgicGroup.NR_IRQS, 0, 96)
    for kind, base in addresses:
        gic.set_attr(VgicGroup.ADDR, kind, base)
    gic.set_attr(VgicGroup.CTRL, VgicCtrl.INIT)


def test_the_first_run_wants_the_frames(vm: Vm) -> None:
    """As KVM: a GIC whose frames are nowhere is noticed when a vCPU runs."""
    vcpu = vm.create_vcpu(0)
    make_gic(vm, (VgicAddress.V3_DIST, GICD))
    vcpu.init()
    assert errno_of(vm.host.run) == "ENXIO"


def test_the_first_run_wants_an_initialised_gic(vm: Vm) -> None:
    vcpu = vm.create_vcpu(0)
    gic = vm.create_device("arm-vgic-v3")
    gic.set_attr(VgicGroup.ADDR, VgicAddress.V3_DIST, GICD)
    gic.set_attr(VgicGroup.ADDR, VgicAddress.V3_REDIST, GICR)
    vcpu.init()
    assert errno_of(vm.host.run) == "EBUSY"


def test_frames_that_overlap(vm: Vm) -> None:
    vcpu = vm.create_vcpu(0)
    with pytest.raises(KvmError, match="EINVAL"):
        make_gic(vm, (VgicAddress.V3_DIST, GICD), (VgicAddress.V3_REDIST, GICD))
        vcpu.init()
        vm.host.run()


def test_a_gic_that_comes_before_the_vcpus() -> None:
    """The order is the VMM's."""
    vm = Kvm().create_vm()
    vm.set_user_memory_region(0, RAM, HostMemory(RAM_SIZE))
    gic = vm.create_device("arm-vgic-v3")
    vcpu = vm.create_vcpu(0)
    gic.set_attr(VgicGroup.ADDR, VgicAddress.V3_DIST, GICD)
    gic.set_attr(VgicGroup.ADDR, VgicAddress.V3_REDIST, GICR)
    gic.set_attr(VgicGroup.CTRL, VgicCtrl.INIT)
    code = program(lambda a: (a.mov(1, GICD + 4), a.ldr_w(2, 1)))
    vm.write_memory(RAM, code.code())
    vcpu.start(Start(RAM, 0))
    assert isinstance(vcpu.run(), SystemEventExit)
    assert vcpu.context.x(2) & 31, "GICD_TYPER: some SPIs"


# -- one-regs --


def test_every_register_of_the_list_can_be_read_and_written_back() -> None:
    rig = Rig(gic=True)
    rig.vcpu.init()
    ids = rig.vcpu.get_reg_list()
    assert len(ids) == len(set(ids)) > 100
    for register in ids:
        rig.vcpu.set_one_reg(register, rig.vcpu.get_one_reg(register))


def test_core_registers_run(vm: Vm) -> None:
    """A VMM that starts a guest by one-regs alone."""
    vcpu = vm.create_vcpu(0)
    vcpu.init()
    a = Asm(RAM + 0x1000)
    a.add_imm(3, 5, 1)
    power_off(a)
    vm.write_memory(a.base, a.code())
    vcpu.set_one_reg(PC, a.base)
    vcpu.set_one_reg(X0 | 2 * 5, 41)
    assert vcpu.get_one_reg(PSTATE) == 0x3C5
    assert isinstance(vcpu.run(), SystemEventExit)
    assert vcpu.get_one_reg(X0 | 2 * 3) == 42


def test_one_regs_that_are_refused(vm: Vm) -> None:
    vcpu = vm.create_vcpu(0)
    vcpu.init()
    midr = SYSTEM | sysreg(3, 0, 0, 0, 0)
    assert errno_of(vcpu.get_one_reg, SYSTEM | sysreg(3, 7, 15, 15, 7)) == "ENOENT"
    assert errno_of(vcpu.set_one_reg, 0, 0) == "ENOENT"
    assert errno_of(vcpu.set_one_reg, X0, 1 << 64) == "EINVAL"
    assert errno_of(vcpu.set_one_reg, midr, vcpu.get_one_reg(midr) ^ 1) == "EINVAL"


# -- several --


@both_engines
def test_two_hosts_know_nothing_of_each_other(kind: str) -> None:
    code = program(lambda a: (a.mov(1, DATA), a.str_(1, 1)))
    first, second = Rig(code, kind=kind), Rig(code, kind=kind)
    first.finish()
    assert second.host.insns == 0 and second.word(DATA) == 0
    second.finish()
    assert first.vcpu.context.insns == second.vcpu.context.insns
    assert first.vm.state() == second.vm.state()


def test_the_virtual_count_starts_where_it_is_told() -> None:
    kvm = Kvm()
    vm = kvm.create_vm(virtual_start=1000)
    vm.set_user_memory_region(0, RAM, HostMemory(RAM_SIZE))
    vcpu = vm.create_vcpu(0)
    a = program(lambda a: a.mrs(1, sysreg(3, 3, 14, 0, 2)))
    vm.write_memory(RAM, a.code())
    vcpu.start(Start(RAM, 0))
    assert isinstance(vcpu.run(), SystemEventExit)
    assert vcpu.context.x(1) == 1000


def test_the_parameters_of_a_host_have_one_default() -> None:
    """A board of a user, and a VMM on the KVM API, get the same host."""
    host, board = HostConfig()._asdict(), BoardConfig._field_defaults
    shared = host.keys() & board.keys() - {"counter_start"}  # None: that of the host
    assert {name: host[name] for name in shared} == {name: board[name] for name in shared}
    assert len(shared) >= 8 and host["frequency_hz"] == board["cntfrq"]


def test_a_host_by_fields_and_by_config() -> None:
    assert Kvm(HostConfig(pcpus=3)).host.config == Kvm(pcpus=3).host.config
    assert len(Kvm(HostConfig(cpu="cortex-a53"), pcpus=3).host.pcpus) == 3
    with pytest.raises(ValueError, match="frequency"):
        Kvm(frequency=1)
