"""The frames GICD and GICR for MMIO accesses of a vCPU. Each access emits a trace event."""

from __future__ import annotations

from typing import Protocol

from armvirt.arch.gic import GICR_FRAME_SIZE, GICR_SIZE
from armvirt.events import GicAccess
from armvirt.hyp.vgic.distributor import Distributor
from armvirt.hyp.vgic.placement import RedistRegion
from armvirt.hyp.vgic.registers.mmio_v3 import GICD_MAP, RD_MAP, SGI_MAP
from armvirt.hyp.vgic.registers.register_map import RegisterMap
from armvirt.records import NamedTuple


def distributor_map(model: int) -> RegisterMap:
    """The registers of GICD of a GICv2 or a GICv3. For a GICv3, the module of the GICv2 is not
    imported."""
    if model == 2:
        from armvirt.hyp.vgic.registers import mmio_v2

        return mmio_v2.GICD_MAP
    return GICD_MAP


class Frame(Protocol):
    """A register frame. ``vcpu_id`` is the vCPU that accesses the frame. Offsets and sizes are in
    bytes. No access causes an external abort. If no register is at the offset, or if the size or
    the alignment of the access is wrong, a read returns 0 and a write is ignored."""

    name: str

    def read(self, vcpu_id: int, offset: int, size: int) -> int: ...

    def write(self, vcpu_id: int, offset: int, size: int, value: int) -> None: ...

    def stable(self, offset: int, size: int) -> bool:
        """Whether a read has no effect, and returns the same value until EL2 runs for another
        reason (`MmioExit.stable`)."""
        ...


class PlacedFrame(NamedTuple):
    """A register frame at the IPA ``base``. ``size`` is in bytes."""

    base: int
    size: int
    frame: Frame

    def overlaps(self, base: int, size: int) -> bool:
        return self.base < base + size and base < self.base + self.size


class DistributorFrame:
    """The frame GICD. In a GICv2, GICD also has the fields of private interrupts; a vCPU accesses
    the fields of its own private interrupts."""

    name = "GICD"

    def __init__(self, dist: Distributor) -> None:
        self._dist, self._map = dist, distributor_map(dist.model)

    def read(self, vcpu_id: int, offset: int, size: int) -> int:
        dist = self._dist
        value = self._map.read(dist, dist.vcpus[vcpu_id], offset, size)
        if dist.bus.active:
            dist.bus.emit(GicAccess(self.name, offset, size, value, 0))
        return value

    def write(self, vcpu_id: int, offset: int, size: int, value: int) -> None:
        dist = self._dist
        if dist.bus.active:
            dist.bus.emit(GicAccess(self.name, offset, size, value, 1))
        self._map.write(dist, dist.vcpus[vcpu_id], offset, size, value)

    def stable(self, offset: int, size: int) -> bool:
        return self._map.stable(offset, size)


class RedistributorFrame:
    """The redistributors (GICR) of one region. Any vCPU may access any redistributor.

    Before an access to a frame RD_base, the vGIC continues the work on LPIs that earlier accesses
    have not finished. This work is limited to the work of one guest access
    (`armvirt.hyp.vgic.backlog`).
    """

    name = "GICR"

    def __init__(self, dist: Distributor, region: RedistRegion) -> None:
        self._dist, self._region = dist, region

    def read(self, vcpu_id: int, offset: int, size: int) -> int:
        dist, members = self._dist, self._region.members
        index, within = divmod(offset, GICR_SIZE)
        value = 0
        if index < len(members):
            cpu = dist.vcpus[members[index]]
            if within >= GICR_FRAME_SIZE:
                value = SGI_MAP.read(dist, cpu, within - GICR_FRAME_SIZE, size)
            else:
                dist.backlog.begin()
                value = RD_MAP.read(dist, cpu, within, size)
        if dist.bus.active:
            dist.bus.emit(GicAccess(self.name, offset, size, value, 0))
        return value

    def write(self, vcpu_id: int, offset: int, size: int, value: int) -> None:
        dist, members = self._dist, self._region.members
        if dist.bus.active:
            dist.bus.emit(GicAccess(self.name, offset, size, value, 1))
        index, within = divmod(offset, GICR_SIZE)
        if index < len(members):
            cpu = dist.vcpus[members[index]]
            if within >= GICR_FRAME_SIZE:
                SGI_MAP.write(dist, cpu, within - GICR_FRAME_SIZE, size, value)
            else:
                dist.backlog.begin()
                RD_MAP.write(dist, cpu, within, size, value)

    def stable(self, offset: int, size: int) -> bool:
        return False


def redistributor_map(offset: int) -> RegisterMap:
    """The registers of the frame RD_base or SGI_base. ``offset`` is in bytes from the start of a
    redistributor, and selects the frame."""
    return SGI_MAP if offset >= GICR_FRAME_SIZE else RD_MAP
