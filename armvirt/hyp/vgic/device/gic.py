"""The vGIC as a KVM device: its attributes (Documentation/virt/kvm/devices/arm-vgic.rst,
arm-vgic-v3.rst, kvm/vgic/vgic-kvm-device.c).

Values are the integers that the ioctl passes through the attribute's address; None stands for an
address that cannot be read. Errors are KvmError with the errno that the ioctl gives.
"""

from __future__ import annotations

from armvirt.errors import KvmError
from armvirt.hyp.vgic.device import gic_v2 as device_v2
from armvirt.hyp.vgic.device import gic_v3 as device_v3
from armvirt.hyp.vgic.device.attributes import AddrType, Attributes, Ctrl, Group, check_value
from armvirt.hyp.vgic.device.gic_v3 import RegionAttribute
from armvirt.hyp.vgic.vgic import Vgic

__all__ = ["AddrType", "Ctrl", "Group", "RegionAttribute", "VgicDevice"]

GROUPS = {2: device_v2.GROUPS, 3: device_v3.GROUPS}


class VgicDevice:
    """KVM_DEV_TYPE_ARM_VGIC_V2 or _V3, as the ``vgic`` is. ``ipa_bits`` is the size of its physical
    address space."""

    def __init__(self, vgic: Vgic, ipa_bits: int = 40) -> None:
        self.vgic = vgic
        self.ipa_bits = vgic.ipa_bits = ipa_bits

    def __repr__(self) -> str:
        return f"<VgicDevice of {self.vgic!r}>"

    def has_attr(self, group: int, attr: int) -> None:
        """KVM_HAS_DEVICE_ATTR: KvmError ENXIO if there is no such attribute."""
        self._group(group).has(self, attr)

    def get_attr(self, group: int, attr: int, value: int | None = 0) -> int:
        """KVM_GET_DEVICE_ATTR. ``value`` is what the caller's buffer holds: a region's index goes
        in that way."""
        if value is None:
            raise KvmError("EFAULT", "no address for the attribute's value")
        return self._group(group).get(self, attr, value)

    def set_attr(self, group: int, attr: int, value: int | None = 0) -> None:
        """KVM_SET_DEVICE_ATTR. EINVAL for a value of more than 64 bits."""
        handlers = self._group(group)
        if value is None:
            if group == Group.CTRL:
                value = 0  # takes no value
            else:
                raise KvmError("EFAULT", "no address for the attribute's value")
        check_value(value)
        handlers.set(self, attr, value)

    def _group(self, group: int) -> Attributes:
        handlers = GROUPS[self.vgic.model].get(group)
        if handlers is None:
            raise KvmError("ENXIO", f"a GICv{self.vgic.model} has no attribute group {group}")
        return handlers
