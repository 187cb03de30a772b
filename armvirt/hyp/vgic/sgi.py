"""SGIs that a guest sends through ICC_SGI1R_EL1 and its siblings (kvm vgic_v3_dispatch_sgi)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from armvirt.arch.gic import (
    ICC_ASGI1R_EL1,
    ICC_SGI0R_EL1,
    ICC_SGI1R_EL1,
    MPIDR_AFFINITY,
    SgiRequest,
)
from armvirt.events import IccWrite, VgicInject
from armvirt.hyp.vgic.cpu import VgicCpu

if TYPE_CHECKING:
    from armvirt.hyp.vgic.vgic import Vgic

REGISTERS = {
    ICC_SGI0R_EL1: "ICC_SGI0R_EL1", ICC_SGI1R_EL1: "ICC_SGI1R_EL1", ICC_ASGI1R_EL1: "ICC_ASGI1R_EL1",
}  # fmt: skip
NOBODY = -1  # the target of an SGI event that no vCPU gets


def is_target(request: SgiRequest, sender: VgicCpu, cpu: VgicCpu) -> bool:
    """Whether an SGI goes to a vCPU. RS chooses which sixteen values of Aff0 the target list is
    for; KVM ignores it."""
    if request.all_others:
        return cpu is not sender
    affinity = cpu.mpidr & MPIDR_AFFINITY
    bit = (affinity & 0xFF) - request.first_aff0
    return (
        affinity & ~0xFF == request.affinity and 0 <= bit < 16 and bool(request.targets >> bit & 1)
    )


def dispatch(vgic: Vgic, sender: VgicCpu, encoding: int, value: int) -> None:
    """Make an SGI pending on its targets.

    A group 1 SGI comes from ICC_SGI1R_EL1 alone; a group 0 one from any of the three registers. One
    that nobody gets is an event too, with target -1.
    """
    request = SgiRequest.decode(value)
    if vgic.bus.active:
        vgic.bus.emit(IccWrite(REGISTERS[encoding], value))
    reached = False
    for cpu in vgic.cpus():
        irq = cpu.private[request.intid]
        # Whether a register generates the SGI for a vCPU depends on the group that it has there
        # (IHI 0069 12.2.24).
        if is_target(request, sender, cpu) and (irq.group == 0 or encoding == ICC_SGI1R_EL1):
            vgic.settle(irq)
            reached = irq.pending_latch = True
            if vgic.bus.active:
                vgic.bus.emit(VgicInject(request.intid, 1, vgic.id_base | cpu.vcpu_id))
            vgic.queue(irq)
    if not reached and vgic.bus.active:
        vgic.bus.emit(VgicInject(request.intid, 1, NOBODY))
