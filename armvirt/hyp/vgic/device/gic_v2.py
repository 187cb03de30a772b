"""The device attributes of a GICv2 (Documentation/virt/kvm/devices/arm-vgic.rst,
kvm/vgic/vgic-kvm-device.c).

The attribute number of a register has the vCPU id in [39:32] and the offset in the frame in [31:0].
The first access to a register initialises the vGIC. (KVM returns EBUSY while a vCPU runs. In
armvirt no vCPU runs during the access, because user space and the vCPUs share one thread.)
"""

from __future__ import annotations

from armvirt.arch.gic import GICC_SIZE, GICV2_GICD_SIZE
from armvirt.errors import KvmError
from armvirt.hyp.vgic.cpu import VgicCpu
from armvirt.hyp.vgic.device.attributes import (
    NR_IRQS,
    UNDEFINED_ADDRESS,
    AddrType,
    Attributes,
    Ctrl,
    Group,
    check_range,
    check_register,
    get_nothing,
    no_attribute,
)
from armvirt.hyp.vgic.registers.frames import distributor_map
from armvirt.hyp.vgic.registers.mmio_v2 import USER_BY_OFFSET, UserRegister
from armvirt.hyp.vgic.vgic import Vgic

FRAME_ALIGNMENT = 0x1000

# ADDR --------------------------------------------------------------------------------------------

#: For each frame, the field of `Placement` with the address, and the size of the frame in bytes.
_FRAMES = {
    AddrType.V2_DIST: ("dist_base", GICV2_GICD_SIZE),
    AddrType.V2_CPU: ("cpu_base", GICC_SIZE),
}


def _has_addr(_: Vgic, attr: int) -> None:
    if attr not in (AddrType.V2_DIST, AddrType.V2_CPU):
        raise no_attribute("address", attr)


def _frame(attr: int) -> tuple[str, int]:
    if attr not in (AddrType.V2_DIST, AddrType.V2_CPU):
        raise no_attribute("address", attr)
    return _FRAMES[AddrType(attr)]


def _get_addr(vgic: Vgic, attr: int, _: int) -> int:
    base = getattr(vgic.dist.placement, _frame(attr)[0])
    return UNDEFINED_ADDRESS if base is None else int(base)


def _set_addr(vgic: Vgic, attr: int, value: int) -> None:
    name, size = _frame(attr)
    if getattr(vgic.dist.placement, name) is not None:
        raise KvmError("EEXIST", f"the address of {AddrType(attr).name} is set already")
    check_range(vgic.dist.placement.ipa_bits, value, size, FRAME_ALIGNMENT)
    setattr(vgic.dist.placement, name, value)


# DIST_REGS and CPU_REGS -------------------------------------------------------------------------


def _vcpu_of(vgic: Vgic, attr: int) -> int:
    """The vCPU id in [39:32] of an attribute number (vgic_v2_parse_attr). KvmError EINVAL if the
    vCPU does not exist. KVM_HAS_DEVICE_ATTR gives the same error."""
    vcpu_id = attr >> 32 & 0xFF
    if not vgic.dist.has_vcpu(vcpu_id):
        raise KvmError("EINVAL", f"there is no vCPU {vcpu_id}")
    return vcpu_id


def _cpu_of(vgic: Vgic, attr: int) -> VgicCpu:
    """The vCPU whose id is in [39:32] of an attribute number. If the vGIC is not initialised, this
    function initialises it."""
    vcpu_id = _vcpu_of(vgic, attr)
    vgic.init()
    return vgic.dist.cpu(vcpu_id)


def _has_dist_reg(vgic: Vgic, attr: int) -> None:
    _vcpu_of(vgic, attr)
    check_register(vgic, attr & 0xFFFF_FFFF)


def _get_dist_reg(vgic: Vgic, attr: int, _: int) -> int:
    """Read a distributor register. The value is 0 if there is no register at the offset, as in KVM
    (vgic_uaccess). The documentation of KVM says ENXIO for this case."""
    cpu = _cpu_of(vgic, attr)
    return distributor_map(2).read(vgic.dist, cpu, attr & 0xFFFF_FFFF, 4, user=True)


def _set_dist_reg(vgic: Vgic, attr: int, value: int) -> None:
    cpu = _cpu_of(vgic, attr)
    distributor_map(2).write(vgic.dist, cpu, attr & 0xFFFF_FFFF, 4, value & 0xFFFF_FFFF, user=True)


def _cpu_register(attr: int) -> UserRegister | None:
    return USER_BY_OFFSET.get(attr & 0xFFFF_FFFF)


def _has_cpu_reg(vgic: Vgic, attr: int) -> None:
    _vcpu_of(vgic, attr)
    if _cpu_register(attr) is None:
        raise no_attribute("CPU interface register", attr)


def _get_cpu_reg(vgic: Vgic, attr: int, _: int) -> int:
    cpu, register = _cpu_of(vgic, attr), _cpu_register(attr)
    return 0 if register is None else register.read(cpu)


def _set_cpu_reg(vgic: Vgic, attr: int, value: int) -> None:
    cpu, register = _cpu_of(vgic, attr), _cpu_register(attr)
    if register is not None and register.write is not None:
        vgic.sync_all()
        register.write(cpu, value & 0xFFFF_FFFF)
        vgic.dist.look_again(cpu)


# CTRL -------------------------------------------------------------------------------------------


def _has_ctrl(_: Vgic, attr: int) -> None:
    if attr != Ctrl.INIT:
        raise no_attribute("control", attr)


def _set_ctrl(vgic: Vgic, attr: int, _: int) -> None:
    _has_ctrl(vgic, attr)
    vgic.init()


#: A GICv2 has no group LEVEL_INFO, because user space restores the line levels by KVM_IRQ_LINE.
GROUPS: dict[int, Attributes] = {
    Group.ADDR: Attributes(_has_addr, _get_addr, _set_addr),
    Group.DIST_REGS: Attributes(_has_dist_reg, _get_dist_reg, _set_dist_reg),
    Group.CPU_REGS: Attributes(_has_cpu_reg, _get_cpu_reg, _set_cpu_reg),
    Group.NR_IRQS: NR_IRQS,
    Group.CTRL: Attributes(_has_ctrl, get_nothing, _set_ctrl),
}
