"""The vGIC as a KVM device (Documentation/virt/kvm/devices/arm-vgic.rst, arm-vgic-v3.rst,
kvm/vgic/vgic-kvm-device.c).

The argument ``value`` is the integer in the buffer whose address user space passes to the ioctl.
``value`` is None if the buffer cannot be read. Errors are KvmError with the errno of the ioctl.
"""

from __future__ import annotations

from armvirt.errors import KvmError
from armvirt.hyp.vgic.device.attributes import Attributes, Group, check_value
from armvirt.hyp.vgic.vgic import Vgic


def groups(model: int) -> dict[int, Attributes]:
    """The attribute groups of a GICv2 or a GICv3, by group number. For a GICv3, the module of the
    GICv2 is not imported."""
    if model == 2:
        from armvirt.hyp.vgic.device import gic_v2

        return gic_v2.GROUPS
    from armvirt.hyp.vgic.device import gic_v3

    return gic_v3.GROUPS


class VgicDevice:
    """The KVM device of ``vgic``: KVM_DEV_TYPE_ARM_VGIC_V2 or KVM_DEV_TYPE_ARM_VGIC_V3.
    ``ipa_bits`` is the size of the IPA space in address bits."""

    def __init__(self, vgic: Vgic, ipa_bits: int = 40) -> None:
        self.vgic = vgic
        vgic.dist.placement.ipa_bits = ipa_bits

    def __repr__(self) -> str:
        return f"<VgicDevice of {self.vgic!r}>"

    def has_attr(self, group: int, attr: int) -> None:
        """Check an attribute for KVM_HAS_DEVICE_ATTR. KvmError ENXIO if the attribute does not
        exist."""
        self._group(group).has(self.vgic, attr)

    def get_attr(self, group: int, attr: int, value: int | None = 0) -> int:
        """Read an attribute for KVM_GET_DEVICE_ATTR. ``value`` is the present content of user
        space's buffer, or None if the buffer cannot be accessed. KvmError EFAULT if ``value`` is
        None. For the attribute V3_REDIST_REGION, ``value`` has the index of the region to read. For
        all other attributes, only None matters: any integer has the same effect."""
        if value is None:
            raise KvmError("EFAULT", "no address for the attribute's value")
        return self._group(group).get(self.vgic, attr, value)

    def set_attr(self, group: int, attr: int, value: int | None = 0) -> None:
        """Write an attribute for KVM_SET_DEVICE_ATTR. ``value`` is the content of user space's
        buffer, None if the buffer cannot be read. KvmError EFAULT if ``value`` is None, except in
        group CTRL, whose attributes have no value. KvmError EINVAL if ``value`` has more than 64
        bits."""
        handlers = self._group(group)
        if value is None:
            if group == Group.CTRL:
                value = 0  # attributes of group CTRL have no value
            else:
                raise KvmError("EFAULT", "no address for the attribute's value")
        check_value(value)
        handlers.set(self.vgic, attr, value)

    def _group(self, group: int) -> Attributes:
        handlers = groups(self.vgic.model).get(group)
        if handlers is None:
            raise KvmError("ENXIO", f"a GICv{self.vgic.model} has no attribute group {group}")
        return handlers
