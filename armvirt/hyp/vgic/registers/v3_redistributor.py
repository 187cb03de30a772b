"""The GICv3 redistributors: their registers, and the regions in which they lie
(kvm/vgic/vgic-mmio-v3.c)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from armvirt.arch import gic as arch
from armvirt.errors import KvmError
from armvirt.hyp.vgic.cpu import VgicCpu
from armvirt.hyp.vgic.irq import VgicIrq
from armvirt.hyp.vgic.registers.irq_registers import irq_banks
from armvirt.hyp.vgic.registers.register_map import Binding, Register, RegisterMap, bind

if TYPE_CHECKING:
    from armvirt.hyp.vgic.vgic import Vgic

PENDBASER_PTZ = 1 << 62
IIDR = 0x4B << 24 | arch.IMPLEMENTER_ARM  # without the revision that GICD_IIDR has


class RedistRegion:
    """Consecutive redistributors at ``base``; ``count`` 0 is the one region of the old interface,
    of any size.

    ``members`` are the ids of the vCPUs whose redistributors are in it, in order of address.
    """

    __slots__ = ("base", "count", "index", "members")

    def __init__(self, index: int, base: int, count: int) -> None:
        self.index, self.base, self.count = index, base, count
        self.members: list[int] = []

    @property
    def size(self) -> int:
        """Bytes: what was asked for, or what is in use."""
        return (self.count or len(self.members)) * arch.GICR_SIZE

    @property
    def full(self) -> bool:
        return bool(self.count) and len(self.members) >= self.count

    def overlaps(self, base: int, size: int) -> bool:
        return self.base < base + size and base < self.base + self.size


def assign(regions: Iterable[RedistRegion], cpu: VgicCpu) -> None:
    """Give a vCPU's redistributor the first free place; without one it stays unplaced, which the
    first run refuses."""
    for region in regions:
        if cpu.redist_base is None and not region.full:
            cpu.redist_region, cpu.redist_index = region.index, len(region.members)
            cpu.redist_base = region.base + cpu.redist_index * arch.GICR_SIZE
            region.members.append(cpu.vcpu_id)


def is_last(regions: list[RedistRegion], cpu: VgicCpu) -> bool:
    """GICR_TYPER.Last: no redistributor in use follows at the next address."""
    if cpu.redist_region < 0:
        return False
    region = regions[cpu.redist_region]
    if cpu.redist_index < len(region.members) - 1:
        return False
    if region.count and cpu.redist_index == region.count - 1:
        end = region.base + region.size
        return not any(other.base == end and other.members for other in regions)
    return True


def _read_ctlr(vgic: Vgic, cpu: VgicCpu) -> int:
    """Revision 3 says that EnableLPIs can be cleared and that there are invalidate registers. RWP:
    LPIs are just being disabled."""
    enabled = arch.GICR_CTLR_ENABLE_LPIS if cpu.lpis_wanted else 0
    if not cpu.lpis_wanted and not _settled(vgic, cpu):
        enabled |= arch.GICR_CTLR_RWP
    return enabled | (arch.GICR_CTLR_CES | arch.GICR_CTLR_IR if vgic.revision >= 3 else 0)


def _settled(vgic: Vgic, cpu: VgicCpu) -> bool:
    if not vgic.its:
        return True
    from armvirt.hyp.vgic.its import lpi

    return lpi.settled(vgic, cpu)


def _read_syncr(vgic: Vgic, cpu: VgicCpu) -> int:
    """Busy: an invalidation may be under way."""
    return 0 if _settled(vgic, cpu) else arch.GICR_SYNCR_BUSY


def _write_ctlr(vgic: Vgic, cpu: VgicCpu, value: int) -> None:
    from armvirt.hyp.vgic.its import lpi

    lpi.set_enabled(vgic, cpu, bool(value & arch.GICR_CTLR_ENABLE_LPIS))


def _read_iidr(vgic: Vgic, _: VgicCpu) -> int:
    return IIDR


def _read_typer(vgic: Vgic, cpu: VgicCpu) -> int:
    value = arch.packed_affinity(cpu.mpidr) << arch.GICR_TYPER_AFFINITY_SHIFT
    value |= (cpu.vcpu_id & 0xFFFF) << arch.GICR_TYPER_NUMBER_SHIFT
    value |= arch.GICR_TYPER_PLPIS if vgic.its else 0
    return value | (arch.GICR_TYPER_LAST if is_last(vgic.regions, cpu) else 0)


def _read_propbaser(vgic: Vgic, _: VgicCpu) -> int:
    return vgic.propbaser


def _write_propbaser(vgic: Vgic, cpu: VgicCpu, value: int) -> None:
    """Without LPIs (TYPER.PLPIS = 0) their tables and invalidation are RES0."""
    if vgic.its:
        from armvirt.hyp.vgic.its import lpi

        lpi.write_propbaser(vgic, cpu, value)


def _read_pendbaser(vgic: Vgic, cpu: VgicCpu) -> int:
    """PTZ is write-only."""
    return _stored_pendbaser(vgic, cpu) & ~PENDBASER_PTZ


def _stored_pendbaser(vgic: Vgic, cpu: VgicCpu) -> int:
    """At reset the attributes are those that a write leaves (kvm INITIAL_PENDBASER_VALUE), so that
    what is read can be restored. A value that was written is never 0."""
    if cpu.pendbaser or not vgic.its:
        return cpu.pendbaser
    from armvirt.arch.its import PENDBASER_RESET

    return PENDBASER_RESET


def _write_pendbaser(vgic: Vgic, cpu: VgicCpu, value: int) -> None:
    if vgic.its:
        from armvirt.hyp.vgic.its import lpi

        lpi.write_pendbaser(vgic, cpu, value)


def _write_invlpir(vgic: Vgic, cpu: VgicCpu, value: int) -> None:
    from armvirt.hyp.vgic.its import lpi

    lpi.write_invlpir(vgic, cpu, value)


def _write_invallr(vgic: Vgic, cpu: VgicCpu, value: int) -> None:
    from armvirt.hyp.vgic.its import lpi

    lpi.write_invallr(vgic, cpu, value)


def _pidr2(vgic: Vgic, _: VgicCpu) -> int:
    return arch.PIDR2_GICV3


RD_BINDINGS: tuple[Binding, ...] = (
    Register("GICR_CTLR", _read_ctlr, _write_ctlr),
    Register("GICR_IIDR", _read_iidr),
    Register("GICR_TYPER", _read_typer),
    Register("GICR_STATUSR"),
    Register("GICR_WAKER"),  # always awake
    Register("GICR_SETLPIR"),  # TYPER.DirectLPI = 0: LPIs come through an ITS
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


def _private(_: Vgic, cpu: VgicCpu, first: int, count: int) -> Sequence[VgicIrq]:
    return cpu.private[first : first + count]


class RedistributorMap:
    """The two frames of one redistributor."""

    def __init__(self) -> None:
        self._rd = RegisterMap(bind(arch.GICR_RD_ROWS, RD_BINDINGS), _private)
        self._sgi = RegisterMap(bind(arch.GICR_SGI_ROWS, SGI_BINDINGS), _private)

    def frame(self, offset: int) -> RegisterMap:
        """The frame that an offset from RD_base is in."""
        return self._sgi if offset >= arch.GICR_FRAME_SIZE else self._rd

    def read(self, vgic: Vgic, cpu: VgicCpu, offset: int, size: int, user: bool = False) -> int:
        if offset < arch.GICR_FRAME_SIZE and not user:
            vgic.backlog.begin()
        return self.frame(offset).read(vgic, cpu, offset % arch.GICR_FRAME_SIZE, size, user)

    def write(
        self, vgic: Vgic, cpu: VgicCpu, offset: int, size: int, value: int, user: bool = False
    ) -> None:
        if offset < arch.GICR_FRAME_SIZE:
            vgic.backlog.begin()
        self.frame(offset).write(vgic, cpu, offset % arch.GICR_FRAME_SIZE, size, value, user)


def insert_region(regions: list[RedistRegion], index: int, base: int, count: int) -> RedistRegion:
    """Check and append a region (kvm vgic_v3_alloc_redist_region); KvmError EINVAL or EEXIST, as
    the ioctl gives them.

    ``count`` 0 asks for the old single region. The two ways cannot be mixed.
    """
    if regions and not count:
        if regions[0].count:
            raise KvmError(
                "EINVAL", "redistributor regions are in use: a single base cannot be set"
            )
        raise KvmError("EEXIST", "the redistributors' base is set already")
    if regions and not regions[0].count:
        raise KvmError("EINVAL", "a single redistributor base is set: regions cannot be added")
    if index != len(regions):
        raise KvmError(
            "EINVAL", f"the next redistributor region has index {len(regions)}, not {index}"
        )
    if any(region.overlaps(base, max(count, 1) * arch.GICR_SIZE) for region in regions):
        raise KvmError("EINVAL", f"redistributor region at {base:#x} overlaps another one")
    region = RedistRegion(index, base, count)
    regions.append(region)
    return region
