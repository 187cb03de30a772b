"""The GICv2 CPU interface: the frame GICC for the guest, and its registers for save and restore
(kvm/vgic/vgic-mmio-v2.c, vgic-v2.c)."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from armvirt.arch import gic as arch
from armvirt.arch.gic import (
    GICC_DIR_OFFSET,
    ICH_HCR_TDIR,
    VMCR_BPR_MASK,
    VMCR_VBPR0_SHIFT,
    VMCR_VBPR1_SHIFT,
    VMCR_VPMR_SHIFT,
)
from armvirt.events import GicAccess
from armvirt.hw import gicv
from armvirt.hyp.vgic import deactivation
from armvirt.hyp.vgic.cpu import VgicCpu
from armvirt.hyp.vgic.distributor import Distributor


class CpuInterfaceFrame:
    """GICC. On hardware, stage 2 maps the GICV frame at the address of GICC, and an access does not
    exit.

    Here an access exits, and the virtual CPU interface of the PE completes it without a fold or a
    flush. GICV_DIR is in a separate page, which KVM does not map, so that each write of GICV_DIR
    exits and can deactivate an interrupt of another vCPU. Here a write of GICV_DIR goes to the vGIC
    only if ICH_HCR_EL2.TDIR is 1, like a write of ICC_DIR_EL1.
    """

    name = "GICC"

    def __init__(self, dist: Distributor) -> None:
        self._dist = dist

    def read(self, vcpu_id: int, offset: int, size: int) -> int:
        dist = self._dist
        vif = dist.vcpus[vcpu_id].vif
        assert vif is not None  # the vCPU is executing
        value = gicv.read(vif, offset, size)
        if dist.bus.active:
            dist.bus.emit(GicAccess(self.name, offset, size, value, 0))
        return value

    def write(self, vcpu_id: int, offset: int, size: int, value: int) -> None:
        dist = self._dist
        vif = dist.vcpus[vcpu_id].vif
        assert vif is not None
        if dist.bus.active:
            dist.bus.emit(GicAccess(self.name, offset, size, value, 1))
        if offset == GICC_DIR_OFFSET and size == 4 and vif.hcr & ICH_HCR_TDIR:
            deactivation.dir(dist, dist.vcpus[vcpu_id], value)
        else:
            gicv.write(vif, offset, size, value)


# Save and restore -------------------------------------------------------------------------------


class UserRegister(NamedTuple):
    """A register that user space saves and restores; without ``write`` the register is WI."""

    name: str
    read: Callable[[VgicCpu], int]
    write: Callable[[VgicCpu, int], None] | None = None


def _field(name: str, shift: int, mask: int) -> UserRegister:
    def write(cpu: VgicCpu, value: int) -> None:
        cpu.vmcr = cpu.vmcr & ~(mask << shift) | (value & mask) << shift

    return UserRegister(name, lambda cpu: cpu.vmcr >> shift & mask, write)


#: User space's GICC_PMR is GICH_VMCR.VMPriMask, the upper five bits of the priority mask
#: (Documentation/virt/kvm/devices/arm-vgic.rst).
_PMR_SHIFT, _PMR_MASK = VMCR_VPMR_SHIFT + 3, 0x1F


def _active_priorities(n: int) -> UserRegister:
    """ICH_AP1R<n>_EL2, for both groups (kvm vgic_mmio_read_apr); RAZ/WI if ``n`` is not below
    `VgicCpu.nr_aprs`."""

    def read(cpu: VgicCpu) -> int:
        return cpu.active_priorities(1)[n] if n < cpu.nr_aprs else 0

    def write(cpu: VgicCpu, value: int) -> None:
        if n < cpu.nr_aprs:
            cpu.set_active_priorities(1, n, value & 0xFFFF_FFFF)

    return UserRegister(f"GICC_APR{n}", read, write)


USER_REGISTERS: tuple[UserRegister, ...] = (
    _field("GICC_CTLR", 0, arch.GICC_CTLR_BITS),
    _field("GICC_PMR", _PMR_SHIFT, _PMR_MASK),
    _field("GICC_BPR", VMCR_VBPR0_SHIFT, VMCR_BPR_MASK),
    _field("GICC_ABPR", VMCR_VBPR1_SHIFT, VMCR_BPR_MASK),
    *(_active_priorities(n) for n in range(4)),
    UserRegister("GICC_IIDR", lambda _: arch.GICC_IIDR),
)
_OFFSETS: dict[str, int] = {row.name: row.offset for row in arch.GICC_ROWS}
USER_BY_OFFSET: dict[int, UserRegister] = {
    _OFFSETS[register.name]: register for register in USER_REGISTERS
}
