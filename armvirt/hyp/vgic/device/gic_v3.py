"""The device attributes of a GICv3 (Documentation/virt/kvm/devices/arm-vgic-v3.rst)."""

from __future__ import annotations

from armvirt.arch import gic as arch
from armvirt.arch.gic import GICD_SIZE, GICR_SIZE
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
from armvirt.hyp.vgic.irq import VgicIrq
from armvirt.hyp.vgic.registers import v3_cpu_interface
from armvirt.hyp.vgic.registers.frames import distributor_map, redistributor_map
from armvirt.hyp.vgic.registers.register_map import RegisterMap
from armvirt.hyp.vgic.vgic import Vgic
from armvirt.records import NamedTuple

FRAME_ALIGNMENT = 0x1_0000


class RegionAttribute(NamedTuple):
    """The value of the attribute V3_REDIST_REGION (KVM_VGIC_V3_ADDR_TYPE_REDIST_REGION). The fields
    are the number of redistributors in [63:52], the base address in [51:16], the flags in [15:12],
    and the index of the region in [11:0]."""

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


def _has_addr(_: Vgic, attr: int) -> None:
    if attr not in (AddrType.V3_DIST, AddrType.V3_REDIST, AddrType.V3_REDIST_REGION):
        raise no_attribute("address", attr)


def _get_addr(vgic: Vgic, attr: int, value: int) -> int:
    place = vgic.dist.placement
    if attr == AddrType.V3_DIST:
        return UNDEFINED_ADDRESS if place.dist_base is None else place.dist_base
    if attr == AddrType.V3_REDIST:
        return place.regions[0].base if place.regions else UNDEFINED_ADDRESS
    if attr == AddrType.V3_REDIST_REGION:
        index = RegionAttribute.decode(value).number
        if index >= len(place.regions):
            raise KvmError("ENOENT", f"no redistributor region {index}")
        region = place.regions[index]
        return RegionAttribute(region.count, region.base, 0, index).encode()
    raise no_attribute("address", attr)


def _set_addr(vgic: Vgic, attr: int, value: int) -> None:
    place = vgic.dist.placement
    if attr == AddrType.V3_DIST:
        if place.dist_base is not None:
            raise KvmError("EEXIST", "the distributor's address is set already")
        check_range(place.ipa_bits, value, GICD_SIZE, FRAME_ALIGNMENT)
        place.dist_base = value
    elif attr == AddrType.V3_REDIST:
        _add_region(vgic, 0, value, 0)
    elif attr == AddrType.V3_REDIST_REGION:
        region = RegionAttribute.decode(value)
        if not region.redistributors or region.flags:
            raise KvmError("EINVAL", "a redistributor region needs a count and no flags")
        _add_region(vgic, region.number, region.base, region.redistributors)
    else:
        raise no_attribute("address", attr)


def _add_region(vgic: Vgic, index: int, base: int, count: int) -> None:
    dist, place = vgic.dist, vgic.dist.placement
    region = place.new_region(index, base, count)
    size = (count or max(1, len(dist.vcpus))) * GICR_SIZE
    check_range(place.ipa_bits, base, size, FRAME_ALIGNMENT)
    if (
        not count
        and place.dist_base is not None
        and base < place.dist_base + GICD_SIZE
        and place.dist_base < base + size
    ):
        raise KvmError("EINVAL", f"redistributors at {base:#x} overlap the distributor")
    place.regions.append(region)
    unplaced = [cpu for cpu in dist.cpus() if cpu.redist_base is None]
    if unplaced and not place.fits():
        place.regions.remove(region)
        raise KvmError("EINVAL", f"redistributors at {base:#x} overlap the distributor")
    for cpu in unplaced:
        if not region.full:
            region.take(cpu)


# DIST_REGS and REDIST_REGS ----------------------------------------------------------------------


def _vcpu_of(vgic: Vgic, attr: int) -> VgicCpu:
    """The vCPU whose MPIDR affinity is in [63:32] of an attribute number (kvm vgic_v3_parse_attr).
    KvmError EINVAL if no vCPU has this affinity. KVM_HAS_DEVICE_ATTR gives the same error."""
    vcpu_id = vgic.dist.vcpu_with_affinity(arch.unpacked_affinity(attr >> 32))
    if vcpu_id is None:
        raise KvmError("EINVAL", f"no vCPU has affinity {attr >> 32:#x}")
    return vgic.dist.cpu(vcpu_id)


def _check_initialized(vgic: Vgic) -> None:
    if not vgic.dist.initialized:
        raise KvmError("EBUSY", "the vGIC is not initialised")


def _cpu_of(vgic: Vgic, attr: int) -> VgicCpu:
    """The vCPU whose MPIDR affinity is in [63:32] of an attribute number. KvmError EINVAL if no
    vCPU has this affinity, EBUSY if the vGIC is not initialised."""
    cpu = _vcpu_of(vgic, attr)
    _check_initialized(vgic)
    return cpu


def _any_cpu(vgic: Vgic) -> VgicCpu:
    """The first vCPU. Accesses to the distributor use this vCPU, because the affinity in [63:32] of
    the attribute number has no effect on a distributor register. KvmError EINVAL if the VM has no
    vCPU."""
    cpu = next(iter(vgic.dist.cpus()), None)
    if cpu is None:
        raise KvmError("EINVAL", "there is no vCPU")
    return cpu


def _offset(attr: int) -> int:
    offset = attr & 0xFFFF_FFFF
    if offset % 4:
        raise KvmError("EINVAL", f"register offset {offset:#x} is not a multiple of 4")
    return offset


def _redist_frame(offset: int) -> RegisterMap:
    if offset >= GICR_SIZE:
        raise no_attribute("redistributor register", offset)
    return redistributor_map(offset)


def _has_dist_reg(vgic: Vgic, attr: int) -> None:
    _any_cpu(vgic)
    check_register(vgic, attr & 0xFFFF_FFFF)


def _has_redist_reg(vgic: Vgic, attr: int) -> None:
    _vcpu_of(vgic, attr)
    offset = attr & 0xFFFF_FFFF
    if _redist_frame(offset).lookup(offset % arch.GICR_FRAME_SIZE, 4) is None:
        raise no_attribute("redistributor register", attr)


def _get_dist_reg(vgic: Vgic, attr: int, _: int) -> int:
    cpu = _any_cpu(vgic)
    _check_initialized(vgic)
    return distributor_map(3).read(vgic.dist, cpu, _offset(attr), 4, user=True)


def _set_dist_reg(vgic: Vgic, attr: int, value: int) -> None:
    cpu = _any_cpu(vgic)
    _check_initialized(vgic)
    distributor_map(3).write(vgic.dist, cpu, _offset(attr), 4, value & 0xFFFF_FFFF, user=True)


def _get_redist_reg(vgic: Vgic, attr: int, _: int) -> int:
    offset = _offset(attr)
    frame = _redist_frame(offset)
    return frame.read(vgic.dist, _cpu_of(vgic, attr), offset % arch.GICR_FRAME_SIZE, 4, user=True)


def _set_redist_reg(vgic: Vgic, attr: int, value: int) -> None:
    cpu, offset = _cpu_of(vgic, attr), _offset(attr)
    frame = _redist_frame(offset)
    frame.write(vgic.dist, cpu, offset % arch.GICR_FRAME_SIZE, 4, value & 0xFFFF_FFFF, user=True)


# CPU_SYSREGS ------------------------------------------------------------------------------------


def _has_sysreg(vgic: Vgic, attr: int) -> None:
    _vcpu_of(vgic, attr)
    if attr & 0xFFFF not in v3_cpu_interface.BY_ENCODING:
        raise no_attribute("CPU interface register", attr)


def _get_sysreg(vgic: Vgic, attr: int, _: int) -> int:
    _has_sysreg(vgic, attr)
    vgic.sync_all()
    return v3_cpu_interface.read(_cpu_of(vgic, attr), attr & 0xFFFF)


def _set_sysreg(vgic: Vgic, attr: int, value: int) -> None:
    _has_sysreg(vgic, attr)
    vgic.sync_all()
    cpu = _cpu_of(vgic, attr)
    v3_cpu_interface.write(cpu, attr & 0xFFFF, value)
    vgic.dist.look_again(cpu)


# LEVEL_INFO -------------------------------------------------------------------------------------


def _has_level_info(_: Vgic, attr: int) -> None:
    if attr >> 10 & 0x3F_FFFF:
        raise no_attribute("level info", attr)


def _levels(vgic: Vgic, attr: int) -> list[VgicIrq | None]:
    """The 32 interrupts of a LEVEL_INFO attribute. The first INTID is in [9:0] of the attribute
    number. The list has None for an interrupt that does not exist. KvmError EINVAL if the first
    INTID is not a multiple of 32, or if the attribute number requests another info type than the
    line level."""
    cpu, intid = _cpu_of(vgic, attr), attr & 0x3FF
    if attr >> 10 & 0x3F_FFFF or intid % 32:
        raise KvmError("EINVAL", f"level info {attr & 0xFFFF_FFFF:#x} names no word of line levels")
    if not intid:
        return list(cpu.private)
    return [vgic.dist.spi(intid + n) for n in range(32)]


def _get_level_info(vgic: Vgic, attr: int, _: int) -> int:
    irqs = _levels(vgic, attr)
    return sum(1 << n for n, irq in enumerate(irqs) if irq is not None and irq.level and _line(irq))


def _line(irq: VgicIrq) -> bool:
    """The line level of an interrupt (True for high). If the interrupt is level-sensitive and
    mapped to a host interrupt, the line is read now, because ``line_level`` can be out of date."""
    return (
        irq.get_input_level()
        if irq.mapped_level and irq.get_input_level is not None
        else irq.line_level
    )


def _set_level_info(vgic: Vgic, attr: int, value: int) -> None:
    irqs = _levels(vgic, attr)
    vgic.sync_all()
    for n, irq in enumerate(irqs):
        if irq is not None:
            irq.line_level = bool(value >> n & 1)
            vgic.dist.queue(irq)


# CTRL -------------------------------------------------------------------------------------------


def _has_ctrl(_: Vgic, attr: int) -> None:
    if attr not in (Ctrl.INIT, Ctrl.SAVE_PENDING_TABLES):
        raise no_attribute("control", attr)


def _set_ctrl(vgic: Vgic, attr: int, _: int) -> None:
    _has_ctrl(vgic, attr)
    if attr == Ctrl.INIT:
        vgic.init()
    elif not vgic.dist.initialized:
        raise KvmError("EBUSY", "the vGIC is not initialised")
    else:
        _save_pending_tables(vgic)


def _save_pending_tables(vgic: Vgic) -> None:
    """Write the pending state of every LPI into the pending table of its redistributor. KvmError
    EFAULT if a pending table is outside guest memory."""
    from armvirt.hyp.vgic import lpi

    vgic.finish()
    vgic.sync_all()
    if not lpi.store_pending(vgic.dist, vgic.dist.lpis.values()):
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
