"""The virtual CPU interface as a GICv2 guest sees it: the GICV frame (IHI 0048 5.5; IHI 0069 12.13,
GICV_*).

With ICC_SRE_EL1.SRE = 0 these registers stand in for ICC_*_EL1. They act on the same list registers
and the same ICH_VMCR_EL2 (`armvirt.hw.ich`), in which VAckCtl and VFIQEn are then writable. What
they add to the system registers: one acknowledge register for both groups, if GICV_CTLR.AckCtl
allows it; aliased registers for group 1; the CPUID of an SGI's sender in bits [12:10] of what is
acknowledged and ended.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from armvirt.arch import gic as arch
from armvirt.arch.gic import (
    FIRST_SPECIAL,
    GICC_ID_BITS,
    GICC_INTID,
    GROUP1_ONLY,
    IDLE_PRIORITY,
    LR_GROUP1,
    SPURIOUS,
    VMCR_BPR_MASK,
    VMCR_VACKCTL,
    VMCR_VBPR0_SHIFT,
    VMCR_VBPR1_SHIFT,
    VMCR_VEOIM,
    VMCR_VPMR_SHIFT,
)
from armvirt.arch.words import MASK32
from armvirt.events import Acknowledge, EndOfInterrupt
from armvirt.hw.ich import VirtualCpuInterface


class GicvRow(NamedTuple):
    """The behaviour of one register; without ``read`` it reads as zero, without ``write`` it
    ignores writes."""

    name: str
    read: Callable[[VirtualCpuInterface], int] | None = None
    write: Callable[[VirtualCpuInterface, int], None] | None = None


def read(vif: VirtualCpuInterface, offset: int, size: int) -> int:
    """A load of ``size`` bytes at ``offset``; 0 unless it is a word that is a register."""
    row = _BY_OFFSET.get(offset)
    return row.read(vif) if row is not None and size == 4 and row.read is not None else 0


def write(vif: VirtualCpuInterface, offset: int, size: int, value: int) -> None:
    """A store of ``size`` bytes at ``offset``; ignored unless it is a word that is a register."""
    row = _BY_OFFSET.get(offset)
    if row is not None and size == 4 and row.write is not None:
        row.write(vif, value & MASK32)


# Acknowledge ------------------------------------------------------------------------------------


def _visible(vif: VirtualCpuInterface, index: int, aliased: bool) -> int | None:
    """The special INTID that hides list register ``index`` (-1: none) from a register, None if it
    may be seen.

    The aliased registers are for group 1 alone. The others give 1022 for group 1, unless AckCtl
    lets them have it; only for an interrupt that could be acknowledged, so that 1023 comes before
    (IHI 0048 3.2.5, 4.4.4, 4.4.11).
    """
    if index < 0:
        return SPURIOUS
    group1 = vif.lr[index] & LR_GROUP1
    if aliased:
        return None if group1 else SPURIOUS
    return GROUP1_ONLY if group1 and not vif.vmcr & VMCR_VACKCTL else None


def _acknowledge(vif: VirtualCpuInterface, aliased: bool) -> int:
    """GICV_IAR, GICV_AIAR."""
    index = vif.signalled
    value = _visible(vif, index, aliased)
    if value is None:
        value = vif.activate(index)
    if vif.bus.active:
        vif.bus.emit(Acknowledge(value & GICC_INTID))
    return value


def _highest_pending(vif: VirtualCpuInterface, aliased: bool) -> int:
    """GICV_HPPIR, GICV_AHPPIR: whatever the mask and the running priority."""
    index = vif.candidate
    value = _visible(vif, index, aliased)
    return vif.lr[index] & GICC_ID_BITS if value is None else value


# End of interrupt -------------------------------------------------------------------------------


def _end(vif: VirtualCpuInterface, value: int, aliased: bool) -> None:
    """GICV_EOIR, GICV_AEOIR: priority drop and, with EOImode 0, deactivation of what was
    acknowledged as ``value``.

    Ending a group 1 interrupt through GICV_EOIR with AckCtl = 0 is UNPREDICTABLE (IHI 0048 4.4.5);
    here, as in QEMU, AckCtl does not matter. GICV_AEOIR for a group 0 interrupt is ignored (IHI
    0069, GICV_AEOIR).
    """
    intid = value & GICC_ID_BITS
    if intid & GICC_INTID >= FIRST_SPECIAL:
        return
    index = vif.find_active(intid)
    if aliased and index >= 0 and not vif.lr[index] & LR_GROUP1:
        return
    if vif.bus.active:
        vif.bus.emit(EndOfInterrupt(intid & GICC_INTID, "AEOIR" if aliased else "EOIR"))
    dropped = vif.drop_priority()
    if not vif.vmcr & VMCR_VEOIM:
        _deactivate(vif, index, dropped != IDLE_PRIORITY)
    vif.update()


def _deactivate(vif: VirtualCpuInterface, index: int, counts: bool = True) -> None:
    """What is ended is in list register ``index``, or in none (-1) and counted for EL2.

    An end of interrupt that clears no active priority is not counted (IHI 0048 5.3.2,
    GICH_HCR.EOICount).
    """
    if index >= 0:
        vif.deactivate_lr(index)
    elif counts:
        vif.count_eoi()


def _write_dir(vif: VirtualCpuInterface, value: int) -> None:
    """GICV_DIR: deactivation alone. With EOImode 0 it is UNPREDICTABLE (IHI 0048 4.4.15), and
    ignored here."""
    intid = value & GICC_ID_BITS
    if not vif.vmcr & VMCR_VEOIM or intid & GICC_INTID >= FIRST_SPECIAL:
        return
    if vif.bus.active:
        vif.bus.emit(EndOfInterrupt(intid & GICC_INTID, "DIR"))
    _deactivate(vif, vif.find_active(intid))
    vif.update()


# Views of ICH_VMCR_EL2 and the active priorities ------------------------------------------------


def _field(name: str, shift: int, mask: int) -> GicvRow:
    return GicvRow(
        name,
        lambda vif: vif.vmcr >> shift & mask,
        lambda vif, value: vif.put_field(shift, mask, value),
    )


def _active_priorities(n: int) -> GicvRow:
    """GICV_APR<n>: ICH_AP1R<n>_EL2, for both groups; those that the preemption bits do not need are
    RAZ/WI."""

    def read(vif: VirtualCpuInterface) -> int:
        return vif.ap1r[n] if n < len(vif.ap1r) else 0

    def write(vif: VirtualCpuInterface, value: int) -> None:
        if n < len(vif.ap1r):
            vif.ap1r[n] = value
            vif.update()

    return GicvRow(f"GICC_APR{n}", read, write)


BINDINGS: tuple[GicvRow, ...] = (
    _field("GICC_CTLR", 0, arch.GICC_CTLR_BITS),
    _field("GICC_PMR", VMCR_VPMR_SHIFT, 0xFF),
    _field("GICC_BPR", VMCR_VBPR0_SHIFT, VMCR_BPR_MASK),
    GicvRow("GICC_IAR", lambda vif: _acknowledge(vif, False)),
    GicvRow("GICC_EOIR", None, lambda vif, value: _end(vif, value, False)),
    GicvRow("GICC_RPR", VirtualCpuInterface.running_priority),
    GicvRow("GICC_HPPIR", lambda vif: _highest_pending(vif, False)),
    # Unlike ICC_BPR1_EL1 it is VBPR1 whatever CBPR says (IHI 0069, GICV_ABPR).
    _field("GICC_ABPR", VMCR_VBPR1_SHIFT, VMCR_BPR_MASK),
    GicvRow("GICC_AIAR", lambda vif: _acknowledge(vif, True)),
    GicvRow("GICC_AEOIR", None, lambda vif, value: _end(vif, value, True)),
    GicvRow("GICC_AHPPIR", lambda vif: _highest_pending(vif, True)),
    *(_active_priorities(n) for n in range(4)),
    GicvRow("GICC_IIDR", lambda _: arch.GICC_IIDR),
    GicvRow("GICC_DIR", None, _write_dir),
)
_BY_NAME: dict[str, GicvRow] = {row.name: row for row in BINDINGS}
_BY_OFFSET: dict[int, GicvRow] = {row.offset: _BY_NAME[row.name] for row in arch.GICC_ROWS}
