"""The target vCPU of an SPI. In a GICv3, GICD_IROUTER chooses the target, with 1-of-N routing (IHI
0069 3.2.3, 12.9.22). In a GICv2, GICD_ITARGETSR chooses the target (IHI 0048 4.3.12)."""

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
    """Write GICD_IROUTER<n>, which sets the target of an SPI. If no vCPU has the affinity, the SPI
    has no target. A pending SPI without a target stays pending."""
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
    """The target of a 1-of-N SPI: the first vCPU whose CPU interface enables the group of the SPI.
    None if no CPU interface enables the group.

    The choice is IMPLEMENTATION DEFINED. KVM ignores the routing mode. QEMU takes the first CPU.
    """
    for cpu in dist.cpus():
        if cpu.vmcr >> irq.group & 1:
            return cpu.vcpu_id
    return None


def groups_changed(dist: Distributor, cpu: VgicCpu) -> None:
    """If a group enable of the vCPU's CPU interface has changed since the last call, choose the
    targets of all 1-of-N SPIs again."""
    groups = cpu.vmcr & GROUPS
    if groups != cpu.groups:
        cpu.groups = groups
        reroute(dist)


def reroute(dist: Distributor) -> None:
    """Choose the target of every 1-of-N SPI again. An SPI that is active stays on the ap_list of
    its present vCPU."""
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
    """Write GICD_ITARGETSR<n>, a bit mask of CPUs. The SPI gets the CPU with the lowest number in
    the mask as target, as in KVM.

    If the mask is empty, the SPI has no target. (In KVM the target is then vCPU 0.) The write is
    ignored for a private interrupt, because its mask is read-only.
    """
    if irq.intid < FIRST_SPI:
        return
    irq.targets = value & existing(dist)
    irq.target = (irq.targets & -irq.targets).bit_length() - 1 if irq.targets else None
    dist.queue(irq)
