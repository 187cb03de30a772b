"""The addresses of the vGIC's frames in the IPA space: GICD, GICC, and the regions of
redistributors."""

from __future__ import annotations

from armvirt.arch.gic import GICD_SIZE, GICR_SIZE
from armvirt.errors import KvmError
from armvirt.hyp.vgic.cpu import VgicCpu


class RedistRegion:
    """A region of consecutive redistributors that starts at ``base`` (struct vgic_redist_region).

    ``count`` is the number of redistributors. ``count`` is 0 for KVM's legacy region, which user
    space sets with KVM_VGIC_V3_ADDR_TYPE_REDIST. The legacy region grows with the number of vCPUs.
    ``members`` has the ids of the vCPUs whose redistributors are in the region, in order of
    address.
    """

    __slots__ = ("base", "count", "index", "members")

    def __init__(self, index: int, base: int, count: int) -> None:
        self.index, self.base, self.count = index, base, count
        self.members: list[int] = []

    @property
    def size(self) -> int:
        """The size of the region in bytes. If ``count`` is 0, the region has one redistributor for
        each vCPU in ``members``."""
        return (self.count or len(self.members)) * GICR_SIZE

    @property
    def full(self) -> bool:
        return bool(self.count) and len(self.members) >= self.count

    def overlaps(self, base: int, size: int) -> bool:
        return self.base < base + size and base < self.base + self.size

    def take(self, cpu: VgicCpu) -> None:
        """Place the redistributor of a vCPU at the next address of the region."""
        cpu.redist_region, cpu.redist_index = self.index, len(self.members)
        cpu.redist_base = self.base + cpu.redist_index * GICR_SIZE
        self.members.append(cpu.vcpu_id)


class Placement:
    """The addresses of the vGIC's frames, which user space sets. The address of a frame is None
    before user space sets the address.

    ``dist_base`` is the address of GICD, ``cpu_base`` is the address of GICC (GICv2). ``regions``
    has the regions of redistributors of a GICv3. ``ipa_bits`` is the size of the IPA space in
    address bits.
    """

    __slots__ = ("cpu_base", "dist_base", "ipa_bits", "regions")

    def __init__(self) -> None:
        self.ipa_bits = 40
        self.dist_base: int | None = None
        self.cpu_base: int | None = None
        self.regions: list[RedistRegion] = []

    def place(self, cpu: VgicCpu) -> None:
        """Place the redistributor of a new vCPU at the first free address.

        If every region is full, the redistributor gets no address, and the first run of a vCPU
        fails.
        """
        region = next((region for region in self.regions if not region.full), None)
        if region is not None:
            region.take(cpu)

    def new_region(self, index: int, base: int, count: int) -> RedistRegion:
        """Check the arguments for a new region of redistributors, and create the region (kvm
        vgic_v3_alloc_redist_region). The caller adds the region to ``regions``.

        ``index`` is the index of the region, ``base`` is its address, and ``count`` is its number
        of redistributors. If ``count`` is 0, the region is KVM's legacy region
        (KVM_VGIC_V3_ADDR_TYPE_REDIST). A VM with a legacy region cannot have other regions.

        KvmError EEXIST if ``count`` is 0 and the VM already has a legacy region. KvmError EINVAL if
        the VM would have a legacy region and other regions, if ``index`` is not the next index, or
        if the region overlaps another region.
        """
        regions = self.regions
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
        if any(region.overlaps(base, max(count, 1) * GICR_SIZE) for region in regions):
            raise KvmError("EINVAL", f"redistributor region at {base:#x} overlaps another one")
        return RedistRegion(index, base, count)

    def fits(self) -> bool:
        """Whether the redistributors are inside the IPA space and do not overlap the distributor
        (kvm vgic_v3_check_base).

        The result can change after user space has set all addresses, because KVM's legacy region
        (KVM_VGIC_V3_ADDR_TYPE_REDIST) grows with each new vCPU.
        """
        if any(region.base + region.size > 1 << self.ipa_bits for region in self.regions):
            return False
        base = self.dist_base
        return base is None or not any(region.overlaps(base, GICD_SIZE) for region in self.regions)

    def is_last(self, cpu: VgicCpu) -> bool:
        """GICR_TYPER.Last: True if no redistributor of a vCPU is at the next address."""
        if cpu.redist_region < 0:
            return False
        region = self.regions[cpu.redist_region]
        if cpu.redist_index < len(region.members) - 1:
            return False
        if region.count and cpu.redist_index == region.count - 1:
            end = region.base + region.size
            return not any(other.base == end and other.members for other in self.regions)
        return True
