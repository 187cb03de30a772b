"""Rows of KVM's vgic_init selftest and of its device documentation for the GICv2
(devices/arm-vgic.rst)."""

from __future__ import annotations

import pytest
from gic_vm import IPA_END, NR_IRQS, SPURIOUS, Puppet, make_vm, run_vcpu
from hyp_tools import errno_of

from armvirt.errors import KvmError
from armvirt.hyp.kvm import SystemEventExit, VgicAddress, VgicCtrl, VgicDevice, VgicGroup, Vm

GICD, GICC = 0x0800_0000, 0x0801_0000
C_CTLR, C_PMR, C_IAR, C_EOIR, C_RPR, C_HPPIR, C_APR0, C_IIDR, C_DIR = (
    0x00, 0x04, 0x0C, 0x10, 0x14, 0x18, 0xD0, 0xFC, 0x1000,
)  # fmt: skip
PROBE = (VgicAddress.V2_DIST, VgicAddress.V2_CPU)


def _is_there() -> bool:
    """A GICv2 that takes addresses."""
    try:
        make_vm().create_device("arm-vgic-v2").has_attr(VgicGroup.ADDR, VgicAddress.V2_DIST)
    except KvmError:
        return False
    return True


pytestmark = pytest.mark.skipif(not _is_there(), reason="the GICv2 device takes no addresses yet")


class Gic:
    """A VM with a GICv2."""

    def __init__(self, *vcpus: int) -> None:
        self.vm: Vm = make_vm(vcpus)
        self.device: VgicDevice = self.vm.create_device("arm-vgic-v2")

    def set(self, kind: VgicAddress, base: int | None) -> None:
        self.device.set_attr(VgicGroup.ADDR, kind, base)

    def place(self) -> Gic:
        self.device.set_attr(VgicGroup.NR_IRQS, 0, NR_IRQS)
        self.set(VgicAddress.V2_DIST, GICD)
        self.set(VgicAddress.V2_CPU, GICC)
        return self

    def init(self) -> Gic:
        self.device.set_attr(VgicGroup.CTRL, VgicCtrl.INIT)
        return self

    def cpu(self, offset: int, value: int | None = None, vcpu: int = 0) -> int:
        """A GICC register by CPU_REGS."""
        attr = vcpu << 32 | offset
        if value is not None:
            self.device.set_attr(VgicGroup.CPU_REGS, attr, value)
        return self.device.get_attr(VgicGroup.CPU_REGS, attr)

    def dist(self, offset: int, vcpu: int = 0) -> int:
        return self.device.get_attr(VgicGroup.DIST_REGS, vcpu << 32 | offset)


# Addresses and the first run --------------------------------------------------------------------


@pytest.mark.parametrize("kind", PROBE)
def test_addresses(kind: VgicAddress) -> None:
    gic = Gic(0)
    gic.device.has_attr(VgicGroup.ADDR, kind)
    assert errno_of(lambda: gic.set(kind, 0x100)) == "EINVAL", "not aligned to 4 KiB"
    assert errno_of(lambda: gic.set(kind, IPA_END)) == "E2BIG"
    assert errno_of(lambda: gic.set(kind, None)) == "EFAULT"
    gic.set(kind, 0x1000)
    assert gic.device.get_attr(VgicGroup.ADDR, kind) == 0x1000
    assert errno_of(lambda: gic.set(kind, 0xE_0000)) == "EEXIST"


def test_the_cpu_interface_must_end_inside_the_ipa_space() -> None:
    assert errno_of(lambda: Gic(0).set(VgicAddress.V2_CPU, IPA_END - 0x1000)) == "E2BIG"


def test_unknown_address_types() -> None:
    gic = Gic(0)
    assert errno_of(lambda: gic.device.has_attr(VgicGroup.ADDR, -1)) == "ENXIO"


@pytest.mark.parametrize("device_first", [True, False])
def test_an_overlap_is_found_at_the_first_run(device_first: bool) -> None:
    """The CPU interface has two pages from 0 on, the distributor is put on the second."""
    gic = Gic(0) if device_first else Gic(0, 1, 2, 3)
    gic.set(VgicAddress.V2_CPU, 0)
    gic.set(VgicAddress.V2_DIST, 0x1000)
    if device_first:
        for n in (1, 2, 3):
            gic.vm.create_vcpu(n)
    assert errno_of(lambda: run_vcpu(gic.vm, 3)) == "EINVAL"


@pytest.mark.parametrize("kind", PROBE)
def test_a_frame_without_an_address_is_enxio(kind: VgicAddress) -> None:
    gic = Gic(0)
    gic.set(kind, 0x1_0000)
    assert errno_of(lambda: run_vcpu(gic.vm, 0)) == "ENXIO"


def test_a_gicv2_initialises_itself_at_the_first_run() -> None:
    gic = Gic(0).place()
    assert isinstance(run_vcpu(gic.vm, 0), SystemEventExit)


# Registers --------------------------------------------------------------------------------------


def test_cpu_registers_without_vcpus_are_einval() -> None:
    gic = Gic()
    assert errno_of(lambda: gic.device.has_attr(VgicGroup.CPU_REGS, 0)) == "EINVAL"
    assert errno_of(lambda: gic.cpu(0)) == "EINVAL"
    assert errno_of(lambda: gic.cpu(0, 0)) == "EINVAL"


def test_cpu_registers_of_a_vcpu_that_is_not_there() -> None:
    gic = Gic(0, 1).place().init()
    gic.cpu(C_PMR, vcpu=1)
    assert errno_of(lambda: gic.cpu(C_PMR, vcpu=2)) == "EINVAL"


def test_identification() -> None:
    gic = Gic(0, 1).place().init()
    assert gic.dist(0x4) == NR_IRQS // 32 - 1 | (2 - 1) << 5
    assert gic.dist(0x8) & 0xFF00_0FFF == 0x4B << 24 | 0x43B
    assert gic.cpu(C_IIDR) == 0x4B << 20 | 2 << 16 | 0x43B


def test_private_targets_name_their_own_vcpu() -> None:
    gic = Gic(0, 1).place().init()
    assert (gic.dist(0x800, 0), gic.dist(0x81C, 1)) == (0x0101_0101, 0x0202_0202)


def test_user_spaces_pmr_has_five_bits() -> None:
    """GICH_VMCR.VMPriMask: the lower five bits, to be shifted left by three."""
    gic = Gic(0).place().init()
    assert gic.cpu(C_PMR, 0x1E) == 0x1E
    guest = Puppet(gic.vm)
    assert guest.load(GICC + C_PMR) == 0xF0


# A guest ----------------------------------------------------------------------------------------


class Guest(Puppet):
    """A guest that polls GICC_IAR."""

    def start(self, eoimode: int = 0) -> Guest:
        self.store(GICD, 1)
        self.store(GICC + C_PMR, 0xF8)
        self.store(GICC + C_CTLR, 1 | eoimode << 9)
        self.store(GICD + 0x104, 0xFFFF_FFFF)
        self.store(GICD + 0xC08, 0xAAAA_AAAA)  # INTIDs 32 to 47 are edges
        return self

    @property
    def iar(self) -> int:
        return self.load(GICC + C_IAR)


@pytest.mark.parametrize("eoimode", [0, 1])
def test_an_spi(eoimode: int) -> None:
    gic = Gic(0).place().init()
    guest = Guest(gic.vm).start(eoimode)
    assert guest.iar == SPURIOUS
    gic.vm.irq_line(40, True)
    assert guest.load(GICC + C_HPPIR) == 40 and guest.iar == 40
    guest.store(GICC + C_EOIR, 40)
    assert guest.load(GICC + C_RPR) in (0xFF, 0xF8)
    assert guest.load(GICD + 0x304) == (1 << 8 if eoimode else 0)
    guest.store(GICC + C_DIR, 40)
    assert guest.load(GICD + 0x304) == 0 and guest.iar == SPURIOUS


def test_an_sgi_names_its_sender() -> None:
    gic = Gic(0, 1).place().init()
    guest = Guest(gic.vm).start()
    guest.store(GICD + 0xF00, 2 << 24 | 5)
    assert guest.load(GICD + 0xF24) == 1 << 8, "GICD_SPENDSGIR1: a bit for each sender"
    assert guest.iar == 5
    guest.store(GICC + C_EOIR, 5)
    assert guest.iar == SPURIOUS


def test_two_senders_are_two_interrupts() -> None:
    """GICD_SPENDSGIR sets what other vCPUs would have sent: each is acknowledged by itself, with
    its CPUID."""
    gic = Gic(0, 1, 2).place().init()
    guest = Guest(gic.vm).start()
    guest.store(GICD + 0xF24, 0b110 << 8)
    seen = []
    for _ in range(2):
        value = guest.iar
        seen.append(value)
        guest.store(GICC + C_EOIR, value)
    assert seen == [1 << 10 | 5, 2 << 10 | 5] and guest.iar == SPURIOUS


def test_sgi_bits_of_ispendr_are_ignored() -> None:
    gic = Gic(0).place().init()
    guest = Guest(gic.vm).start()
    guest.store(GICD + 0x200, 0xFFFF)
    assert guest.load(GICD + 0x200) == 0 and guest.iar == SPURIOUS


def test_the_first_word_of_icfgr() -> None:
    gic = Gic(0).place().init()
    assert Guest(gic.vm).start().load(GICD + 0xC00) == 0xAAAA_AAAA
