"""The virtual GIC: interrupt state, list-register flush and fold, register frames (kvm/vgic)."""

from armvirt.hyp.vgic.vgic import Vgic

__all__ = ["Vgic"]
