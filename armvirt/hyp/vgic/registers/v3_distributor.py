"""The GICv3 distributor's registers (kvm/vgic/vgic-mmio-v3.c)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from armvirt.arch import gic as arch
from armvirt.errors import KvmError
from armvirt.hyp.vgic import spi_routing as routing
from armvirt.hyp.vgic.cpu import VgicCpu
from armvirt.hyp.vgic.irq import VgicIrq
from armvirt.hyp.vgic.registers.irq_registers import irq_banks
from armvirt.hyp.vgic.registers.register_map import Binding, IrqBank, Register, RegisterMap, bind

if TYPE_CHECKING:
    from armvirt.hyp.vgic.vgic import Vgic

REVISION_SHIFT = 12
REVISIONS = (2, 3)
ID_BITS, LPI_ID_BITS = 10, 16  # without an ITS there are no INTIDs beyond 1019


def iidr(revision: int) -> int:
    """GICD_IIDR: product, revision, implementer."""
    return arch.PRODUCT_ID_KVM << 24 | revision << REVISION_SHIFT | arch.IMPLEMENTER_ARM


def _read_ctlr(vgic: Vgic, _: VgicCpu) -> int:
    return arch.GICD_CTLR_ARE | arch.GICD_CTLR_DS | vgic.enables


def _write_ctlr(vgic: Vgic, _: VgicCpu, value: int) -> None:
    """The two group enables, as with one Security state (IHI 0069 12.9.4). KVM keeps EnableGrp1
    alone, for both."""
    vgic.set_enables(value & (arch.GICD_CTLR_ENABLE_GRP0 | arch.GICD_CTLR_ENABLE_GRP1))


def _read_typer(vgic: Vgic, _: VgicCpu) -> int:
    """LPIs, and INTIDs of 16 bits, only with an ITS to bring them."""
    lpis, id_bits = (arch.GICD_TYPER_LPIS, LPI_ID_BITS) if vgic.its else (0, ID_BITS)
    return (
        (vgic.nr_irqs // 32 - 1) & 31
        | lpis
        | id_bits - 1 << arch.GICD_TYPER_IDBITS_SHIFT
        | arch.GICD_TYPER_RSS
    )


def _read_iidr(vgic: Vgic, _: VgicCpu) -> int:
    return iidr(vgic.revision)


def _restore_iidr(vgic: Vgic, _: VgicCpu, value: int) -> None:
    """User space may step back to an older revision of this implementation, and change nothing
    else."""
    revision = value >> REVISION_SHIFT & 15
    if value != iidr(revision) or revision not in REVISIONS:
        raise KvmError("EINVAL", f"GICD_IIDR {value:#x} is not a revision of this vGIC")
    vgic.revision = revision


def _read_all_ones(vgic: Vgic, _: VgicCpu) -> int:
    return 0xFFFF_FFFF


def _restore_typer2(vgic: Vgic, _: VgicCpu, value: int) -> None:
    if value:
        raise KvmError("EINVAL", "GICD_TYPER2 is 0 in this vGIC")


def _pidr2(vgic: Vgic, _: VgicCpu) -> int:
    return arch.PIDR2_GICV3


def _router(irq: VgicIrq) -> int:
    return routing.router(irq)


def _set_router(vgic: Vgic, irq: VgicIrq, value: int) -> None:
    routing.route(vgic, irq, value)


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
    IrqBank("GICD_ITARGETSR"),  # affinity routing is always on: this and the SGI registers are RES0
    Register("GICD_SGIR"),
    Register("GICD_CPENDSGIR"),
    Register("GICD_SPENDSGIR"),
    IrqBank("GICD_IROUTER", _router, _set_router),
    Register("GICD_ID"),
    Register("GICD_PIDR2", _pidr2),
    Register("GICD_CIDR"),
)


def _spis(vgic: Vgic, _: VgicCpu, first: int, count: int) -> Sequence[VgicIrq]:
    """Private interrupts live in the redistributors: their fields here are RES0."""
    return vgic.spis(first, count)


def distributor_map() -> RegisterMap:
    """The registers of the 64 KiB distributor frame."""
    return RegisterMap(bind(arch.GICD_ROWS, BINDINGS), _spis)
