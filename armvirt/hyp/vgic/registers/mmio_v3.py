"""The registers of a GICv3: the frame GICD, and the frames RD_base and SGI_base of each
redistributor (kvm/vgic/vgic-mmio-v3.c)."""

from __future__ import annotations

from collections.abc import Sequence

from armvirt.arch import gic as arch
from armvirt.arch.its import PENDBASER_PTZ, PENDBASER_RESET
from armvirt.errors import KvmError
from armvirt.hyp.vgic import lpi
from armvirt.hyp.vgic import spi_routing as routing
from armvirt.hyp.vgic.cpu import VgicCpu
from armvirt.hyp.vgic.distributor import Distributor
from armvirt.hyp.vgic.irq import VgicIrq
from armvirt.hyp.vgic.registers.irq_registers import irq_banks
from armvirt.hyp.vgic.registers.register_map import Binding, IrqBank, Register, RegisterMap, bind

REVISIONS = (2, 3)
ID_BITS, LPI_ID_BITS = 10, 16  # INTID bits without and with LPIs (GICD_TYPER.IDbits + 1)


def _read_ctlr(dist: Distributor, _: VgicCpu) -> int:
    return arch.GICD_CTLR_ARE | arch.GICD_CTLR_DS | dist.enables


def _write_ctlr(dist: Distributor, _: VgicCpu, value: int) -> None:
    """Write EnableGrp0 and EnableGrp1 of a GIC with a single Security state (IHI 0069 12.9.4). KVM
    has only EnableGrp1, which enables both groups."""
    dist.set_enables(value & (arch.GICD_CTLR_ENABLE_GRP0 | arch.GICD_CTLR_ENABLE_GRP1))


def _read_typer(dist: Distributor, _: VgicCpu) -> int:
    """GICD_TYPER. If the VM has an ITS, the GIC supports LPIs, and INTIDs have 16 bits."""
    lpis, id_bits = (arch.GICD_TYPER_LPIS, LPI_ID_BITS) if dist.has_its else (0, ID_BITS)
    return (
        (dist.nr_irqs // 32 - 1) & 31
        | lpis
        | id_bits - 1 << arch.GICD_TYPER_IDBITS_SHIFT
        | arch.GICD_TYPER_RSS
    )


def _read_iidr(dist: Distributor, _: VgicCpu) -> int:
    return arch.iidr(dist.revision)


def _restore_iidr(dist: Distributor, _: VgicCpu, value: int) -> None:
    """Restore GICD_IIDR.Revision. The revision may be older than the revision of a new vGIC.
    KvmError EINVAL if the vGIC does not have this revision, or if another field of the value
    differs from GICD_IIDR of this vGIC."""
    revision = arch.iidr_revision(value)
    if value != arch.iidr(revision) or revision not in REVISIONS:
        raise KvmError("EINVAL", f"GICD_IIDR {value:#x} is not a revision of this vGIC")
    dist.revision = revision


def _read_all_ones(dist: Distributor, _: VgicCpu) -> int:
    return 0xFFFF_FFFF


def _restore_typer2(dist: Distributor, _: VgicCpu, value: int) -> None:
    if value:
        raise KvmError("EINVAL", "GICD_TYPER2 is 0 in this vGIC")


def _pidr2(dist: Distributor, _: VgicCpu) -> int:
    return arch.PIDR2_GICV3


def _router(irq: VgicIrq) -> int:
    return routing.router(irq)


def _set_router(dist: Distributor, irq: VgicIrq, value: int) -> None:
    routing.route(dist, irq, value)


GICD_BINDINGS: tuple[Binding, ...] = (
    Register("GICD_CTLR", _read_ctlr, _write_ctlr),
    Register("GICD_TYPER", _read_typer),
    Register("GICD_IIDR", _read_iidr, user_write=_restore_iidr),
    Register("GICD_TYPER2", user_write=_restore_typer2),
    Register("GICD_STATUSR", _read_all_ones),
    Register("GICD_SETSPI_NSR"),  # GICD_TYPER.MBIS = 0: no message-based SPIs
    Register("GICD_CLRSPI_NSR"),
    Register("GICD_SETSPI_SR"),
    Register("GICD_CLRSPI_SR"),
    *irq_banks("GICD", ""),
    IrqBank("GICD_ITARGETSR"),  # RES0 with affinity routing, like the SGI registers
    Register("GICD_SGIR"),
    Register("GICD_CPENDSGIR"),
    Register("GICD_SPENDSGIR"),
    IrqBank("GICD_IROUTER", _router, _set_router),
    Register("GICD_ID"),
    Register("GICD_PIDR2", _pidr2),
    Register("GICD_CIDR"),
)


def _spis(dist: Distributor, _: VgicCpu, first: int, count: int) -> Sequence[VgicIrq]:
    """The SPIs whose fields are in the part of GICD that an access reads or writes. In GICD the
    fields of private interrupts are RES0, because these fields are in the redistributors."""
    return dist.spis(first, count)


GICD_MAP = RegisterMap(bind(arch.GICD_ROWS, GICD_BINDINGS), _spis)


#: The Revision field of GICR_IIDR is 0, unlike the Revision field of GICD_IIDR.
GICR_IIDR = arch.iidr(0)


def _read_gicr_ctlr(dist: Distributor, cpu: VgicCpu) -> int:
    """GICR_CTLR. RWP is 1 while EnableLPIs is 0 and the vGIC has not finished its work on LPIs
    (`armvirt.hyp.vgic.backlog`). From revision 3 of the vGIC on, CES and IR are 1. CES = 1 tells
    the guest that EnableLPIs can be cleared. IR = 1 tells the guest that GICR_INVLPIR and
    GICR_INVALLR exist."""
    enabled = arch.GICR_CTLR_ENABLE_LPIS if cpu.lpis_wanted else 0
    if not cpu.lpis_wanted and not _settled(dist, cpu):
        enabled |= arch.GICR_CTLR_RWP
    return enabled | (arch.GICR_CTLR_CES | arch.GICR_CTLR_IR if dist.revision >= 3 else 0)


def _settled(dist: Distributor, cpu: VgicCpu) -> bool:
    return not dist.has_its or lpi.settled(dist, cpu)


def _read_syncr(dist: Distributor, cpu: VgicCpu) -> int:
    """GICR_SYNCR. Busy is 1 while the vGIC has not finished its work on LPIs
    (`armvirt.hyp.vgic.backlog`), because this work may be an invalidation."""
    return 0 if _settled(dist, cpu) else arch.GICR_SYNCR_BUSY


def _write_gicr_ctlr(dist: Distributor, cpu: VgicCpu, value: int) -> None:
    lpi.set_enabled(dist, cpu, bool(value & arch.GICR_CTLR_ENABLE_LPIS))


def _read_gicr_iidr(dist: Distributor, _: VgicCpu) -> int:
    return GICR_IIDR


def _read_gicr_typer(dist: Distributor, cpu: VgicCpu) -> int:
    value = arch.packed_affinity(cpu.mpidr) << arch.GICR_TYPER_AFFINITY_SHIFT
    value |= (cpu.vcpu_id & 0xFFFF) << arch.GICR_TYPER_NUMBER_SHIFT
    value |= arch.GICR_TYPER_PLPIS if dist.has_its else 0
    return value | (arch.GICR_TYPER_LAST if dist.placement.is_last(cpu) else 0)


def _read_propbaser(dist: Distributor, _: VgicCpu) -> int:
    return dist.propbaser


def _write_propbaser(dist: Distributor, cpu: VgicCpu, value: int) -> None:
    """Write GICR_PROPBASER. The write is ignored without an ITS, because GICR_PROPBASER,
    GICR_PENDBASER and the invalidate registers are then RES0 (GICR_TYPER.PLPIS = 0)."""
    if dist.has_its:
        lpi.write_propbaser(dist, cpu, value)


def _read_pendbaser(dist: Distributor, cpu: VgicCpu) -> int:
    """The value of GICR_PENDBASER that the guest and user space read. The field PTZ reads as
    zero."""
    return _stored_pendbaser(dist, cpu) & ~PENDBASER_PTZ


def _stored_pendbaser(dist: Distributor, cpu: VgicCpu) -> int:
    """The stored value of GICR_PENDBASER, including the field PTZ. Before the first write, the
    function returns the reset value (kvm INITIAL_PENDBASER_VALUE). The memory attributes of the
    reset value and of all written values are the same, so user space can restore the value that it
    has read. A written value is never 0, so ``pendbaser`` = 0 means that there was no write."""
    if cpu.pendbaser or not dist.has_its:
        return cpu.pendbaser
    return PENDBASER_RESET


def _write_pendbaser(dist: Distributor, cpu: VgicCpu, value: int) -> None:
    if dist.has_its:
        lpi.write_pendbaser(dist, cpu, value)


def _write_invlpir(dist: Distributor, cpu: VgicCpu, value: int) -> None:
    lpi.write_invlpir(dist, cpu, value)


def _write_invallr(dist: Distributor, cpu: VgicCpu, value: int) -> None:
    lpi.write_invallr(dist, cpu, value)


RD_BINDINGS: tuple[Binding, ...] = (
    Register("GICR_CTLR", _read_gicr_ctlr, _write_gicr_ctlr),
    Register("GICR_IIDR", _read_gicr_iidr),
    Register("GICR_TYPER", _read_gicr_typer),
    Register("GICR_STATUSR"),
    Register("GICR_WAKER"),  # the redistributor is always awake
    Register("GICR_SETLPIR"),  # GICR_TYPER.DirectLPI = 0: only an ITS makes an LPI pending
    Register("GICR_CLRLPIR"),
    Register("GICR_PROPBASER", _read_propbaser, _write_propbaser),
    Register("GICR_PENDBASER", _read_pendbaser, _write_pendbaser, stored=_stored_pendbaser),
    Register("GICR_INVLPIR", write=_write_invlpir),
    Register("GICR_INVALLR", write=_write_invallr),
    Register("GICR_SYNCR", _read_syncr),
    Register("GICR_ID"),
    Register("GICR_PIDR2", _pidr2),
    Register("GICR_CIDR"),
)
SGI_BINDINGS: tuple[Binding, ...] = tuple(irq_banks("GICR", "0"))


def _private(_: Distributor, cpu: VgicCpu, first: int, count: int) -> Sequence[VgicIrq]:
    return cpu.private[first : first + count]


RD_MAP = RegisterMap(bind(arch.GICR_RD_ROWS, RD_BINDINGS), _private)
SGI_MAP = RegisterMap(bind(arch.GICR_SGI_ROWS, SGI_BINDINGS), _private)
