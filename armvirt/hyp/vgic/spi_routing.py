"""Where an SPI goes: GICD_IROUTER of a GICv3, with the choice among several PEs (IHI 0069 3.2.3,
12.9.22)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from armvirt.arch.gic import IROUTER_IRM
from armvirt.hyp.vgic.cpu import VgicCpu
from armvirt.hyp.vgic.irq import VgicIrq

if TYPE_CHECKING:
    from armvirt.hyp.vgic.vgic import Vgic

AFFINITY = 0xFF_FFFF  # Aff2.Aff1.Aff0; there is no Aff3 (GICD_TYPER.A3V = 0)
GROUPS = 3  # VENG0 and VENG1 of ICH_VMCR_EL2


def route(vgic: Vgic, irq: VgicIrq, router: int) -> None:
    """A write of GICD_IROUTER<n>. An affinity that nobody has: it stays pending, undelivered."""
    irq.mpidr, irq.any_cpu = router & AFFINITY, bool(router & IROUTER_IRM)
    if irq.any_cpu:
        vgic.any_cpu.add(irq)
        irq.target = one_of_n(vgic, irq)
        for cpu in vgic.cpus():
            cpu.dirty = True  # its group enables are watched from the next entry on
    else:
        vgic.any_cpu.discard(irq)
        irq.target = vgic.vcpu_with_affinity(irq.mpidr)
    vgic.queue(irq)


def router(irq: VgicIrq) -> int:
    """GICD_IROUTER<n> as it reads."""
    return irq.mpidr | (IROUTER_IRM if irq.any_cpu else 0)


def one_of_n(vgic: Vgic, irq: VgicIrq) -> int | None:
    """The PE that gets a 1-of-N interrupt: the first one that has its group enabled.

    Which of those that could is IMPLEMENTATION DEFINED; KVM ignores the routing mode and QEMU takes
    the first CPU.
    """
    for cpu in vgic.cpus():
        if cpu.vmcr >> irq.group & 1:
            return cpu.vcpu_id
    return None


def groups_changed(vgic: Vgic, cpu: VgicCpu) -> None:
    """Give 1-of-N interrupts away anew if a vCPU has switched a group on or off since the last
    time."""
    groups = cpu.vmcr & GROUPS
    if groups != cpu.groups:
        cpu.groups = groups
        reroute(vgic)


def reroute(vgic: Vgic) -> None:
    """Choose again for every 1-of-N interrupt; an active one stays where it is."""
    for irq in sorted(vgic.any_cpu, key=lambda i: i.intid):
        target = one_of_n(vgic, irq)
        if target != irq.target:
            irq.target = target
            vgic.queue(irq)
