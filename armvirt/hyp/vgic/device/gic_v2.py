"""The attributes of a GICv2 (Documentation/virt/kvm/devices/arm-vgic.rst,
kvm/vgic/vgic-kvm-device.c).

A register attribute names its vCPU by id in [39:32] and the offset in its frame in [31:0]. An
access to one initialises the vGIC. (That a vCPU may be running, EBUSY, cannot be: user space and
vCPUs share a thread.)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from armvirt.arch.gic import GICC_SIZE, GICV2_GICD_SIZE
from armvirt.errors import KvmError
from armvirt.hyp.vgic.cpu import VgicCpu
from armvirt.hyp.vgic.device.attributes import (
    NR_IRQS,
    AddrType,
    Attributes,
    Ctrl,
    Group,
    check_range,
    check_register,
    get_nothing,
    no_attribute,
)
from armvirt.hyp.vgic.registers.v2_cpu_interface import USER_BY_OFFSET, UserRegister

if TYPE_CHECKING:
    from armvirt.hyp.vgic.device.gic import VgicDevice

FRAME_ALIGNMENT = 0x1000

# ADDR --------------------------------------------------------------------------------------------

#: The vGIC's attribute that holds the address, and the frame's size in bytes.
_FRAMES = {
    AddrType.V2_DIST: ("dist_base", GICV2_GICD_SIZE),
    AddrType.V2_CPU: ("cpu_base", GICC_SIZE),
}


def _has_addr(_: VgicDevice, attr: int) -> None:
    if attr not in (AddrType.V2_DIST, AddrType.V2_CPU):
        raise no_attribute("address", attr)


def _frame(attr: int) -> tuple[str, int]:
    if attr not in (AddrType.V2_DIST, AddrType.V2_CPU):
        raise no_attribute("address", attr)
    return _FRAMES[AddrType(attr)]


def _get_addr(device: VgicDevice, attr: int, _: int) -> int:
    base = getattr(device.vgic, _frame(attr)[0])
    return (1 << 64) - 1 if base is None else int(base)


def _set_addr(device: VgicDevice, attr: int, value: int) -> None:
    name, size = _frame(attr)
    if getattr(device.vgic, name) is not None:
        raise KvmError("EEXIST", f"the address of {AddrType(attr).name} is set already")
    check_range(device, value, size, FRAME_ALIGNMENT)
    setattr(device.vgic, name, value)


# DIST_REGS and CPU_REGS -------------------------------------------------------------------------


def _vcpu_of(device: VgicDevice, attr: int) -> int:
    """The vCPU whose number is in [39:32] (vgic_v2_parse_attr); EINVAL if there is none, for
    has_attr too."""
    vcpu_id = attr >> 32 & 0xFF
    if not device.vgic.has_vcpu(vcpu_id):
        raise KvmError("EINVAL", f"there is no vCPU {vcpu_id}")
    return vcpu_id


def _cpu_of(device: VgicDevice, attr: int) -> VgicCpu:
    """EINVAL for a vCPU that does not exist (kvm vgic_v2_parse_attr)."""
    vcpu_id = _vcpu_of(device, attr)
    device.vgic.init()
    return device.vgic.cpu(vcpu_id)


def _has_dist_reg(device: VgicDevice, attr: int) -> None:
    _vcpu_of(device, attr)
    check_register(device.vgic, attr & 0xFFFF_FFFF)


def _get_dist_reg(device: VgicDevice, attr: int, _: int) -> int:
    """0 where there is no register, as in KVM (vgic_uaccess), whatever its documentation says."""
    cpu = _cpu_of(device, attr)
    return device.vgic.dist_map.read(device.vgic, cpu, attr & 0xFFFF_FFFF, 4, user=True)


def _set_dist_reg(device: VgicDevice, attr: int, value: int) -> None:
    cpu = _cpu_of(device, attr)
    device.vgic.dist_map.write(
        device.vgic, cpu, attr & 0xFFFF_FFFF, 4, value & 0xFFFF_FFFF, user=True
    )


def _cpu_register(attr: int) -> UserRegister | None:
    return USER_BY_OFFSET.get(attr & 0xFFFF_FFFF)


def _has_cpu_reg(device: VgicDevice, attr: int) -> None:
    _vcpu_of(device, attr)
    if _cpu_register(attr) is None:
        raise no_attribute("CPU interface register", attr)


def _get_cpu_reg(device: VgicDevice, attr: int, _: int) -> int:
    cpu, register = _cpu_of(device, attr), _cpu_register(attr)
    return 0 if register is None else register.read(cpu)


def _set_cpu_reg(device: VgicDevice, attr: int, value: int) -> None:
    cpu, register = _cpu_of(device, attr), _cpu_register(attr)
    if register is not None and register.write is not None:
        device.vgic.sync_all()
        register.write(cpu, value & 0xFFFF_FFFF)
        device.vgic.interface_restored(cpu)


# CTRL -------------------------------------------------------------------------------------------


def _has_ctrl(_: VgicDevice, attr: int) -> None:
    if attr != Ctrl.INIT:
        raise no_attribute("control", attr)


def _set_ctrl(device: VgicDevice, attr: int, _: int) -> None:
    _has_ctrl(device, attr)
    device.vgic.init()


#: There is no LEVEL_INFO: levels are restored with KVM_IRQ_LINE.
GROUPS: dict[int, Attributes] = {
    Group.ADDR: Attributes(_has_addr, _get_addr, _set_addr),
    Group.DIST_REGS: Attributes(_has_dist_reg, _get_dist_reg, _set_dist_reg),
    Group.CPU_REGS: Attributes(_has_cpu_reg, _get_cpu_reg, _set_cpu_reg),
    Group.NR_IRQS: NR_IRQS,
    Group.CTRL: Attributes(_has_ctrl, get_nothing, _set_ctrl),
}
