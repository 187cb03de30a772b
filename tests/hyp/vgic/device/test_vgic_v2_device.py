"""Attributes of a GICv2 device, with the errors of the ioctls."""

from __future__ import annotations

from functools import partial

import pytest
from hyp_tools import errno_of
from vgic_rig import SPURIOUS, make_device
from vgic_v2_rig import GICC, GICD, V2Rig

from armvirt.hyp.vgic.device import AddrType, Ctrl, Group

device = partial(make_device, model=2)
UNDEFINED = (1 << 64) - 1
CTLR, PMR, BPR, IAR, ABPR, APR0, IIDR = 0x00, 0x04, 0x08, 0x0C, 0x1C, 0xD0, 0xFC


def attribute(vcpu: int, offset: int) -> int:
    return vcpu << 32 | offset


# Groups and addresses ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "group", [-1, Group.REDIST_REGS, Group.CPU_SYSREGS, Group.LEVEL_INFO, Group.ITS_REGS]
)
def test_groups_that_a_gicv2_does_not_have(group: int) -> None:
    dev = device()
    assert errno_of(lambda: dev.has_attr(group, 0)) == "ENXIO"
    assert (
        errno_of(lambda: dev.get_attr(group, 0))
        == errno_of(lambda: dev.set_attr(group, 0, 0))
        == "ENXIO"
    )


@pytest.mark.parametrize(
    ("group", "attr"),
    [
        (Group.ADDR, AddrType.V3_DIST),
        (Group.NR_IRQS, 1),
        (Group.CTRL, Ctrl.SAVE_PENDING_TABLES),
        (Group.DIST_REGS, 0x00C),
        (Group.DIST_REGS, 0x102),
        (Group.DIST_REGS, 0x1000),
        (Group.CPU_REGS, IAR),
        (Group.CPU_REGS, 0x1000),
    ],
)
def test_attributes_that_do_not_exist(group: int, attr: int) -> None:
    assert errno_of(lambda: device().has_attr(group, attr)) == "ENXIO"


@pytest.mark.parametrize(
    ("group", "attr"),
    [
        (Group.ADDR, AddrType.V2_DIST),
        (Group.ADDR, AddrType.V2_CPU),
        (Group.NR_IRQS, 0),
        (Group.CTRL, Ctrl.INIT),
        (Group.DIST_REGS, 0x800),
        (Group.CPU_REGS, CTLR),
        (Group.CPU_REGS, IIDR),
    ],
)
def test_attributes_that_exist(group: int, attr: int) -> None:
    device().has_attr(group, attr)


@pytest.mark.parametrize("kind", [AddrType.V2_DIST, AddrType.V2_CPU])
def test_addresses_are_checked(kind: int) -> None:
    dev = device()
    assert dev.get_attr(Group.ADDR, kind) == UNDEFINED
    assert errno_of(lambda: dev.set_attr(Group.ADDR, kind, 0x800)) == "EINVAL"
    assert errno_of(lambda: dev.set_attr(Group.ADDR, kind, 1 << 40)) == "E2BIG"
    dev.set_attr(Group.ADDR, kind, 0x1000)
    assert dev.get_attr(Group.ADDR, kind) == 0x1000
    assert errno_of(lambda: dev.set_attr(Group.ADDR, kind, 0x5000)) == "EEXIST"


def test_the_cpu_interface_must_end_inside_the_ipa_space() -> None:
    assert (
        errno_of(lambda: device().set_attr(Group.ADDR, AddrType.V2_CPU, (1 << 40) - 0x1000))
        == "E2BIG"
    )


@pytest.mark.parametrize("kind", [AddrType.V3_DIST, AddrType.V3_REDIST, AddrType.V3_REDIST_REGION])
def test_gicv3_frames_are_another_devices(kind: int) -> None:
    """kvm_vgic_addr finds ENODEV, of which vgic_set_common_attr and vgic_get_common_attr make
    ENXIO."""
    assert errno_of(lambda: device().set_attr(Group.ADDR, kind, 0x1_0000)) == "ENXIO"
    assert errno_of(lambda: device().get_attr(Group.ADDR, kind)) == "ENXIO"


def test_what_the_first_run_needs() -> None:
    dev = device()
    assert errno_of(dev.vgic.map_resources) == "ENXIO"
    dev.set_attr(Group.ADDR, AddrType.V2_DIST, GICD)
    assert errno_of(dev.vgic.map_resources) == "ENXIO"
    dev.set_attr(Group.ADDR, AddrType.V2_CPU, GICC)
    dev.vgic.map_resources()
    assert dev.vgic.dist.initialized, "without being told to"
    dev.set_attr(Group.CTRL, Ctrl.INIT, None)


def test_overlaps_are_found_at_the_first_run() -> None:
    dev = device()
    dev.set_attr(Group.ADDR, AddrType.V2_DIST, 0x2000)
    dev.set_attr(Group.ADDR, AddrType.V2_CPU, 0x1000)
    assert errno_of(dev.vgic.map_resources) == "EINVAL"


# Registers --------------------------------------------------------------------------------------


@pytest.mark.parametrize("group", [Group.DIST_REGS, Group.CPU_REGS])
def test_registers_need_their_vcpu(group: int) -> None:
    assert errno_of(lambda: device(0).get_attr(group, 0)) == "EINVAL"
    assert errno_of(lambda: device(2).set_attr(group, attribute(2, 0), 0)) == "EINVAL"


def test_an_access_initialises_the_vgic() -> None:
    dev = device()
    assert (
        dev.get_attr(Group.DIST_REGS, attribute(0, 4)) == 3 << 5 | 7 and dev.vgic.dist.initialized
    )
    assert errno_of(lambda: dev.set_attr(Group.NR_IRQS, 0, 64)) == "EBUSY"
    for group, offset in (
        (Group.DIST_REGS, 0xC),
        (Group.CPU_REGS, IAR),
    ):  # no register: kvm vgic_uaccess
        dev.set_attr(group, offset, 5)
        assert dev.get_attr(group, offset) == 0
    assert errno_of(lambda: dev.get_attr(Group.CTRL, Ctrl.INIT)) == "ENXIO"


@pytest.mark.parametrize("loaded", [True, False])
def test_cpu_interface_registers(loaded: bool) -> None:
    rig = V2Rig(2)
    if not loaded:
        rig.put(1)

    def cpu_reg(offset: int, value: int | None = None) -> int:
        if value is not None:
            rig.device.set_attr(Group.CPU_REGS, attribute(1, offset), value)
        return rig.device.get_attr(Group.CPU_REGS, attribute(1, offset))

    assert cpu_reg(CTLR, 0xFFFF) == 0x21F
    assert cpu_reg(PMR, 0x1E) == 0x1E, "VMPriMask: the upper five bits"
    assert cpu_reg(BPR, 4) == 4 and cpu_reg(ABPR, 5) == 5
    assert cpu_reg(APR0, 0x8000_0001) == 0x8000_0001 and cpu_reg(APR0 + 4, 1) == 0
    assert cpu_reg(IIDR, 0) == 0x04B2_043B
    if not loaded:
        rig.load(1, 1)
    assert [rig.gicc(1, name) for name in ("CTLR", "PMR", "BPR", "ABPR", "APR0")] == [
        0x21F,
        0xF0,
        4,
        5,
        0x8000_0001,
    ]
    assert rig.gicc(0, "PMR") == 0xF8


def test_groups_are_user_writable_once_the_revision_was_restored() -> None:
    rig = V2Rig()
    groups = attribute(0, 0x84)
    rig.device.set_attr(Group.DIST_REGS, groups, 0xFFFF_FFFF)
    assert rig.device.get_attr(Group.DIST_REGS, groups) == 0
    assert errno_of(lambda: rig.device.set_attr(Group.DIST_REGS, 8, 0x4B00_143B)) == "EINVAL"
    assert errno_of(lambda: rig.device.set_attr(Group.DIST_REGS, 8, 0x0100_243B)) == "EINVAL"
    rig.device.set_attr(Group.DIST_REGS, 8, 0x4B00_243B)
    other = rig.clone()
    for machine in (rig, other):
        machine.device.set_attr(Group.DIST_REGS, groups, 0xF0)
        assert machine.device.get_attr(Group.DIST_REGS, groups) == 0xF0
        assert machine.device.get_attr(Group.DIST_REGS, 8) == 0x4B00_243B


def test_pending_state_is_restored_by_setting_and_clearing() -> None:
    rig = V2Rig(2)
    pend, unpend = attribute(1, 0x200), attribute(1, 0x280)
    rig.device.set_attr(Group.DIST_REGS, pend, 1 << 5)
    assert (
        rig.device.get_attr(Group.DIST_REGS, pend)
        == rig.device.get_attr(Group.DIST_REGS, unpend)
        == 1 << 5
    )
    rig.device.set_attr(Group.DIST_REGS, pend, 0)
    rig.settle()
    assert rig.ack(1) == 1 << 10 | 5, "its sender is made up: the vCPU itself"
    rig.eoi(1 << 10 | 5, 1)
    rig.sgi(0, 6, 0b10)
    rig.sgi(1, 6, 0b10)
    rig.device.set_attr(Group.DIST_REGS, unpend, 1 << 6)
    rig.settle()
    assert rig.ack(1) == SPURIOUS


def test_active_sgis_are_restored_as_those_of_cpu_0() -> None:
    rig = V2Rig(2)
    rig.device.set_attr(Group.DIST_REGS, attribute(1, 0x300), 1 << 5)
    rig.device.set_attr(Group.CPU_REGS, attribute(1, APR0), 1)
    rig.settle()
    rig.eoi(5, 1)
    assert not rig.active(5, 1)


def test_a_vgic_is_restored_register_by_register() -> None:
    """What QEMU saves of a GICv2: everything but who sent what is pending."""
    rig, other = V2Rig(2), V2Rig(2, enable=False)
    rig.enable(40)
    rig.set_priority(40, 0x80)
    rig.set_targets(40, 2)
    rig.configure(40, level=False)
    rig.pulse(40)
    rig.sgi(0, 5, 0b10)
    for offset in (0x000, *range(0x100, 0x10C, 4), *range(0x200, 0x20C, 4), *range(0x300, 0x30C, 4),
                   *range(0x400, 0x460, 4), *range(0x800, 0x860, 4), *range(0xC00, 0xC18, 4)):  # fmt: skip
        for vcpu in range(2):
            value = rig.device.get_attr(Group.DIST_REGS, attribute(vcpu, offset))
            other.device.set_attr(Group.DIST_REGS, attribute(vcpu, offset), value)
    for offset in (CTLR, PMR, BPR, ABPR, APR0):
        for vcpu in range(2):
            value = rig.device.get_attr(Group.CPU_REGS, attribute(vcpu, offset))
            other.device.set_attr(Group.CPU_REGS, attribute(vcpu, offset), value)
    other.settle()
    assert [other.serve(1) for _ in range(3)] == [1 << 10 | 5, 40, SPURIOUS]
