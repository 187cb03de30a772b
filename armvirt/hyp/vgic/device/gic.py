"""The vGIC as a KVM device (Documentation/virt/kvm/devices/arm-vgic.rst, arm-vgic-v3.rst,
kvm/vgic/vgic-kvm-device.c).

A value is the integer at the address that the ioctl passes; None stands for an address that cannot be
read. Errors are KvmError with the errno of the ioctl.
"""

from __future__ import annotations

from armvirt.errors import KvmError
from armvirt.hyp.vgic.device.attributes import Attributes, Group, check_value
from armvirt.hyp.vgic.vgic import Vgic


def groups(model: int) -> dict[int, Attributes]:
    """The attribute groups of a GICv2 or a GICv3. A GICv3 does not load the module of a GICv2."""
    if model == 2:
        from armvirt.hyp.vgic.device import gic_v2

        return gic_v2.GROUPS
    from armvirt.hyp.vgic.device import gic_v3

    return gic_v3.GROUPS


class VgicDevice:
    """KVM_DEV_TYPE_ARM_VGIC_V2 or _V3, by the model of ``vgic``. ``ipa_bits`` is the size of the IPA
    space."""

    def __init__(self, vgic: Vgic, ipa_bits: int = 40) -> None:
        self.vgic = vgic
        vgic.dist.placement.ipa_bits = ipa_bits

    def __repr__(self) -> str:
        return f"<VgicDevice of {self.vgic!r}>"

    def has_attr(self, group: int, attr: int) -> None:
        """KVM_HAS_DEVICE_ATTR: KvmError ENXIO for an attribute that does not exist."""
        self._group(group).has(self.vgic, attr)

    def get_attr(self, group: int, attr: int, value: int | None = 0) -> int:
        """KVM_GET_DEVICE_ATTR. ``value`` is the content of the caller's buffer; for
        V3_REDIST_REGION the buffer has the index of the region."""
        if value is None:
            raise KvmError("EFAULT", "no address for the attribute's value")
        return self._group(group).get(self.vgic, attr, value)

    def set_attr(self, group: int, attr: int, value: int | None = 0) -> None:
        """KVM_SET_DEVICE_ATTR. EINVAL for a value of more than 64 bits. A control needs no
        value."""
        handlers = self._group(group)
        if value is None:
            if group == Group.CTRL:
                value = 0  # a control takes no value
            else:
                raise KvmError("EFAULT", "no address for the attribute's value")
        check_value(value)
        handlers.set(self.vgic, attr, value)

    def _group(self, group: int) -> Attributes:
        handlers = groups(self.vgic.model).get(group)
        if handlers is None:
            raise KvmError("ENXIO", f"a GICv{self.vgic.model} has no attribute group {group}")
        return handlers
