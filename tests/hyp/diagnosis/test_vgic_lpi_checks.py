"""The diagnosis of LPIs: each check as the first that holds one, and the remedy tried."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import pytest
from its_rig import (
    BASER0,
    BASER1,
    CBASER,
    COLLECTIONS,
    CTLR,
    DEVICES,
    DOORBELL,
    LPI,
    PROPERTIES,
    QUEUE,
    ItsRig,
)

from armvirt.arch import its as arch
from armvirt.errors import KvmError
from armvirt.hyp.diagnosis.finding import CpuView
from armvirt.hyp.diagnosis.trace import blocker, compare, first_held, trace

UNMASKED = CpuView(pstate=5)


@pytest.fixture
def rig() -> ItsRig:
    """LPI 8192 is event 0 of device 0, pending, for vCPU 0."""
    rig = ItsRig(vcpus=2)
    rig.map(LPI)
    rig.msi(0)
    return rig


def test_one_that_is_taken(rig: ItsRig) -> None:
    found = {finding.station: finding for finding in trace(rig.vgic, 0, LPI, UNMASKED)}
    assert first_held(list(found.values())) is None
    assert list(found)[:5] == ["LPIs", "ITS", "event", "pending", "enable"]
    assert found["event"].text == "translated from device 0, event 0"
    assert str(found["enable"].register) == f"LPI configuration at {PROPERTIES:#x} bit 0"
    assert found["enable"].value == 0xA3
    assert found["route"].text == "collection 0: mapped to vCPU 0"
    assert found["active"].passed and found["group"].text.endswith("(LPIs always are)")
    assert rig.ack() == LPI


def served(rig: ItsRig) -> None:
    assert rig.taken() == [LPI]


def lpis_off(rig: ItsRig) -> None:
    rig.disable_lpis()


def its_off(rig: ItsRig) -> None:
    served(rig)
    rig.set(CTLR, 0, 4)


def its_off_with_commands(rig: ItsRig) -> None:
    its_off(rig)
    rig.push("SYNC")
    rig.push("SYNC")


def discarded(rig: ItsRig) -> None:
    rig.do("DISCARD", device=0, event=0)


def disabled(rig: ItsRig) -> None:
    rig.configure_lpi(LPI, 0xA2)
    rig.do("INV", device=0, event=0)


def no_inv(rig: ItsRig) -> None:
    disabled(rig)
    rig.configure_lpi(LPI, 0xA3)


def moved(rig: ItsRig) -> None:
    rig.do("MOVI", device=0, event=0, icid=1)


def all_moved(rig: ItsRig) -> None:
    rig.do("MOVALL", rdbase=0, rdbase2=1)


def sent_nowhere(rig: ItsRig) -> None:
    rig.do("MAPC", icid=0, valid=0)


def too_low(rig: ItsRig) -> None:
    rig.configure_lpi(LPI, 0xFF)
    rig.do("INV", device=0, event=0)


def enable_lpis(rig: ItsRig) -> None:
    rig.enable_lpis()


def enable_its(rig: ItsRig) -> None:
    rig.set(CTLR, 1, 4)
    rig.msi(0)


def message(rig: ItsRig) -> None:
    rig.msi(0)


def map_again(rig: ItsRig) -> None:
    rig.map(LPI)
    rig.msi(0)


def set_and_inv(rig: ItsRig) -> None:
    rig.configure_lpi(LPI, 0xA3)
    rig.do("INV", device=0, event=0)


def inv(rig: ItsRig) -> None:
    rig.do("INV", device=0, event=0)


def map_collection(rig: ItsRig) -> None:
    rig.do("MAPC", icid=0, rdbase=0, valid=1)


def move_back(rig: ItsRig) -> None:
    rig.do("MOVI", device=0, event=0, icid=0)


def lower(rig: ItsRig) -> None:
    rig.configure_lpi(LPI, 0xA1)
    rig.do("INV", device=0, event=0)


class Held(NamedTuple):
    arrange: Callable[[ItsRig], None]
    station: str
    text: str
    remedy: str
    cure: Callable[[ItsRig], None]


HELD = [
    Held(lpis_off, "LPIs", "GICR_CTLR.EnableLPIs of vCPU 0 is 0", "set EnableLPIs (bit 0) of GICR_CTLR", enable_lpis),
    Held(its_off, "ITS", "messages are ignored", "write 1 to GITS_CTLR (GITS+0x0)", enable_its),
    Held(its_off_with_commands, "ITS", "ignored, and 2 commands wait in its queue", "write 1", enable_its),
    Held(discarded, "event", "no ITS translates an event to it", "queue MAPTI", map_again),
    Held(served, "pending", "no message came, or it was served",
         f"let device 0 write EventID 0 to GITS_TRANSLATER at {DOORBELL:#x}", message),
    Held(disabled, "enable", "bit 0 of its configuration byte is 0", "then queue the ITS command INV", set_and_inv),
    Held(no_inv, "enable", "though bit 0 is 1 now: no INV or INVALL since", "queue the ITS command INV", inv),
    Held(moved, "route", "collection 1: mapped to vCPU 1", "goes to vCPU 0", move_back),
    Held(all_moved, "route", "collection 0: mapped to vCPU 0, but vCPU 1 has the LPI",
         "queue MOVI with collection 0 so that it goes to vCPU 0", move_back),
    Held(sent_nowhere, "route", "collection 0: mapped to no vCPU", "queue MAPC", map_collection),
    Held(too_low, "mask", "priority 0xf8 is not below",
         f"write 0xa1 to LPI configuration at {PROPERTIES:#x}, then queue", lower),
]  # fmt: skip


@pytest.mark.parametrize("case", HELD, ids=lambda case: case.arrange.__name__)
def test_what_holds_it_and_what_helps(rig: ItsRig, case: Held) -> None:
    case.arrange(rig)
    held = blocker(rig.vgic, 0, LPI, UNMASKED)
    assert held is not None and held.station == case.station
    assert case.text in held.text and case.remedy in held.remedy
    assert rig.taken() == []
    case.cure(rig)
    assert blocker(rig.vgic, 0, LPI, UNMASKED) is None
    assert rig.taken() == [LPI]


def test_the_collection_of_one_that_movall_has_moved(rig: ItsRig) -> None:
    all_moved(rig)
    found = {finding.station: finding for finding in trace(rig.vgic, 1, LPI, UNMASKED)}
    assert found["route"].passed
    assert found["route"].text == "collection 0: mapped to vCPU 0, but vCPU 1 has the LPI"
    assert rig.taken(1) == [LPI]


def test_disabled_in_the_table_but_not_read_yet(rig: ItsRig) -> None:
    rig.configure_lpi(LPI, 0xA2)
    found = {finding.station: finding for finding in trace(rig.vgic, 0, LPI, UNMASKED)}
    assert (
        found["enable"].passed
        and "though bit 0 is 0 now" in found["enable"].text
        and rig.ack() == LPI
    )


def test_pending_while_the_its_is_off(rig: ItsRig) -> None:
    rig.set(CTLR, 0, 4)
    found = {finding.station: finding for finding in trace(rig.vgic, 0, LPI, UNMASKED)}
    assert (
        found["ITS"].passed
        and found["ITS"].text.endswith("0, but it is pending already")
        and rig.ack() == LPI
    )


def test_an_its_without_tables() -> None:
    rig = ItsRig(ready=False)
    rig.enable_lpis()
    held = blocker(rig.vgic, 0, LPI, UNMASKED)
    assert held is not None and held.remedy.startswith(
        "set up GITS_CBASER, GITS_BASER0 and GITS_BASER1, then write 1"
    )
    for offset, table in ((CBASER, QUEUE), (BASER0, DEVICES), (BASER1, COLLECTIONS)):
        rig.set(offset, table | arch.VALID)
    held = blocker(rig.vgic, 0, LPI, UNMASKED)
    assert held is not None and held.remedy == "write 1 to GITS_CTLR (GITS+0x0)"


def test_a_configuration_that_is_not_in_memory(rig: ItsRig) -> None:
    rig.disable_lpis()
    rig.rd(0, 0x70, 0x10_0000_0000 | 15)  # GICR_PROPBASER
    rig.rd(0, 0, 1, 4)
    found = {finding.station: finding for finding in trace(rig.vgic, 0, LPI, UNMASKED)}
    assert found["enable"].text == "its configuration is not in memory, and counts as 0"


def test_what_can_never_be(rig: ItsRig) -> None:
    for intid in (1 << 16, 8191):
        with pytest.raises(KvmError):
            trace(rig.vgic, 0, intid)


def test_one_without_an_event_beside_another(rig: ItsRig) -> None:
    assert compare(rig.vgic, 0, LPI, LPI + 9).text == (
        f"INTID {LPI + 9} is held: no ITS translates an event to it: messages are lost"
    )
    other = compare(rig.vgic, 0, LPI + 9, LPI)
    assert other.text == f"INTID {LPI + 9} is not pending: INTID {LPI} does not wait for it"
