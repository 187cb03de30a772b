"""1-of-N interrupts: which vCPU gets them, and when the vGIC chooses again."""

from __future__ import annotations

from vgic_rig import SPURIOUS, Rig

SPI = 40
IRM = 1 << 31


def one_of_n(rig: Rig) -> None:
    rig.route(SPI, IRM)
    rig.enable(SPI)


def test_the_routing_mode_reads_back() -> None:
    rig = Rig(2)
    rig.route(SPI, IRM | 1)
    assert rig.dist.read(0, 0x6000 + 8 * SPI, 8) == IRM | 1


def test_it_goes_to_the_first_vcpu_that_has_its_group_enabled() -> None:
    rig = Rig(2)
    rig.icc(0, "IGRPEN1", 0)
    one_of_n(rig)
    rig.pulse(SPI)
    assert rig.ack(0) == SPURIOUS
    assert rig.ack(1) == SPI


def test_it_moves_when_the_group_is_switched_off_while_it_is_pending() -> None:
    rig = Rig(2)
    one_of_n(rig)
    rig.pulse(SPI)
    assert rig.vif(0).virq and not rig.vif(1).virq
    rig.icc(0, "IGRPEN1", 0)
    assert not rig.vif(0).virq and rig.vif(1).virq
    assert rig.serve(1) == SPI


def test_it_waits_until_somebody_enables_its_group() -> None:
    rig = Rig(2)
    one_of_n(rig)
    for vcpu in (0, 1):
        rig.icc(vcpu, "IGRPEN1", 0)
    rig.pulse(SPI)
    assert rig.pending(SPI)
    rig.icc(1, "IGRPEN1", 1)
    assert rig.serve(1) == SPI


def test_an_active_one_stays_where_it_is() -> None:
    rig = Rig(2)
    one_of_n(rig)
    rig.pulse(SPI)
    assert rig.ack(0) == SPI
    rig.icc(0, "IGRPEN1", 0)
    rig.pulse(SPI)
    assert rig.ack(1) == SPURIOUS, "it is active on the other one"
    rig.eoi(SPI, 0)
    assert rig.serve(1) == SPI


def test_the_choice_survives_a_save() -> None:
    rig = Rig(2)
    one_of_n(rig)
    rig.pulse(SPI)
    clone = rig.clone()
    clone.icc(0, "IGRPEN1", 0)
    assert clone.serve(1) == SPI


# A PE that is powered off -----------------------------------------------------------------------


def test_it_does_not_go_to_a_pe_that_is_off() -> None:
    rig = Rig(2)
    one_of_n(rig)
    rig.pulse(SPI)
    rig.vgic.power_off(0)
    rig.put(0)
    rig.settle()
    assert rig.serve(1) == SPI


def test_a_pe_comes_back_with_nothing_running() -> None:
    """ICC_*_EL1 are as after a reset; the interrupt that was in flight is active still, and can be
    made inactive."""
    rig = Rig(2)
    rig.route(SPI, 1)
    rig.enable(SPI)
    rig.pulse(SPI)
    assert rig.ack(1) == SPI
    rig.vgic.power_off(1)
    rig.put(1)
    rig.load(1, 1)
    rig.settle()
    assert [rig.icc(1, name) for name in ("RPR", "PMR", "IGRPEN1", "AP1R0")] == [0xFF, 0, 0, 0]
    assert rig.active(SPI)
    rig.set_bit(0x380, SPI)
    assert rig.vgic.dist.irq(None, SPI).acked is None and not rig.vgic.dist.cpu(1).cleared
    rig.icc(1, "PMR", 0xF8)
    rig.icc(1, "IGRPEN1", 1)
    rig.pulse(SPI)
    assert rig.serve(1) == SPI
