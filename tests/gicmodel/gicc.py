"""The memory-mapped CPU interface of a GICv2, as GICV_* shows it (IHI 0048 5.5, IHI 0069 GICV_*).

One Security state with two groups: the plain registers serve Group 0 (and Group 1 when AckCtl is
1), the aliased ones (AIAR, AEOIR, AHPPIR, ABPR) serve Group 1.
"""

from __future__ import annotations

from .cpuif import CpuInterface
from .icc import special
from .irq import GROUP1_PENDING, SPURIOUS, Irq
from .state import GicState

CTLR, PMR, BPR, IAR, EOIR, RPR, HPPIR, ABPR = 0x00, 0x04, 0x08, 0x0C, 0x10, 0x14, 0x18, 0x1C
AIAR, AEOIR, AHPPIR = 0x20, 0x24, 0x28
APR_FIRST, APR_END = 0xD0, 0xE0
DIR = 0x1000

ENABLE_GROUPS = 3
ACKCTL, FIQEN, CBPR, EOIMODE = 1 << 2, 1 << 3, 1 << 4, 1 << 9

Prefer = tuple[int, int]


def read(state: GicState, number: int, offset: int, size: int, prefer: Prefer | None) -> int:
    cpu = state.cpus[number]
    if size != 4:
        return 0
    if offset in (IAR, AIAR):
        return _acknowledge(cpu, prefer, aliased=offset == AIAR)
    if offset in (HPPIR, AHPPIR):
        return _highest(cpu, prefer, aliased=offset == AHPPIR)
    if APR_FIRST <= offset < APR_END and not offset & 3:
        return cpu.read_ap(
            0, offset - APR_FIRST >> 2
        )  # GICV_APR<n>: alias of GICH_APR, both groups
    return _read_plain(cpu, offset)


def _read_plain(cpu: CpuInterface, offset: int) -> int:
    if offset == CTLR:
        return (
            cpu.grpen
            | (ACKCTL if cpu.ackctl else 0)
            | (FIQEN if cpu.fiqen else 0)
            | (CBPR if cpu.cbpr else 0)
            | (EOIMODE if cpu.eoimode else 0)
        )
    if offset == PMR:
        return cpu.pmr
    if offset == RPR:
        return cpu.running
    if offset == BPR:
        return cpu.bpr0
    # GICV_ABPR is GICH_VMCR.VBPR1 itself: CBPR changes what is used, not what it reads
    return cpu.bpr1 if offset == ABPR else 0


def write(state: GicState, number: int, offset: int, size: int, value: int) -> None:
    cpu = state.cpus[number]
    if size != 4:
        return
    if offset == EOIR:
        _end(cpu, value, 0b11 if cpu.ackctl else 0b01)
    elif offset == AEOIR:
        _end(cpu, value, 0b10)
    elif offset == DIR:
        _deactivate(cpu, value)
    elif offset == CTLR:
        _write_ctlr(cpu, value)
    elif offset == PMR:
        cpu.write_pmr(value)
    elif offset == BPR:
        cpu.write_bpr(0, value)
    elif offset == ABPR:
        cpu.write_bpr(1, value)
    elif APR_FIRST <= offset < APR_END and not offset & 3:
        cpu.write_ap(0, offset - APR_FIRST >> 2, value & 0xFFFFFFFF)


def _write_ctlr(cpu: CpuInterface, value: int) -> None:
    cpu.grpen = value & ENABLE_GROUPS
    cpu.fresh = False
    cpu.ackctl = bool(value & ACKCTL)
    cpu.fiqen = bool(value & FIQEN)
    cpu.eoimode = bool(value & EOIMODE)
    cpu.set_cbpr(bool(value & CBPR))


def _source(irq: Irq, prefer: Prefer | None) -> int:
    """The source CPU of the instance that is acknowledged: the lowest, or the preferred one if it
    is pending."""
    if prefer is not None and prefer[0] == irq.intid and irq.sources >> prefer[1] & 1:
        return prefer[1]
    return (irq.sources & -irq.sources).bit_length() - 1 if irq.sources else 0


def _other_group(cpu: CpuInterface, irq: Irq, aliased: bool) -> int:
    """The special INTID that hides `irq` from the register read, 0 if it is visible. IHI 0069
    GICV_IAR, GICV_AIAR."""
    if aliased:
        return 0 if irq.group else SPURIOUS
    return GROUP1_PENDING if irq.group and not cpu.ackctl else 0


def _choose(cpu: CpuInterface, prefer: Prefer | None) -> Irq | None:
    return cpu.choose(None if prefer is None else prefer[0])


def _acknowledge(cpu: CpuInterface, prefer: Prefer | None, aliased: bool) -> int:
    irq = _choose(cpu, prefer)
    if irq is None or not cpu.signalled(irq):
        return SPURIOUS
    hidden = _other_group(cpu, irq, aliased)
    if hidden:
        return hidden
    source = _source(irq, prefer)
    cpu.activate(irq, source)
    return irq.intid | source << 10


def _highest(cpu: CpuInterface, prefer: Prefer | None, aliased: bool) -> int:
    irq = _choose(cpu, prefer)
    if irq is None:
        return SPURIOUS
    return _other_group(cpu, irq, aliased) or irq.intid | _source(irq, prefer) << 10


def _identity(cpu: CpuInterface, value: int) -> Prefer:
    """INTID and CPUID of an EOIR or DIR write; the CPUID field of anything but an SGI is zero."""
    intid, source = value & 0x3FF, value >> 10 & 7
    if intid >= 16 and source:
        cpu.state.note("CPUID of an interrupt that is not an SGI")
        source = 0
    return intid, source


def _end(cpu: CpuInterface, value: int, accepted: int) -> None:
    if not special(value & 0x3FF):
        intid, source = _identity(cpu, value)
        cpu.end(intid, source, accepted)


def _deactivate(cpu: CpuInterface, value: int) -> None:
    if special(value & 0x3FF):
        return
    if not cpu.eoimode:
        cpu.state.note(
            "GICC_DIR while EOImode is 0"
        )  # IHI 0048 4.4.15: UNPREDICTABLE; ignored as in a GICv3
        return
    intid, source = _identity(cpu, value)
    if any(acked[0] == intid | source << 24 for acked in cpu.acked):
        cpu.state.note("GICC_DIR before the EOI")  # IHI 0048 4.4.15: UNPREDICTABLE
    cpu.state.deactivate_by_dir(cpu.number, intid, source)
