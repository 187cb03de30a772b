"""The end of virtual interrupts: which priority drops, which interrupt is deactivated, what
EOIcount counts (IHI 0069 6.2, 12.2)."""

from __future__ import annotations

import pytest
from ich_guest import Guest

from armvirt.arch.gic import CTLR_CBPR, CTLR_EOIMODE, ICH_HCR_EN


@pytest.fixture
def guest() -> Guest:
    return Guest()


@pytest.mark.parametrize("eoimode", [0, CTLR_EOIMODE])
def test_an_end_with_nothing_running_is_not_counted(guest: Guest, eoimode: int) -> None:
    """Whether it is, is CONSTRAINED UNPREDICTABLE; a hypervisor that counts would end what the
    guest did not."""
    guest.write("CTLR", eoimode)
    guest.pend(0, 40, active=True, pending=False)
    guest.write("EOIR1", 99)
    guest.write("EOIR1", 40)
    assert guest.eoicount == 0 and guest.lr(0).active and guest.read("RPR") == 0xFF


@pytest.mark.parametrize("intid", [1020, 1021, 1022, 1023, 1 << 16 | 40, 0xFF_FFFF])
def test_numbers_that_are_no_interrupts_drop_nothing(guest: Guest, intid: int) -> None:
    """Special INTIDs, and those with more than the 16 bits that ICH_VTR_EL2.IDbits allows."""
    guest.pend(0, 40)
    guest.read("IAR1")
    guest.write("EOIR1", intid)
    guest.write("EOIR0", intid)
    assert guest.read("RPR") == 0x80 and guest.eoicount == 0


def test_bits_above_the_intid_are_ignored(guest: Guest) -> None:
    guest.pend(0, 40)
    guest.read("IAR1")
    guest.write("EOIR1", 1 << 32 | 40)
    assert guest.ich("ELRSR") == 0xF


def test_the_count_wraps_after_31(guest: Guest) -> None:
    for _ in range(31):
        guest.write("AP1R0", 1)
        guest.write("EOIR1", 99)
    assert guest.eoicount == 31
    guest.write("AP1R0", 1)
    guest.write("EOIR1", 99)
    assert guest.eoicount == 0 and guest.ich("HCR") == ICH_HCR_EN


@pytest.mark.parametrize("intid", [1020, 1023, 1024, 8192, 0xFF_FFFF])
def test_dir_takes_only_what_can_be_active(guest: Guest, intid: int) -> None:
    guest.write("CTLR", CTLR_EOIMODE)
    guest.write("DIR", intid)
    assert guest.eoicount == 0


def test_dir_does_not_look_at_priorities_or_groups(guest: Guest) -> None:
    guest.write("CTLR", CTLR_EOIMODE)
    for n, group in enumerate((0, 1)):
        guest.pend(n, 40 + n, 0x80 - 8 * n, group)
        assert guest.read(f"IAR{group}") == 40 + n
    guest.write("DIR", 40)
    assert guest.lr(1).active and not guest.lr(0).active and guest.read("RPR") == 0x78


def test_with_eoimode_1_the_end_may_come_out_of_order(guest: Guest) -> None:
    """EOIR says a number that is not the running one: the highest priority drops all the same,
    nothing is counted."""
    guest.write("CTLR", CTLR_EOIMODE)
    for n in range(2):
        guest.pend(n, 40 + n, 0x80 - 8 * n)
        guest.read("IAR1")
    guest.write("EOIR1", 40)
    assert guest.read("RPR") == 0x80 and guest.eoicount == 0
    guest.write("EOIR1", 41)
    assert guest.read("RPR") == 0xFF and guest.lr(0).active and guest.lr(1).active


@pytest.mark.parametrize("eoimode", [0, CTLR_EOIMODE])
def test_an_lpi_ends_with_its_priority(guest: Guest, eoimode: int) -> None:
    """No deactivation follows for an LPI, so a list register that says active is emptied in either
    mode."""
    guest.write("CTLR", eoimode)
    guest.pend(0, 8192, active=True, pending=False)
    guest.write("AP1R0", 1 << 16)
    guest.write("EOIR1", 8192)
    assert guest.read("RPR") == 0xFF and guest.ich("ELRSR") == 0xF and guest.eoicount == 0


def test_the_physical_interrupt_outlives_the_priority_drop(guest: Guest) -> None:
    guest.gic.set_active(0, 30, True)
    guest.write("CTLR", CTLR_EOIMODE)
    guest.pend(0, 27, pintid=30)
    guest.read("IAR1")
    guest.write("EOIR1", 27)
    assert guest.gic.is_active(0, 30)
    guest.write("DIR", 27)
    assert not guest.gic.is_active(0, 30)


@pytest.mark.parametrize("pintid", [32, 1019, 1020, 1023, 0x1FFF])
def test_a_physical_interrupt_that_is_not_there(guest: Guest, pintid: int) -> None:
    guest.pend(0, 40, pintid=pintid)
    assert guest.lr(0).pintid == pintid
    guest.read("IAR1")
    guest.write("EOIR1", 40)
    assert guest.ich("ELRSR") == 0xF


@pytest.mark.parametrize(("written", "stored"), [(1 << 61, 0x1FFF << 32 | 1 << 61), (0, 1 << 41)])
def test_list_register_bits_that_exist(guest: Guest, written: int, stored: int) -> None:
    """pINTID only with HW = 1; of its bits, 41 is EOI without it. NMI and the rest are RES0."""
    value = guest.ich("LR0", written | 1 << 59 | 0xF << 56 | 0x1FFF << 32 | 0x3 << 45)
    assert value == stored
    guest.vif.program(ICH_HCR_EN, [written | 0x1FFF << 32])
    assert guest.ich("LR0") == stored


# The binary point may move while something runs -------------------------------------------------


def test_equals_do_not_preempt_when_the_binary_point_moves_up(guest: Guest) -> None:
    """Both priorities are cut to the group priority: 0x88 runs, and with BPR1 = 7 the pending 0x80
    is of its group."""
    guest.pend(0, 40, 0x88)
    guest.read("IAR1")
    guest.pend(1, 41, 0x80)
    assert guest.vif.virq
    guest.write("BPR1", 7)
    assert not guest.vif.virq and guest.read("IAR1") == 1023
    guest.pend(1, 41, 0x78)
    assert guest.vif.virq


def test_each_group_is_cut_by_its_own_binary_point(guest: Guest) -> None:
    guest.write("BPR0", 7)  # group 0 has no group priority at all: it never preempts
    guest.pend(0, 40, 0x88, group=1)
    guest.read("IAR1")
    guest.pend(1, 41, 0x00, group=0)
    assert not guest.vif.vfiq and guest.read("IAR0") == 1023
    guest.write("BPR0", 6)
    assert guest.vif.vfiq


def test_without_group_priorities_one_runs_at_a_time(guest: Guest) -> None:
    guest.write("CTLR", CTLR_CBPR)
    guest.write("BPR0", 7)
    guest.pend(0, 40, 0xA0)
    assert guest.read("IAR1") == 40 and guest.read("RPR") == 0
    guest.pend(1, 41, 0x00)
    assert not guest.vif.virq
    guest.write("EOIR1", 40)
    assert guest.lr(0).state_name == "inactive" and guest.read("IAR1") == 41


def test_an_end_after_the_binary_point_moved_only_drops(guest: Guest) -> None:
    """The group priority that was made active is no longer the one of the list register: no match,
    no deactivation."""
    guest.pend(0, 40, 0x88)
    guest.read("IAR1")
    guest.write("BPR1", 7)
    guest.write("EOIR1", 40)
    assert guest.read("RPR") == 0xFF and guest.lr(0).active and guest.eoicount == 0
