"""What KVM's selftest vgic_lpi_stress does: devices and events spread over the vCPUs, messages from
the VMM."""

from __future__ import annotations

import pytest
from its_rig import BASER0, CBASER, CREADR, CTLR, CWRITER, GICR_CTLR, ITTS, LPI, QUEUE, ItsRig
from vgic_rig import SPURIOUS

from armvirt.arch import its as arch

VCPUS, DEVICES, EVENTS = 4, 3, 8
NR_LPIS = DEVICES * EVENTS
PROPERTY = 0xA0 | 1 << 1 | 1  # priority, group 1, enabled


@pytest.fixture
def rig() -> ItsRig:
    """As the selftest's guest_setup_its_mappings and guest_setup_gic."""
    rig = ItsRig(vcpus=VCPUS)
    for n in range(NR_LPIS):
        rig.configure_lpi(LPI + n, PROPERTY)
    for device in range(DEVICES):
        assert rig.do("MAPD", device=device, size=7, itt=ITTS + 0x1_0000 * device, valid=1) == 0
        for event in range(EVENTS):
            n = device * EVENTS + event
            assert rig.do("MAPTI", device=device, event=event, intid=LPI + n, icid=n % VCPUS) == 0
    for vcpu in range(VCPUS):
        assert rig.do("INVALL", icid=vcpu) == 0
    return rig


def send_all(rig: ItsRig) -> list[bool]:
    return [rig.msi(event, device) for device in range(DEVICES) for event in range(EVENTS)]


def test_lpi_stress_tables_of_64k_pages_are_accepted() -> None:
    rig = ItsRig(vcpus=VCPUS)
    assert rig.get(BASER0) >> 8 & 3 == 2 and rig.get(BASER0) >> 48 & 31 == 7
    assert rig.get(CTLR, 4) & 1 == 1


def test_lpi_stress_lpis_are_accepted_after_enablelpis(rig: ItsRig) -> None:
    assert all(rig.rd(vcpu, GICR_CTLR, size=4) & 1 for vcpu in range(VCPUS))
    rig.disable_lpis(1)
    assert [rig.msi(n) for n in range(4)] == [True, False, True, True]


def test_lpi_stress_round_robin_targets(rig: ItsRig) -> None:
    assert [rig.vgic.dist.irq(None, LPI + n).target for n in range(NR_LPIS)] == [
        n % VCPUS for n in range(NR_LPIS)
    ]


def test_lpi_stress_property_byte(rig: ItsRig) -> None:
    irqs = [rig.vgic.dist.irq(None, LPI + n) for n in range(NR_LPIS)]
    assert {(irq.priority, irq.group, irq.enabled) for irq in irqs} == {(0xA0, 1, True)}


def test_lpi_stress_every_message_is_accepted(rig: ItsRig) -> None:
    for _ in range(20):
        assert send_all(rig) == [True] * NR_LPIS


def test_lpi_stress_handlers_see_lpis_or_the_spurious_value(rig: ItsRig) -> None:
    seen: set[int] = set()
    for vcpu in range(VCPUS):
        assert rig.serve(vcpu) == SPURIOUS
    send_all(rig)
    for vcpu in range(VCPUS):
        taken = rig.taken(vcpu)
        assert sorted(taken) == [LPI + n for n in range(NR_LPIS) if n % VCPUS == vcpu]
        seen.update(taken)
    assert len(seen) == NR_LPIS


def test_lpi_stress_nothing_is_lost_or_doubled_under_load(rig: ItsRig) -> None:
    """Messages, acknowledges and vCPUs that leave and come back, interleaved: one for each that was
    due."""
    due = [0] * NR_LPIS
    got = [0] * NR_LPIS
    for turn in range(600):
        n = turn * 7 % NR_LPIS
        lpi = rig.vgic.dist.irq(None, LPI + n)
        rig.vgic.sync_all()
        due[n] += not lpi.pending_latch
        rig.settle()
        assert rig.msi(n % EVENTS, n // EVENTS)
        vcpu = turn * 3 % VCPUS
        if turn % 5 == 0:
            rig.put(vcpu)
            rig.load(vcpu, vcpu)
            rig.settle()
        if turn % 2 == 0 and (intid := rig.serve(vcpu)) != SPURIOUS:
            got[intid - LPI] += 1
    for vcpu in range(VCPUS):
        for intid in rig.taken(vcpu):
            got[intid - LPI] += 1
    assert got == due


def test_lpi_stress_the_queue_is_empty_after_each_command(rig: ItsRig) -> None:
    at = rig.get(CWRITER)
    commands = [
        arch.encode_command("INT", device=n % DEVICES, event=n % EVENTS) for n in range(NR_LPIS)
    ]
    assert at + 32 * NR_LPIS < arch.queue_size(rig.get(CBASER))
    rig.memory.write(QUEUE + at, b"".join(commands))
    rig.set(CWRITER, at + 32 * NR_LPIS)
    assert rig.get(CREADR) == at + 32 * NR_LPIS
    assert sum(len(rig.taken(vcpu)) for vcpu in range(VCPUS)) == NR_LPIS
