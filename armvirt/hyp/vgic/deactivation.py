"""The register accesses that change the active state of an interrupt in the vGIC and not in a list
register: writes of ISACTIVER and ICACTIVER, and trapped writes of ICC_DIR_EL1 and GICV_DIR."""

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

    If the interrupt is level-sensitive and mapped to a host interrupt, a deactivation reads the
    line, because the flush before the acknowledge cleared ``line_level``. If the line is high, the
    interrupt becomes pending and can wake a vCPU from WFI. While the vCPU is not loaded, the vCPU's
    timer is on no PE, so nothing else would report the high line. (KVM does not need to read the
    line at a deactivation, because a vCPU of KVM does not block while the output of a timer is
    high.)
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
    """Record that ICACTIVER made an interrupt inactive. ``cpu`` is the vCPU that acknowledged the
    interrupt before. With EOImode 0 the guest will still write EOIR for this interrupt. Until this
    write, the interrupt is in ``cpu.cleared``. With EOImode 1, ``acked`` of the interrupt becomes
    None."""
    if cpu.vmcr & VMCR_VEOIM:
        irq.acked = None
    elif irq not in cpu.cleared:
        cpu.cleared.append(irq)


def dir(dist: Distributor, cpu: VgicCpu, value: int) -> None:
    """Handle a vCPU's write of ICC_DIR_EL1 or GICV_DIR: deactivate the interrupt (kvm
    vgic_v3_deactivate). The interrupt may be active on any vCPU. With EOImode 0 the write is
    ignored.

    To deactivate an SGI of a GICv2, the written value must contain the CPUID of the sender.
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
    """Deactivate an interrupt, and the host interrupt to which the interrupt is mapped. The result
    is the same as if the guest had deactivated the interrupt through a list register.

    If the line is high, the host interrupt fires again. The interrupt then becomes pending again,
    and is added at the end of the ap_list.
    """
    irq.active, irq.acked = False, None
    if irq.hw:
        irq.line_level = False
        dist.set_phys_active(irq, False)
    dist.queue(irq)
