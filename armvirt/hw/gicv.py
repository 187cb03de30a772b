"""The virtual CPU interface as a GICv2 guest accesses it: the GICV frame (IHI 0048 5.5; IHI 0069
12.13, GICV_*).

With ICC_SRE_EL1.SRE = 0 the GICV registers replace ICC_*_EL1. Both kinds of registers act on the
same list registers and the same ICH_VMCR_EL2 (`armvirt.hw.ich`). With SRE = 0 the fields VAckCtl
and VFIQEn of ICH_VMCR_EL2 are writable. The GICV registers differ from the system registers in
three points. GICV_IAR acknowledges interrupts of both groups if GICV_CTLR.AckCtl is 1. Group 1 also
has aliased registers (GICV_AIAR, GICV_AEOIR, GICV_AHPPIR, GICV_ABPR). Bits [12:10] of IAR, EOIR and
DIR are the CPUID of the CPU that sent an SGI.
"""

from __future__ import annotations

from collections.abc import Callable

from armvirt.arch import gic as arch
from armvirt.arch.bits import MASK32
from armvirt.arch.gic import (
    FIRST_SPECIAL,
    GICC_ID_BITS,
    GICC_INTID,
    GROUP1_ONLY,
    IDLE_PRIORITY,
    LR_GROUP1,
    SPURIOUS,
    VMCR_BPR_MASK,
    VMCR_PMR_MASK,
    VMCR_VACKCTL,
    VMCR_VBPR0_SHIFT,
    VMCR_VBPR1_SHIFT,
    VMCR_VEOIM,
    VMCR_VPMR_SHIFT,
)
from armvirt.events import Acknowledge, EndOfInterrupt
from armvirt.hw.ich import VirtualCpuInterface
from armvirt.records import NamedTuple


class GicvRow(NamedTuple):
    """The behaviour of one register. If ``read`` is None, reads return 0 (RAZ). If ``write`` is
    None, writes are ignored (WI)."""

    name: str
    read: Callable[[VirtualCpuInterface], int] | None = None
    write: Callable[[VirtualCpuInterface, int], None] | None = None


def read(vif: VirtualCpuInterface, offset: int, size: int) -> int:
    """Return the result of a load of ``size`` bytes at ``offset`` of the frame. The result is 0
    unless the load is a 32-bit access to a register."""
    row = _BY_OFFSET.get(offset)
    return row.read(vif) if row is not None and size == 4 and row.read is not None else 0


def write(vif: VirtualCpuInterface, offset: int, size: int, value: int) -> None:
    """Execute a store of ``size`` bytes at ``offset`` of the frame. The store is ignored unless it
    is a 32-bit access to a register."""
    row = _BY_OFFSET.get(offset)
    if row is not None and size == 4 and row.write is not None:
        row.write(vif, value & MASK32)


# Acknowledge ------------------------------------------------------------------------------------


def _visible(vif: VirtualCpuInterface, index: int, aliased: bool) -> int | None:
    """Return 1022 or 1023 if a read of IAR or HPPIR must return this special INTID. Return None if
    the read returns an interrupt. ``index`` is the number of the list register that has this
    interrupt, or -1 if there is no interrupt.

    The aliased registers return group 1 interrupts only. While AckCtl is 0, the other registers
    return 1022 for a group 1 interrupt. GICV_IAR returns 1022 only for an interrupt that could be
    acknowledged, and otherwise 1023 (IHI 0048 3.2.5, 4.4.4, 4.4.11).
    """
    if index < 0:
        return SPURIOUS
    group1 = vif.lr[index] & LR_GROUP1
    if aliased:
        return None if group1 else SPURIOUS
    return GROUP1_ONLY if group1 and not vif.vmcr & VMCR_VACKCTL else None


def _acknowledge(vif: VirtualCpuInterface, aliased: bool) -> int:
    """Read GICV_IAR, or GICV_AIAR if ``aliased`` is True."""
    index = vif.signalled
    value = _visible(vif, index, aliased)
    if value is None:
        value = vif.activate(index)
    if vif.bus.active:
        vif.bus.emit(Acknowledge(value & GICC_INTID))
    return value


def _highest_pending(vif: VirtualCpuInterface, aliased: bool) -> int:
    """Read GICV_HPPIR, or GICV_AHPPIR if ``aliased`` is True. The priority mask and the running
    priority do not affect the result."""
    index = vif.candidate
    value = _visible(vif, index, aliased)
    return vif.lr[index] & GICC_ID_BITS if value is None else value


# End of interrupt -------------------------------------------------------------------------------


def _end(vif: VirtualCpuInterface, value: int, aliased: bool) -> None:
    """Write ``value`` to GICV_EOIR, or to GICV_AEOIR if ``aliased`` is True. The write drops the
    priority. With EOImode 0 the write also deactivates an interrupt. It is the interrupt for which
    a read of IAR returned ``value``.

    If a guest ends a group 1 interrupt through GICV_EOIR while AckCtl is 0, the result is
    UNPREDICTABLE (IHI 0048 4.4.5). In armvirt, as in QEMU, AckCtl has no effect on the write. A
    write of GICV_AEOIR for a group 0 interrupt is ignored (IHI 0069, GICV_AEOIR).
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
    """Deactivate the interrupt in a list register. ``index`` is the number of the list register, or
    -1 if no list register has the interrupt. If ``index`` is -1 and ``counts`` is True, increment
    EOIcount.

    ``counts`` is False for an end of interrupt that clears no active priority, because such a write
    does not increment EOIcount (IHI 0048 5.3.2, GICH_HCR.EOICount).
    """
    if index >= 0:
        vif.deactivate_lr(index)
    elif counts:
        vif.count_eoi()


def _write_dir(vif: VirtualCpuInterface, value: int) -> None:
    """Write GICV_DIR: deactivate an interrupt. With EOImode 0 the write is UNPREDICTABLE (IHI 0048
    4.4.15). armvirt ignores such a write."""
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
    """Return the row of GICV_APR<n>, which is the same register as ICH_AP1R<n>_EL2. The register
    has the active priorities of both groups. If the number of preemption bits does not need
    register n, the register is RAZ/WI."""

    def read(vif: VirtualCpuInterface) -> int:
        return vif.ap1r[n] if n < len(vif.ap1r) else 0

    def write(vif: VirtualCpuInterface, value: int) -> None:
        if n < len(vif.ap1r):
            vif.ap1r[n] = value
            vif.update()

    return GicvRow(f"GICC_APR{n}", read, write)


BINDINGS: tuple[GicvRow, ...] = (
    _field("GICC_CTLR", 0, arch.GICC_CTLR_BITS),
    _field("GICC_PMR", VMCR_VPMR_SHIFT, VMCR_PMR_MASK),
    _field("GICC_BPR", VMCR_VBPR0_SHIFT, VMCR_BPR_MASK),
    GicvRow("GICC_IAR", lambda vif: _acknowledge(vif, False)),
    GicvRow("GICC_EOIR", None, lambda vif, value: _end(vif, value, False)),
    GicvRow("GICC_RPR", VirtualCpuInterface.running_priority),
    GicvRow("GICC_HPPIR", lambda vif: _highest_pending(vif, False)),
    # Unlike ICC_BPR1_EL1 this register is VBPR1 for each value of CBPR (IHI 0069, GICV_ABPR).
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
