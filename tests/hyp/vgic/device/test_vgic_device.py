"""Attributes of a GICv3 device, with the errors of the ioctls (KVM selftests vgic_init and
vgic_irq)."""

from __future__ import annotations

import pytest
from hyp_tools import errno_of
from vgic_rig import Rig, make_device

from armvirt.arch.gic import ICC_REGISTERS
from armvirt.hyp.vgic.device import AddrType, Ctrl, Group, RegionAttribute, VgicDevice

UNDEFINED = (1 << 64) - 1


def region(count: int, base: int, index: int, flags: int = 0) -> int:
    return RegionAttribute(count, base, flags, index).encode()


def set_addr(dev: VgicDevice, kind: int, value: int) -> None:
    dev.set_attr(Group.ADDR, kind, value)


# Groups -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("group", [-1, Group.CPU_REGS, Group.ITS_REGS, 9])
def test_groups_that_a_gicv3_does_not_have(group: int) -> None:
    dev = make_device()
    assert errno_of(lambda: dev.has_attr(group, 0)) == "ENXIO"
    assert (
        errno_of(lambda: dev.get_attr(group, 0))
        == errno_of(lambda: dev.set_attr(group, 0, 0))
        == "ENXIO"
    )


@pytest.mark.parametrize(
    ("group", "attr"),
    [
        (Group.ADDR, -1),
        (Group.ADDR, AddrType.V2_DIST),
        (Group.ADDR, AddrType.ITS),
        (Group.NR_IRQS, 1),
        (Group.CTRL, 9),
        (Group.CTRL, Ctrl.ITS_SAVE_TABLES),
        (Group.DIST_REGS, 0x3000),
        (Group.REDIST_REGS, 0x2_0000),
        (Group.REDIST_REGS, 0x200),
        (Group.CPU_SYSREGS, 0),
        (Group.LEVEL_INFO, 1 << 10),
    ],
)
def test_attributes_that_do_not_exist(group: int, attr: int) -> None:
    assert errno_of(lambda: make_device().has_attr(group, attr)) == "ENXIO"


@pytest.mark.parametrize(
    ("group", "attr"),
    [
        (Group.ADDR, AddrType.V3_REDIST_REGION),
        (Group.NR_IRQS, 0),
        (Group.CTRL, Ctrl.INIT),
        (Group.DIST_REGS, 0x100),
        (Group.REDIST_REGS, 0x1_0400),
        (Group.CPU_SYSREGS, ICC_REGISTERS["ICC_PMR_EL1"]),
        (Group.LEVEL_INFO, 32),
    ],
)
def test_attributes_that_exist(group: int, attr: int) -> None:
    make_device().has_attr(group, attr)


def test_no_address_for_a_value() -> None:
    dev = make_device()
    assert errno_of(lambda: dev.set_attr(Group.ADDR, AddrType.V3_DIST, None)) == "EFAULT"
    assert errno_of(lambda: dev.get_attr(Group.NR_IRQS, 0, None)) == "EFAULT"


# Addresses --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [AddrType.V3_DIST, AddrType.V3_REDIST])
def test_addresses_are_checked(kind: int) -> None:
    dev = make_device()
    assert dev.get_attr(Group.ADDR, kind) == UNDEFINED
    assert errno_of(lambda: set_addr(dev, kind, 0x1000)) == "EINVAL"
    assert errno_of(lambda: set_addr(dev, kind, 1 << 40)) == "E2BIG"
    set_addr(dev, kind, 0x1_0000)
    assert dev.get_attr(Group.ADDR, kind) == 0x1_0000
    assert errno_of(lambda: set_addr(dev, kind, 0x100_0000)) == "EEXIST"


def test_redistributors_must_end_inside_the_ipa_space() -> None:
    assert (
        errno_of(lambda: set_addr(make_device(), AddrType.V3_REDIST, (1 << 40) - 0x2_0000))
        == "E2BIG"
    )
    straddling = region(2, (1 << 40) - 0x2_0000, 0)
    assert (
        errno_of(lambda: set_addr(make_device(), AddrType.V3_REDIST_REGION, straddling)) == "E2BIG"
    )


@pytest.mark.parametrize("kind", [AddrType.V2_DIST, AddrType.V2_CPU])
def test_gicv2_frames_are_another_devices(kind: int) -> None:
    """kvm_vgic_addr finds ENODEV, of which vgic_set_common_attr and vgic_get_common_attr make
    ENXIO."""
    assert errno_of(lambda: set_addr(make_device(), kind, 0x1_0000)) == "ENXIO"
    assert errno_of(lambda: make_device().get_attr(Group.ADDR, kind)) == "ENXIO"


def test_single_base_and_regions_do_not_mix() -> None:
    dev = make_device()
    set_addr(dev, AddrType.V3_REDIST, 0x10_0000)
    assert (
        errno_of(lambda: set_addr(dev, AddrType.V3_REDIST_REGION, region(2, 0x100_0000, 0)))
        == "EINVAL"
    )
    dev = make_device()
    set_addr(dev, AddrType.V3_REDIST_REGION, region(2, 0x10_0000, 0))
    assert errno_of(lambda: set_addr(dev, AddrType.V3_REDIST, 0x100_0000)) == "EINVAL"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (region(2, 0x100_0000, 1, flags=1), "EINVAL"),
        (region(0, 0x100_0000, 1), "EINVAL"),
        (region(2, 0x100_0000, 0), "EINVAL"),
        (region(2, 0x100_0000, 2), "EINVAL"),
        (region(2, 0x11_0000, 1), "EINVAL"),
        (region(1, 0xFF_FFFF_0000, 1), "E2BIG"),
    ],
)
def test_regions_are_checked(value: int, expected: str) -> None:
    dev = make_device()
    set_addr(dev, AddrType.V3_REDIST_REGION, region(2, 0x10_0000, 0))
    assert errno_of(lambda: set_addr(dev, AddrType.V3_REDIST_REGION, value)) == expected
    assert len(dev.vgic.dist.placement.regions) == 1


def test_regions_start_at_index_0_and_can_be_read_back() -> None:
    dev = make_device()
    assert (
        errno_of(lambda: set_addr(dev, AddrType.V3_REDIST_REGION, region(2, 0x10_0000, 1)))
        == "EINVAL"
    )
    set_addr(dev, AddrType.V3_REDIST_REGION, region(2, 0x10_0000, 0))
    assert dev.get_attr(Group.ADDR, AddrType.V3_REDIST_REGION, 0) == region(2, 0x10_0000, 0)
    assert errno_of(lambda: dev.get_attr(Group.ADDR, AddrType.V3_REDIST_REGION, 1)) == "ENOENT"


def typer(dev: VgicDevice, vcpu: int) -> int:
    return dev.get_attr(Group.REDIST_REGS, vcpu << 32 | 0x8)


def test_last_redistributors() -> None:
    """Two regions back to back, then a gap: Last is where the addresses stop being contiguous."""
    dev = make_device(vcpus=6)
    set_addr(dev, AddrType.V3_REDIST_REGION, region(2, 0x10_0000, 0))
    set_addr(dev, AddrType.V3_REDIST_REGION, region(2, 0x14_0000, 1))
    set_addr(dev, AddrType.V3_REDIST_REGION, region(4, 0x30_0000, 2))
    dev.set_attr(Group.CTRL, Ctrl.INIT)
    assert [typer(dev, n) for n in range(6)] == [0x000, 0x100, 0x200, 0x310, 0x400, 0x510]
    assert dev.get_attr(Group.REDIST_REGS, 3 << 32 | 0xC) == 3


# Life cycle -------------------------------------------------------------------------------------


def test_what_the_first_run_needs() -> None:
    dev = make_device()
    vgic = dev.vgic
    assert errno_of(vgic.map_resources) == "ENXIO"
    set_addr(dev, AddrType.V3_DIST, 0)
    set_addr(dev, AddrType.V3_REDIST_REGION, region(2, 0x10_0000, 0))
    assert errno_of(vgic.map_resources) == "ENXIO", "two vCPUs have no redistributor"
    set_addr(dev, AddrType.V3_REDIST_REGION, region(2, 0x20_0000, 1))
    assert errno_of(vgic.map_resources) == "EBUSY"
    dev.set_attr(Group.CTRL, Ctrl.INIT, None)
    vgic.map_resources()
    assert vgic.dist.ready and [frame.base for frame in vgic.mmio_frames()] == [
        0,
        0x10_0000,
        0x20_0000,
    ]


def test_overlaps_are_found_at_the_first_run() -> None:
    dev = make_device()
    set_addr(dev, AddrType.V3_REDIST, 0x10_0000)
    set_addr(dev, AddrType.V3_DIST, 0x10_0000)
    dev.set_attr(Group.CTRL, Ctrl.INIT)
    assert errno_of(dev.vgic.map_resources) == "EINVAL"
    dev = make_device()
    set_addr(dev, AddrType.V3_DIST, 0x10_0000)
    assert errno_of(lambda: set_addr(dev, AddrType.V3_REDIST, 0x10_0000)) == "EINVAL"


@pytest.mark.parametrize("value", [0, 32, 63, 65, 1025, 1056, -1])
def test_impossible_numbers_of_interrupts(value: int) -> None:
    assert errno_of(lambda: make_device().set_attr(Group.NR_IRQS, 0, value)) == "EINVAL"


def test_the_number_of_interrupts_is_set_once() -> None:
    dev = make_device()
    dev.set_attr(Group.NR_IRQS, 0, 288)
    assert dev.get_attr(Group.NR_IRQS, 0) == 288
    assert errno_of(lambda: dev.set_attr(Group.NR_IRQS, 0, 288)) == "EBUSY"
    dev = make_device()
    dev.set_attr(Group.CTRL, Ctrl.INIT)
    assert dev.get_attr(Group.NR_IRQS, 0) == 256
    assert errno_of(lambda: dev.set_attr(Group.NR_IRQS, 0, 64)) == "EBUSY"


def test_init() -> None:
    assert errno_of(lambda: make_device(vcpus=0).set_attr(Group.CTRL, Ctrl.INIT)) == "EBUSY"
    dev = make_device()
    assert errno_of(lambda: dev.set_attr(Group.CTRL, Ctrl.SAVE_PENDING_TABLES)) == "EBUSY"
    dev.set_attr(Group.CTRL, Ctrl.INIT)
    dev.set_attr(Group.CTRL, Ctrl.INIT)
    dev.set_attr(Group.CTRL, Ctrl.SAVE_PENDING_TABLES)
    assert errno_of(lambda: dev.get_attr(Group.CTRL, Ctrl.INIT)) == "ENXIO"
    assert errno_of(lambda: dev.vgic.add_vcpu(9, 9)) == "EBUSY"
    assert errno_of(lambda: dev.vgic.add_vcpu(0, 0)) == "EEXIST"


# Registers --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "group", [Group.DIST_REGS, Group.REDIST_REGS, Group.CPU_SYSREGS, Group.LEVEL_INFO]
)
def test_register_groups_need_an_existing_vcpu_and_init(group: int) -> None:
    dev = make_device()
    attr = ICC_REGISTERS["ICC_PMR_EL1"] if group == Group.CPU_SYSREGS else 0
    if group != Group.DIST_REGS:
        assert errno_of(lambda: dev.get_attr(group, 9 << 32 | attr)) == "EINVAL"
    if group in (Group.REDIST_REGS, Group.CPU_SYSREGS):
        assert errno_of(lambda: dev.has_attr(group, 9 << 32 | attr)) == "EINVAL"
    assert errno_of(lambda: make_device(vcpus=0).get_attr(group, attr)) == "EINVAL"
    assert errno_of(lambda: dev.get_attr(group, attr)) == "EBUSY"
    assert errno_of(lambda: dev.set_attr(group, attr, 0)) == "EBUSY"


def test_register_offsets_are_words() -> None:
    dev = Rig().device
    assert errno_of(lambda: dev.get_attr(Group.DIST_REGS, 2)) == "EINVAL"
    assert errno_of(lambda: dev.get_attr(Group.REDIST_REGS, 0x2_0000)) == "ENXIO"
    assert dev.get_attr(Group.DIST_REGS, 0x3000) == 0


def test_the_whole_state_travels_through_attributes() -> None:
    source, target = Rig(), Rig(enable=False)
    source.configure(40, level=True)
    source.enable(40)
    source.inject(40)
    source.ack()
    source.icc(0, "BPR1", 4)
    for offset in (0x0, 0x104, 0x204, 0x304, 0x408 + 0x20, 0xC08, 0x6000 + 8 * 40):
        target.device.set_attr(
            Group.DIST_REGS, offset, source.device.get_attr(Group.DIST_REGS, offset)
        )
    target.device.set_attr(Group.LEVEL_INFO, 32, source.device.get_attr(Group.LEVEL_INFO, 32))
    for name in ("PMR", "BPR1", "CTLR", "SRE", "IGRPEN1", "AP1R0"):
        attr = ICC_REGISTERS[f"ICC_{name}_EL1"]
        target.device.set_attr(
            Group.CPU_SYSREGS, attr, source.device.get_attr(Group.CPU_SYSREGS, attr)
        )
    target.settle()
    assert target.active(40) and target.icc(0, "RPR") == 0 and target.icc(0, "BPR1") == 4
    target.eoi(40)
    assert target.serve() == 40, "the line is still high"


def test_level_info() -> None:
    dev = Rig().device
    dev.set_attr(Group.LEVEL_INFO, 0, 1 << 27)
    assert dev.get_attr(Group.LEVEL_INFO, 0) == 1 << 27
    assert errno_of(lambda: dev.get_attr(Group.LEVEL_INFO, 33)) == "EINVAL"
    assert errno_of(lambda: dev.get_attr(Group.LEVEL_INFO, 1 << 10)) == "EINVAL"


def test_restored_active_interrupts_end_in_reverse_order() -> None:
    rig = Rig()
    rig.icc(0, "CTLR", 2)
    for n, intid in enumerate((40, 41, 42)):
        rig.set_priority(intid, 0x80 - 8 * n)
    rig.device.set_attr(Group.DIST_REGS, 0x304, 7 << 8)
    rig.device.set_attr(
        Group.CPU_SYSREGS, ICC_REGISTERS["ICC_AP1R0_EL1"], 1 << 16 | 1 << 15 | 1 << 14
    )
    rig.settle()
    for intid, running in ((42, 0x78), (41, 0x80), (40, 0xFF)):
        rig.eoi(intid)
        assert rig.icc(0, "RPR") == running and rig.active(intid)
        rig.dir(intid)
        assert not rig.active(intid)


@pytest.mark.parametrize("loaded", [True, False])
def test_cpu_registers_wherever_they_are(loaded: bool) -> None:
    rig = Rig()
    if not loaded:
        rig.put(0)
    for name, value in (
        ("PMR", 0xA0),
        ("BPR0", 5),
        ("BPR1", 6),
        ("IGRPEN0", 1),
        ("AP0R0", 1 << 9),
        ("AP1R0", 1 << 8),
    ):
        attr = ICC_REGISTERS[f"ICC_{name}_EL1"]
        rig.device.set_attr(Group.CPU_SYSREGS, attr, value)
        assert rig.device.get_attr(Group.CPU_SYSREGS, attr) == value
    if not loaded:
        rig.load(0, 0)
    assert rig.icc(0, "PMR") == 0xA0 and rig.icc(0, "RPR") == 8 << 3


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("CTLR", 7 << 8 | 1 << 15),
        ("CTLR", 4 << 8 | 1 << 11 | 1 << 15),
        ("CTLR", 4 << 8),
        ("SRE", 0),
        ("AP1R1", 0),
        ("CTLR", 4 << 8 | 1 << 14 | 1 << 15),
        ("AP0R3", 0),
    ],
)
def test_cpu_registers_that_do_not_fit(name: str, value: int) -> None:
    dev = Rig().device
    assert (
        errno_of(lambda: dev.set_attr(Group.CPU_SYSREGS, ICC_REGISTERS[f"ICC_{name}_EL1"], value))
        == "EINVAL"
    )


def test_the_distributor_is_nobodys() -> None:
    """Documentation/virt/kvm/devices/arm-vgic-v3.rst: the mpidr is ignored for distributor
    registers."""
    dev = Rig().device
    assert dev.get_attr(Group.DIST_REGS, 0x123 << 32 | 0x4) == dev.get_attr(Group.DIST_REGS, 0x4)
    dev.set_attr(Group.DIST_REGS, 0x123 << 32 | 0x420, 0xA0)
    assert dev.get_attr(Group.DIST_REGS, 0x420) == 0xA0
    dev.has_attr(Group.DIST_REGS, 0x123 << 32)


def test_fields_of_intids_that_are_not_implemented() -> None:
    dev = Rig(nr_irqs=96).device
    dev.has_attr(Group.DIST_REGS, 0x108)
    for offset in (0x10C, 0x400 + 96, 0x6000 + 8 * 96):
        assert errno_of(lambda offset=offset: dev.has_attr(Group.DIST_REGS, offset)) == "ENXIO"  # type: ignore[misc]
        assert dev.get_attr(Group.DIST_REGS, offset) == 0


def test_a_restored_mask_wakes() -> None:
    """A vCPU that is in WFI looks again when user space has changed its CPU interface."""
    rig = Rig()
    rig.icc(0, "PMR", 0)
    rig.enable(40)
    rig.pulse(40)
    rig.put(0)
    assert not rig.vgic.pending(0)
    rig.kicked.clear()
    rig.device.set_attr(Group.CPU_SYSREGS, ICC_REGISTERS["ICC_PMR_EL1"], 0xF8)
    assert rig.kicked == [0] and rig.vgic.pending(0)


def test_an_active_interrupt_is_restored_before_its_priority() -> None:
    """In QEMU's order; its end has to find it."""
    rig = Rig()
    for offset, value in ((0x304, 1 << 8), (0x428, 0xA0), (0x104, 1 << 8)):
        rig.device.set_attr(Group.DIST_REGS, offset, value)
    rig.device.set_attr(Group.CPU_SYSREGS, ICC_REGISTERS["ICC_AP1R0_EL1"], 1 << (0xA0 >> 3))
    rig.settle()
    rig.eoi(40)
    assert not rig.active(40)


def test_cbpr_hides_bpr1() -> None:
    dev = Rig().device
    bpr0, bpr1, ctlr = (ICC_REGISTERS[f"ICC_{name}_EL1"] for name in ("BPR0", "BPR1", "CTLR"))
    dev.set_attr(Group.CPU_SYSREGS, bpr0, 7)
    dev.set_attr(Group.CPU_SYSREGS, ctlr, dev.get_attr(Group.CPU_SYSREGS, ctlr) | 1)
    dev.set_attr(Group.CPU_SYSREGS, bpr1, 3)
    assert dev.get_attr(Group.CPU_SYSREGS, bpr1) == 7
    assert errno_of(lambda: dev.get_attr(Group.CPU_SYSREGS, 0)) == "ENXIO"
    assert (
        errno_of(lambda: dev.get_attr(Group.CPU_SYSREGS, ICC_REGISTERS["ICC_AP1R2_EL1"]))
        == "EINVAL"
    )
