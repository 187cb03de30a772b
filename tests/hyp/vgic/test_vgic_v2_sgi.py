"""SGIs of a GICv2: target filters, one pending state for each sender, the CPUID field from
acknowledge to end."""

from __future__ import annotations

import pytest
from vgic_rig import SPURIOUS
from vgic_v2_rig import ALL_OTHERS, SELF, V2Rig

from armvirt.events import Event, Stamp, VgicInject

CPENDSGIR, SPENDSGIR = 0xF10, 0xF20


def cpuid(sender: int, intid: int) -> int:
    return sender << 10 | intid


def pending_on(rig: V2Rig, intid: int) -> list[int]:
    return [vcpu for vcpu in range(rig.shape[0]) if rig.pending(intid, vcpu)]


@pytest.mark.parametrize(
    ("target_filter", "targets", "expected"),
    [
        (0, 0b1010, [1, 3]),
        (0, 0b0100, [2]),
        (0, 0xF0, []),
        (ALL_OTHERS, 0, [0, 1, 3]),
        (SELF, 0xFF, [2]),
        (3 << 24, 0xFF, []),
    ],
)
def test_filters(target_filter: int, targets: int, expected: list[int]) -> None:
    rig = V2Rig(4)
    rig.sgi(2, 5, targets, target_filter)
    assert pending_on(rig, 5) == expected
    assert all(rig.ack(vcpu) == cpuid(2, 5) for vcpu in expected)


def test_reading_sgir_and_narrow_writes_do_nothing() -> None:
    rig = V2Rig(2)
    rig.gicd(0, 0xF00, 1 << 16, size=1)
    rig.gicd(0, 0xF00, SELF, size=8)
    assert rig.gicd(0, 0xF00) == 0 and pending_on(rig, 0) == []


def test_an_injected_sgi_is_an_event() -> None:
    rig, seen = V2Rig(2), []

    def record(_: Stamp, event: Event) -> None:
        if isinstance(event, VgicInject):
            seen.append(event)

    rig.bus.subscribe(record)
    rig.sgi(0, 3, 0b11)
    assert seen == [VgicInject(3, 1, 0), VgicInject(3, 1, 1)]
    seen.clear()
    rig.sgi(0, 3, 0b1100)
    assert seen == [VgicInject(3, 1, -1)], "nobody got it"


@pytest.mark.parametrize("list_registers", [1, 4])
def test_each_sender_is_taken_once_lowest_first(list_registers: int) -> None:
    rig = V2Rig(4, list_registers)
    for sender in (3, 0, 2, 3):
        rig.sgi(sender, 5, 0b10)
    assert rig.gicd(1, SPENDSGIR + 4) == 0b1101 << 8
    for sender in (0, 2, 3):
        assert rig.ack(1) == cpuid(sender, 5)
        rig.eoi(cpuid(sender, 5), 1)
    assert rig.ack(1) == SPURIOUS and not rig.pending(5, 1) and not rig.active(5, 1)


def test_a_sender_may_send_again_while_its_sgi_is_active() -> None:
    rig = V2Rig(2)
    rig.sgi(0, 5, 0b10)
    assert rig.ack(1) == cpuid(0, 5)
    rig.sgi(0, 5, 0b10)
    rig.sgi(1, 5, 0b10)
    assert rig.pending(5, 1) and rig.active(5, 1) and rig.ack(1) == SPURIOUS
    rig.eoi(cpuid(0, 5), 1)
    assert rig.ack(1) == cpuid(0, 5)
    rig.eoi(cpuid(0, 5), 1)
    assert rig.ack(1) == cpuid(1, 5)


def test_the_second_sender_comes_before_less_urgent_interrupts() -> None:
    rig = V2Rig(2)
    rig.enable(40)
    rig.set_priority(40, 0x80)
    rig.set_targets(40, 0b10)
    for sender in (0, 1):
        rig.sgi(sender, 5, 0b10)
    rig.pulse(40)
    assert [rig.serve(1) for _ in range(4)] == [cpuid(0, 5), cpuid(1, 5), 40, SPURIOUS]


def test_sources_can_be_set_and_cleared_one_by_one() -> None:
    rig = V2Rig(2)
    rig.gicd(0, SPENDSGIR + 7, 0xFF, size=1)
    assert rig.gicd(0, SPENDSGIR + 7, size=1) == rig.gicd(0, CPENDSGIR + 7, size=1) == 0b11, (
        "there are two CPUs"
    )
    assert rig.gicd(1, SPENDSGIR + 4) == 0, "registers are banked"
    rig.gicd(0, CPENDSGIR + 4, 1 << 24)
    assert rig.gicd(0, SPENDSGIR + 4) == 0b10 << 24
    assert rig.ack() == cpuid(1, 7)
    rig.eoi(cpuid(1, 7))
    rig.gicd(0, SPENDSGIR + 4, 0x0302_0000)
    rig.gicd(0, CPENDSGIR + 4, 0x0300_0000)
    assert rig.ack() == cpuid(1, 6) and not rig.pending(7)


def test_ispendr_and_icpendr_do_not_touch_sgis() -> None:
    rig = V2Rig(2)
    rig.set_bit(0x200, 5)
    assert not rig.pending(5)
    rig.sgi(1, 5, 0b01)
    rig.set_bit(0x280, 5)
    assert rig.pending(5) and rig.ack() == cpuid(1, 5)


def test_split_end_and_deactivation_want_the_sender() -> None:
    """The SGI is in no list register any more: it is active outside of the only one, and DIR
    reaches the vGIC."""
    rig = V2Rig(2, list_registers=1)
    rig.gicc(0, "CTLR", 0x201)
    rig.enable(40)
    rig.set_priority(5, 0x80)
    rig.sgi(1, 5, 0b01)
    assert rig.ack() == cpuid(1, 5)
    rig.pulse(40)
    assert rig.vif(0).hcr >> 14 & 1, "TDIR: an active interrupt found no list register"
    rig.eoi(cpuid(1, 5))
    rig.dir(5)
    assert rig.active(5), "CPU 0 did not send it"
    rig.dir(cpuid(1, 5))
    assert not rig.active(5) and rig.ack() == 40


def test_an_sgi_that_is_made_active_is_its_own() -> None:
    rig = V2Rig(2)
    rig.set_bit(0x300, 5, 1)
    rig.gicc(1, "APR0", 1)
    rig.eoi(cpuid(0, 5), 1)
    assert rig.active(5, 1)
    rig.gicc(1, "APR0", 1)
    rig.eoi(cpuid(1, 5), 1)
    assert not rig.active(5, 1)


def test_setting_an_active_sgi_active_keeps_its_sender() -> None:
    rig = V2Rig(2)
    rig.sgi(0, 5, 0b10)
    rig.ack(1)
    rig.set_bit(0x300, 5, 1)
    rig.eoi(cpuid(0, 5), 1)
    assert not rig.active(5, 1)


def test_state_in_mid_interrupt() -> None:
    """One sender's SGI is active, another's in wait, an SPI pending and one without a target."""
    rig = V2Rig(4, list_registers=2)
    for intid, targets in ((40, 0b1000), (41, 0)):
        rig.enable(intid)
        rig.set_targets(intid, targets)
        rig.set_priority(intid, 0x80)
        rig.pulse(intid)
    rig.gicc(3, "CTLR", 0x5)
    rig.sgi(2, 5, 0b1000)
    assert rig.ack(3) == cpuid(2, 5)
    for sender in (0, 2):
        rig.sgi(sender, 5, 0b1000)
    other = rig.clone()
    assert other.vgic.state() == rig.vgic.state()
    assert isinstance(other, V2Rig)
    assert other.gicc(3, "CTLR") == 0x5 and other.vif(3).virq is False
    for machine in (rig, other):
        machine.eoi(cpuid(2, 5), 3)
        assert [machine.serve(3) for _ in range(4)] == [cpuid(0, 5), cpuid(2, 5), 40, SPURIOUS]
        assert machine.pending(41)
