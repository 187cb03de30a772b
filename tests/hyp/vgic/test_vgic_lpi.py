"""LPIs: configuration and pending tables, delivery through list registers, the redistributor's
registers."""

from __future__ import annotations

from time import process_time

import pytest
from its_rig import (
    DOORBELL,
    GICR_CTLR,
    GICR_INVALLR,
    GICR_INVLPIR,
    GICR_PENDBASER,
    GICR_PROPBASER,
    GICR_SYNCR,
    LPI,
    PENDING,
    PROPERTIES,
    RAM,
    RAM_SIZE,
    ItsRig,
)
from vgic_rig import SPURIOUS, Rig

from armvirt.arch import its as arch
from armvirt.arch.gic import GICR_CTLR_RWP, ICH_HCR_TDIR
from armvirt.errors import KvmError
from armvirt.hyp.vgic.device import Ctrl, Group

BEYOND = RAM + RAM_SIZE


@pytest.fixture
def rig() -> ItsRig:
    return ItsRig()


# Delivery ---------------------------------------------------------------------------------------


def test_a_message_is_taken_once_and_never_active(rig: ItsRig) -> None:
    rig.map(LPI + 3)
    assert rig.msi(3)
    assert rig.ack() == LPI + 3
    assert rig.icc(0, "RPR") == 0xA0
    assert not rig.vgic.dist.irq(0, LPI + 3).active
    rig.eoi(LPI + 3)
    assert rig.icc(0, "RPR") == 0xFF
    assert rig.ack() == SPURIOUS


def test_a_message_while_it_runs_comes_again(rig: ItsRig) -> None:
    rig.map(LPI)
    rig.msi(0)
    assert rig.ack() == LPI
    rig.msi(0)
    assert rig.ack() == SPURIOUS  # the same priority is running
    rig.eoi(LPI)
    assert rig.taken() == [LPI]


def test_two_messages_before_the_acknowledge_are_one_interrupt(rig: ItsRig) -> None:
    rig.map(LPI)
    rig.msi(0)
    rig.msi(0)
    assert rig.taken() == [LPI]


def test_nothing_is_left_to_deactivate_with_eoimode_1(rig: ItsRig) -> None:
    rig.icc(0, "CTLR", 2)
    rig.map(LPI)
    rig.msi(0)
    assert rig.serve() == LPI
    rig.dir(LPI)
    rig.msi(0)
    assert rig.serve() == LPI


def test_lpis_do_not_make_others_trap_dir() -> None:
    """An SPI in flight on another vCPU does: it could be deactivated there."""
    rig = ItsRig(vcpus=2)
    rig.icc(1, "CTLR", 2)
    rig.map(LPI)
    rig.vgic.flush(1)
    rig.msi(0)
    assert not rig.vif(1).hcr & ICH_HCR_TDIR
    rig.vgic.flush(1)
    assert not rig.vif(1).hcr & ICH_HCR_TDIR
    rig.enable(40)
    rig.pulse(40)
    assert rig.vif(1).hcr & ICH_HCR_TDIR


def test_lpis_mark_no_other_vcpu_dirty() -> None:
    rig = ItsRig(vcpus=2)
    rig.icc(1, "CTLR", 2)
    rig.map(LPI)
    assert rig.vgic.signal_msi(DOORBELL, 0, 0)
    assert (rig.vgic.dirty(0), rig.vgic.dirty(1)) == (True, False)


def test_more_lpis_than_list_registers_come_by_priority() -> None:
    rig = ItsRig(list_registers=2)
    rig.map_device(size=5)
    priorities = [n * 40 % 0xF0 & 0xF8 for n in range(40)]
    for n, priority in enumerate(priorities):
        rig.map(LPI + n, prop=priority | 1)
        rig.msi(n)
    taken = rig.taken()
    assert sorted(taken) == [LPI + n for n in range(40)]
    assert [priorities[intid - LPI] for intid in taken] == sorted(priorities)


def test_an_lpi_and_an_spi_share_the_priorities(rig: ItsRig) -> None:
    rig.map(LPI, prop=0x41)
    rig.enable(40)
    rig.set_priority(40, 0x80)
    rig.pulse(40)
    assert rig.ack() == 40
    rig.msi(0)
    assert rig.ack() == LPI
    rig.eoi(LPI)
    rig.eoi(40)


def test_distributor_group_1_gates_lpis(rig: ItsRig) -> None:
    rig.map(LPI)
    rig.dist.write(0, 0, 4, 1)
    assert rig.msi(0)
    assert rig.ack() == SPURIOUS
    rig.dist.write(0, 0, 4, 2)
    rig.settle()
    assert rig.taken() == [LPI]


def test_an_lpi_wakes_its_vcpu() -> None:
    rig = ItsRig(vcpus=2)
    rig.map(LPI, icid=1)
    rig.put(1)
    rig.kicked.clear()
    rig.vgic.signal_msi(0x0809_0040, 0, 0)
    assert rig.kicked == [1] and rig.vgic.pending(1) and not rig.vgic.pending(0)
    rig.load(1, 1)
    rig.settle()
    assert rig.taken(1) == [LPI]


def test_an_lpi_is_no_line(rig: ItsRig) -> None:
    rig.map(LPI)
    with pytest.raises(KvmError, match="EINVAL"):
        rig.vgic.inject(None, LPI, True)
    with pytest.raises(KvmError, match="EINVAL"):
        rig.vgic.dist.irq(0, LPI + 1)


# Configuration ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prop", "priority", "enabled"), [(0xFF, 0xF8, True), (0x46, 0x40, False), (0x0B, 8, True)]
)
def test_the_property_byte(rig: ItsRig, prop: int, priority: int, enabled: bool) -> None:
    rig.map(LPI, prop=prop)
    irq = rig.vgic.dist.irq(0, LPI)
    assert (irq.priority, irq.enabled, irq.group, irq.level) == (priority, enabled, 1, False)


@pytest.mark.parametrize("how", ["INV", "INVALL", "INVLPIR", "INVALLR", "EnableLPIs"])
def test_a_change_is_seen_after_invalidation_only(rig: ItsRig, how: str) -> None:
    rig.map(LPI, prop=0x80)
    assert rig.msi(0)
    rig.configure_lpi(LPI, 0x81)
    assert rig.ack() == SPURIOUS
    if how == "INV":
        rig.do("INV", device=0, event=0)
    elif how == "INVALL":
        rig.do("INVALL", icid=0)
    elif how == "INVLPIR":
        rig.rd(0, GICR_INVLPIR, LPI)
    elif how == "INVALLR":
        rig.rd(0, GICR_INVALLR, 0)
    else:
        rig.disable_lpis()
        rig.enable_lpis()
    assert rig.rd(0, GICR_SYNCR, size=4) == 0
    assert rig.taken() == [LPI]


def test_disabling_recalls_it_from_the_list_register(rig: ItsRig) -> None:
    rig.map(LPI)
    rig.msi(0)
    assert rig.vif(0).virq
    rig.configure_lpi(LPI, 0xA0)
    rig.do("INV", device=0, event=0)
    assert not rig.vif(0).virq
    rig.configure_lpi(LPI, 0xA1)
    rig.do("INV", device=0, event=0)
    assert rig.taken() == [LPI]  # still pending


def test_invalidation_is_for_this_redistributor_alone() -> None:
    rig = ItsRig(vcpus=2)
    rig.map(LPI, icid=0)
    rig.map(LPI + 1, icid=1)
    for n in range(2):
        rig.configure_lpi(LPI + n, 0x20)
    rig.rd(1, GICR_INVALLR, 0)
    assert [rig.vgic.dist.irq(0, LPI + n).priority for n in range(2)] == [0xA0, 0x20]
    rig.do("INVALL", icid=0)
    assert rig.vgic.dist.irq(0, LPI).priority == 0x20


def test_invlpir_without_lpis_or_for_a_virtual_one_does_nothing(rig: ItsRig) -> None:
    rig.map(LPI)
    rig.configure_lpi(LPI, 0x20)
    rig.rd(0, GICR_INVLPIR, LPI | 1 << 63)
    rig.rd(0, GICR_INVALLR, 1 << 63)
    rig.rd(0, GICR_INVLPIR, 12345)
    rig.disable_lpis()
    rig.rd(0, GICR_INVLPIR, LPI)
    assert rig.vgic.dist.irq(0, LPI).priority == 0xA0


def test_a_table_outside_memory_leaves_lpis_disabled(rig: ItsRig) -> None:
    rig.disable_lpis()
    rig.rd(0, GICR_PROPBASER, BEYOND | 15)
    rig.rd(0, GICR_PENDBASER, BEYOND)
    rig.rd(0, GICR_CTLR, 1, 4)
    rig.map(LPI)
    assert rig.msi(0) and rig.ack() == SPURIOUS
    rig.do("INVALL", icid=0)
    rig.disable_lpis()


def test_a_table_that_ends_with_memory_is_read_as_far_as_it_goes(rig: ItsRig) -> None:
    rig.disable_lpis()
    rig.rd(0, GICR_PROPBASER, BEYOND - 0x1000 | 15)
    rig.memory.put(BEYOND - 0x1000, 0x41, 1)
    rig.rd(0, GICR_CTLR, 1, 4)
    rig.map_device(0, 15)
    for event, intid in ((0, LPI), (1, LPI + 0x1000)):
        assert rig.do("MAPTI", device=0, event=event, intid=intid, icid=0) == 0
    rig.do("INVALL", icid=0)
    assert [rig.vgic.dist.irq(0, intid).enabled for intid in (LPI, LPI + 0x1000)] == [True, False]


# Pending tables and EnableLPIs ------------------------------------------------------------------


def test_disabled_lpis_block_messages(rig: ItsRig) -> None:
    rig.map(LPI)
    rig.disable_lpis()
    assert not rig.msi(0)
    assert rig.vgic.dist.irq(0, LPI).target is None
    rig.enable_lpis()
    assert rig.taken() == []
    assert rig.msi(0) and rig.taken() == [LPI]


def test_disabling_puts_pending_lpis_into_the_table(rig: ItsRig) -> None:
    """The one in a list register too; the next enabling takes them from there."""
    rig.map(LPI)
    rig.map(LPI + 9)
    rig.msi(0)
    assert rig.vif(0).virq
    rig.disable_lpis()
    assert not rig.vif(0).virq
    assert (rig.table_bit(LPI), rig.table_bit(LPI + 9)) == (1, 0)
    rig.set_table_bit(LPI + 9)
    rig.enable_lpis()
    assert sorted(rig.taken()) == [LPI, LPI + 9]
    assert (rig.table_bit(LPI), rig.table_bit(LPI + 9)) == (0, 0)


def test_with_ptz_the_table_is_not_read(rig: ItsRig) -> None:
    rig.map(LPI)
    rig.disable_lpis()
    rig.set_table_bit(LPI)
    rig.enable_lpis(flags=1 << 62)
    assert rig.taken() == []


def test_mapping_takes_what_waits_in_the_table(rig: ItsRig) -> None:
    rig.set_table_bit(LPI + 5)
    rig.map(LPI + 5)
    assert rig.table_bit(LPI + 5) == 0
    assert rig.taken() == [LPI + 5]


def test_disabling_one_redistributor_leaves_the_other() -> None:
    rig = ItsRig(vcpus=2)
    rig.map(LPI, icid=0)
    rig.map(LPI + 1, icid=1)
    rig.disable_lpis(0)
    assert (rig.msi(0), rig.msi(1)) == (False, True)
    assert rig.taken(1) == [LPI + 1]


def test_save_pending_tables(rig: ItsRig) -> None:
    """KVM_DEV_ARM_VGIC_SAVE_PENDING_TABLES: bits are set and cleared, and nothing is lost here."""
    for n in (0, 8, 9):
        rig.map(LPI + n)
    rig.msi(0)
    rig.msi(9)
    rig.set_table_bit(LPI + 8)  # stale
    rig.device.set_attr(Group.CTRL, Ctrl.SAVE_PENDING_TABLES)
    assert [rig.table_bit(LPI + n) for n in (0, 8, 9)] == [1, 0, 1]
    rig.settle()
    assert sorted(rig.taken()) == [LPI, LPI + 9]


def test_save_pending_tables_outside_memory_is_an_error(rig: ItsRig) -> None:
    rig.disable_lpis()
    rig.rd(0, GICR_PENDBASER, BEYOND)
    rig.map(LPI)
    with pytest.raises(KvmError, match="EFAULT"):
        rig.device.set_attr(Group.CTRL, Ctrl.SAVE_PENDING_TABLES)


# Registers --------------------------------------------------------------------------------------


def test_registers_say_that_there_are_lpis(rig: ItsRig) -> None:
    typer = rig.dist.read(0, 4, 4)
    assert typer >> 17 & 1 == 1 and typer >> 19 & 31 == 15
    assert rig.rd(0, 8) & 0b1001 == 1  # PLPIS, not DirectLPI
    assert rig.rd(0, GICR_CTLR, size=4) == 0b111
    rig.disable_lpis()
    assert rig.rd(0, GICR_CTLR, size=4) == 0b110
    assert rig.icc(0, "CTLR") >> 11 & 7 == 0  # 16 bits


def test_without_an_its_there_are_none() -> None:
    rig = Rig()
    assert rig.dist.read(0, 4, 4) >> 17 & 1 == 0
    assert rig.redist.read(0, 8, 4) & 1 == 0
    for offset in (GICR_CTLR, GICR_PROPBASER, GICR_PENDBASER):
        rig.redist.write(0, offset, 4, 0x4000_0001)
    assert rig.redist.read(0, GICR_CTLR, 4) == 0b110
    assert [rig.redist.read(0, offset, 8) for offset in (GICR_PROPBASER, GICR_PENDBASER)] == [0, 0]
    with pytest.raises(KvmError, match="ENODEV"):
        rig.vgic.signal_msi(0x0809_0040, 0, 0)


@pytest.mark.parametrize(
    ("offset", "written", "read"),
    [
        (GICR_PROPBASER, (1 << 64) - 1, 0x000F_FFFF_FFFF_FF9F & ~(7 << 56) | 7 << 7 | 3 << 10),
        (GICR_PROPBASER, 2 << 10, 1 << 10 | 5 << 7),  # outer shareable, Device: neither
        (
            GICR_PROPBASER,
            1 << 56 | 1 << 7,
            1 << 56 | 5 << 7,
        ),  # non-cacheable is for the outside alone
        (GICR_PENDBASER, (1 << 64) - 1, 0x000F_FFFF_FFFF_0000 | 7 << 7 | 3 << 10),  # PTZ reads as 0
    ],
)
def test_table_registers_are_sanitised(offset: int, written: int, read: int) -> None:
    rig = ItsRig(ready=False)
    rig.rd(0, offset, written)
    assert rig.rd(0, offset) == read


def test_table_registers_are_read_only_while_enabled(rig: ItsRig) -> None:
    before = rig.rd(0, GICR_PROPBASER), rig.rd(0, GICR_PENDBASER)
    assert before[0] & arch.ADDRESS == PROPERTIES and before[1] & arch.PENDING_ADDRESS == PENDING
    rig.rd(0, GICR_PROPBASER, 0)
    rig.rd(0, GICR_PENDBASER, 0)
    assert (rig.rd(0, GICR_PROPBASER), rig.rd(0, GICR_PENDBASER)) == before


def test_the_halves_of_pendbaser_keep_ptz() -> None:
    rig = ItsRig(ready=False)
    rig.rd(0, GICR_PENDBASER + 4, 1 << 30, 4)
    rig.rd(0, GICR_PENDBASER, PENDING & 0xFFFF_FFFF, 4)
    assert rig.vgic.dist.cpu(0).pendbaser & (1 << 62 | arch.PENDING_ADDRESS) == 1 << 62 | PENDING
    assert rig.rd(0, GICR_PENDBASER) >> 62 == 0


def test_propbaser_is_one_for_all() -> None:
    rig = ItsRig(vcpus=2, ready=False)
    rig.rd(0, GICR_PROPBASER, PROPERTIES | 12)
    assert rig.rd(1, GICR_PROPBASER) == rig.rd(0, GICR_PROPBASER)


@pytest.mark.parametrize(("id_bits", "end"), [(0, 2), (13, 1 << 14), (15, 1 << 16), (31, 1 << 16)])
def test_idbits_says_how_many_lpis_there_are(id_bits: int, end: int) -> None:
    assert arch.lpis_end(PROPERTIES | id_bits) == end


def test_setlpir_and_clrlpir_do_nothing(rig: ItsRig) -> None:
    rig.map(LPI)
    rig.rd(0, 0x40, LPI)
    assert rig.taken() == []
    rig.msi(0)
    rig.rd(0, 0x48, LPI)
    assert rig.taken() == [LPI]


# State ------------------------------------------------------------------------------------------


def test_state_survives_in_the_middle_of_everything() -> None:
    rig = ItsRig(vcpus=2, list_registers=1)
    for n in range(4):
        rig.map(LPI + n, icid=n % 2, prop=0xA1 + 8 * n)
    rig.map(LPI + 4, device=3, event=0, icid=9)  # a collection that is not mapped
    for n in range(4):
        rig.msi(n)
    assert rig.ack(0) == LPI  # it has only its priority now; LPI + 2 waits
    other = rig.clone()
    assert other.vgic.state() == rig.vgic.state()
    for one in (rig, other):
        one.eoi(LPI)
        assert one.taken(0) == [LPI + 2] and one.taken(1) == [LPI + 1, LPI + 3]
        assert one.do("MAPC", icid=9, rdbase=1, valid=1) == 0
        assert one.msi(0, device=3) and one.taken(1) == [LPI + 4]
        one.do("MAPD", device=0, valid=0)
        one.do("MAPD", device=3, valid=0)
        assert one.vgic.dist.lpis == {}


def test_state_needs_as_many_its(rig: ItsRig) -> None:
    state = rig.vgic.state()
    other = rig.another()
    other.vgic.add_its()
    with pytest.raises(ValueError, match="another number of ITSs"):
        other.vgic.load_state(state)


def test_reset_forgets_everything(rig: ItsRig) -> None:
    fresh = ItsRig(ready=False)
    rig.map(LPI)
    rig.msi(0)
    for one in (rig, fresh):
        one.put(0)
        one.vgic.reset()
    assert rig.vgic.state() == fresh.vgic.state()
    assert rig.vgic.dist.lpis == {} and rig.vgic.rows() == fresh.vgic.rows()


def test_rows_have_lpis(rig: ItsRig) -> None:
    rig.map(LPI)
    assert any(row["intid"] == LPI for row in rig.vgic.rows())
    assert rig.its.rows() == [{"device": 0, "event": 0, "intid": LPI, "icid": 0, "vcpu": 0}]


# How much work one store can be -----------------------------------------------------------------


def test_as_many_lpis_as_there_can_be_leave_their_list() -> None:
    """However they are ordered: a list that is searched for each of them would take seconds for
    this. Clearing EnableLPIs takes several accesses."""
    rig = ItsRig()
    rig.map_device(size=15)
    device, collection, count = rig.its.devices[0], rig.its.collections[0], 30_000
    for event in range(count):
        rig.its.map_event(device, event, collection, LPI + event)
        rig.vgic.dist.lpis[LPI + event].enabled = True
    for event in reversed(range(count)):
        rig.its.trigger(0, event)
    ap_list = rig.vgic.dist.cpu(0).ap_list
    assert len(ap_list) == count
    start = process_time()
    rig.dist.write(0, 0, 4, 0)
    rig.dist.write(0, 0, 4, 3)
    rig.settle()
    rig.disable_lpis()
    while rig.rd(0, GICR_CTLR, size=4) & GICR_CTLR_RWP:
        pass
    assert not rig.vgic.dist.cpu(0).ap_list and process_time() - start < 2
