"""The registers of a GICv3 distributor frame, GICD (kvm/vgic/vgic-mmio-v3.c)."""

from __future__ import annotations

from collections.abc import Sequence

from armvirt.arch import gic as arch
from armvirt.errors import KvmError
from armvirt.hyp.vgic import spi_routing as routing
from armvirt.hyp.vgic.cpu import VgicCpu
from armvirt.hyp.vgic.distributor import Distributor
from armvirt.hyp.vgic.irq import VgicIrq
from armvirt.hyp.vgic.registers.irq_registers import irq_banks
from armvirt.hyp.vgic.registers.register_map import Binding, IrqBank, Register, RegisterMap, bind

REVISIONS = (2, 3)
ID_BITS, LPI_ID_BITS = 10, 16  # GICD_TYPER.IDbits + 1 without and with LPIs


def _read_ctlr(dist: Distributor, _: VgicCpu) -> int:
    return arch.GICD_CTLR_ARE | arch.GICD_CTLR_DS | dist.enables


def _write_ctlr(dist: Distributor, _: VgicCpu, value: int) -> None:
    """Write EnableGrp0 and EnableGrp1 of a GIC with a single Security state (IHI 0069 12.9.4). KVM
    has only EnableGrp1, for both groups."""
    dist.set_enables(value & (arch.GICD_CTLR_ENABLE_GRP0 | arch.GICD_CTLR_ENABLE_GRP1))


def _read_typer(dist: Distributor, _: VgicCpu) -> int:
    """GICD_TYPER; LPIs and INTIDs of 16 bits exist only with an ITS."""
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
    """Restore the revision, which may be an older revision; the other fields are read-only."""
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


BINDINGS: tuple[Binding, ...] = (
    Register("GICD_CTLR", _read_ctlr, _write_ctlr),
    Register("GICD_TYPER", _read_typer),
    Register("GICD_IIDR", _read_iidr, user_write=_restore_iidr),
    Register("GICD_TYPER2", user_write=_restore_typer2),
    Register("GICD_STATUSR", _read_all_ones),
    Register("GICD_SETSPI_NSR"),  # TYPER.MBIS = 0: no message-based SPIs
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
    """The SPIs of an access; the fields of private interrupts are RES0, because they are in the
    redistributors."""
    return dist.spis(first, count)


MAP = RegisterMap(bind(arch.GICD_ROWS, BINDINGS), _spis)
