"""Where an interrupt of a GICv3 goes: IROUTER, 1 of N, private interrupts. IHI 0069 3.1."""

from __future__ import annotations

from .irq import NOWHERE
from .support import GRPEN, PPI, SPI, eoi, iar, setup_spi, v3

# ---- routing (GICv3)


def test_pending_spi_moves_and_active_spi_stays() -> None:
    gic = v3()
    setup_spi(gic, SPI, edge=True)
    gic.pulse(SPI)
    gic.dist_write(0, 0x6000 + 8 * SPI, 8, 1)
    assert gic.irq(1) and not gic.irq(0) and iar(gic, 1) == SPI
    gic.dist_write(0, 0x6000 + 8 * SPI, 8, 0)
    gic.pulse(SPI)
    assert gic.active_on(SPI) == {1} and not gic.irq(0) and not gic.irq(1)
    eoi(gic, SPI, 1)
    assert gic.irq(0) and gic.unpredictable == ""


def test_unknown_affinity_stays_pending() -> None:
    gic = v3()
    setup_spi(gic, SPI, edge=True)
    for route in (2, 0x100, 0x10000, 16):
        gic.dist_write(0, 0x6000 + 8 * SPI, 8, route)
        gic.pulse(SPI)
        assert gic.pending(SPI) and gic.target(SPI) == NOWHERE and not gic.irq(0) and not gic.irq(1)


def test_one_of_n() -> None:
    gic = v3(3)
    setup_spi(gic, SPI, edge=True)
    gic.dist_write(0, 0x6000 + 8 * SPI, 8, 1 << 31)
    gic.pulse(SPI)
    assert gic.irq(0)
    gic.redist_write(0, 0, 0, 4, 1 << 25)
    assert gic.redist_read(0, 0, 0, 4) == 1 << 25 and not gic.irq(0) and gic.irq(1)
    gic.icc_write(1, GRPEN[1], 0)
    assert gic.irq(2)
    gic.redist_write(0, 2, 0, 4, 7 << 24)
    assert gic.redist_read(0, 2, 0, 4) == 3 << 24, "DPG1S is RAZ/WI"
    assert gic.pending(SPI) and not any(gic.irq(cpu) for cpu in range(3))
    gic.redist_write(0, 0, 0, 4, 1 << 24)
    assert iar(gic) == SPI
    gic.redist_write(0, 0, 0, 4, 1 << 25)
    assert gic.active_on(SPI) == {0}, "an active interrupt stays"


def test_ppis_are_private() -> None:
    gic = v3()
    gic.redist_write(0, 1, 0x10100, 4, 1 << PPI)
    gic.set_line(PPI, True, 0)
    gic.set_line(PPI, True, 1)
    assert not gic.irq(0) and gic.irq(1) and gic.redist_read(0, 0, 0x10200, 4) == 1 << PPI
    assert iar(gic, 1) == PPI and gic.active_on(PPI) == {1}
