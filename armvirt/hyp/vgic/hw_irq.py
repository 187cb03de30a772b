"""Interrupts that the host owns, and those with a host interrupt behind them, as the timers'
(kvm/vgic/vgic.c)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from armvirt.arch.gic import LR_ACTIVE, is_ppi, is_spi
from armvirt.errors import KvmError
from armvirt.hyp.vgic.irq import VgicIrq

if TYPE_CHECKING:
    from armvirt.hyp.vgic.vgic import Vgic


def set_owner(vgic: Vgic, vcpu_id: int, intid: int, owner: object) -> None:
    """kvm_vgic_set_owner. KvmError EINVAL for an SGI, EEXIST if it is taken."""
    if not is_ppi(intid) and not is_spi(intid):
        raise KvmError("EINVAL", f"INTID {intid} cannot be wired to a device")
    irq = vgic.irq(vcpu_id, intid)
    if irq.owner is not None and irq.owner is not owner:
        raise KvmError("EEXIST", f"INTID {intid} has an owner")
    irq.owner = owner


def unmap(vgic: Vgic, vcpu_id: int, intid: int) -> None:
    """kvm_vgic_unmap_phys_irq."""
    vgic.sync_all()
    irq = vgic.irq(vcpu_id, intid)
    irq.hw, irq.hwintid, irq.get_input_level = False, 0, None
    vgic.queue(irq)


def reset(vgic: Vgic, vcpu_id: int, intid: int) -> None:
    """kvm_vgic_reset_mapped_irq: what it was doing is forgotten. Nothing for one that is not
    mapped."""
    irq = vgic.irq(vcpu_id, intid)
    if not irq.hw:
        return
    vgic.sync_all()
    irq.active = irq.pending_latch = irq.line_level = False
    irq.acked = None
    vgic.queue(irq)


def is_active(vgic: Vgic, vcpu_id: int, intid: int) -> bool:
    """kvm_vgic_map_is_active: looked at where it is, nothing is folded."""
    irq = vgic.irq(vcpu_id, intid)
    if not irq.hw:
        return False
    vif = vgic.cpu(irq.vcpu).vif if irq.vcpu is not None else None
    return bool(vif.lr[irq.lr] & LR_ACTIVE) if vif is not None and irq.lr >= 0 else irq.active


def resample(vgic: Vgic, irq: VgicIrq) -> None:
    """Look at the line of a mapped interrupt that is in no list register and not active: nobody
    reports that it fell. (KVM offers such an interrupt, and finds at the next exit that it should
    not have.)

    The host interrupt of a line that fell has to be ready to fire again, unless a latch keeps it
    for the guest.
    """
    if not (irq.hw and irq.level) or irq.active or irq.lr >= 0:
        return
    was_high = irq.line_level
    if was_high and not irq.sample_line() and not irq.pending_latch:
        set_phys_active(vgic, irq, False)


def set_phys_active(vgic: Vgic, irq: VgicIrq, active: bool) -> None:
    """The active state of the host interrupt behind ``irq``, on the PE of the vCPU that has or gets
    it."""
    vcpu_id = irq.vcpu if irq.vcpu is not None else irq.target
    if vcpu_id is not None:
        vgic.set_phys_active(vcpu_id, irq.hwintid, active)
