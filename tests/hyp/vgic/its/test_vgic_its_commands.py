"""What each ITS command does, and its command errors (IHI 0069 5.3)."""

from __future__ import annotations

import pytest
from its_rig import (
    BASER0,
    BASER1,
    CTLR,
    CWRITER,
    DEVICES,
    DOORBELL,
    ITTS,
    LEVEL2,
    LPI,
    QUEUE,
    RAM,
    RAM_SIZE,
    ItsRig,
)
from vgic_rig import SPURIOUS

from armvirt.arch import its as arch
from armvirt.hyp.vgic.its import commands as its_cmd
from armvirt.hyp.vgic.its import its as its_module

VALID = 1 << 63


@pytest.fixture
def rig() -> ItsRig:
    return ItsRig(vcpus=2)


def test_every_command_has_a_handler() -> None:
    assert {name for name, _ in arch.COMMANDS.values()} == set(its_cmd.HANDLERS)


# MAPD -------------------------------------------------------------------------------------------


def test_mapd_maps_and_unmaps(rig: ItsRig) -> None:
    assert rig.do("MAPD", device=7, size=4, itt=ITTS, valid=1) == 0
    device = rig.its.devices[7]
    assert (device.event_bits, device.itt) == (5, ITTS)
    assert rig.do("MAPD", device=7, valid=0) == 0
    assert rig.do("MAPD", device=7, valid=0) == 0
    assert rig.its.devices == {}


@pytest.mark.parametrize("valid", [0, 1])
def test_mapd_device_out_of_range(rig: ItsRig, valid: int) -> None:
    """One page of 64 KiB has 8192 entries."""
    assert rig.do("MAPD", device=8192, size=4, itt=ITTS, valid=valid) == 0x010801
    assert rig.do("MAPD", device=8191, size=4, itt=ITTS, valid=valid) == 0


def test_mapd_device_beyond_16_bits(rig: ItsRig) -> None:
    rig.set(CTLR, 0, 4)
    rig.set(BASER0, DEVICES | VALID | 0xFF)
    rig.set(CTLR, 1, 4)
    assert rig.do("MAPD", device=0xFFFF, size=4, itt=ITTS, valid=1) == 0
    assert rig.do("MAPD", device=0x1_0000, size=4, itt=ITTS, valid=1) == 0x010801


def test_mapd_needs_its_entry_in_memory(rig: ItsRig) -> None:
    rig.set(CTLR, 0, 4)
    rig.set(BASER0, RAM + RAM_SIZE - 0x1_0000 | VALID | 1)
    rig.set(CTLR, 1, 4)
    assert rig.do("MAPD", device=8191, size=4, itt=ITTS, valid=1) == 0
    assert rig.do("MAPD", device=8192, size=4, itt=ITTS, valid=1) == 0x010801


def test_mapd_with_a_table_of_two_levels(rig: ItsRig) -> None:
    rig.set(CTLR, 0, 4)
    rig.set(BASER0, DEVICES | VALID | 1 << 62)
    rig.set(CTLR, 1, 4)
    assert (
        rig.do("MAPD", device=8192 + 5, size=4, itt=ITTS, valid=1) == 0x010801
    )  # no second level there
    rig.memory.put(DEVICES + 8, LEVEL2 | VALID)
    assert rig.do("MAPD", device=8192 + 5, size=4, itt=ITTS, valid=1) == 0
    rig.memory.put(DEVICES + 16, RAM + RAM_SIZE | VALID)
    assert rig.do("MAPD", device=2 * 8192, size=4, itt=ITTS, valid=1) == 0x010801


def test_mapd_size_out_of_range(rig: ItsRig) -> None:
    assert rig.do("MAPD", device=1, size=16, itt=ITTS, valid=1) == 0x010802
    assert rig.do("MAPD", device=1, size=15, itt=ITTS, valid=1) == 0
    assert rig.do("MAPD", device=1, size=31, itt=ITTS, valid=0) == 0


@pytest.mark.parametrize("valid", [0, 1])
def test_mapd_unmaps_what_the_device_had(rig: ItsRig, valid: int) -> None:
    """Pending or in a list register: it does not come any more."""
    rig.map(LPI)
    rig.map(LPI + 1)
    rig.msi(0)
    rig.msi(1)
    assert rig.do("MAPD", device=0, size=4, itt=ITTS, valid=valid) == 0
    assert rig.ack() == SPURIOUS and rig.vgic.dist.lpis == {} and rig.its.events == 0
    assert not rig.msi(0)


# MAPTI, MAPI ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["MAPTI", "MAPI"])
def test_mapti_errors(rig: ItsRig, name: str) -> None:
    def map_event(device: int, event: int, intid: int) -> int:
        more = {"intid": intid} if name == "MAPTI" else {}
        return rig.do(name, device=device, event=event, icid=0, **more)

    assert map_event(5, LPI, LPI) == 0x010A04
    rig.map_device(5, 13)
    assert map_event(5, 1 << 14, LPI) == 0x010A05
    assert map_event(5, 8191, 8191) == 0x010A06
    assert map_event(5, LPI, LPI) == 0


def test_mapti_intid_beyond_the_tables(rig: ItsRig) -> None:
    rig.map_device(0)
    assert rig.do("MAPTI", device=0, event=0, intid=1 << 16, icid=0) == 0x010A06
    assert rig.do("MAPTI", device=0, event=0, intid=(1 << 16) - 1, icid=0) == 0
    rig.vgic.dist.propbaser = rig.vgic.dist.propbaser & ~31 | 13
    assert rig.do("MAPTI", device=0, event=1, intid=1 << 14, icid=0) == 0x010A06


def test_mapi_takes_the_event_for_the_intid(rig: ItsRig) -> None:
    rig.map_device(0, 13)
    rig.configure_lpi(LPI + 4, 1)
    assert rig.do("MAPI", device=0, event=LPI + 4, icid=1) == 0
    assert rig.msi(LPI + 4) and rig.taken(1) == [LPI + 4]


def test_mapti_of_a_mapped_event_is_ignored(rig: ItsRig) -> None:
    rig.map(LPI)
    assert rig.do("MAPTI", device=0, event=0, intid=LPI + 1, icid=1) == 0
    assert list(rig.vgic.dist.lpis) == [LPI]


def test_mapti_may_come_before_mapc(rig: ItsRig) -> None:
    rig.map(LPI, icid=4)
    assert not rig.msi(0)
    assert rig.vgic.dist.irq(0, LPI).target is None
    rig.set_table_bit(LPI, vcpu=1)
    assert rig.do("MAPC", icid=4, rdbase=1, valid=1) == 0
    assert rig.taken(1) == [LPI]  # it waited in the pending table
    assert rig.msi(0) and rig.taken(1) == [LPI]


def test_mapti_collection_out_of_range(rig: ItsRig) -> None:
    rig.map_device(0)
    assert rig.do("MAPTI", device=0, event=0, intid=LPI, icid=8192) == 0x010903
    assert rig.vgic.dist.lpis == {} and 8192 not in rig.its.collections


def test_two_events_may_have_one_lpi(rig: ItsRig) -> None:
    rig.map(LPI, device=0, event=0)
    rig.map(LPI, device=1, event=3, icid=1)
    assert rig.msi(0, device=0) and rig.taken(0) == [LPI]
    assert rig.do("DISCARD", device=0, event=0) == 0
    assert rig.msi(3, device=1) and rig.taken(1) == [LPI]
    assert rig.do("DISCARD", device=1, event=3) == 0
    assert rig.vgic.dist.lpis == {}


def test_there_is_a_limit_to_events(rig: ItsRig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(its_cmd, "MAX_EVENTS", 3)
    rig.map_device(0)
    errors = [rig.do("MAPTI", device=0, event=n, intid=LPI, icid=0) for n in range(5)]
    assert errors == [0, 0, 0, arch.E_NO_MEMORY, arch.E_NO_MEMORY]
    assert its_module.MAX_EVENTS >= arch.END_LPI


# MAPC -------------------------------------------------------------------------------------------


def test_mapc_errors(rig: ItsRig) -> None:
    assert rig.do("MAPC", icid=0, rdbase=2, valid=1) == 0x010902
    assert rig.do("MAPC", icid=0, rdbase=1 << 32, valid=1) == 0x010902
    assert rig.do("MAPC", icid=8192, rdbase=0, valid=1) == 0x010903
    assert rig.do("MAPC", icid=8191, rdbase=0, valid=1) == 0


def test_mapc_v0_does_not_look_at_rdbase(rig: ItsRig) -> None:
    assert rig.do("MAPC", icid=0, rdbase=99, valid=0) == 0
    assert list(rig.its.collections) == [1]
    assert rig.do("MAPC", icid=77, valid=0) == 0


def test_mapc_moves_the_collection_with_what_is_pending(rig: ItsRig) -> None:
    """From a list register too."""
    rig.map(LPI)
    rig.msi(0)
    assert rig.vif(0).virq
    assert rig.do("MAPC", icid=0, rdbase=1, valid=1) == 0
    assert not rig.vif(0).virq
    assert (rig.taken(0), rig.taken(1)) == ([], [LPI])
    assert rig.msi(0) and rig.taken(1) == [LPI]


def test_mapc_v0_leaves_events_inert_until_the_collection_is_mapped_again(rig: ItsRig) -> None:
    rig.map(LPI)
    rig.msi(0)
    assert rig.do("MAPC", icid=0, valid=0) == 0
    assert rig.taken() == [] and not rig.msi(0)
    assert rig.vgic.dist.irq(0, LPI).target is None
    for name, error in (("INT", 0x010307), ("DISCARD", 0x010F07)):
        assert rig.do(name, device=0, event=0) == error
    assert rig.do("MOVI", device=0, event=0, icid=1) == 0x010109
    assert rig.do("MAPC", icid=0, rdbase=0, valid=1) == 0
    assert rig.msi(0) and rig.taken() == [LPI]
    assert rig.do("MAPD", device=0, valid=0) == 0 and rig.vgic.dist.lpis == {}


# MOVI, MOVALL -----------------------------------------------------------------------------------


def test_movi_errors(rig: ItsRig) -> None:
    assert rig.do("MOVI", device=0, event=0, icid=1) == 0x010107
    rig.map(LPI)
    assert rig.do("MOVI", device=0, event=1, icid=1) == 0x010107
    assert rig.do("MOVI", device=0, event=0, icid=5) == 0x010109
    rig.map(LPI + 1, device=1, event=0, icid=6)
    assert rig.do("MOVI", device=1, event=0, icid=0) == 0x010109


def test_movi_moves_what_is_pending(rig: ItsRig) -> None:
    rig.map(LPI)
    rig.msi(0)
    assert rig.do("MOVI", device=0, event=0, icid=1) == 0
    assert (rig.taken(0), rig.taken(1)) == ([], [LPI])
    assert rig.msi(0) and (rig.taken(0), rig.taken(1)) == ([], [LPI])


def test_movi_to_a_redistributor_without_lpis_waits(rig: ItsRig) -> None:
    rig.map(LPI)
    rig.msi(0)
    rig.disable_lpis(1)
    assert rig.do("MOVI", device=0, event=0, icid=1) == 0
    assert (rig.taken(0), rig.taken(1), rig.msi(0)) == ([], [], False)
    rig.enable_lpis(1)
    assert rig.taken(1) == [LPI]


def test_movall_moves_pending_lpis_of_all_its(rig: ItsRig) -> None:
    for n in range(3):
        rig.map(LPI + n)
        rig.msi(n)
    rig.map(LPI + 3, icid=1)
    assert rig.do("MOVALL", rdbase=0, rdbase2=1) == 0
    assert (rig.taken(0), rig.taken(1)) == ([], [LPI, LPI + 1, LPI + 2])
    assert rig.msi(0) and (rig.taken(0), rig.taken(1)) == (
        [LPI],
        [],
    )  # the collection is where it was
    assert rig.do("MOVALL", rdbase=0, rdbase2=0) == 0


@pytest.mark.parametrize(("source", "target"), [(0, 2), (2, 0), (0, 1 << 32)])
def test_movall_errors(rig: ItsRig, source: int, target: int) -> None:
    assert rig.do("MOVALL", rdbase=source, rdbase2=target) == 0x010E01


# INT, CLEAR, DISCARD, INV, INVALL, SYNC ---------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "error"),
    [("INT", 0x010307), ("CLEAR", 0x010507), ("INV", 0x010C07), ("DISCARD", 0x010F07)],
)
def test_commands_for_an_unmapped_event(rig: ItsRig, name: str, error: int) -> None:
    assert rig.do(name, device=0, event=0) == error
    rig.map_device(0)
    assert rig.do(name, device=0, event=0) == error


def test_int(rig: ItsRig) -> None:
    rig.map(LPI, icid=1)
    assert rig.do("INT", device=0, event=0) == 0
    assert rig.taken(1) == [LPI]
    rig.disable_lpis(1)
    assert rig.do("INT", device=0, event=0) == arch.E_BUSY


@pytest.mark.parametrize("in_list_register", [False, True])
def test_clear(rig: ItsRig, in_list_register: bool) -> None:
    rig.map(LPI, prop=0xA1 if in_list_register else 0xA0)
    rig.msi(0)
    assert rig.do("CLEAR", device=0, event=0) == 0
    rig.configure_lpi(LPI, 0xA1)
    rig.do("INV", device=0, event=0)
    assert rig.taken() == []
    assert rig.msi(0) and rig.taken() == [LPI]


def test_discard_forgets_what_is_pending(rig: ItsRig) -> None:
    rig.map(LPI)
    rig.msi(0)
    assert rig.do("DISCARD", device=0, event=0) == 0
    assert rig.taken() == [] and not rig.msi(0) and rig.vgic.dist.lpis == {}
    rig.map(LPI)
    assert rig.taken() == []


@pytest.mark.parametrize("how", ["DISCARD", "MAPD"])
@pytest.mark.parametrize("loaded", [True, False])
def test_an_unmapped_lpi_is_on_no_list_at_once(rig: ItsRig, how: str, loaded: bool) -> None:
    """So that the state can be saved now: in a list register, or waiting for its vCPU."""
    rig.map(LPI)
    rig.msi(0)
    if not loaded:
        rig.put(0)
    command = arch.encode_command(how, device=0, event=0)
    at = rig.its.cwriter
    rig.memory.write(QUEUE + at, command)
    rig.gits.write(1, CWRITER, 8, at + 32)
    assert rig.vgic.dist.lpis == {}
    assert (rig.vgic.dist.cpu(0).ap_list, rig.vgic.dist.cpu(0).resident) == ({}, [])
    rig.clone()


def test_discard_while_it_is_being_served(rig: ItsRig) -> None:
    rig.map(LPI)
    rig.msi(0)
    assert rig.ack() == LPI
    assert rig.do("DISCARD", device=0, event=0) == 0
    rig.eoi(LPI)
    assert rig.icc(0, "RPR") == 0xFF and not rig.vgic.dist.cpu(0).ap_list


def test_invall_of_an_unmapped_collection(rig: ItsRig) -> None:
    assert rig.do("INVALL", icid=5) == 0x010D09
    rig.map(LPI, icid=5)
    assert rig.do("INVALL", icid=5) == 0x010D09


def test_sync_does_nothing(rig: ItsRig) -> None:
    before = rig.vgic.state()["lpis"]
    assert rig.do("SYNC", rdbase=99) == 0
    assert rig.vgic.state()["lpis"] == before


# Messages and tables ----------------------------------------------------------------------------


def test_messages_are_blocked_while_the_its_is_disabled(rig: ItsRig) -> None:
    rig.map(LPI)
    rig.set(CTLR, 0, 4)
    assert not rig.msi(0)
    rig.set(CTLR, 1, 4)
    assert rig.msi(0) and rig.taken() == [LPI]


def test_messages_of_strangers_are_blocked(rig: ItsRig) -> None:
    rig.map(LPI)
    assert not rig.msi(1) and not rig.msi(0, device=1)
    assert not rig.vgic.signal_msi(DOORBELL, 1 << 20, 0)


def test_a_table_that_is_taken_away_takes_its_maps(rig: ItsRig) -> None:
    rig.map(LPI)
    rig.msi(0)
    rig.set(CTLR, 0, 4)
    rig.set(BASER1, 0)
    assert [c.target for c in rig.its.collections.values()] == [None] and rig.taken() == []
    rig.set(BASER0, 0)
    assert rig.its.devices == {} and rig.vgic.dist.lpis == {}


def test_the_trace_names_what_a_command_is_about(rig: ItsRig) -> None:
    """The collection and its target; the LPI that DISCARD took away, too."""
    rig.commands.clear()
    rig.do("MAPC", icid=1, rdbase=1, valid=1)
    rig.do("MAPC", icid=9, rdbase=1, valid=0)
    rig.do("MOVALL", rdbase=0, rdbase2=1)
    assert [(c.op, c.icid, c.target, c.valid) for c in rig.commands] == [
        ("MAPC", 1, 1, 1), ("MAPC", 9, -1, 0), ("MOVALL", -1, 1, -1),
    ]  # fmt: skip
    rig.map(LPI)
    rig.commands.clear()
    rig.do("DISCARD", device=0, event=0)
    rig.do("INT", device=0, event=0)
    assert [(c.op, c.intid) for c in rig.commands] == [("DISCARD", LPI), ("INT", -1)]
