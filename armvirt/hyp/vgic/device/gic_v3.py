"""The attributes of a GICv3 (Documentation/virt/kvm/devices/arm-vgic-v3.rst)."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from armvirt.arch import gic as arch
from armvirt.arch.gic import GICD_SIZE, GICR_SIZE
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
from armvirt.hyp.vgic.irq import VgicIrq
from armvirt.hyp.vgic.registers import v3_cpu_interface as v3_sysregs
from armvirt.hyp.vgic.registers.frames import bases_fit
from armvirt.hyp.vgic.registers.register_map import RegisterMap
from armvirt.hyp.vgic.registers.v3_redistributor import assign, insert_region

if TYPE_CHECKING:
    from armvirt.hyp.vgic.device.gic import VgicDevice
    from armvirt.hyp.vgic.vgic import Vgic

FRAME_ALIGNMENT = 0x1_0000


class RegionAttribute(NamedTuple):
    """The value of ADDR / V3_REDIST_REGION: count [63:52], base [51:16], flags [15:12], index
    [11:0]."""

    redistributors: int
    base: int
    flags: int
    number: int

    @classmethod
    def decode(cls, value: int) -> RegionAttribute:
        return cls(value >> 52 & 0xFFF, value & 0xF_FFFF_FFFF_0000, value >> 12 & 15, value & 0xFFF)

    def encode(self) -> int:
        return self.redistributors << 52 | self.base | self.flags << 12 | self.number


# ADDR -------------------------------------------------------------------------------------------


def _has_addr(_: VgicDevice, attr: int) -> None:
    if attr not in (AddrType.V3_DIST, AddrType.V3_REDIST, AddrType.V3_REDIST_REGION):
        raise no_attribute("address", attr)


def _get_addr(device: VgicDevice, attr: int, value: int) -> int:
    vgic = device.vgic
    undefined = (1 << 64) - 1
    if attr == AddrType.V3_DIST:
        return undefined if vgic.dist_base is None else vgic.dist_base
    if attr == AddrType.V3_REDIST:
        return vgic.regions[0].base if vgic.regions else undefined
    if attr == AddrType.V3_REDIST_REGION:
        index = RegionAttribute.decode(value).number
        if index >= len(vgic.regions):
            raise KvmError("ENOENT", f"no redistributor region {index}")
        region = vgic.regions[index]
        return RegionAttribute(region.count, region.base, 0, index).encode()
    raise no_attribute("address", attr)


def _set_addr(device: VgicDevice, attr: int, value: int) -> None:
    vgic = device.vgic
    if attr == AddrType.V3_DIST:
        if vgic.dist_base is not None:
            raise KvmError("EEXIST", "the distributor's address is set already")
        check_range(device, value, GICD_SIZE, FRAME_ALIGNMENT)
        vgic.dist_base = value
    elif attr == AddrType.V3_REDIST:
        _add_region(device, 0, value, 0)
    elif attr == AddrType.V3_REDIST_REGION:
        region = RegionAttribute.decode(value)
        if not region.redistributors or region.flags:
            raise KvmError("EINVAL", "a redistributor region needs a count and no flags")
        _add_region(device, region.number, region.base, region.redistributors)
    else:
        raise no_attribute("address", attr)


def _add_region(device: VgicDevice, index: int, base: int, count: int) -> None:
    vgic = device.vgic
    candidate = list(vgic.regions)
    region = insert_region(candidate, index, base, count)
    size = (count or max(1, len(list(vgic.cpus())))) * GICR_SIZE
    check_range(device, base, size, FRAME_ALIGNMENT)
    if (
        not count
        and vgic.dist_base is not None
        and base < vgic.dist_base + GICD_SIZE
        and vgic.dist_base < base + size
    ):
        raise KvmError("EINVAL", f"redistributors at {base:#x} overlap the distributor")
    vgic.regions.append(region)
    homeless = [cpu for cpu in vgic.cpus() if cpu.redist_base is None]
    if homeless and not bases_fit(vgic):
        vgic.regions.remove(region)
        raise KvmError("EINVAL", f"redistributors at {base:#x} overlap the distributor")
    for cpu in homeless:
        assign([region], cpu)


# DIST_REGS and REDIST_REGS ----------------------------------------------------------------------


def _vcpu_of(device: VgicDevice, attr: int) -> VgicCpu:
    """The vCPU with the MPIDR affinity in [63:32] (kvm vgic_v3_parse_attr); EINVAL for none, in
    has_attr too."""
    vcpu_id = device.vgic.vcpu_with_affinity(arch.unpacked_affinity(attr >> 32))
    if vcpu_id is None:
        raise KvmError("EINVAL", f"no vCPU has affinity {attr >> 32:#x}")
    return device.vgic.cpu(vcpu_id)


def _check_initialized(device: VgicDevice) -> None:
    if not device.vgic.initialized:
        raise KvmError("EBUSY", "the vGIC is not initialised")


def _cpu_of(device: VgicDevice, attr: int) -> VgicCpu:
    """As `_vcpu_of`, for an access to a register: EBUSY before initialisation."""
    cpu = _vcpu_of(device, attr)
    _check_initialized(device)
    return cpu


def _any_cpu(device: VgicDevice) -> VgicCpu:
    """The distributor is nobody's: what [63:32] says does not matter. EINVAL without a vCPU."""
    cpu = next(iter(device.vgic.cpus()), None)
    if cpu is None:
        raise KvmError("EINVAL", "there is no vCPU")
    return cpu


def _offset(attr: int) -> int:
    offset = attr & 0xFFFF_FFFF
    if offset % 4:
        raise KvmError("EINVAL", f"register offset {offset:#x} is not a multiple of 4")
    return offset


def _redist_frame(device: VgicDevice, offset: int) -> RegisterMap:
    if offset >= GICR_SIZE:
        raise no_attribute("redistributor register", offset)
    return device.vgic.redist_map.frame(offset)


def _has_dist_reg(device: VgicDevice, attr: int) -> None:
    _any_cpu(device)
    check_register(device.vgic, attr & 0xFFFF_FFFF)


def _has_redist_reg(device: VgicDevice, attr: int) -> None:
    _vcpu_of(device, attr)
    offset = attr & 0xFFFF_FFFF
    if _redist_frame(device, offset).lookup(offset % arch.GICR_FRAME_SIZE, 4) is None:
        raise no_attribute("redistributor register", attr)


def _get_dist_reg(device: VgicDevice, attr: int, _: int) -> int:
    cpu = _any_cpu(device)
    _check_initialized(device)
    return device.vgic.dist_map.read(device.vgic, cpu, _offset(attr), 4, user=True)


def _set_dist_reg(device: VgicDevice, attr: int, value: int) -> None:
    cpu = _any_cpu(device)
    _check_initialized(device)
    device.vgic.dist_map.write(device.vgic, cpu, _offset(attr), 4, value & 0xFFFF_FFFF, user=True)


def _get_redist_reg(device: VgicDevice, attr: int, _: int) -> int:
    offset = _offset(attr)
    frame = _redist_frame(device, offset)
    return frame.read(
        device.vgic, _cpu_of(device, attr), offset % arch.GICR_FRAME_SIZE, 4, user=True
    )


def _set_redist_reg(device: VgicDevice, attr: int, value: int) -> None:
    cpu, offset = _cpu_of(device, attr), _offset(attr)
    frame = _redist_frame(device, offset)
    frame.write(device.vgic, cpu, offset % arch.GICR_FRAME_SIZE, 4, value & 0xFFFF_FFFF, user=True)


# CPU_SYSREGS ------------------------------------------------------------------------------------


def _has_sysreg(device: VgicDevice, attr: int) -> None:
    _vcpu_of(device, attr)
    if attr & 0xFFFF not in v3_sysregs.BY_ENCODING:
        raise no_attribute("CPU interface register", attr)


def _get_sysreg(device: VgicDevice, attr: int, _: int) -> int:
    _has_sysreg(device, attr)
    device.vgic.sync_all()
    return v3_sysregs.read(_cpu_of(device, attr), attr & 0xFFFF)


def _set_sysreg(device: VgicDevice, attr: int, value: int) -> None:
    _has_sysreg(device, attr)
    device.vgic.sync_all()
    cpu = _cpu_of(device, attr)
    v3_sysregs.write(cpu, attr & 0xFFFF, value)
    device.vgic.interface_restored(cpu)


# LEVEL_INFO -------------------------------------------------------------------------------------


def _has_level_info(_: VgicDevice, attr: int) -> None:
    if attr >> 10 & 0x3F_FFFF:
        raise no_attribute("level info", attr)


def _levels(device: VgicDevice, attr: int) -> list[VgicIrq | None]:
    """The 32 interrupts from vINTID [9:0] on; EINVAL unless it is a multiple of 32 and the info
    kind is line levels."""
    cpu, intid = _cpu_of(device, attr), attr & 0x3FF
    if attr >> 10 & 0x3F_FFFF or intid % 32:
        raise KvmError("EINVAL", f"level info {attr & 0xFFFF_FFFF:#x} names no word of line levels")
    if not intid:
        return list(cpu.private)
    return [device.vgic.spi(intid + n) for n in range(32)]


def _get_level_info(device: VgicDevice, attr: int, _: int) -> int:
    irqs = _levels(device, attr)
    return sum(1 << n for n, irq in enumerate(irqs) if irq is not None and irq.level and _line(irq))


def _line(irq: VgicIrq) -> bool:
    """The wire itself where it can be asked: what is known of a mapped one is of when EL2 looked
    last."""
    return (
        irq.get_input_level()
        if irq.mapped_level and irq.get_input_level is not None
        else irq.line_level
    )


def _set_level_info(device: VgicDevice, attr: int, value: int) -> None:
    irqs = _levels(device, attr)
    device.vgic.sync_all()
    for n, irq in enumerate(irqs):
        if irq is not None:
            irq.line_level = bool(value >> n & 1)
            device.vgic.queue(irq)


# CTRL -------------------------------------------------------------------------------------------


def _has_ctrl(_: VgicDevice, attr: int) -> None:
    if attr not in (Ctrl.INIT, Ctrl.SAVE_PENDING_TABLES):
        raise no_attribute("control", attr)


def _set_ctrl(device: VgicDevice, attr: int, _: int) -> None:
    _has_ctrl(device, attr)
    if attr == Ctrl.INIT:
        device.vgic.init()
    elif not device.vgic.initialized:
        raise KvmError("EBUSY", "the vGIC is not initialised")
    else:
        _save_pending_tables(device.vgic)


def _save_pending_tables(vgic: Vgic) -> None:
    """The pending state of every LPI into its redistributor's table. EFAULT for one that is not in
    memory."""
    from armvirt.hyp.vgic.its import lpi

    vgic.finish()
    vgic.sync_all()
    if not lpi.store_pending(vgic, vgic.lpis.values()):
        raise KvmError("EFAULT", "a GICR_PENDBASER points outside memory")


GROUPS: dict[int, Attributes] = {
    Group.ADDR: Attributes(_has_addr, _get_addr, _set_addr),
    Group.DIST_REGS: Attributes(_has_dist_reg, _get_dist_reg, _set_dist_reg),
    Group.NR_IRQS: NR_IRQS,
    Group.CTRL: Attributes(_has_ctrl, get_nothing, _set_ctrl),
    Group.REDIST_REGS: Attributes(_has_redist_reg, _get_redist_reg, _set_redist_reg),
    Group.CPU_SYSREGS: Attributes(_has_sysreg, _get_sysreg, _set_sysreg),
    Group.LEVEL_INFO: Attributes(_has_level_info, _get_level_info, _set_level_info),
}
