"""The registers that generate SGIs, or change their pending state: ICC_SGI1R_EL1, ICC_SGI0R_EL1 and
ICC_ASGI1R_EL1 of a GICv3; GICD_SGIR, GICD_SPENDSGIR<n> and GICD_CPENDSGIR<n> of a GICv2."""

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
NOBODY = -1  # the target in the trace event of an SGI without a target vCPU


# GICv3 -------------------------------------------------------------------------------------------


def is_target(request: SgiRequest, sender: VgicCpu, cpu: VgicCpu) -> bool:
    """Whether ``cpu``, a vCPU, is a target of an SGI. ``request`` has the fields of the written
    register, and ``sender`` is the vCPU that wrote it. The field RS selects the 16 values of Aff0
    to which TargetList applies. (KVM ignores RS.)"""
    if request.all_others:
        return cpu is not sender
    affinity = cpu.mpidr & MPIDR_AFFINITY
    bit = (affinity & 0xFF) - request.first_aff0
    return (
        affinity & ~0xFF == request.affinity and 0 <= bit < 16 and bool(request.targets >> bit & 1)
    )


def dispatch(dist: Distributor, sender: VgicCpu, encoding: int, value: int) -> None:
    """Make an SGI pending on its target vCPUs (kvm vgic_v3_dispatch_sgi). ``encoding`` is the
    packed encoding of the register that the guest wrote, ``value`` is the written value.

    The group of the SGI on a target vCPU is in the target's own GICR_IGROUPR0. If the group is 1,
    only a write of ICC_SGI1R_EL1 generates the SGI. If the group is 0, a write of any of the three
    registers generates the SGI (IHI 0069 12.2.24).
    """
    request = SgiRequest.decode(value)
    if dist.bus.active:
        dist.bus.emit(IccWrite(REGISTERS[encoding], value))
    reached = False
    for cpu in dist.cpus():
        irq = cpu.private[request.intid]
        if is_target(request, sender, cpu) and (irq.group == 0 or encoding == ICC_SGI1R_EL1):
            flush.sync_owner(dist, irq)
            reached = irq.pending_latch = True
            if dist.bus.active:
                dist.bus.emit(VgicInject(request.intid, 1, dist.id_base | cpu.vcpu_id))
            dist.queue(irq)
    if not reached and dist.bus.active:
        dist.bus.emit(VgicInject(request.intid, 1, NOBODY))


# GICv2: an SGI is pending separately for each sender (IHI 0048 4.3.15 to 4.3.17). ``source`` has a
# bit for each sender. ``pending_latch`` is set while ``source`` is not 0.


def send(dist: Distributor, sender: VgicCpu, value: int) -> None:
    """Handle a vCPU's write of GICD_SGIR. With a single Security state, NSATT has no effect."""
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
    """Read GICD_SPENDSGIR<n> or GICD_CPENDSGIR<n>: a bit mask of the sender CPUs from which the SGI
    is pending."""
    return irq.source


def set_sources(dist: Distributor, irq: VgicIrq, senders: int) -> None:
    """Write GICD_SPENDSGIR<n>: make the SGI pending from each sender CPU whose bit is set in
    ``senders``. A bit is ignored if its CPU does not exist."""
    flush.sync_owner(dist, irq)
    irq.source |= senders & existing(dist)
    irq.pending_latch = irq.source != 0
    dist.queue(irq)


def clear_sources(dist: Distributor, irq: VgicIrq, senders: int) -> None:
    """Write GICD_CPENDSGIR<n>: make the SGI not pending from each sender CPU whose bit is set in
    ``senders``. The SGI stays pending if another sender is left."""
    irq.source &= ~senders
    irq.pending_latch = irq.source != 0
    dist.queue(irq)
