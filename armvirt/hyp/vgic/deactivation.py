"""Active state that is written from outside the list registers: ISACTIVER, ICACTIVER, and a trapped
ICC_DIR_EL1."""

from __future__ import annotations

from typing import TYPE_CHECKING

from armvirt.arch.gic import GICC_CPUID_MASK, GICC_CPUID_SHIFT, GICC_INTID, MAX_SPI, VMCR_VEOIM
from armvirt.events import EndOfInterrupt
from armvirt.hyp.vgic import hw_irq as mapped
from armvirt.hyp.vgic import list_registers as lr
from armvirt.hyp.vgic.cpu import VgicCpu
from armvirt.hyp.vgic.irq import VgicIrq

if TYPE_CHECKING:
    from armvirt.hyp.vgic.vgic import Vgic

_INTID = 0xFF_FFFF


def change_active(vgic: Vgic, irq: VgicIrq, active: bool) -> None:
    """A guest writes ISACTIVER or ICACTIVER.

    The line of a mapped interrupt was lowered when the guest took it. One that is high is pending
    again now, and may wake a vCPU in WFI, which is on no PE whose comparator could say so. (KVM's
    does not sleep while a timer's output is high.)
    """
    if not active and irq.acked is not None:
        _clear_by_hand(irq, vgic.cpu(irq.acked))
    if active:
        for cpu in vgic.cpus():
            if irq in cpu.cleared:
                cpu.cleared.remove(irq)  # its end of interrupt is that of an active one again
        if not irq.active:
            irq.running = lr.priority_and_group(irq)
    irq.active = active
    if not active and irq.mapped_level:
        irq.sample_line()
    if irq.hw:
        mapped.set_phys_active(vgic, irq, active or irq.pending)
    vgic.queue(irq)


def _clear_by_hand(irq: VgicIrq, cpu: VgicCpu) -> None:
    """With EOImode 0 the end of interrupt is to come still, and must be known for this one's."""
    if cpu.vmcr & VMCR_VEOIM:
        irq.acked = None
    elif irq not in cpu.cleared:
        cpu.cleared.append(irq)


def dir(vgic: Vgic, cpu: VgicCpu, value: int) -> None:
    """ICC_DIR_EL1 or GICV_DIR: deactivate wherever the interrupt is. Ignored with EOImode 0.

    The CPUID that a GICv2 guest writes has to be that of the active SGI (kvm vgic_v3_deactivate).
    """
    intid, source = value & _INTID, 0
    if vgic.model == 2:
        intid, source = value & GICC_INTID, value >> GICC_CPUID_SHIFT & GICC_CPUID_MASK
    if not cpu.vmcr & VMCR_VEOIM or not vgic.initialized or intid > min(MAX_SPI, vgic.nr_irqs - 1):
        return
    if vgic.bus.active:
        vgic.bus.emit(EndOfInterrupt(intid, "DIR"))
    vgic.before_access()
    irq = vgic.irq(cpu.vcpu_id, intid)
    if irq.active and (irq.active_source == source or irq.sender_is_unknown):
        _deactivate(vgic, irq)
        ended(vgic, irq)


def _deactivate(vgic: Vgic, irq: VgicIrq) -> None:
    """What the end of an interrupt in a list register does: the host interrupt is inactive, and one
    whose line is high fires again by itself, behind what waits."""
    irq.active, irq.acked = False, None
    if irq.hw:
        irq.line_level = False
        mapped.set_phys_active(vgic, irq, False)
    vgic.queue(irq)


def ended(vgic: Vgic, irq: VgicIrq) -> None:
    """The guest has deactivated an interrupt: whoever drives its line by an irqfd wants to know."""
    if irq.intid in vgic.watched and irq.level and not irq.hw:
        vgic.on_end(irq.intid)
