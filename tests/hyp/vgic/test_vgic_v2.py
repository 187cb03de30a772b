"""A GICv2: the registers of its distributor, which vCPU gets an interrupt, and its CPU
interface."""

from __future__ import annotations

import pytest
from vgic_rig import SPURIOUS, VTIMER, QuietVm
from vgic_v2_rig import GICC, GICD, V2Rig

from armvirt.errors import KvmError
from armvirt.events import EventBus, GicAccess
from armvirt.hyp.vgic import Vgic

CTLR, TYPER, IIDR, IGROUPR, ITARGETSR, ICFGR, NSACR, ICPIDR2 = (
    0,
    4,
    8,
    0x80,
    0x800,
    0xC00,
    0xE00,
    0xFE8,
)


# The distributor --------------------------------------------------------------------------------


def test_identification() -> None:
    rig = V2Rig(4)
    assert rig.gicd(0, TYPER) == 3 << 5 | 2
    assert rig.gicd(0, IIDR) == 0x4B00_343B and rig.gicd(0, ICPIDR2) == 0x2B
    assert rig.gicc(0, "IIDR") == 0x04B2_043B
    assert rig.gicd(0, NSACR) == rig.gicd(0, 0xD00) == rig.gicd(0, 0xFF4) == 0


def test_frames_have_the_sizes_of_a_gicv2() -> None:
    assert [(frame.base, frame.size) for frame in V2Rig().vgic.mmio_frames()] == [
        (GICD, 0x1000),
        (GICC, 0x2000),
    ]


def test_each_group_has_its_enable() -> None:
    rig = V2Rig()
    rig.gicd(0, CTLR, 0xFFFF_FFFF)
    assert rig.gicd(0, CTLR) == 3
    rig.gicc(0, "CTLR", 3)
    for intid in (40, 41):
        rig.enable(intid)
    rig.gicd(0, IGROUPR + 4, 1 << 9)
    assert rig.gicd(0, IGROUPR + 4) == 1 << 9
    rig.gicd(0, CTLR, 1)
    rig.pulse(41)
    assert rig.gicc(0, "AIAR") == SPURIOUS
    rig.pulse(40)
    assert rig.serve() == 40
    rig.gicd(0, CTLR, 2)
    assert rig.gicc(0, "IAR") == 1022 and rig.gicc(0, "AIAR") == 41


def test_private_registers_are_banked() -> None:
    rig = V2Rig(2)
    rig.enable(VTIMER, 1)
    rig.set_priority(VTIMER, 0x48, 1)
    assert rig.gicd(1, 0x100) == 0xFFFF | 1 << VTIMER and rig.gicd(0, 0x100) == 0xFFFF
    assert rig.gicd(1, 0x418) >> 24 == 0x48 and rig.gicd(0, 0x418) == 0


def test_configuration_of_private_interrupts_is_fixed() -> None:
    rig = V2Rig()
    rig.gicd(0, ICFGR, 0)
    rig.gicd(0, ICFGR + 4, 0xFFFF_FFFF)
    assert rig.gicd(0, ICFGR) == 0xAAAA_AAAA and rig.gicd(0, ICFGR + 4) == 0
    rig.gicd(0, ICFGR + 8, 0xFFFF_FFFF)
    assert rig.gicd(0, ICFGR + 8) == 0xAAAA_AAAA


# Targets ----------------------------------------------------------------------------------------


def test_targets_of_private_interrupts_are_who_reads_them() -> None:
    rig = V2Rig(3)
    for vcpu in range(3):
        rig.gicd(vcpu, ITARGETSR, 0xFFFF_FFFF)
        assert rig.gicd(vcpu, ITARGETSR) == rig.gicd(vcpu, ITARGETSR + 28) == 0x0101_0101 << vcpu


def test_an_spi_goes_to_the_lowest_cpu_of_its_mask() -> None:
    rig = V2Rig(4)
    rig.enable(40)
    rig.set_targets(40, 0xFC)
    assert rig.gicd(0, ITARGETSR + 40, size=1) == 0b1100, "of the CPUs that exist"
    rig.pulse(40)
    assert [rig.vif(n).virq for n in range(4)] == [False, False, True, False]
    rig.set_targets(40, 0b1001)
    assert [rig.vif(n).virq for n in range(4)] == [True, False, False, False]


def test_an_empty_mask_is_nobody() -> None:
    rig = V2Rig(2)
    rig.enable(40)
    rig.set_targets(40, 0xF0)
    rig.pulse(40)
    assert rig.gicd(0, ITARGETSR + 40, size=1) == 0 and rig.pending(40)
    assert not rig.vif(0).virq and not rig.vif(1).virq
    rig.set_targets(40, 2)
    assert rig.ack(1) == 40


def test_an_active_interrupt_does_not_follow_its_mask() -> None:
    rig = V2Rig(2)
    rig.enable(40)
    rig.pulse(40)
    assert rig.ack() == 40
    rig.set_targets(40, 2)
    rig.pulse(40)
    assert rig.ack(1) == SPURIOUS and rig.active(40)
    rig.eoi(40)
    assert rig.ack(1) == 40


def test_a_single_cpu_has_no_targets_to_choose() -> None:
    rig = V2Rig(1)
    rig.enable(40)
    rig.set_targets(40, 0)
    rig.gicd(0, ITARGETSR + 40, 0x0202_0202)
    assert rig.gicd(0, ITARGETSR) == rig.gicd(0, ITARGETSR + 40) == 0
    rig.pulse(40)
    assert rig.ack() == 40


# The CPU interface ------------------------------------------------------------------------------


def test_levels_come_again_until_the_line_falls() -> None:
    rig = V2Rig()
    rig.enable(50)
    rig.configure(50, level=True)
    rig.inject(50, True)
    assert rig.serve() == 50 and rig.ack() == 50
    rig.inject(50, False)
    rig.eoi(50)
    assert rig.ack() == SPURIOUS


def test_a_foreign_spi_is_deactivated_by_dir() -> None:
    """GICV_DIR is asked about while an SPI is in flight elsewhere; otherwise the interface
    completes it."""
    rig = V2Rig(2)
    for vcpu in range(2):
        rig.gicc(vcpu, "CTLR", 0x201)
    rig.enable(40)
    rig.pulse(40)
    assert rig.ack() == 40
    rig.eoi(40)
    assert rig.active(40)
    rig.dir(40 | 1 << 10, 1)
    assert rig.active(40), "no SPI has a sender"
    rig.dir(40, 1)
    assert not rig.active(40)


def test_interfaces_follow_their_vcpus() -> None:
    rig = V2Rig(2)
    rig.gicc(0, "CTLR", 0x1F)
    rig.gicc(0, "APR0", 0x10)
    for vcpu in range(2):
        rig.put(vcpu)
    assert rig.vifs[0].sre and rig.vifs[0].vmcr & 8
    for vcpu in range(2):
        rig.load(vcpu, 1 - vcpu)
    assert (rig.gicc(0, "CTLR"), rig.gicc(0, "APR0")) == (0x1F, 0x10)
    assert (rig.gicc(1, "CTLR"), rig.gicc(1, "PMR")) == (1, 0xF8)


def test_a_wait_ends_for_what_the_mask_lets_through() -> None:
    rig = V2Rig()
    rig.enable(40)
    rig.set_priority(40, 0x80)
    rig.gicc(0, "PMR", 0x80)
    rig.vgic.inject(None, 40, True)
    assert not rig.vgic.pending(0)
    rig.gicc(0, "PMR", 0x88)
    assert rig.vgic.pending(0)


def test_accesses_are_events() -> None:
    rig, seen = V2Rig(), []
    rig.bus.subscribe(lambda _, event: seen.append(event))
    rig.gicc(0, "PMR", 0x40)
    assert rig.gicc(0, "PMR") == 0x40
    assert seen == [GicAccess("GICC", 4, 4, 0x40, 1), GicAccess("GICC", 4, 4, 0x40, 0)]


# Life cycle -------------------------------------------------------------------------------------


def test_a_ninth_vcpu_is_one_too_many() -> None:
    vgic = Vgic(EventBus(), QuietVm(), model=2)
    for n in range(8):
        vgic.add_vcpu(n, 1 << 31 | n)
    with pytest.raises(KvmError) as caught:
        vgic.add_vcpu(8, 1 << 31 | 8)
    assert caught.value.errno == "EINVAL"


def test_an_injection_initialises_it() -> None:
    vgic = Vgic(EventBus(), QuietVm(), model=2)
    vgic.add_vcpu(0, 1 << 31)
    vgic.inject(None, 40, True)
    assert vgic.dist.initialized and vgic.dist.nr_irqs == 256 and vgic.dist.irq(0, 40).pending


def test_reset() -> None:
    rig = V2Rig(2)
    fresh = V2Rig(2, enable=False)
    rig.enable(40)
    rig.sgi(0, 3, 0b11)
    rig.set_targets(40, 2)
    for machine in (rig, fresh):
        for vcpu in range(2):
            machine.put(vcpu)
        machine.vgic.reset()
    assert rig.vgic.state() == fresh.vgic.state()
