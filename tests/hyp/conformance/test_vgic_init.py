"""Rows of KVM's vgic_init selftest for the GICv3: creation, addresses, regions, the first run,
GICR_TYPER."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from gic_vm import IPA_END, make_vm, run_vcpu
from hyp_tools import errno_of

from armvirt.arch.gic import CTLR_PRIBITS_SHIFT, ICC_REGISTERS, ICH_REGISTERS
from armvirt.hyp.kvm import SystemEventExit, VgicAddress, VgicCtrl, VgicDevice, VgicGroup, Vm

REDIST_SIZE, DIST_SIZE = 0x2_0000, 0x1_0000
TYPER = 0x8


def region(count: int, base: int, flags: int = 0, index: int = 0) -> int:
    return count << 52 | base | flags << 12 | index


class Gic:
    """A VM with vCPUs, created before the device if ``vcpus`` is given, and its GICv3."""

    def __init__(self, *vcpus: int) -> None:
        self.vm: Vm = make_vm(vcpus)
        self.device: VgicDevice = self.vm.create_device("arm-vgic-v3")

    def set(self, kind: VgicAddress, value: int | None) -> None:
        self.device.set_attr(VgicGroup.ADDR, kind, value)

    def refuses(self, kind: VgicAddress, value: int | None) -> str:
        return errno_of(lambda: self.set(kind, value))

    def dist(self, base: int) -> None:
        self.set(VgicAddress.V3_DIST, base)

    def redist(self, base: int) -> None:
        self.set(VgicAddress.V3_REDIST, base)

    def region(self, count: int, base: int, index: int = 0) -> None:
        self.set(VgicAddress.V3_REDIST_REGION, region(count, base, 0, index))

    def init(self) -> None:
        self.device.set_attr(VgicGroup.CTRL, VgicCtrl.INIT)

    def typer(self, vcpu: int) -> int:
        return self.device.get_attr(VgicGroup.REDIST_REGS, vcpu << 32 | TYPER)

    def run_errno(self, vcpu: int) -> str:
        return errno_of(lambda: run_vcpu(self.vm, vcpu))


# KVM_CREATE_DEVICE ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["", "arm-vgic", "arm-vgic-v9", "0"])
def test_an_unknown_device_is_enodev(kind: str) -> None:
    vm = make_vm()
    assert errno_of(lambda: vm.create_device(kind)) == "ENODEV"
    assert errno_of(lambda: vm.create_device(kind, test=True)) == "ENODEV"


@pytest.mark.parametrize("kind", ["arm-vgic-v2", "arm-vgic-v3"])
def test_the_test_flag_creates_nothing(kind: str) -> None:
    vm = make_vm()
    assert vm.create_device(kind, test=True) is None
    assert vm.create_device(kind, test=True) is None and vm.vgic is None
    vm.create_device(kind)


@pytest.mark.parametrize("first", ["arm-vgic-v2", "arm-vgic-v3"])
@pytest.mark.parametrize("second", ["arm-vgic-v2", "arm-vgic-v3"])
def test_there_is_one_interrupt_controller(first: str, second: str) -> None:
    """The same again is EEXIST; for another version KVM may say EEXIST or EINVAL, and says
    EEXIST."""
    vm = make_vm()
    vm.create_device(first)
    assert errno_of(lambda: vm.create_device(second)) == "EEXIST"


def test_a_device_after_the_first_run_is_ebusy() -> None:
    vm = make_vm()
    run_vcpu(vm, 0)
    assert errno_of(lambda: vm.create_device("arm-vgic-v3")) == "EBUSY"


def test_more_vcpus_than_a_gicv2_serves_are_e2big() -> None:
    vm = make_vm(range(9))
    assert errno_of(lambda: vm.create_device("arm-vgic-v2")) == "E2BIG"
    vm.create_device("arm-vgic-v3")


# Addresses --------------------------------------------------------------------------------------


def test_unknown_address_types_are_enxio() -> None:
    gic = Gic(0)
    for attr in (-1, 6, VgicAddress.ITS):
        assert errno_of(lambda attr=attr: gic.device.has_attr(VgicGroup.ADDR, attr)) == "ENXIO"
    gic.device.has_attr(VgicGroup.ADDR, VgicAddress.V3_DIST)
    gic.device.has_attr(VgicGroup.ADDR, VgicAddress.V3_REDIST)
    gic.device.has_attr(VgicGroup.ADDR, VgicAddress.V3_REDIST_REGION)


@pytest.mark.parametrize("kind", [VgicAddress.V3_DIST, VgicAddress.V3_REDIST])
def test_addresses(kind: VgicAddress) -> None:
    gic = Gic(0)
    assert gic.refuses(kind, 0x1000) == "EINVAL", "not aligned to 64 KiB"
    assert gic.refuses(kind, IPA_END) == "E2BIG"
    assert gic.refuses(kind, None) == "EFAULT"
    gic.set(kind, 0)
    assert gic.refuses(kind, 0xE_0000) == "EEXIST"


def test_half_a_redistributor_beyond_the_end() -> None:
    assert Gic(0).refuses(VgicAddress.V3_REDIST, IPA_END - DIST_SIZE) == "E2BIG"
    Gic(0).redist(IPA_END - REDIST_SIZE)


@pytest.mark.parametrize(
    ("value", "errno"),
    [
        (region(4, 0x10_0000, flags=2), "EINVAL"),
        (region(0, 0x10_0000), "EINVAL"),
        (region(2, 0x20_0000, index=1), "EINVAL"),
        (region(2, 0x20_1000, index=0), "EINVAL"),
        (region(2, IPA_END), "E2BIG"),
        (region(2, IPA_END - 0x3_0000), "E2BIG"),
        (None, "EFAULT"),
    ],
    ids=[
        "flags",
        "count 0",
        "first index not 0",
        "misaligned",
        "beyond the end",
        "straddling the end",
        "null",
    ],
)
def test_first_regions_that_are_refused(value: int | None, errno: str) -> None:
    gic = Gic(0, 1, 2, 3)
    assert gic.refuses(VgicAddress.V3_REDIST_REGION, value) == errno
    gic.region(2, 0x20_0000)


@pytest.mark.parametrize(
    ("value", "errno"),
    [
        (region(2, 0x20_0000, index=0), "EINVAL"),
        (region(1, 0x21_0000, index=1), "EINVAL"),
        (region(1, 0x24_0000, index=2), "EINVAL"),
        (region(1, IPA_END, index=1), "E2BIG"),
        (region(2, IPA_END - 0x3_0000, index=1), "E2BIG"),
    ],
    ids=["index in use", "overlap", "index not +1", "beyond the end", "straddling the end"],
)
def test_second_regions_that_are_refused(value: int, errno: str) -> None:
    gic = Gic(0, 1, 2, 3)
    gic.region(2, 0x20_0000)
    assert gic.refuses(VgicAddress.V3_REDIST_REGION, value) == errno
    gic.region(1, 0x24_0000, 1)


@pytest.mark.parametrize("region_first", [True, False])
def test_the_two_ways_of_placing_redistributors_do_not_mix(region_first: bool) -> None:
    gic = Gic(0, 1, 2, 3)
    if region_first:
        gic.region(2, 0x20_0000)
        assert gic.refuses(VgicAddress.V3_REDIST, 0x26_0000) == "EINVAL"
    else:
        gic.redist(0)
        assert gic.refuses(VgicAddress.V3_REDIST_REGION, region(4, 0x10_0000)) == "EINVAL"


def test_regions_read_back() -> None:
    gic = Gic(0, 1, 2, 3)
    gic.region(2, 0x20_0000)
    gic.region(1, 0x24_0000, 1)

    def read(index: int) -> int:
        return gic.device.get_attr(VgicGroup.ADDR, VgicAddress.V3_REDIST_REGION, index)

    assert (read(0), read(1)) == (region(2, 0x20_0000), region(1, 0x24_0000, index=1))
    assert errno_of(lambda: read(2)) == "ENOENT"


def test_a_region_on_the_distributor() -> None:
    """Seen at once if a vCPU gets its redistributor there."""
    gic = Gic(0, 1, 2, 3)
    gic.region(2, 0x20_0000)
    gic.region(1, 0x24_0000, 1)
    gic.dist(0x26_0000)
    assert gic.refuses(VgicAddress.V3_REDIST_REGION, region(1, 0x26_0000, index=2)) == "EINVAL"
    gic.region(1, 0x28_0000, 2)


# The first run ----------------------------------------------------------------------------------


def overlapping(gic: Gic) -> None:
    """Four redistributors from 0 on, and the distributor in the second half of the last."""
    gic.redist(0)
    gic.dist(4 * REDIST_SIZE - DIST_SIZE)


def test_an_overlap_is_found_at_the_first_run_vcpus_first() -> None:
    gic = Gic(0, 1, 2, 3)
    overlapping(gic)
    assert gic.run_errno(3) == "EINVAL"


def test_an_overlap_is_found_at_the_first_run_device_first() -> None:
    gic = Gic(0)
    overlapping(gic)
    for n in (1, 2, 3):
        gic.vm.create_vcpu(n)
    assert gic.run_errno(3) == "EINVAL"


def test_too_few_redistributors_are_enxio() -> None:
    gic = Gic(0, 1, 2, 3)
    gic.dist(0x26_0000)
    gic.region(2, 0x20_0000)
    gic.region(1, 0x24_0000, 1)
    gic.init()
    assert gic.run_errno(3) == gic.run_errno(0) == "ENXIO"


@pytest.mark.parametrize("missing", ["dist", "redist"])
def test_frames_without_an_address_are_enxio(missing: str) -> None:
    gic = Gic(0)
    if missing == "redist":
        gic.dist(0)
    else:
        gic.redist(0x10_0000)
    gic.init()
    assert gic.run_errno(0) == "ENXIO"


def test_a_run_before_init_is_ebusy() -> None:
    gic = Gic(0, 1)
    gic.dist(0)
    gic.region(2, 0x20_0000)
    assert gic.run_errno(1) == "EBUSY"
    gic.init()
    assert isinstance(run_vcpu(gic.vm, 1), SystemEventExit)


def test_the_ipa_space_is_checked_again_at_the_first_run() -> None:
    """Room for three, one vCPU: accepted. With four it is not."""
    gic = Gic(0)
    gic.redist(IPA_END - 3 * REDIST_SIZE)
    gic.dist(0)
    for n in (1, 2, 3):
        gic.vm.create_vcpu(n)
    gic.init()
    assert gic.run_errno(2) == "EINVAL"


def test_a_vcpu_for_whose_predecessors_there_is_no_room_already() -> None:
    gic = Gic(0)
    gic.redist(IPA_END - REDIST_SIZE)
    gic.vm.create_vcpu(1)
    assert errno_of(lambda: gic.vm.create_vcpu(2)) == "EINVAL"


def test_everything_in_place() -> None:
    gic = Gic(0, 1, 2, 3)
    gic.dist(0x26_0000)
    gic.region(2, 0x20_0000)
    gic.region(1, 0x24_0000, 1)
    gic.region(1, 0x28_0000, 2)
    gic.init()
    assert isinstance(run_vcpu(gic.vm, 3), SystemEventExit)


# Registers --------------------------------------------------------------------------------------


def test_redistributor_registers_need_the_vcpu_and_init() -> None:
    gic = Gic(0)
    assert errno_of(lambda: gic.typer(1)) == "EINVAL"
    gic.vm.create_vcpu(1)
    assert errno_of(lambda: gic.typer(1)) == "EBUSY"
    gic.init()
    assert gic.typer(1) == 0x100, "no redistributor yet: never the last"


def test_typer_while_regions_are_added() -> None:
    """vCPUs created in the order 0, 3, 1, 2 get places in that order."""
    gic = Gic(0, 3, 1, 2)
    gic.init()
    assert [gic.typer(n) for n in range(4)] == [0, 0x100, 0x200, 0x300]
    gic.region(2, 0x20_0000)
    assert [gic.typer(n) for n in range(4)] == [0, 0x100, 0x200, 0x310]
    assert gic.refuses(VgicAddress.V3_REDIST_REGION, region(10, 0x10_0000, index=1)) == "EINVAL"
    gic.region(10, 0x2_0000, 1)
    assert [gic.typer(n) for n in range(4)] == [0, 0x100, 0x210, 0x310]


def test_last_among_regions() -> None:
    """Region 2 ends where region 1 begins, so its last redistributor is not marked."""
    gic = Gic(0, 3, 5, 4, 1, 2)
    gic.init()
    gic.region(2, 0x10_0000)
    gic.region(2, 0x24_0000, 1)
    gic.region(2, 0x20_0000, 2)
    assert [gic.typer(n) for n in range(6)] == [0, 0x100, 0x200, 0x310, 0x410, 0x500]


def test_last_in_the_single_region() -> None:
    gic = Gic(0, 3, 5, 4, 1, 2)
    gic.init()
    gic.redist(0x1_0000)
    assert [gic.typer(n) for n in range(6)] == [0, 0x100, 0x210, 0x300, 0x400, 0x500]


def test_the_affinity_is_in_the_upper_half_of_typer() -> None:
    gic = Gic(*range(18))
    gic.init()

    def upper(affinity: int) -> int:
        return gic.device.get_attr(VgicGroup.REDIST_REGS, affinity << 32 | TYPER + 4)

    assert [upper(a) for a in (0, 15, 0x100, 0x101)] == [0, 15, 0x100, 0x101]
    assert errno_of(lambda: upper(0x102)) == "EINVAL"


@pytest.mark.parametrize("bits", [5, 6, 7])
def test_cpu_interface_registers(bits: int) -> None:
    """All of them can be read and written back; how many active-priority registers there are
    follows PRIbits."""
    vm = make_vm((0,), priority_bits=bits)
    device = vm.create_device("arm-vgic-v3")
    device.set_attr(VgicGroup.CTRL, VgicCtrl.INIT)
    names = ["PMR", "BPR0", "BPR1", "CTLR", "SRE", "IGRPEN0", "IGRPEN1"]
    names += [f"AP{group}R{n}" for group in (0, 1) for n in range(1 << bits - 5)]
    for name in names:
        attr = ICC_REGISTERS[f"ICC_{name}_EL1"]
        device.has_attr(VgicGroup.CPU_SYSREGS, attr)
        device.set_attr(VgicGroup.CPU_SYSREGS, attr, device.get_attr(VgicGroup.CPU_SYSREGS, attr))
    ctlr = device.get_attr(VgicGroup.CPU_SYSREGS, ICC_REGISTERS["ICC_CTLR_EL1"])
    assert ctlr >> CTLR_PRIBITS_SHIFT & 7 == bits - 1
    for n in range(1 << bits - 5, 4):
        attr = ICC_REGISTERS[f"ICC_AP1R{n}_EL1"]
        assert errno_of(_getter(device, attr)) == "EINVAL"


def _getter(device: VgicDevice, attr: int) -> Callable[[], int]:
    return lambda: device.get_attr(VgicGroup.CPU_SYSREGS, attr)


@pytest.mark.parametrize("name", sorted(ICH_REGISTERS))
def test_hypervisor_registers_need_an_el2_guest(name: str) -> None:
    gic = Gic(0)
    gic.init()
    assert errno_of(_getter(gic.device, ICH_REGISTERS[name])) == "ENXIO"
