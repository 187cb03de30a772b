"""Unit tests of the GICv3 part of the model, each derived from a clause of IHI 0069 (or IHI
0048)."""

from __future__ import annotations

import pytest

from . import GicModel
from .support import GRPEN, SPI, eoi, iar, setup_spi, v3

# ---- reset and register maps


def test_v3_reset_values() -> None:
    gic = GicModel(3, 4, 96)
    assert gic.dist_read(0, 0, 4) == 0x50
    assert gic.dist_read(0, 4, 4) == 2 | 9 << 19
    assert gic.dist_read(0, 0x84, 4) == 0xFFFFFFFF and gic.dist_read(0, 0x80, 4) == 0
    assert gic.redist_read(0, 1, 0x10080, 4) == 0xFFFFFFFF
    assert gic.redist_read(0, 1, 0x10100, 4) == 0xFFFF
    assert (
        gic.redist_read(0, 1, 0x10C00, 4) == 0xAAAAAAAA and gic.redist_read(0, 1, 0x10C04, 4) == 0
    )
    assert gic.dist_read(0, 0xC08, 4) == 0
    assert gic.icc_read(0, "ICC_PMR_EL1") == 0 and gic.icc_read(0, "ICC_RPR_EL1") == 0xFF
    assert gic.icc_read(0, "ICC_BPR0_EL1") == 2 and gic.icc_read(0, "ICC_BPR1_EL1") == 3
    assert gic.icc_read(0, "ICC_SRE_EL1") == 7 and gic.icc_read(0, "ICC_CTLR_EL1") == 4 << 8
    assert iar(gic) == 1023


def test_redistributor_typer() -> None:
    gic = GicModel(3, 18)
    assert gic.redist_read(0, 17, 8, 8) == (1 << 8 | 1) << 32 | 17 << 8 | 1 << 5 | 1 << 4
    assert gic.redist_read(0, 3, 8, 4) == 3 << 8 | 1 << 5 and gic.redist_read(0, 17, 12, 4) == 0x101


def test_access_sizes_are_raz_wi() -> None:
    gic = v3()
    gic.dist_write(0, 0x104, 8, ~0)
    gic.dist_write(0, 0x104, 2, 0xFFFF)
    gic.dist_write(0, 0x104, 1, 0xFF)
    gic.dist_write(0, 0x105, 4, 0xFF)
    assert gic.dist_read(0, 0x104, 4) == 0
    gic.dist_write(0, 0x422, 1, 0xFF)
    gic.dist_write(0, 0x422, 2, 0)
    assert gic.dist_read(0, 0x420, 4) == 0xF8 << 16 and gic.dist_read(0, 0x422, 1) == 0xF8
    assert gic.dist_read(0, 0x422, 2) == 0


def test_v3_distributor_has_no_private_fields() -> None:
    gic = v3()
    for offset in (
        0x80,
        0x100,
        0x200,
        0x300,
        0x400,
        0x41C,
        0x800,
        0x820,
        0xC04,
        0xF00,
        0xF10,
        0x6000,
        0x60F8,
    ):
        gic.dist_write(0, offset, 4, ~0)
        assert gic.dist_read(0, offset, 4) == 0, hex(offset)
    assert (
        not gic.pending(1) and gic.priority(1) == 0 and gic.redist_read(0, 0, 0x10100, 4) == 0xFFFF
    )


def test_unimplemented_intids_are_raz_wi() -> None:
    gic = v3(nr_irqs=1024)
    gic.dist_write(0, 0x100 + 4 * 31, 4, ~0)
    assert gic.dist_read(0, 0x100 + 4 * 31, 4) == 0x0FFFFFFF
    gic.set_line(1020, True)
    assert v3(nr_irqs=64).dist_read(0, 0x88, 4) == 0


def test_irouter_halves() -> None:
    gic = v3()
    offset = 0x6000 + 8 * SPI
    gic.dist_write(0, offset, 8, ~0)
    assert gic.dist_read(0, offset, 8) == 0x80FFFFFF and gic.dist_read(0, offset + 4, 4) == 0
    gic.dist_write(0, offset + 4, 4, ~0)
    gic.dist_write(0, offset, 4, 1)
    assert gic.dist_read(0, offset, 8) == 1


# ---- pending, active, priorities (GICv3)


def test_level_interrupt_follows_its_wire() -> None:
    gic = v3()
    setup_spi(gic, SPI)
    gic.set_line(SPI, True)
    assert gic.irq(0) and not gic.fiq(0) and not gic.irq(1) and gic.hppi(0) == SPI
    gic.set_line(SPI, False)
    assert not gic.irq(0) and iar(gic) == 1023
    gic.set_line(SPI, True)
    assert iar(gic) == SPI
    assert gic.active(SPI) and gic.pending(SPI), "active and pending while the wire is high"
    assert gic.active_on(SPI) == {0} and not gic.irq(0)
    eoi(gic, SPI)
    assert not gic.active(SPI) and gic.irq(0) and gic.unpredictable == ""


def test_edge_interrupt_is_latched_once() -> None:
    gic = v3()
    setup_spi(gic, SPI, edge=True)
    gic.set_line(SPI, True)
    assert iar(gic) == SPI and not gic.pending(SPI)
    gic.set_line(SPI, True)
    assert not gic.pending(SPI), "a wire that stays high is no edge"
    gic.set_line(SPI, False)
    gic.pulse(SPI)
    gic.pulse(SPI)
    assert gic.pending(SPI) and gic.active(SPI) and iar(gic) == 1023
    eoi(gic, SPI)
    assert iar(gic) == SPI
    eoi(gic, SPI)
    assert iar(gic) == 1023


def test_pulse_of_a_level_interrupt_leaves_nothing() -> None:
    gic = v3()
    setup_spi(gic, SPI)
    gic.pulse(SPI)
    assert not gic.pending(SPI)


def test_ispendr_latch_of_a_level_interrupt() -> None:
    """IHI 0048 figure 4-10: the latch is beside the wire; ICPENDR and the acknowledge clear the
    latch only."""
    gic = v3()
    setup_spi(gic, SPI)
    gic.dist_write(0, 0x204, 4, 1 << SPI - 32)
    assert gic.dist_read(0, 0x284, 4) == 1 << SPI - 32 and gic.irq(0)
    gic.dist_write(0, 0x284, 4, 1 << SPI - 32)
    assert not gic.pending(SPI)
    gic.dist_write(0, 0x204, 4, 1 << SPI - 32)
    gic.set_line(SPI, True)
    gic.dist_write(0, 0x284, 4, 1 << SPI - 32)
    assert gic.pending(SPI), "a high wire cannot be cleared"
    gic.dist_write(0, 0x204, 4, 1 << SPI - 32)
    gic.set_line(SPI, False)
    assert iar(gic) == SPI and not gic.pending(SPI)


def test_icfgr_change_keeps_latch_and_wire() -> None:
    gic = v3()
    setup_spi(gic, SPI, edge=True)
    gic.pulse(SPI)
    gic.dist_write(0, 0x184, 4, 1 << SPI - 32)
    gic.dist_write(0, 0xC08, 4, 0)
    assert gic.pending(SPI) and gic.unpredictable == ""
    gic.dist_write(0, 0x284, 4, 1 << SPI - 32)
    gic.set_line(SPI, True)
    gic.dist_write(0, 0xC08, 4, 2 << (SPI - 32) * 2)
    assert not gic.pending(SPI), "a high wire is no edge"
    gic.dist_write(0, 0x104, 4, 1 << SPI - 32)
    gic.dist_write(0, 0xC08, 4, 0)
    assert "ICFGR" in gic.unpredictable and gic.pending(SPI)


def test_priority_mask_is_strict() -> None:
    gic = v3()
    setup_spi(gic, SPI, prio=0x80)
    gic.set_line(SPI, True)
    gic.icc_write(0, "ICC_PMR_EL1", 0x80)
    assert not gic.irq(0) and iar(gic) == 1023 and gic.icc_read(0, "ICC_HPPIR1_EL1") == SPI
    gic.icc_write(0, "ICC_PMR_EL1", 0x8F)
    assert gic.icc_read(0, "ICC_PMR_EL1") == 0x88 and gic.irq(0)


def test_preemption_and_binary_point() -> None:
    gic = v3()
    setup_spi(gic, 40, prio=0x80)
    setup_spi(gic, 41, prio=0x70)
    gic.set_line(40, True)
    assert iar(gic) == 40 and gic.icc_read(0, "ICC_RPR_EL1") == 0x80
    gic.set_line(41, True)
    assert gic.irq(0) and iar(gic) == 41 and gic.running_priority(0) == 0x70
    assert gic.icc_read(0, "ICC_AP1R0_EL1") == 1 << 16 | 1 << 14
    gic.set_line(41, False)
    eoi(gic, 41)
    assert gic.running_priority(0) == 0x80 and not gic.irq(0)
    eoi(gic, 40)
    assert gic.running_priority(0) == 0xFF and gic.unpredictable == ""


def test_binary_point_groups_priorities() -> None:
    """BPR1 = 5 leaves [7:5] as group priority, BPR0 = 5 leaves [7:6] (IHI 0069 tables 4-9,
    4-10)."""
    gic = v3()
    gic.icc_write(0, "ICC_BPR1_EL1", 5)
    setup_spi(gic, 40, prio=0x78)
    setup_spi(gic, 41, prio=0x60)
    setup_spi(gic, 42, prio=0x58)
    gic.set_line(40, True)
    assert iar(gic) == 40 and gic.running_priority(0) == 0x60
    gic.set_line(41, True)
    assert not gic.irq(0), "same group priority"
    gic.set_line(42, True)
    assert iar(gic) == 42 and gic.running_priority(0) == 0x40


@pytest.mark.parametrize(("group", "cbpr", "running"), [(0, 0, 0x40), (1, 1, 0x40), (1, 0, 0x60)])
def test_each_group_uses_its_binary_point(group: int, cbpr: int, running: int) -> None:
    gic = v3()
    gic.icc_write(0, "ICC_BPR0_EL1", 5)
    gic.icc_write(0, "ICC_BPR1_EL1", 5)
    gic.icc_write(0, "ICC_CTLR_EL1", cbpr)
    setup_spi(gic, SPI, prio=0x78, group=group)
    gic.set_line(SPI, True)
    assert iar(gic, group=group) == SPI and gic.running_priority(0) == running


def test_priority_drop_takes_the_highest_of_both_groups() -> None:
    gic = v3()
    for intid, prio, group in ((40, 0x80, 0), (41, 0x60, 1), (42, 0x40, 0)):
        setup_spi(gic, intid, prio, edge=True, group=group)
        gic.pulse(intid)
        assert iar(gic, group=group) == intid
    for intid, after, group in ((42, 0x60, 0), (41, 0x80, 1), (40, 0xFF, 0)):
        eoi(gic, intid, group=group)
        assert gic.running_priority(0) == after and not gic.active(intid)
    assert gic.unpredictable == ""


@pytest.mark.parametrize("prio_bits", [5, 6, 7])
def test_binary_point_minimum_and_cbpr(prio_bits: int) -> None:
    gic = v3(prio_bits=prio_bits)
    gic.icc_write(0, "ICC_BPR0_EL1", 0)
    gic.icc_write(0, "ICC_BPR1_EL1", 0)
    assert (
        gic.icc_read(0, "ICC_BPR0_EL1") == 7 - prio_bits
        and gic.icc_read(0, "ICC_BPR1_EL1") == 8 - prio_bits
    )
    gic.icc_write(0, "ICC_CTLR_EL1", 1)
    gic.icc_write(0, "ICC_BPR0_EL1", 5)
    gic.icc_write(0, "ICC_BPR1_EL1", 4)
    assert gic.icc_read(0, "ICC_BPR1_EL1") == 6
    gic.icc_write(0, "ICC_BPR0_EL1", 7)
    assert gic.icc_read(0, "ICC_BPR1_EL1") == 7
    gic.icc_write(0, "ICC_CTLR_EL1", 0)
    assert gic.icc_read(0, "ICC_BPR1_EL1") == 8 - prio_bits


def test_binary_point_change_while_active_is_unpredictable() -> None:
    gic = v3()
    setup_spi(gic, SPI)
    gic.set_line(SPI, True)
    iar(gic)
    gic.icc_write(0, "ICC_BPR1_EL1", 3)
    assert gic.unpredictable == "", "no change"
    gic.icc_write(0, "ICC_BPR1_EL1", 6)
    assert "binary point" in gic.unpredictable


@pytest.mark.parametrize(("prio_bits", "levels"), [(5, 32), (6, 64), (7, 128)])
def test_active_priority_registers(prio_bits: int, levels: int) -> None:
    gic = v3(prio_bits=prio_bits)
    setup_spi(gic, SPI, prio=0xF0)
    gic.set_line(SPI, True)
    assert iar(gic) == SPI
    level = 0xF0 >> 8 - prio_bits
    assert gic.icc_read(0, f"ICC_AP1R{level // 32}_EL1") == 1 << level % 32
    gic.icc_write(0, "ICC_AP0R3_EL1", 1)
    assert gic.icc_read(0, "ICC_AP0R3_EL1") == (1 if levels == 128 else 0)
    assert bool(gic.unpredictable) == (levels == 128)


def test_groups_go_to_irq_and_fiq() -> None:
    gic = v3()
    setup_spi(gic, 40, prio=0x80, group=1)
    setup_spi(gic, 41, prio=0x40, group=0)
    gic.set_line(40, True)
    gic.set_line(41, True)
    assert gic.fiq(0) and not gic.irq(0)
    assert iar(gic, group=1) == 1023 and gic.icc_read(0, "ICC_HPPIR1_EL1") == 1023
    assert gic.icc_read(0, "ICC_HPPIR0_EL1") == 41 and iar(gic, group=0) == 41
    assert not gic.irq(0), "the running priority is common to both groups"
    eoi(gic, 41, group=0)
    gic.icc_write(0, GRPEN[0], 0)
    assert gic.irq(0) and not gic.fiq(0), "a disabled group is not considered"
    gic.dist_write(0, 0, 4, 1)
    assert not gic.irq(0) and gic.hppi(0) == 1023


def test_eoimode_splits_drop_and_deactivation() -> None:
    gic = v3()
    gic.icc_write(0, "ICC_CTLR_EL1", 2)
    setup_spi(gic, SPI, edge=True)
    gic.pulse(SPI)
    iar(gic)
    eoi(gic, SPI)
    assert gic.running_priority(0) == 0xFF and gic.active(SPI)
    gic.pulse(SPI)
    assert not gic.irq(0), "an active interrupt is not delivered again"
    gic.icc_write(0, "ICC_DIR_EL1", SPI)
    assert not gic.active(SPI) and gic.irq(0) and gic.unpredictable == ""


def test_dir_is_ignored_with_eoimode_0() -> None:
    gic = v3()
    setup_spi(gic, SPI, edge=True)
    gic.pulse(SPI)
    iar(gic)
    gic.icc_write(0, "ICC_DIR_EL1", SPI)
    assert gic.active(SPI) and gic.unpredictable == ""


def test_dir_from_another_cpu_and_before_eoi() -> None:
    gic = v3()
    for cpu in (0, 1):
        gic.icc_write(cpu, "ICC_CTLR_EL1", 2)
    setup_spi(gic, SPI, edge=True)
    gic.pulse(SPI)
    iar(gic)
    gic.icc_write(1, "ICC_DIR_EL1", SPI)
    assert not gic.active(SPI) and gic.running_priority(0) == 0x80
    eoi(gic, SPI)
    assert gic.running_priority(0) == 0xFF and gic.unpredictable == ""


def test_eoi_out_of_order_is_unpredictable() -> None:
    gic = v3()
    for intid, prio in ((40, 0x80), (41, 0x40)):
        setup_spi(gic, intid, prio, edge=True)
        gic.pulse(intid)
        assert iar(gic) == intid
    eoi(gic, 40)
    assert gic.unpredictable and gic.running_priority(0) == 0x80, "the highest priority is dropped"
    assert gic.active(40) and gic.active(41)


def test_eoi_of_special_intids_is_ignored() -> None:
    gic = v3()
    setup_spi(gic, SPI, edge=True)
    gic.pulse(SPI)
    iar(gic)
    for intid in range(1020, 1024):
        eoi(gic, intid)
    assert gic.running_priority(0) == 0x80 and gic.unpredictable == ""
    eoi(gic, SPI, group=0)
    assert gic.unpredictable and gic.active(SPI) and gic.running_priority(0) == 0xFF


def test_isactiver_does_not_touch_the_priority() -> None:
    gic = v3()
    gic.dist_write(0, 0x6000 + 8 * SPI, 4, 1)
    setup_spi(gic, SPI, edge=True)
    gic.dist_write(0, 0x304, 4, 1 << SPI - 32)
    assert gic.active(SPI) and gic.active_on(SPI) == {1} and gic.running_priority(1) == 0xFF
    gic.pulse(SPI)
    assert not gic.irq(1)
    gic.dist_write(0, 0x384, 4, 1 << SPI - 32)
    assert gic.irq(1) and gic.active_on(SPI) == set()
    gic.dist_write(0, 0x6000 + 8 * SPI, 4, 0x55)
    gic.dist_write(0, 0x304, 4, 1 << SPI - 32)
    assert gic.active(SPI) and gic.active_on(SPI) == set()


def test_ties_and_preference() -> None:
    gic = v3()
    for intid in (50, 40, 60):
        setup_spi(gic, intid, edge=True)
        gic.pulse(intid)
    setup_spi(gic, 41, prio=0x90, edge=True)
    gic.pulse(41)
    assert gic.tie_candidates(0) == {(40, 0), (50, 0), (60, 0)} and gic.hppi(0) == 40
    assert gic.icc_read(0, "ICC_HPPIR1_EL1", prefer=60) == 60
    assert gic.icc_read(0, "ICC_IAR1_EL1", prefer=50) == 50
    eoi(gic, 50)
    assert gic.icc_read(0, "ICC_IAR1_EL1", prefer=41) == 40, "not a tie"
