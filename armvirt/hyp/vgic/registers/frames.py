"""The vGIC's frames as the MMIO bus sees them: an address, a size, and accesses by a vCPU."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

from armvirt.arch.gic import (
    GICC_SIZE,
    GICD_SIZE,
    GICR_SIZE,
    GICV2_GICD_SIZE,
    GITS_SIZE,
    GITS_TRANSLATER,
)
from armvirt.events import GicAccess
from armvirt.hyp.vgic.registers.v2_cpu_interface import CpuInterfaceFrame
from armvirt.hyp.vgic.registers.v3_redistributor import RedistRegion

if TYPE_CHECKING:
    from armvirt.hyp.vgic.its.its import Its
    from armvirt.hyp.vgic.vgic import Vgic


CPU_DEVICE_ID = 0  # of a message that a CPU writes itself


class Frame(Protocol):
    """Offsets and sizes in bytes; ``vcpu_id`` is who accesses. Nothing here ever aborts."""

    name: str

    def read(self, vcpu_id: int, offset: int, size: int) -> int: ...

    def write(self, vcpu_id: int, offset: int, size: int, value: int) -> None: ...


class PlacedFrame(NamedTuple):
    base: int
    size: int
    frame: Frame

    def overlaps(self, base: int, size: int) -> bool:
        return self.base < base + size and base < self.base + self.size


class DistributorFrame:
    """GICD."""

    name = "GICD"

    def __init__(self, vgic: Vgic) -> None:
        self._vgic = vgic

    def read(self, vcpu_id: int, offset: int, size: int) -> int:
        vgic = self._vgic
        value = vgic.dist_map.read(vgic, vgic.cpu(vcpu_id), offset, size)
        if vgic.bus.active:
            vgic.bus.emit(GicAccess(self.name, offset, size, value, 0))
        return value

    def write(self, vcpu_id: int, offset: int, size: int, value: int) -> None:
        vgic = self._vgic
        if vgic.bus.active:
            vgic.bus.emit(GicAccess(self.name, offset, size, value, 1))
        vgic.dist_map.write(vgic, vgic.cpu(vcpu_id), offset, size, value)


class RedistributorFrame:
    """GICR: one region, the redistributors of several vCPUs. Any vCPU may access any of them."""

    name = "GICR"

    def __init__(self, vgic: Vgic, region: RedistRegion) -> None:
        self._vgic, self._region = vgic, region

    def read(self, vcpu_id: int, offset: int, size: int) -> int:
        vgic = self._vgic
        index, within = divmod(offset, GICR_SIZE)
        value = 0
        if index < len(self._region.members):
            value = vgic.redist_map.read(vgic, vgic.cpu(self._region.members[index]), within, size)
        if vgic.bus.active:
            vgic.bus.emit(GicAccess(self.name, offset, size, value, 0))
        return value

    def write(self, vcpu_id: int, offset: int, size: int, value: int) -> None:
        vgic = self._vgic
        if vgic.bus.active:
            vgic.bus.emit(GicAccess(self.name, offset, size, value, 1))
        index, within = divmod(offset, GICR_SIZE)
        if index < len(self._region.members):
            vgic.redist_map.write(vgic, vgic.cpu(self._region.members[index]), within, size, value)


class ItsFrame:
    """GITS: control registers, then the page of GITS_TRANSLATER, with 16 or 32 bits of EventID.

    A store by a CPU has DeviceID 0, the board's choice: the architecture leaves open which one it
    has, QEMU's virt board takes 0 too, and KVM ignores such a store.
    """

    name = "GITS"

    def __init__(self, its: Its) -> None:
        self._its = its

    def read(self, vcpu_id: int, offset: int, size: int) -> int:
        from armvirt.hyp.vgic.its import registers as its_regs

        bus = self._its.vgic.bus
        value = its_regs.read(self._its, offset, size)
        if bus.active:
            bus.emit(GicAccess(self.name, offset, size, value, 0))
        return value

    def write(self, vcpu_id: int, offset: int, size: int, value: int) -> None:
        from armvirt.hyp.vgic.its import registers as its_regs

        bus = self._its.vgic.bus
        if bus.active:
            bus.emit(GicAccess(self.name, offset, size, value, 1))
        if offset != GITS_TRANSLATER:
            its_regs.write(self._its, offset, size, value)
        elif size in (2, 4):
            self._its.trigger(CPU_DEVICE_ID, value)


def bases_fit(vgic: Vgic) -> bool:
    """Whether the redistributors lie in the IPA space and off the distributor (kvm
    vgic_v3_check_base).

    An old single region grows with the vCPUs, so what was right when its address was set may be
    wrong later.
    """
    if any(region.base + region.size > 1 << vgic.ipa_bits for region in vgic.regions):
        return False
    base = vgic.dist_base
    return base is None or not any(region.overlaps(base, GICD_SIZE) for region in vgic.regions)


def placed_frames(vgic: Vgic) -> list[PlacedFrame]:
    """Every frame that has an address."""
    frames = []
    if vgic.dist_base is not None:
        size = GICV2_GICD_SIZE if vgic.model == 2 else GICD_SIZE
        frames.append(PlacedFrame(vgic.dist_base, size, DistributorFrame(vgic)))
    if vgic.cpu_base is not None:
        frames.append(PlacedFrame(vgic.cpu_base, GICC_SIZE, CpuInterfaceFrame(vgic)))
    for region in vgic.regions:
        frames.append(PlacedFrame(region.base, region.size, RedistributorFrame(vgic, region)))
    for its in vgic.its:
        if its.base is not None:
            frames.append(PlacedFrame(its.base, GITS_SIZE, ItsFrame(its)))
    return frames
