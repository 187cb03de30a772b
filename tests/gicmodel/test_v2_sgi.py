"""SGIs of both versions and the GICv2: IHI 0048, IHI 0069 8.1.10."""

from __future__ import annotations

import pytest

from . import GicModel
from .support import PPI, SPI, setup_spi, v2, v3

# ---- SGIs


@pytest.mark.parametrize(
    ("register", "group", "forwarded"),
    [
        ("ICC_SGI0R_EL1", 0, True),
        ("ICC_SGI0R_EL1", 1, False),
        ("ICC_SGI1R_EL1", 0, True),
        ("ICC_SGI1R_EL1", 1, True),
        ("ICC_ASGI1R_EL1", 0, True),
        ("ICC_ASGI1R_EL1", 1, False),
    ],
)
def test_sgi_group_rule(register: str, group: int, forwarded: bool) -> None:
    """IHI 0069 8.1.10: the table of sgi.FORWARDED."""
    gic = v3()
    gic.redist_write(0, 1, 0x10080, 4, group << 3)
    gic.icc_write(0, register, 3 << 24 | 0b10)
    assert gic.pending(3, 1) == forwarded and not gic.pending(3, 0)


def test_sgi_targets() -> None:
    gic = v3(20)
    gic.icc_write(0, "ICC_SGI1R_EL1", 1 << 40 | 5 << 24)
    assert [gic.pending(5, cpu) for cpu in range(20)] == [False] + [True] * 19
    gic.icc_write(3, "ICC_SGI1R_EL1", 6 << 24 | 1 << 16 | 0xFFFF)
    assert [cpu for cpu in range(20) if gic.pending(6, cpu)] == [16, 17, 18, 19]
    gic.icc_write(3, "ICC_SGI1R_EL1", 1 << 44 | 7 << 24 | 0xFFFF)
    gic.icc_write(3, "ICC_SGI1R_EL1", 1 << 32 | 7 << 24 | 0xFFFF)
    assert not any(gic.pending(7, cpu) for cpu in range(20)), (
        "RS 1 is Aff0 16-31, Aff2 1 is another cluster"
    )


def test_v2_sgi_has_a_source() -> None:
    gic = v2(3)
    for sender in (2, 1):
        gic.dist_write(sender, 0xF00, 4, 1 << 16 | 4)
    assert gic.dist_read(0, 0xF24, 1) == 0b110 and gic.dist_read(0, 0x200, 4) == 1 << 4
    assert gic.tie_candidates(0) == {(4, 1), (4, 2)}
    assert gic.gicc_read(0, 0x18, 4) == 1 << 10 | 4
    assert gic.gicc_read(0, 0x0C, 4, prefer=(4, 2)) == 2 << 10 | 4
    assert not gic.irq(0) and gic.dist_read(0, 0xF14, 1) == 0b010
    gic.gicc_write(0, 0x10, 4, 2 << 10 | 4)
    assert gic.unpredictable == "" and gic.gicc_read(0, 0x0C, 4) == 1 << 10 | 4
    gic.gicc_write(0, 0x10, 4, 2 << 10 | 4)
    assert gic.unpredictable and gic.active(4)


def test_v2_sgi_filters_and_pending_registers() -> None:
    gic = v2(3)
    gic.dist_write(1, 0xF00, 4, 1 << 24 | 1)
    gic.dist_write(1, 0xF00, 4, 2 << 24 | 2)
    gic.dist_write(1, 0xF00, 4, 3 << 24 | 0xFF << 16 | 3)
    assert [[gic.pending(sgi, cpu) for cpu in range(3)] for sgi in (1, 2, 3)] == [
        [True, False, True],
        [False, True, False],
        [False, False, False],
    ]
    gic.dist_write(0, 0x280, 4, ~0)
    gic.dist_write(0, 0x200, 4, 1 << 5)
    assert gic.pending(1, 0) and not gic.pending(5, 0), "ISPENDR and ICPENDR of SGIs are read-only"
    gic.dist_write(0, 0xF10, 4, 0x02 << 8)
    gic.dist_write(0, 0xF25, 1, 0xFF)
    assert (
        not gic.pending(1, 0)
        and gic.dist_read(0, 0xF20, 8) == 0
        and gic.dist_read(0, 0xF24, 4) == 0x07 << 8
    )


# ---- GICv2


def test_v2_reset_and_banking() -> None:
    gic = GicModel(2, 4, 64)
    assert gic.dist_read(0, 0, 4) == 0 and gic.dist_read(0, 4, 4) == 1 | 3 << 5
    assert gic.dist_read(0, 0x80, 4) == 0 and gic.dist_read(0, 0x100, 4) == 0xFFFF
    assert gic.dist_read(2, 0x800, 4) == 0x04040404 and gic.dist_read(2, 0x820, 4) == 0x01010101
    assert gic.gicc_read(0, 0x08, 4) == 2 and gic.gicc_read(0, 0x1C, 4) == 3
    gic.dist_write(1, 0x41B, 1, 0xA5)
    assert gic.priority(PPI, 1) == 0xA0 and gic.priority(PPI, 0) == 0
    gic.dist_write(1, 0x180, 4, 1)
    assert gic.dist_read(1, 0x100, 4) == 0xFFFE and gic.dist_read(0, 0x100, 4) == 0xFFFF


def test_v2_targets() -> None:
    gic = v2(3)
    setup_spi(gic, SPI, edge=True, group=0)
    gic.dist_write(0, 0x800 + SPI, 1, 0xFE)
    assert gic.dist_read(0, 0x800 + SPI, 1) == 0b110, "only implemented CPUs"
    gic.pulse(SPI)
    assert gic.irq(1) and not gic.irq(2)
    gic.dist_write(0, 0x800 + SPI, 1, 0)
    assert gic.pending(SPI) and not any(gic.irq(cpu) for cpu in range(3))
    gic.dist_write(0, 0x800, 4, 0)
    assert gic.dist_read(1, 0x800, 4) == 0x02020202


def test_v2_group_registers() -> None:
    """IHI 0048 4.4.4, GICV_IAR, GICV_AIAR: 1022 for a Group 1 interrupt while AckCtl is 0, AIAR is
    the alias."""
    gic = v2()
    setup_spi(gic, SPI, edge=True, group=1)
    gic.pulse(SPI)
    assert gic.gicc_read(0, 0x0C, 4) == 1022 and gic.gicc_read(0, 0x18, 4) == 1022
    assert gic.gicc_read(0, 0x28, 4) == SPI and gic.gicc_read(0, 0x20, 4) == SPI
    assert gic.gicc_read(0, 0xD0, 4) == 1 << 16
    gic.gicc_write(0, 0x24, 4, SPI)
    assert not gic.active(SPI) and gic.unpredictable == ""
    gic.gicc_write(0, 0, 4, 7)
    gic.pulse(SPI)
    assert gic.gicc_read(0, 0x0C, 4) == SPI
    gic.gicc_write(0, 0x10, 4, SPI)
    assert not gic.active(SPI) and gic.unpredictable == ""
    setup_spi(gic, 41, edge=True, group=0)
    gic.pulse(41)
    assert gic.gicc_read(0, 0x20, 4) == 1023 and gic.gicc_read(0, 0x28, 4) == 1023
    gic.gicc_write(0, 0x04, 4, 0x80)
    assert gic.gicc_read(0, 0x0C, 4) == 1023 and gic.gicc_read(0, 0x18, 4) == 41


def test_v2_fiqen() -> None:
    gic = v2()
    setup_spi(gic, SPI, edge=True, group=0)
    gic.pulse(SPI)
    assert gic.irq(0) and not gic.fiq(0)
    gic.gicc_write(0, 0, 4, 0b1011)
    assert gic.fiq(0) and not gic.irq(0) and gic.gicc_read(0, 0, 4) == 0b1011


def test_v2_split_eoi() -> None:
    gic = v2(2, ctlr=0x203)
    setup_spi(gic, SPI, edge=True, group=0)
    gic.pulse(SPI)
    assert gic.gicc_read(0, 0x0C, 4) == SPI
    gic.gicc_write(0, 0x10, 4, SPI)
    assert gic.active(SPI) and gic.gicc_read(0, 0x14, 4) == 0xFF
    gic.gicc_write(0, 0x1000, 4, SPI)
    assert not gic.active(SPI) and gic.unpredictable == ""
    gic.gicc_write(0, 0, 4, 3)
    gic.gicc_write(0, 0x1000, 4, SPI)
    assert "DIR" in gic.unpredictable


def test_constructor_rejects_nonsense() -> None:
    for arguments in ((4, 1, 96), (3, 1, 100), (2, 9, 96)):
        with pytest.raises(ValueError):
            GicModel(*arguments)
    with pytest.raises(ValueError):
        GicModel(3, 1, lpis=True)
