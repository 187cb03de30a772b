"""What the tests of the GIC model share: models that are set up, and short forms of frequent
accesses."""

from __future__ import annotations

from . import GicModel, Memory

GRPEN = ("ICC_IGRPEN0_EL1", "ICC_IGRPEN1_EL1")
PPI, SPI = 27, 40


def v3(
    cpus: int = 2, nr_irqs: int = 96, prio_bits: int = 5, memory: Memory | None = None
) -> GicModel:
    """A GICv3 with both groups enabled everywhere and PMR open; with LPIs if there is memory."""
    gic = GicModel(3, cpus, nr_irqs, prio_bits=prio_bits, lpis=memory is not None, memory=memory)
    gic.dist_write(0, 0, 4, 3)
    for cpu in range(cpus):
        gic.icc_write(cpu, "ICC_PMR_EL1", 0xFF)
        for register in GRPEN:
            gic.icc_write(cpu, register, 1)
    return gic


def v2(cpus: int = 2, ctlr: int = 3) -> GicModel:
    gic = GicModel(2, cpus)
    gic.dist_write(0, 0, 4, 3)
    for cpu in range(cpus):
        gic.gicc_write(cpu, 0x00, 4, ctlr)
        gic.gicc_write(cpu, 0x04, 4, 0xFF)
    return gic


def setup_spi(
    gic: GicModel, intid: int, prio: int = 0x80, edge: bool = False, group: int = 1
) -> None:
    word, bit = intid // 32, intid % 32
    gic.dist_write(0, 0x400 + intid, 1, prio)
    config = gic.dist_read(0, 0xC00 + intid // 16 * 4, 4) & ~(3 << intid % 16 * 2)
    gic.dist_write(0, 0xC00 + intid // 16 * 4, 4, config | (2 if edge else 0) << intid % 16 * 2)
    groups = gic.dist_read(0, 0x80 + 4 * word, 4) & ~(1 << bit)
    gic.dist_write(0, 0x80 + 4 * word, 4, groups | group << bit)
    gic.dist_write(0, 0x100 + 4 * word, 4, 1 << bit)


def iar(gic: GicModel, cpu: int = 0, group: int = 1) -> int:
    return gic.icc_read(cpu, f"ICC_IAR{group}_EL1")


def eoi(gic: GicModel, intid: int, cpu: int = 0, group: int = 1) -> None:
    gic.icc_write(cpu, f"ICC_EOIR{group}_EL1", intid)
