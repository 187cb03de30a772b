"""What the attribute groups of both vGIC devices share (kvm/vgic/vgic-kvm-device.c,
uapi/asm/kvm.h)."""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from typing import TYPE_CHECKING, NamedTuple, Protocol

from armvirt.arch.gic import NR_PRIVATE
from armvirt.errors import KvmError

if TYPE_CHECKING:
    from armvirt.hyp.vgic.device.gic import VgicDevice
    from armvirt.hyp.vgic.vgic import Vgic


class Group(IntEnum):
    """KVM_DEV_ARM_VGIC_GRP_* (uapi/asm/kvm.h)."""

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
    """KVM_VGIC_*_ADDR_TYPE_*."""

    V2_DIST = 0
    V2_CPU = 1
    V3_DIST = 2
    V3_REDIST = 3
    ITS = 4
    V3_REDIST_REGION = 5


class Ctrl(IntEnum):
    """KVM_DEV_ARM_VGIC_CTRL_* and KVM_DEV_ARM_VGIC_SAVE_PENDING_TABLES."""

    INIT = 0
    ITS_SAVE_TABLES = 1
    ITS_RESTORE_TABLES = 2
    SAVE_PENDING_TABLES = 3
    ITS_CTRL_RESET = 4


class Attributes(NamedTuple):
    """One group: three handlers that take the attribute; ``has`` raises ENXIO for one that is not
    there."""

    has: Callable[[VgicDevice, int], None]
    get: Callable[[VgicDevice, int, int], int]
    set: Callable[[VgicDevice, int, int], None]


def no_attribute(what: str, attr: int) -> KvmError:
    return KvmError("ENXIO", f"no {what} attribute {attr:#x}")


def check_value(value: int) -> None:
    """What an attribute's value can be: the payload is a u64. EINVAL for others."""
    if not 0 <= value < 1 << 64:
        raise KvmError("EINVAL", f"{value:#x} is no value of 64 bits")


class AddressSpace(Protocol):
    """Whoever places frames in a VM's physical address space of ``ipa_bits``."""

    ipa_bits: int


def check_range(device: AddressSpace, base: int, size: int, alignment: int) -> None:
    """kvm vgic_check_iorange: the alignment in bytes, and the end inside the IPA space."""
    if base % alignment:
        raise KvmError("EINVAL", f"{base:#x} is not aligned to {alignment >> 10} KiB")
    if base + size > 1 << device.ipa_bits:
        raise KvmError("E2BIG", f"{base:#x} is beyond the {device.ipa_bits}-bit IPA space")


def check_register(vgic: Vgic, offset: int) -> None:
    """Whether user space finds a distributor register: ENXIO for none, or a field of an INTID that
    is not implemented (kvm vgic_get_mmio_region, check_region)."""
    bound = vgic.dist_map.lookup(offset, 4)
    bits = 0 if bound is None else bound.row.bits_per_irq
    if bound is None or (bits and 8 * (offset - bound.row.offset) // bits >= vgic.nr_irqs):
        raise no_attribute("distributor register", offset)


def get_nothing(_: VgicDevice, attr: int, _value: int) -> int:
    """Controls are commands: they have no value to read."""
    raise no_attribute("readable control", attr)


# NR_IRQS ----------------------------------------------------------------------------------------


def _has_nr_irqs(_: VgicDevice, attr: int) -> None:
    if attr:
        raise no_attribute("NR_IRQS", attr)


def _get_nr_irqs(device: VgicDevice, _attr: int, _value: int) -> int:
    return device.vgic.nr_irqs


def _set_nr_irqs(device: VgicDevice, _: int, value: int) -> None:
    if not 64 <= value <= 1024 or value % 32:
        raise KvmError("EINVAL", f"{value} interrupts: 64 to 1024 in steps of 32")
    if device.vgic.initialized or device.vgic.nr_spis:
        raise KvmError("EBUSY", "the number of interrupts is fixed already")
    device.vgic.nr_spis = value - NR_PRIVATE


NR_IRQS = Attributes(_has_nr_irqs, _get_nr_irqs, _set_nr_irqs)
