"""The target vCPU of an SPI: GICD_IROUTER of a GICv3, with 1-of-N routing (IHI 0069 3.2.3,
12.9.22); GICD_ITARGETSR of a GICv2 (IHI 0048 4.3.12)."""

from __future__ import annotations

from armvirt.arch.gic import FIRST_SPI, IROUTER_IRM, MPIDR_AFF0_TO_2
from armvirt.hyp.vgic.cpu import VgicCpu
from armvirt.hyp.vgic.distributor import Distributor
from armvirt.hyp.vgic.irq import VgicIrq

GROUPS = 3  # VENG0 and VENG1 of ICH_VMCR_EL2


# GICv3 -------------------------------------------------------------------------------------------


def router(irq: VgicIrq) -> int:
    """The value of GICD_IROUTER<n> for an SPI."""
    return irq.mpidr | (IROUTER_IRM if irq.any_cpu else 0)


def route(dist: Distributor, irq: VgicIrq, router: int) -> None:
    """Write GICD_IROUTER<n>. If no vCPU has the affinity, the SPI has no target and stays
    pending."""
    irq.mpidr, irq.any_cpu = router & MPIDR_AFF0_TO_2, bool(router & IROUTER_IRM)
    if irq.any_cpu:
        dist.any_cpu.add(irq)
        irq.target = one_of_n(dist, irq)
        dist.mark_dirty()  # so that a flush enables VGrp<n>EIE or VGrp<n>DIE
    else:
        dist.any_cpu.discard(irq)
        irq.target = dist.vcpu_with_affinity(irq.mpidr)
    dist.queue(irq)


def one_of_n(dist: Distributor, irq: VgicIrq) -> int | None:
    """The target of a 1-of-N SPI: the first vCPU whose CPU interface enables the group.

    The choice is IMPLEMENTATION DEFINED. KVM ignores the routing mode; QEMU takes the first CPU.
    """
    for cpu in dist.cpus():
        if cpu.vmcr >> irq.group & 1:
            return cpu.vcpu_id
    return None


def groups_changed(dist: Distributor, cpu: VgicCpu) -> None:
    """Choose the targets of 1-of-N SPIs again if the vCPU has changed a group enable since the last
    call."""
    groups = cpu.vmcr & GROUPS
    if groups != cpu.groups:
        cpu.groups = groups
        reroute(dist)


def reroute(dist: Distributor) -> None:
    """Choose the target of every 1-of-N SPI again. An active SPI stays on its ap_list."""
    for irq in sorted(dist.any_cpu, key=lambda i: i.intid):
        target = one_of_n(dist, irq)
        if target != irq.target:
            irq.target = target
            dist.queue(irq)


# GICv2 -------------------------------------------------------------------------------------------


def existing(dist: Distributor) -> int:
    """A bit mask of the CPU interfaces of the VM. The number of a CPU interface is the vCPU id."""
    return sum(1 << cpu.vcpu_id for cpu in dist.cpus())


def set_targets(dist: Distributor, irq: VgicIrq, value: int) -> None:
    """Write GICD_ITARGETSR<n>. The target is the lowest CPU in the mask, as in KVM.

    With an empty mask the SPI has no target (in KVM the target is vCPU 0). The masks of private
    interrupts are read-only.
    """
    if irq.intid < FIRST_SPI:
        return
    irq.targets = value & existing(dist)
    irq.target = (irq.targets & -irq.targets).bit_length() - 1 if irq.targets else None
    dist.queue(irq)
