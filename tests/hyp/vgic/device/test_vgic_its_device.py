"""The ITS as a KVM device: attributes, errors, several ITSs in a VM, its tables in the memory of
the VM."""

from __future__ import annotations

import pytest
from hyp_tools import DATA, DEVICE, GICD, GICR, RAM, Asm, program
from hyp_tools import Rig as VmRig

from armvirt.arch import its as arch
from armvirt.arch.gic import ICC_REGISTERS as ICC
from armvirt.errors import KvmError
from armvirt.hyp.kvm import (
    MEM_READONLY,
    HostMemory,
    Kvm,
    MmioExit,
    Vcpu,
    VgicAddress,
    VgicCtrl,
    VgicGroup,
    Vm,
)

ITS = 0x0808_0000
LPI = 8192
MAX = 1 << 40
VALID = 1 << 63


@pytest.fixture
def vm() -> Vm:
    vm = Kvm(engine="portable").create_vm()
    vm.set_user_memory_region(0, RAM, HostMemory(1 << 20))
    vm.create_vcpu(0)
    gic = vm.create_device("arm-vgic-v3")
    gic.set_attr(VgicGroup.ADDR, VgicAddress.V3_DIST, GICD)
    gic.set_attr(VgicGroup.ADDR, VgicAddress.V3_REDIST, GICR)
    return vm


def test_address(vm: Vm) -> None:
    its = vm.create_device("arm-its")
    assert its.get_attr(VgicGroup.ADDR, VgicAddress.ITS) == (1 << 64) - 1
    for base, errno in ((ITS + 0x1000, "EINVAL"), (MAX, "E2BIG"), (MAX - 0x1_0000, "E2BIG")):
        with pytest.raises(KvmError, match=errno):
            its.set_attr(VgicGroup.ADDR, VgicAddress.ITS, base)
    its.set_attr(VgicGroup.ADDR, VgicAddress.ITS, ITS)
    assert its.get_attr(VgicGroup.ADDR, VgicAddress.ITS) == ITS
    for base in (ITS, ITS + 0x1000, MAX):
        with pytest.raises(KvmError, match="EEXIST"):
            its.set_attr(VgicGroup.ADDR, VgicAddress.ITS, base)
    with pytest.raises(KvmError, match="ENODEV"):
        its.set_attr(VgicGroup.ADDR, VgicAddress.V3_DIST, ITS)
    with pytest.raises(KvmError, match="ENODEV"):
        its.get_attr(VgicGroup.ADDR, VgicAddress.V3_DIST)
    with pytest.raises(KvmError, match="EFAULT"):
        its.set_attr(VgicGroup.ADDR, VgicAddress.ITS, None)


def test_attributes_that_there_are(vm: Vm) -> None:
    its = vm.create_device("arm-its")
    controls = (
        VgicCtrl.INIT,
        VgicCtrl.ITS_SAVE_TABLES,
        VgicCtrl.ITS_RESTORE_TABLES,
        VgicCtrl.ITS_CTRL_RESET,
    )
    for attr in controls:
        its.has_attr(VgicGroup.CTRL, attr)
        its.set_attr(VgicGroup.CTRL, attr, None)
    its.has_attr(VgicGroup.ADDR, VgicAddress.ITS)
    for group, attr in (
        (VgicGroup.CTRL, VgicCtrl.SAVE_PENDING_TABLES),
        (VgicGroup.ADDR, VgicAddress.V3_DIST),
        (VgicGroup.NR_IRQS, 0),
        (VgicGroup.ITS_REGS, 0x40),
        (99, 0),
    ):
        with pytest.raises(KvmError, match="ENXIO"):
            its.has_attr(group, attr)
    for call in (its.get_attr, its.set_attr):
        with pytest.raises(KvmError, match="ENXIO"):
            call(VgicGroup.NR_IRQS, 0, 64)
    with pytest.raises(KvmError, match="ENXIO"):
        its.set_attr(VgicGroup.CTRL, VgicCtrl.SAVE_PENDING_TABLES)
    with pytest.raises(KvmError, match="ENXIO"):
        its.get_attr(VgicGroup.CTRL, VgicCtrl.INIT)
    with pytest.raises(KvmError, match="EFAULT"):
        its.get_attr(VgicGroup.ADDR, VgicAddress.ITS, None)


@pytest.mark.parametrize(
    ("offset", "errno"),
    [
        (1, "EINVAL"),
        (2, "EINVAL"),
        (0xC, "EINVAL"),
        (0x84, "EINVAL"),
        (0x40, "ENXIO"),
        (0x2000, "ENXIO"),
    ],
)
def test_register_offsets(vm: Vm, offset: int, errno: str) -> None:
    its = vm.create_device("arm-its")
    its.set_attr(VgicGroup.ADDR, VgicAddress.ITS, ITS)
    for call in (
        lambda: its.has_attr(VgicGroup.ITS_REGS, offset),
        lambda: its.get_attr(VgicGroup.ITS_REGS, offset),
        lambda: its.set_attr(VgicGroup.ITS_REGS, offset, 0),
    ):
        with pytest.raises(KvmError, match=errno):
            call()


def test_registers_of_an_its_without_an_address(vm: Vm) -> None:
    its = vm.create_device("arm-its")
    for offset, errno in ((0x80, "ENXIO"), (0x40, "ENXIO"), (0x84, "EINVAL")):
        with pytest.raises(KvmError, match=errno):
            its.get_attr(VgicGroup.ITS_REGS, offset)


def test_registers(vm: Vm) -> None:
    its = vm.create_device("arm-its")
    its.set_attr(VgicGroup.ADDR, VgicAddress.ITS, ITS)

    def put(offset: int, value: int) -> None:
        its.set_attr(VgicGroup.ITS_REGS, offset, value)

    def get(offset: int) -> int:
        return its.get_attr(VgicGroup.ITS_REGS, offset)

    assert get(4) == 0x4B00043B
    put(4, 0x4B00043B)
    with pytest.raises(KvmError, match="EINVAL"):
        put(4, 0x4B00143B)
    put(8, 0)  # read-only: ignored
    assert get(8) == 0x1EF71
    put(0x80, RAM | VALID)
    put(0x90, 0x60)  # CREADR can be restored
    put(0x88, 0x60)
    assert (get(0x90), get(0x88)) == (0x60, 0x60)
    with pytest.raises(KvmError, match="EINVAL"):
        put(0x90, 0x1000)
    put(0x100, RAM + 0x1_0000 | VALID)
    put(0x108, RAM + 0x2_0000 | VALID)
    put(0, 1)
    assert get(0) == 1 << 31 | 1
    with pytest.raises(KvmError, match="EBUSY"):
        put(0x90, 0)
    with pytest.raises(KvmError, match="EFAULT"):
        its.set_attr(VgicGroup.ITS_REGS, 0, None)
    its.set_attr(VgicGroup.CTRL, VgicCtrl.ITS_CTRL_RESET)
    assert (get(0), get(0x88), get(0x90), get(0x100) >> 63) == (1 << 31, 0, 0, 0)
    assert get(0x80) & (VALID | (1 << 52) - 1) == 0


@pytest.mark.parametrize("controller", [None, "arm-vgic-v2"])
def test_it_needs_a_gicv3(controller: str | None) -> None:
    vm = Kvm(engine="portable").create_vm()
    if controller is not None:
        vm.create_device(controller)
    its = vm.create_device("arm-its")
    for call in (
        lambda: its.set_attr(VgicGroup.CTRL, VgicCtrl.INIT),
        lambda: its.set_attr(VgicGroup.ADDR, VgicAddress.ITS, ITS),
        lambda: its.get_attr(VgicGroup.ADDR, VgicAddress.ITS),
    ):
        with pytest.raises(KvmError, match="ENODEV"):
            call()
    with pytest.raises(KvmError, match="ENODEV" if controller else "EINVAL"):
        vm.signal_msi(ITS + 0x1_0040, 0, 0)


def test_it_may_be_created_before_the_gic() -> None:
    vm = Kvm(engine="portable").create_vm()
    its = vm.create_device("arm-its")
    vm.create_device("arm-vgic-v3")
    its.set_attr(VgicGroup.ADDR, VgicAddress.ITS, ITS)
    assert [one.base for one in vm.vgic_of().its] == [ITS]


def test_a_device_of_no_kind_is_refused(vm: Vm) -> None:
    with pytest.raises(KvmError, match="ENODEV: no device 'arm-gicv5'.*arm-its"):
        vm.create_device("arm-gicv5")


def test_frames_that_overlap_are_refused(vm: Vm) -> None:
    """By the first run, or later when the frame gets its address."""
    first, second, third = (vm.create_device("arm-its") for _ in range(3))
    vm.vgic_of().init()
    first.set_attr(VgicGroup.ADDR, VgicAddress.ITS, GICD - 0x1_0000)
    with pytest.raises(KvmError, match="EINVAL.*overlap"):
        vm.first_run()
    vm.vgic_of().its[0].base = ITS - 0x4_0000
    vm.first_run()
    for base in (ITS - 0x5_0000, ITS - 0x4_0000, ITS - 0x3_0000):
        with pytest.raises(KvmError, match="EINVAL"):
            second.set_attr(VgicGroup.ADDR, VgicAddress.ITS, base)
    third.set_attr(VgicGroup.ADDR, VgicAddress.ITS, ITS - 0x2_0000)


# A VM -------------------------------------------------------------------------------------------

QUEUE, DEVICES, COLLECTIONS, PROPERTIES, PENDING, ITT = (DATA + n * 0x1_0000 for n in range(6))
OTHER_ITS = ITS + 0x100_0000


def equip(rig: VmRig, base: int = ITS) -> None:
    """An ITS in the rig's VM, with a mapped event 2 of device 1 for LPI 8192 on vCPU 0; its queue
    is done."""
    its = rig.vm.create_device("arm-its")
    its.set_attr(VgicGroup.ADDR, VgicAddress.ITS, base)
    cpu = rig.vm.vgic_of().dist.cpu(0)
    if not cpu.lpis_enabled:
        rig.vm.write_memory(PROPERTIES, b"\xa1")
        for offset, value in ((0x70, PROPERTIES | 15), (0x78, PENDING), (0, 1)):
            rig.gic.set_attr(VgicGroup.REDIST_REGS, offset, value)
    commands = (
        arch.encode_command("MAPD", device=1, size=3, itt=ITT, valid=1),
        arch.encode_command("MAPC", icid=0, rdbase=0, valid=1),
        arch.encode_command("MAPTI", device=1, event=2, intid=LPI, icid=0),
    )
    rig.vm.write_memory(QUEUE, b"".join(commands))
    for offset, value in ((0x80, QUEUE), (0x100, DEVICES), (0x108, COLLECTIONS)):
        its.set_attr(VgicGroup.ITS_REGS, offset, value | VALID)
    its.set_attr(VgicGroup.ITS_REGS, 0, 1)
    its.set_attr(VgicGroup.ITS_REGS, 0x88, 96)
    assert its.get_attr(VgicGroup.ITS_REGS, 0x90) == 96


def take_one(a: Asm) -> None:
    """A guest that enables interrupts and the distributor, waits, and leaves the INTID in X5."""
    a.mov(0, GICD)
    a.mov(1, 3)
    a.str_w(1, 0)
    a.mov(1, 0xF8)
    a.msr(ICC["ICC_PMR_EL1"], 1)
    a.mov(1, 1)
    a.msr(ICC["ICC_IGRPEN1_EL1"], 1)
    a.wfi()
    a.mrs(5, ICC["ICC_IAR1_EL1"])
    a.msr(ICC["ICC_EOIR1_EL1"], 5)


def test_signal_msi() -> None:
    rig = VmRig(program(take_one), gic=True)
    equip(rig)
    for args, errno in (
        ((ITS + 0x1_0040, 2), "EINVAL"),
        ((ITS, 2, 1), "EINVAL"),
        ((0, 2, 1), "EINVAL"),
    ):
        with pytest.raises(KvmError, match=errno):
            rig.vm.signal_msi(*args)
    assert rig.vm.signal_msi(ITS + 0x1_0040, 3, 1) == 0
    assert rig.vm.signal_msi(ITS + 0x1_0040, 2, 1) == 1
    rig.finish()
    assert rig.x(5) == LPI


def test_several_its_in_a_vm() -> None:
    """One LPI, two doorbells."""
    rig = VmRig(program(take_one), gic=True)
    equip(rig)
    equip(rig, OTHER_ITS)
    vgic = rig.vm.vgic_of()
    assert vgic.dist.lpis[LPI].references == 2
    assert rig.vm.signal_msi(OTHER_ITS + 0x1_0040, 2, 1) == 1
    rig.finish()
    assert rig.x(5) == LPI
    vgic.its[0].reset()
    assert vgic.dist.lpis[LPI].references == 1
    assert rig.vm.signal_msi(OTHER_ITS + 0x1_0040, 2, 1) == 1
    assert rig.vm.signal_msi(ITS + 0x1_0040, 2, 1) == 0


def test_a_frame_that_is_placed_late_is_found() -> None:
    """The guest has used the GIC before; KVM registers an ITS at any time."""

    def write(a: Asm) -> None:
        a.mov(0, GICD)
        a.ldr_w(1, 0)
        a.mov(0, DEVICE)
        a.ldr_w(1, 0)
        a.mov(0, ITS)
        a.ldr_w(2, 0, 4)

    rig = VmRig(program(write), gic=True)
    its = rig.vm.create_device("arm-its")

    def place(vcpu: Vcpu, exit: MmioExit) -> None:
        its.set_attr(VgicGroup.ADDR, VgicAddress.ITS, ITS)

    rig.on_mmio = place
    rig.finish()
    assert rig.x(2) == 0x4B00043B


def test_tables_in_read_only_memory_are_not_written() -> None:
    rig = VmRig(gic=True)
    rom = HostMemory(0x1_0000)
    rig.vm.set_user_memory_region(1, 0, rom, MEM_READONLY)
    memory = rig.vm.vgic_of().dist.memory
    assert memory.read(0x100, 4) == bytes(4)
    with pytest.raises(KvmError, match="EFAULT"):
        memory.write(0x100, b"1234")
    with pytest.raises(KvmError, match="EFAULT"):
        memory.read(0x9000_0000, 1)
    assert rig.vm.read_memory(0x100, 4) == bytes(4)


def test_machine_state_has_its_and_lpis() -> None:
    first, second = (VmRig(program(take_one), gic=True) for _ in range(2))
    for rig in (first, second):
        equip(rig)
    assert first.vm.signal_msi(ITS + 0x1_0040, 2, 1) == 1
    first.run(10)
    second.run(3)
    second.vm.load(first.vm.state())
    second.finish()
    assert second.x(5) == LPI


def test_a_vm_reset_forgets_lpis() -> None:
    rig = VmRig(gic=True)
    equip(rig)
    assert rig.vm.signal_msi(ITS + 0x1_0040, 2, 1) == 1
    rig.vm.reset()
    assert rig.vm.vgic_of().dist.lpis == {}
    assert rig.vm.signal_msi(ITS + 0x1_0040, 2, 1) == 0
