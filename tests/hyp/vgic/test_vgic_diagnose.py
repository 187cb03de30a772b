"""The diagnosis names the first station that holds an interrupt back."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from vgic_rig import Rig

from armvirt.hyp.vgic.diagnose import blocker, trace

EDGE = 40


def ready() -> Rig:
    rig = Rig(vcpus=2)
    rig.configure(EDGE, level=False)
    rig.enable(EDGE)
    rig.set_priority(EDGE, 0x80)
    rig.pulse(EDGE)
    return rig


def active(rig: Rig) -> None:
    rig.ack()
    rig.pulse(EDGE)


def behind(rig: Rig) -> None:
    rig.configure(41, level=False)
    rig.set_priority(41, 0x40)
    rig.enable(41)
    rig.pulse(41)
    rig.ack()


BREAKAGES: list[tuple[str, Callable[[Rig], object], str]] = [
    ("input", lambda rig: rig.serve(), "not pending"),
    ("input", lambda rig: rig.ack(), "active and not pending again"),
    ("enable", lambda rig: rig.disable(EDGE), "GICD_ISENABLER1 bit 8 is 0"),
    ("distributor", lambda rig: rig.dist.write(0, 0, 4, 0), "EnableGrp1 is 0"),
    ("route", lambda rig: rig.route(EDGE, 1), "routed to vCPU 1"),
    ("route", lambda rig: rig.route(EDGE, 9), "no such vCPU"),
    ("active", active, "already active"),
    ("group", lambda rig: rig.icc(0, "IGRPEN1", 0), "ICC_IGRPEN1_EL1.Enable is 0"),
    ("mask", lambda rig: rig.icc(0, "PMR", 0x80), "0x80 is not below ICC_PMR_EL1 0x80"),
    ("running", behind, "running priority 0x40"),
    ("list register", lambda rig: rig.put(0), "on no physical CPU"),
]


@pytest.mark.parametrize(("station", "breakage", "text"), BREAKAGES)
def test_the_blocker_is_named(station: str, breakage: Callable[[Rig], object], text: str) -> None:
    rig = ready()
    breakage(rig)
    finding = blocker(rig.vgic, 0, EDGE)
    assert finding is not None and finding.station == station and text in finding.text


def test_what_waits_for_an_entry() -> None:
    rig = ready()
    rig.serve()
    rig.vgic.inject(None, EDGE, True)
    finding = blocker(rig.vgic, 0, EDGE)
    assert finding is not None and "before the next entry" in finding.text


def test_a_signalled_interrupt_has_no_blocker_and_nothing_is_changed() -> None:
    rig = ready()
    before = rig.vgic.state()
    assert blocker(rig.vgic, 0, EDGE) is None
    assert "LR0: INTID 40 pending" in "\n".join(finding.text for finding in trace(rig.vgic, 0, EDGE))
    assert rig.vgic.state() == before
