"""SGIs: ICC_SGI1R_EL1, ICC_SGI0R_EL1 and ICC_ASGI1R_EL1 of a GICv3, GICD_SGIR and the pending
senders of a GICv2."""

from __future__ import annotations

from armvirt.arch.gic import (
    ICC_ASGI1R_EL1,
    ICC_SGI0R_EL1,
    ICC_SGI1R_EL1,
    MPIDR_AFFINITY,
    SgiRequest,
    SgirRequest,
)
from armvirt.events import IccWrite, VgicInject
from armvirt.hyp.vgic import flush
from armvirt.hyp.vgic.cpu import VgicCpu
from armvirt.hyp.vgic.distributor import Distributor
from armvirt.hyp.vgic.irq import VgicIrq
from armvirt.hyp.vgic.spi_routing import existing

REGISTERS = {
    ICC_SGI0R_EL1: "ICC_SGI0R_EL1", ICC_SGI1R_EL1: "ICC_SGI1R_EL1", ICC_ASGI1R_EL1: "ICC_ASGI1R_EL1",
}  # fmt: skip
NOBODY = -1  # the target in the event of an SGI that reaches no vCPU


# GICv3 -------------------------------------------------------------------------------------------


def is_target(request: SgiRequest, sender: VgicCpu, cpu: VgicCpu) -> bool:
    """Whether a vCPU is a target of an SGI. RS selects the 16 values of Aff0 that TargetList
    covers; KVM ignores RS."""
    if request.all_others:
        return cpu is not sender
    affinity = cpu.mpidr & MPIDR_AFFINITY
    bit = (affinity & 0xFF) - request.first_aff0
    return (
        affinity & ~0xFF == request.affinity and 0 <= bit < 16 and bool(request.targets >> bit & 1)
    )


def dispatch(dist: Distributor, sender: VgicCpu, encoding: int, value: int) -> None:
    """Make an SGI pending on its targets (kvm vgic_v3_dispatch_sgi).

    Only ICC_SGI1R_EL1 generates group 1 SGIs; each of the three registers generates group 0 SGIs
    (IHI 0069 12.2.24: the group is the group of the SGI on the target).
    """
    request = SgiRequest.decode(value)
    if dist.bus.active:
        dist.bus.emit(IccWrite(REGISTERS[encoding], value))
    reached = False
    for cpu in dist.cpus():
        irq = cpu.private[request.intid]
        if is_target(request, sender, cpu) and (irq.group == 0 or encoding == ICC_SGI1R_EL1):
            flush.settle(dist, irq)
            reached = irq.pending_latch = True
            if dist.bus.active:
                dist.bus.emit(VgicInject(request.intid, 1, dist.id_base | cpu.vcpu_id))
            dist.queue(irq)
    if not reached and dist.bus.active:
        dist.bus.emit(VgicInject(request.intid, 1, NOBODY))


# GICv2: an SGI is pending once for each sender (IHI 0048 4.3.15 to 4.3.17). ``source`` has a bit for
# each sender; ``pending_latch`` is set as long as ``source`` is not 0.


def send(dist: Distributor, sender: VgicCpu, value: int) -> None:
    """Handle a write of GICD_SGIR. With a single Security state, NSATT has no effect."""
    request = SgirRequest.decode(value)
    receivers = request.receivers(sender.vcpu_id, existing(dist))
    for cpu in dist.cpus():
        if receivers >> cpu.vcpu_id & 1:
            if dist.bus.active:
                dist.bus.emit(VgicInject(request.intid, 1, dist.id_base | cpu.vcpu_id))
            set_sources(dist, cpu.private[request.intid], 1 << sender.vcpu_id)
    if not receivers and dist.bus.active:
        dist.bus.emit(VgicInject(request.intid, 1, NOBODY))


def sources(irq: VgicIrq) -> int:
    """Read GICD_SPENDSGIR<n> or GICD_CPENDSGIR<n>: a bit for each sender whose SGI is pending."""
    return irq.source


def set_sources(dist: Distributor, irq: VgicIrq, senders: int) -> None:
    """Write GICD_SPENDSGIR<n>: make the SGI pending from these senders. Bits of absent CPUs are
    ignored."""
    flush.settle(dist, irq)
    irq.source |= senders & existing(dist)
    irq.pending_latch = irq.source != 0
    dist.queue(irq)


def clear_sources(dist: Distributor, irq: VgicIrq, senders: int) -> None:
    """Write GICD_CPENDSGIR<n>: clear the pending state of the SGI from these senders."""
    irq.source &= ~senders
    irq.pending_latch = irq.source != 0
    dist.queue(irq)
