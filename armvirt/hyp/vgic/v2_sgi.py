"""SGIs of a GICv2: each is pending once per sender (IHI 0048 4.3.15 to 4.3.17;
kvm/vgic/vgic-mmio-v2.c).

``VgicIrq.source`` has a bit per sender whose SGI waits; ``pending_latch`` is set while there is
one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from armvirt.arch.gic import SgirRequest
from armvirt.events import VgicInject
from armvirt.hyp.vgic.cpu import VgicCpu
from armvirt.hyp.vgic.irq import VgicIrq
from armvirt.hyp.vgic.sgi import NOBODY

if TYPE_CHECKING:
    from armvirt.hyp.vgic.vgic import Vgic


def existing(vgic: Vgic) -> int:
    """A bit for each CPU interface there is: its number is the vCPU's id."""
    return sum(1 << cpu.vcpu_id for cpu in vgic.cpus())


def send(vgic: Vgic, sender: VgicCpu, value: int) -> None:
    """A write of GICD_SGIR. NSATT means nothing with a single Security state."""
    request = SgirRequest.decode(value)
    receivers = request.receivers(sender.vcpu_id, existing(vgic))
    for cpu in vgic.cpus():
        if receivers >> cpu.vcpu_id & 1:
            if vgic.bus.active:
                vgic.bus.emit(VgicInject(request.intid, 1, vgic.id_base | cpu.vcpu_id))
            set_sources(vgic, cpu.private[request.intid], 1 << sender.vcpu_id)
    if not receivers and vgic.bus.active:
        vgic.bus.emit(VgicInject(request.intid, 1, NOBODY))


def sources(irq: VgicIrq) -> int:
    """GICD_SPENDSGIR and GICD_CPENDSGIR as they read: the senders whose SGI is pending."""
    return irq.source


def set_sources(vgic: Vgic, irq: VgicIrq, senders: int) -> None:
    """GICD_SPENDSGIR: as if these CPUs had sent the SGI. Bits of CPUs that do not exist are
    ignored."""
    vgic.settle(irq)
    irq.source |= senders & existing(vgic)
    irq.pending_latch = irq.source != 0
    vgic.queue(irq)


def clear_sources(vgic: Vgic, irq: VgicIrq, senders: int) -> None:
    """GICD_CPENDSGIR: forget what these CPUs have sent and was not acknowledged."""
    irq.source &= ~senders
    irq.pending_latch = irq.source != 0
    vgic.queue(irq)
