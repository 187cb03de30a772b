"""The attribute numbers of the vGIC devices, and the attribute handlers that GICv2 and GICv3 share
(kvm/vgic/vgic-kvm-device.c, uapi/asm/kvm.h)."""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum

from armvirt.arch.bits import MASK64
from armvirt.arch.gic import NR_PRIVATE
from armvirt.errors import KvmError
from armvirt.hyp.vgic.registers.frames import distributor_map
from armvirt.hyp.vgic.vgic import Vgic
from armvirt.records import NamedTuple

UNDEFINED_ADDRESS = MASK64  # VGIC_ADDR_UNDEF


class Group(IntEnum):
    """The attribute groups KVM_DEV_ARM_VGIC_GRP_* (uapi/asm/kvm.h)."""

    ADDR = 0
    DIST_REGS = 1
    CPU_REGS = 2
    NR_IRQS = 3
    CTRL = 4
    REDIST_REGS = 5
    CPU_SYSREGS = 6
    LEVEL_INFO = 7
    ITS_REGS = 8


class AddrType(IntEnum):
    """The attributes of group ADDR: KVM_VGIC_*_ADDR_TYPE_*."""

    V2_DIST = 0
    V2_CPU = 1
    V3_DIST = 2
    V3_REDIST = 3
    ITS = 4
    V3_REDIST_REGION = 5


class Ctrl(IntEnum):
    """The attributes of group CTRL of the vGIC and the ITS: KVM_DEV_ARM_VGIC_CTRL_* and
    KVM_DEV_ARM_VGIC_SAVE_PENDING_TABLES."""

    INIT = 0
    ITS_SAVE_TABLES = 1
    ITS_RESTORE_TABLES = 2
    SAVE_PENDING_TABLES = 3
    ITS_CTRL_RESET = 4


class Attributes(NamedTuple):
    """The functions that handle the attributes of one group. ``has`` handles KVM_HAS_DEVICE_ATTR,
    and raises KvmError ENXIO if the attribute does not exist. ``get`` and ``set`` handle
    KVM_GET_DEVICE_ATTR and KVM_SET_DEVICE_ATTR."""

    has: Callable[[Vgic, int], None]
    get: Callable[[Vgic, int, int], int]
    set: Callable[[Vgic, int, int], None]


def no_attribute(what: str, attr: int) -> KvmError:
    return KvmError("ENXIO", f"no {what} attribute {attr:#x}")


def check_value(value: int) -> None:
    """Raise KvmError EINVAL if ``value`` is negative or has more than 64 bits."""
    if not 0 <= value < 1 << 64:
        raise KvmError("EINVAL", f"{value:#x} is no value of 64 bits")


def check_range(ipa_bits: int, base: int, size: int, alignment: int) -> None:
    """Check the address of a frame of ``size`` bytes (kvm vgic_check_iorange). KvmError EINVAL if
    ``base`` is not a multiple of ``alignment`` (bytes). KvmError E2BIG if the frame is beyond the
    IPA space."""
    if base % alignment:
        raise KvmError("EINVAL", f"{base:#x} is not aligned to {alignment >> 10} KiB")
    if base + size > 1 << ipa_bits:
        raise KvmError("E2BIG", f"{base:#x} is beyond the {ipa_bits}-bit IPA space")


def check_register(vgic: Vgic, offset: int) -> None:
    """Check that the distributor has a register at ``offset`` (kvm vgic_get_mmio_region,
    check_region). KvmError ENXIO if there is no register, or if all fields of the register belong
    to INTIDs that are not implemented."""
    bound = distributor_map(vgic.model).lookup(offset, 4)
    bits = 0 if bound is None else bound.row.bits_per_irq
    if bound is None or (bits and 8 * (offset - bound.row.offset) // bits >= vgic.dist.nr_irqs):
        raise no_attribute("distributor register", offset)


def get_nothing(_: Vgic, attr: int, _value: int) -> int:
    """Raise KvmError ENXIO, because an attribute of group CTRL has no value to read."""
    raise no_attribute("readable control", attr)


# NR_IRQS ----------------------------------------------------------------------------------------


def _has_nr_irqs(_: Vgic, attr: int) -> None:
    if attr:
        raise no_attribute("NR_IRQS", attr)


def _get_nr_irqs(vgic: Vgic, _attr: int, _value: int) -> int:
    return vgic.dist.nr_irqs


def _set_nr_irqs(vgic: Vgic, _: int, value: int) -> None:
    if not 64 <= value <= 1024 or value % 32:
        raise KvmError("EINVAL", f"{value} interrupts: 64 to 1024 in steps of 32")
    if vgic.dist.initialized or vgic.dist.nr_spis:
        raise KvmError("EBUSY", "the number of interrupts is fixed already")
    vgic.dist.nr_spis = value - NR_PRIVATE


NR_IRQS = Attributes(_has_nr_irqs, _get_nr_irqs, _set_nr_irqs)
