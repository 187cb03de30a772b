"""Changes of the active state that do not go through a list register: writes of ISACTIVER and
ICACTIVER, and trapped writes of ICC_DIR_EL1 and GICV_DIR."""

from __future__ import annotations

from armvirt.arch.gic import (
    GICC_CPUID_MASK,
    GICC_CPUID_SHIFT,
    GICC_INTID,
    INTID_MASK,
    MAX_SPI,
    VMCR_VEOIM,
)
from armvirt.events import EndOfInterrupt
from armvirt.hyp.vgic import flush
from armvirt.hyp.vgic import list_registers as lr
from armvirt.hyp.vgic.cpu import VgicCpu
from armvirt.hyp.vgic.distributor import Distributor
from armvirt.hyp.vgic.irq import VgicIrq


def change_active(dist: Distributor, irq: VgicIrq, active: bool) -> None:
    """Set or clear the active state for a guest's write of ISACTIVER<n> or ICACTIVER<n>. The caller
    runs `flush.sync_all` first.

    If a level-sensitive interrupt is mapped to a host interrupt, its acknowledge has cleared
    ``line_level``, so a deactivation samples the line again. If the line is high, the interrupt
    becomes pending and can wake a vCPU from WFI. The vGIC has to sample the line itself: if the
    vCPU is not loaded, its timer is on no PE, so that no comparator reports the line. (In KVM a
    vCPU does not sleep while the output of a timer is high.)
    """
    if not active and irq.acked is not None:
        _clear_by_hand(irq, dist.cpu(irq.acked))
    if active:
        for cpu in dist.cpus():
            if irq in cpu.cleared:
                cpu.cleared.remove(irq)  # active again: a write of EOIR deactivates it
        if not irq.active:
            irq.running = lr.priority_and_group(irq)
    irq.active = active
    if not active and irq.mapped_level:
        irq.sample_line()
    if irq.hw:
        dist.set_phys_active(irq, active or irq.pending)
    dist.queue(irq)


def _clear_by_hand(irq: VgicIrq, cpu: VgicCpu) -> None:
    """Note that ICACTIVER made an interrupt inactive. With EOImode 0 the guest will still write
    EOIR for this interrupt. Until this write, the interrupt is in the vCPU's list ``cleared``."""
    if cpu.vmcr & VMCR_VEOIM:
        irq.acked = None
    elif irq not in cpu.cleared:
        cpu.cleared.append(irq)


def dir(dist: Distributor, cpu: VgicCpu, value: int) -> None:
    """Handle a vCPU's write of ICC_DIR_EL1 or GICV_DIR: deactivate the interrupt, which may be
    active on any vCPU (kvm vgic_v3_deactivate). With EOImode 0 the write is ignored.

    To deactivate an SGI, a GICv2 guest also has to write the CPUID of the sender.
    """
    intid, source = value & INTID_MASK, 0
    if dist.model == 2:
        intid, source = value & GICC_INTID, value >> GICC_CPUID_SHIFT & GICC_CPUID_MASK
    if not cpu.vmcr & VMCR_VEOIM or not dist.initialized or intid > min(MAX_SPI, dist.nr_irqs - 1):
        return
    if dist.bus.active:
        dist.bus.emit(EndOfInterrupt(intid, "DIR"))
    flush.sync_all(dist)
    irq = dist.irq(cpu.vcpu_id, intid)
    if irq.active and (irq.active_source == source or irq.sender_is_unknown):
        _deactivate(dist, irq)
        dist.ended(irq)


def _deactivate(dist: Distributor, irq: VgicIrq) -> None:
    """Deactivate an interrupt and its host interrupt, as a deactivation in a list register does.

    If the line is high, the host interrupt fires again. The interrupt then becomes pending again,
    and is added at the end of the ap_list.
    """
    irq.active, irq.acked = False, None
    if irq.hw:
        irq.line_level = False
        dist.set_phys_active(irq, False)
    dist.queue(irq)
