"""The physical GIC as EL2 sees it."""

from __future__ import annotations

import json

import pytest

from armvirt.hw.gic import PhysicalGic

VTIMER = 27


@pytest.fixture
def gic() -> PhysicalGic:
    gic = PhysicalGic(2)
    gic.enable(0, VTIMER, True)
    return gic


def test_a_line_interrupts_its_own_cpu_only(gic: PhysicalGic) -> None:
    gic.enable(1, VTIMER, True)
    gic.set_line(0, VTIMER, True)
    assert gic.deliverable(0) and not gic.deliverable(1)


def test_a_disabled_interrupt_stays_pending(gic: PhysicalGic) -> None:
    gic.set_line(0, 30, True)
    assert not gic.deliverable(0) and gic.is_pending(0, 30)
    gic.enable(0, 30, True)
    assert gic.acknowledge(0) == 30


def test_an_active_interrupt_is_quiet_until_it_is_deactivated(gic: PhysicalGic) -> None:
    gic.set_line(0, VTIMER, True)
    assert gic.acknowledge(0) == VTIMER
    assert gic.is_active(0, VTIMER) and not gic.deliverable(0)
    assert gic.acknowledge(0) == 1023
    gic.deactivate(0, VTIMER)
    assert gic.deliverable(0), "the line is still high: it fires again"
    gic.set_line(0, VTIMER, False)
    assert not gic.deliverable(0)


def test_acknowledge_takes_the_lowest_intid(gic: PhysicalGic) -> None:
    gic.enable(0, 25, True)
    gic.set_line(0, VTIMER, True)
    gic.set_line(0, 25, True)
    gic.send_sgi(0, 3)
    assert [gic.acknowledge(0) for _ in range(4)] == [3, 25, VTIMER, 1023]


def test_an_sgi_is_taken_once(gic: PhysicalGic) -> None:
    gic.send_sgi(1, 0)
    assert gic.acknowledge(1) == 0
    gic.deactivate(1, 0)
    assert gic.acknowledge(1) == 1023


def test_a_preset_active_state_holds_the_line_back(gic: PhysicalGic) -> None:
    gic.set_active(0, VTIMER, True)
    gic.set_line(0, VTIMER, True)
    assert not gic.deliverable(0)


def test_changes_are_reported_once(gic: PhysicalGic) -> None:
    seen: list[int] = []
    gic.on_change = seen.append
    gic.set_line(0, VTIMER, True)
    gic.set_line(0, VTIMER, True)
    gic.acknowledge(0)
    assert seen == [0, 0]


def test_deactivating_an_impossible_number_is_harmless(gic: PhysicalGic) -> None:
    gic.deactivate(0, 1019)


def test_state_round_trip(gic: PhysicalGic) -> None:
    gic.set_line(0, VTIMER, True)
    gic.acknowledge(0)
    gic.send_sgi(1, 7)
    other = PhysicalGic(2)
    other.load(json.loads(json.dumps(gic.state())))
    assert other.state() == gic.state()
    assert other.deliverable(1) and not other.deliverable(0) and other.rows() == gic.rows()
    gic.reset()
    assert gic.state() == PhysicalGic(2).state()


def test_state_of_another_shape_is_refused(gic: PhysicalGic) -> None:
    with pytest.raises(ValueError, match="does not fit 2 CPUs"):
        gic.load(PhysicalGic(1).state())
