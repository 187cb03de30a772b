"""The vGIC and the ITS as KVM devices, with their attributes.

The package offers `VgicDevice` (GICv2 and GICv3), the attribute numbers `Group`, `AddrType` and
`Ctrl`, and `RegionAttribute`. The module ``its`` (`its.ItsDevice`) is imported only when user space
creates the first ITS.
"""

from armvirt.hyp.vgic.device.attributes import AddrType, Ctrl, Group
from armvirt.hyp.vgic.device.gic import VgicDevice
from armvirt.hyp.vgic.device.gic_v3 import RegionAttribute

__all__ = ["AddrType", "Ctrl", "Group", "RegionAttribute", "VgicDevice"]
