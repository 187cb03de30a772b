"""The GICv2 CPU interface: GICC for the guest, its registers for user space
(kvm/vgic/vgic-mmio-v2.c, vgic-v2.c)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from armvirt.arch import gic as arch
from armvirt.arch.gic import (
    GICC_DIR_OFFSET,
    HCR_TDIR,
    VMCR_BPR_MASK,
    VMCR_VBPR0_SHIFT,
    VMCR_VBPR1_SHIFT,
    VMCR_VPMR_SHIFT,
)
from armvirt.events import GicAccess
from armvirt.hw import gicv
from armvirt.hyp.vgic.cpu import VgicCpu

if TYPE_CHECKING:
    from armvirt.hyp.vgic.vgic import Vgic


class CpuInterfaceFrame:
    """GICC: on hardware, stage 2 maps it on the GICV frame of whatever CPU the vCPU is on, and
    nothing exits.

    Here each access is an exit that the virtual CPU interface completes: list registers are neither
    folded nor filled for it. GICV_DIR is in a page of its own, which KVM leaves unmapped so that it
    hears of deactivations of what is in no list register of this vCPU. It does so always; here it
    is asked only while ICH_HCR_EL2.TDIR says that there is something to hear, as for ICC_DIR_EL1.
    """

    name = "GICC"

    def __init__(self, vgic: Vgic) -> None:
        self._vgic = vgic

    def read(self, vcpu_id: int, offset: int, size: int) -> int:
        vgic = self._vgic
        vif = vgic.cpu(vcpu_id).vif
        assert vif is not None  # it is executing
        value = gicv.read(vif, offset, size)
        if vgic.bus.active:
            vgic.bus.emit(GicAccess(self.name, offset, size, value, 0))
        return value

    def write(self, vcpu_id: int, offset: int, size: int, value: int) -> None:
        vgic = self._vgic
        vif = vgic.cpu(vcpu_id).vif
        assert vif is not None
        if vgic.bus.active:
            vgic.bus.emit(GicAccess(self.name, offset, size, value, 1))
        if offset == GICC_DIR_OFFSET and size == 4 and vif.hcr & HCR_TDIR:
            vgic.dir(vcpu_id, value)
        else:
            gicv.write(vif, offset, size, value)


# Save and restore -------------------------------------------------------------------------------


class UserRegister(NamedTuple):
    """A register as user space saves and restores it; without ``write`` it ignores writes."""

    name: str
    read: Callable[[VgicCpu], int]
    write: Callable[[VgicCpu, int], None] | None = None


def _field(name: str, shift: int, mask: int) -> UserRegister:
    def write(cpu: VgicCpu, value: int) -> None:
        cpu.vmcr = cpu.vmcr & ~(mask << shift) | (value & mask) << shift

    return UserRegister(name, lambda cpu: cpu.vmcr >> shift & mask, write)


#: GICH_VMCR.VMPriMask, the upper five bits of the priority mask: that is what KVM's interface has
#: in place of GICC_PMR (Documentation/virt/kvm/devices/arm-vgic.rst).
_PMR_SHIFT, _PMR_MASK = VMCR_VPMR_SHIFT + 3, 0x1F


def _active_priorities(n: int) -> UserRegister:
    """ICH_AP1R<n>_EL2, whatever the group (kvm vgic_mmio_read_apr); RAZ/WI beyond what the priority
    bits need."""

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
