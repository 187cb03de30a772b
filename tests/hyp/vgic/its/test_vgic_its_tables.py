"""The ITS saves tables to guest memory and restores them: the ABI, a migration, invalid tables."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from its_rig import (
    BASER0,
    BASER1,
    CBASER,
    COLLECTIONS,
    CREADR,
    CTLR,
    CWRITER,
    DEVICES,
    GICR_CTLR,
    GICR_PENDBASER,
    GICR_PROPBASER,
    IIDR,
    ITTS,
    LEVEL2,
    LPI,
    RAM,
    RAM_SIZE,
    ItsRig,
)

from armvirt.arch import its as arch
from armvirt.errors import KvmError
from armvirt.hyp.vgic.device import Ctrl, Group

VALID = 1 << 63
INDIRECT = 1 << 62


def save(rig: ItsRig) -> None:
    rig.its_device.set_attr(Group.CTRL, Ctrl.ITS_SAVE_TABLES)


def restore(rig: ItsRig) -> None:
    rig.its_device.set_attr(Group.CTRL, Ctrl.ITS_RESTORE_TABLES)


def use_two_levels(rig: ItsRig, second: int = LEVEL2) -> None:
    """A device table of two levels, whose second page, for DeviceIDs from 8192 on, is at
    ``second``."""
    rig.set(CTLR, 0, 4)
    rig.set(BASER0, DEVICES | VALID | INDIRECT)
    rig.memory.put(DEVICES + 8, second | VALID)
    rig.set(CTLR, 1, 4)


def migrate(rig: ItsRig) -> ItsRig:
    """A save, and a restore into another machine, in the order that the KVM documentation asks
    for."""
    rig.device.set_attr(Group.CTRL, Ctrl.SAVE_PENDING_TABLES)
    save(rig)
    other = rig.another()
    for vcpu in range(len(rig.vifs)):
        for offset in (GICR_PROPBASER, GICR_PENDBASER, GICR_CTLR):
            value = rig.rd(vcpu, offset, size=8 if offset else 4)
            for half in range(0, 8 if offset else 4, 4):
                attribute = vcpu << 32 | offset + half
                other.device.set_attr(Group.REDIST_REGS, attribute, value >> 8 * half & 0xFFFF_FFFF)
    for offset in (CBASER, BASER0, BASER1, CREADR, CWRITER, IIDR):
        other.its_device.set_attr(
            Group.ITS_REGS, offset, rig.its_device.get_attr(Group.ITS_REGS, offset)
        )
    restore(other)
    other.its_device.set_attr(Group.ITS_REGS, CTLR, rig.its_device.get_attr(Group.ITS_REGS, CTLR))
    other.settle()
    return other


def maps(rig: ItsRig) -> list[tuple[object, ...]]:
    return sorted(
        (row["device"], row["event"], row["intid"], row["icid"], row["vcpu"])
        for row in rig.its.rows()
    )  # type: ignore[arg-type]


@pytest.fixture
def rig() -> ItsRig:
    return ItsRig(vcpus=2)


# The ABI ----------------------------------------------------------------------------------------


def test_entries_have_the_layout_of_abi_0(rig: ItsRig) -> None:
    for device in (1, 3):
        rig.map_device(device, 4)
    rig.map(LPI + 2, device=1, event=2, icid=1)
    rig.map(LPI + 7, device=1, event=7, icid=0)
    save(rig)
    word = rig.memory.word
    assert word(DEVICES + 8) == VALID | 2 << 49 | (ITTS + 0x1000) >> 8 << 5 | 4
    assert word(DEVICES + 24) == VALID | (ITTS + 0x3000) >> 8 << 5 | 4
    assert word(ITTS + 0x1000 + 16) == 5 << 48 | LPI + 2 << 16 | 1
    assert word(ITTS + 0x1000 + 56) == LPI + 7 << 16
    assert [word(COLLECTIONS + 8 * n) for n in range(3)] == [VALID, VALID | 1 << 16 | 1, 0]


def test_offsets_are_capped(rig: ItsRig) -> None:
    use_two_levels(rig)
    rig.memory.put(DEVICES + 16, LEVEL2 + 0x6_0000 | VALID)
    for device in (8192, 3 * 8192 - 1):
        rig.do("MAPD", device=device, size=15, itt=ITTS, valid=1)
    rig.configure_lpi(LPI, 0xA1)
    for event in (0, 0xFFFF):
        rig.do("MAPTI", device=8192, event=event, intid=LPI, icid=0)
    save(rig)
    assert rig.memory.word(LEVEL2) >> 49 & 0x3FFF == 0x3FFF
    assert rig.memory.word(ITTS) >> 48 == 0xFFFF


def test_collections_that_are_not_mapped_yet_or_any_more(rig: ItsRig) -> None:
    rig.map(LPI, icid=9)
    rig.map(LPI + 1, device=1, event=0, icid=8)
    rig.do("MAPC", icid=8, rdbase=1, valid=1)
    rig.do("MAPC", icid=8, valid=0)
    save(rig)
    assert rig.memory.word(COLLECTIONS + 16) == VALID | 0xFFFF_FFFF << 16 | 9
    other = migrate(rig)
    assert maps(other) == [(0, 0, LPI, 9, None), (1, 0, LPI + 1, 8, None)]
    assert other.do("MAPC", icid=9, rdbase=1, valid=1) == 0
    assert other.msi(0) and other.taken(1) == [LPI]


def test_what_is_unmapped_is_gone_from_saved_tables(rig: ItsRig) -> None:
    rig.map(LPI, device=0, event=0)
    rig.map(LPI + 1, device=0, event=1)
    rig.map(LPI + 2, device=5, event=0)
    save(rig)
    rig.do("DISCARD", device=0, event=0)
    rig.do("MAPD", device=5, valid=0)
    assert rig.memory.word(ITTS) == 0 and rig.memory.word(DEVICES + 40) == 0
    assert maps(migrate(rig)) == [(0, 1, LPI + 1, 0, 0)]


def test_a_full_collection_table_has_no_end_entry(rig: ItsRig) -> None:
    for icid in range(8192):
        rig.its.map_collection(icid, 0)
    rig.memory.put(COLLECTIONS + 0x1_0000, 0x1234)
    save(rig)
    assert rig.memory.word(COLLECTIONS + 0x1_0000) == 0x1234
    assert len(migrate(rig).its.collections) == 8192


def test_without_tables_there_is_nothing_to_save() -> None:
    rig = ItsRig(ready=False)
    save(rig)
    restore(rig)
    assert rig.memory.writes == []


# Migration --------------------------------------------------------------------------------------


@pytest.mark.parametrize("two_levels", [False, True])
def test_a_migrated_machine_goes_on(rig: ItsRig, two_levels: bool) -> None:
    first = 0
    if two_levels:
        use_two_levels(rig)
        first = 8192
    for n, device in enumerate((first, first + 2, first + 8191)):
        rig.do("MAPD", device=device, size=3 + n, itt=ITTS + n * 0x1000, valid=1)
        for event in (0, 3, 7):
            rig.map(LPI + 16 * n + event, device=device, event=event, icid=event & 1)
    rig.msi(3, device=first)  # in a list register of vCPU 1
    rig.vgic.signal_msi(0x0809_0040, 7, first + 2)
    other = migrate(rig)
    assert maps(other) == maps(rig) and len(maps(other)) == 9
    assert other.taken(1) == [LPI + 3, LPI + 16 + 7]
    assert other.msi(0, device=first + 8191) and other.taken(0) == [LPI + 32]
    assert other.do("INT", device=first, event=7) == 0 and other.taken(1) == [LPI + 7]
    assert [other.get(o) for o in (CBASER, BASER0, BASER1)] == [
        rig.get(o) for o in (CBASER, BASER0, BASER1)
    ]
    assert other.get(CTLR, 4) == 1 << 31 | 1


def test_a_saved_table_is_read_in_the_same_machine(rig: ItsRig) -> None:
    rig.map(LPI)
    save(rig)
    rig.its_device.set_attr(Group.CTRL, Ctrl.ITS_CTRL_RESET)
    assert maps(rig) == [] and rig.vgic.dist.lpis == {}
    rig.set(BASER0, DEVICES | VALID)
    rig.set(BASER1, COLLECTIONS | VALID)
    restore(rig)
    assert maps(rig) == [(0, 0, LPI, 0, 0)]
    with pytest.raises(KvmError, match="EEXIST"):
        restore(rig)


# Tables that make no sense ----------------------------------------------------------------------


def entry_of_device(bits: int = 5, itt: int = ITTS, following: int = 0) -> int:
    return arch.device_entry(following, itt, bits)


Damage = Callable[[ItsRig], None]
DAMAGE: dict[str, tuple[str, Damage]] = {
    "no such vCPU": ("EINVAL", lambda r: r.memory.put(COLLECTIONS, arch.collection_entry(7, 0))),
    "a collection twice": (
        "EEXIST",
        lambda r: r.memory.put(COLLECTIONS + 8, arch.collection_entry(0, 0)),
    ),
    "no room for it": (
        "EINVAL",
        lambda r: r.memory.put(COLLECTIONS, arch.collection_entry(0, 0xFFFF)),
    ),
    "no LPI": ("EINVAL", lambda r: r.memory.put(ITTS, arch.event_entry(0, 8191, 0))),
    "INTID of 17 bits": ("EINVAL", lambda r: r.memory.put(ITTS, arch.event_entry(0, 1 << 16, 0))),
    "collection unmapped": ("EINVAL", lambda r: r.memory.put(ITTS, arch.event_entry(0, LPI, 5))),
    "next beyond the table": ("EINVAL", lambda r: r.memory.put(ITTS, arch.event_entry(32, LPI, 0))),
    "EventIDs of 17 bits": ("EINVAL", lambda r: r.memory.put(DEVICES, entry_of_device(17))),
    "ITT outside memory": (
        "EFAULT",
        lambda r: r.memory.put(DEVICES, entry_of_device(5, RAM + RAM_SIZE)),
    ),
}


@pytest.mark.parametrize("what", list(DAMAGE))
def test_a_damaged_table_is_refused_whole(rig: ItsRig, what: str) -> None:
    rig.map(LPI)
    save(rig)
    errno, damage = DAMAGE[what]
    rig.its_device.set_attr(Group.CTRL, Ctrl.ITS_CTRL_RESET)
    rig.set(BASER0, DEVICES | VALID)
    rig.set(BASER1, COLLECTIONS | VALID)
    damage(rig)
    with pytest.raises(KvmError, match=errno):
        restore(rig)
    assert rig.its.devices == {} and rig.its.collections == {} and rig.vgic.dist.lpis == {}


def test_a_save_that_has_no_room_is_an_error(rig: ItsRig) -> None:
    rig.do("MAPD", device=0, size=4, itt=RAM + RAM_SIZE, valid=1)
    rig.do("MAPTI", device=0, event=0, intid=LPI, icid=0)
    with pytest.raises(KvmError, match="EFAULT"):
        save(rig)
    use_two_levels(rig)
    with pytest.raises(KvmError, match="EINVAL"):
        save(rig)


def test_offsets_that_leave_a_second_level_end_it(rig: ItsRig) -> None:
    """The scan goes on with the next page of the first level."""
    use_two_levels(rig)
    third = LEVEL2 + 0x6_0000
    rig.memory.put(DEVICES + 16, third | VALID)
    rig.memory.put(LEVEL2 + 8 * 8000, entry_of_device(following=500))
    rig.memory.put(third, entry_of_device(itt=ITTS + 0x1000))
    restore_into = rig.another()
    restore_into.set(BASER0, rig.get(BASER0))
    restore(restore_into)
    assert sorted(restore_into.its.devices) == [8192 + 8000, 2 * 8192]
