"""Flush and sync. A flush writes ap_lists into list registers before a guest entry. A sync folds
list registers and prunes ap_lists after an exit (kvm/vgic/vgic.c).

Most exits change no interrupt, and a fold and a flush cost microseconds per interrupt. So list
registers keep their values from one entry to the next. `Distributor.queue` marks a vCPU dirty, and
only a vCPU that is `stale` needs `sync` and `flush` before the next entry. Code that reads or
writes pending or active state calls `sync_all` first.
"""

from __future__ import annotations

from armvirt.arch.gic import (
    FIRST_LPI,
    FIRST_SPI,
    ICH_HCR_EN,
    ICH_HCR_EOICOUNT_SHIFT,
    LR_GROUP1,
    LR_PENDING,
    LR_PRIORITY_MASK,
    LR_PRIORITY_SHIFT,
    LR_STATE,
    VMCR_VEOIM,
)
from armvirt.events import ListRegisterWrite
from armvirt.hw.ich import VirtualCpuInterface
from armvirt.hyp.vgic import list_registers as lr
from armvirt.hyp.vgic import spi_routing as routing
from armvirt.hyp.vgic.cpu import VgicCpu
from armvirt.hyp.vgic.distributor import Distributor
from armvirt.hyp.vgic.irq import VgicIrq, target_oracle

# Is a flush needed? ------------------------------------------------------------------------------


def stale(cpu: VgicCpu) -> bool:
    """Whether `sync` and `flush` have to run before the vCPU's next guest entry. They have to run
    if an interrupt changed, if the maintenance interrupt is pending, or if the line of an interrupt
    that is mapped to a host interrupt fell (`retracted`)."""
    vif = cpu.vif
    if cpu.dirty or vif is None:
        return cpu.dirty
    return vif.maintenance or (bool(cpu.mapped or vif.waiting) and retracted(cpu))


def retracted(cpu: VgicCpu) -> bool:
    """Whether the line of an interrupt that is mapped to a host interrupt fell before the guest
    acknowledged the interrupt. Such an interrupt is still pending in its list register, or has no
    list register.

    `armvirt.hw.pe.Pe` exits when the line falls. (KVM samples the line at the next exit, because
    KVM folds at every exit.)
    """
    vif = cpu.vif
    if vif is None:
        return False
    for irq in cpu.mapped:
        if _fell(irq, vif.lr[irq.lr]):
            return True
    if vif.waiting:
        for irq in cpu.outside:
            if _waits(irq) and not _level(irq):
                return True
    return False


def _fell(irq: VgicIrq, value: int) -> bool:
    return value & LR_STATE == LR_PENDING and not irq.pending_latch and not _level(irq)


def _level(irq: VgicIrq) -> bool:
    return irq.get_input_level is None or irq.get_input_level()


def offers_only(cpu: VgicCpu, intid: int) -> bool:
    """Whether ``intid``, which is mapped to a host interrupt, is the only interrupt on the vCPU's
    ap_list and is pending in list register 0, while no maintenance interrupt is enabled."""
    vif = cpu.vif
    if (
        vif is None
        or len(cpu.ap_list) != 1
        or len(cpu.resident) != 1
        or cpu.cleared
        or vif.hcr != ICH_HCR_EN
    ):
        return False
    return (
        cpu.resident[0].intid == intid and cpu.resident[0].hw and vif.lr[0] & LR_STATE == LR_PENDING
    )


# Flush -------------------------------------------------------------------------------------------


def flush(dist: Distributor, cpu: VgicCpu) -> None:
    """Write the list registers of a loaded vCPU from its ap_list (kvm vgic_flush_lr_state).

    A flush moves no interrupt to another ap_list. After a sync every interrupt is on the correct
    ap_list, and `Distributor.queue` moves an interrupt that is in no list register at each change
    of the interrupt.
    """
    vif = cpu.vif
    assert vif is not None
    if cpu.resident or cpu.outside:
        sync(dist, cpu)
    cpu.dirty = False
    resident = list(cpu.ap_list)
    # This vCPU may deactivate an SPI that is in stray_active or on another vCPU's ap_list.
    foreign = bool(dist.stray_active) or (len(dist.vcpus) > 1 and _foreign_spis(dist, cpu))
    watch, ends = bool(dist.any_cpu), bool(cpu.cleared)
    if not (resident or cpu.used or foreign or watch or ends):
        return
    limit, unknown, left_out = len(vif.lr), [], []
    if dist.model == 2:
        # The CPUID that the guest will write at the end of interrupt is unknown, so no list
        # register could match. Without a list register, the end increments ICH_HCR_EL2.EOIcount.
        unknown = [irq for irq in resident if irq.sender_is_unknown]
        resident = [irq for irq in resident if irq not in unknown]
    if len(resident) > limit:
        irqs = lr.by_urgency(resident, vif.vmcr)
        left_out = irqs[limit:]
        # The order of the ap_list stays, because the PE signals interrupts of equal priority in
        # the order of their list registers.
        resident = [irq for irq in cpu.ap_list if irq in irqs[:limit]]
    cpu.resident, cpu.outside = resident, left_out + unknown
    hcr = ICH_HCR_EN
    if cpu.outside or foreign or watch or ends:
        left = lr.overflow(left_out, vif.vmcr)
        if unknown:
            left = left._replace(active=True)
        hcr = lr.configure_hcr(left, vif.vmcr, limit, foreign, watch, ends)
        cpu.running_before = [*vif.ap0r, *vif.ap1r]
    _fill(dist, cpu, vif, hcr)


def _fill(dist: Distributor, cpu: VgicCpu, vif: VirtualCpuInterface, hcr: int) -> None:
    """Write ICH_HCR_EL2, and a list register for each interrupt in ``cpu.resident``."""
    values = []
    cpu.mapped = []
    lonely = bool(cpu.outside) and len(vif.lr) == 1
    for index, irq in enumerate(cpu.resident):
        irq.lr = index
        values.append(lr.populate(irq, _may_pend(dist, cpu, irq), lonely))
        if irq.hw and irq.level:
            cpu.mapped.append(irq)
    cpu.used = bool(values) or hcr != ICH_HCR_EN
    before = list(vif.lr) if dist.bus.active else ()
    vif.program(hcr, values, _waiting(cpu) if cpu.outside else 0)
    for index, old in enumerate(before[: len(values)]):
        if values[index] != old:
            target, intid = dist.id_base | cpu.vcpu_id, cpu.resident[index].intid
            dist.bus.emit(ListRegisterWrite(target, index, intid, values[index]))


def _waiting(cpu: VgicCpu) -> int:
    """A bit map of host INTIDs. A bit is set if the guest's interrupt that is mapped to the host
    interrupt is pending and has no list register."""
    return sum(1 << irq.hwintid for irq in cpu.outside if _waits(irq))


def _waits(irq: VgicIrq) -> bool:
    return irq.mapped_level and irq.line_level and not irq.active


def _may_pend(dist: Distributor, cpu: VgicCpu, irq: VgicIrq) -> bool:
    """Whether an interrupt of the ap_list may be pending on this vCPU. An active interrupt is on
    the ap_list even if it is disabled or routed to another vCPU."""
    return irq.enabled and bool(dist.enables >> irq.group & 1) and irq.target == cpu.vcpu_id


def _foreign_spis(dist: Distributor, cpu: VgicCpu) -> bool:
    """Whether another vCPU has an SPI on its ap_list."""
    for other in dist.vcpus.values():
        if other is not cpu:
            for irq in other.ap_list:
                if FIRST_SPI <= irq.intid < FIRST_LPI:
                    return True
    return False


# Sync: fold and prune ----------------------------------------------------------------------------


def sync(dist: Distributor, cpu: VgicCpu) -> None:
    """Fold the list registers into the interrupts, and prune the ap_list (kvm vgic_sync_hwstate).

    A second call has no effect. The list registers are out of date until the next flush.
    """
    vif = cpu.vif
    if vif is not None and (cpu.resident or cpu.outside or cpu.cleared):
        _fold(dist, cpu, vif)
    if dist.any_cpu:
        routing.groups_changed(dist, cpu)
    if cpu.ap_list:
        prune(dist, cpu)


def sync_all(dist: Distributor) -> None:
    """`sync` every vCPU whose list registers hold an interrupt."""
    for cpu in dist.vcpus.values():
        if cpu.resident:
            sync(dist, cpu)


def sync_owner(dist: Distributor, irq: VgicIrq) -> None:
    """Sync the vCPU that has ``irq`` in a list register, if any. The caller makes ``irq`` pending
    next.

    If the guest has ended ``irq``, the sync removes ``irq`` from the ap_list, and the caller then
    adds ``irq`` at the end. Without the sync, ``irq`` would keep its old place in the ap_list,
    unless an exit had already synced the vCPU after the end of interrupt. An edge-triggered
    interrupt that is alone on the ap_list needs no sync.
    """
    if irq.lr >= 0 and irq.vcpu is not None:
        cpu = dist.vcpus[irq.vcpu]
        if irq.level or len(cpu.ap_list) > 1:
            sync(dist, cpu)


def fold_irq(dist: Distributor, irq: VgicIrq) -> None:
    """Sync the vCPU that has ``irq`` in a list register, if any. The caller changes the trigger of
    ``irq`` next."""
    if irq.lr >= 0 and irq.vcpu is not None:
        sync(dist, dist.vcpus[irq.vcpu])


def prune(dist: Distributor, cpu: VgicCpu) -> None:
    """Sample the lines of the interrupts that are mapped to host interrupts. Remove an interrupt
    from the ap_list if `target_oracle` returns another vCPU or None, and queue the interrupt for
    that vCPU (kvm vgic_prune_ap_list)."""
    enables, vcpu_id = dist.enables, cpu.vcpu_id
    leaving = []
    for irq in cpu.ap_list:
        if irq.hw:
            dist.resample(irq)
        if target_oracle(irq, enables) != vcpu_id:
            leaving.append(irq)
    for irq in leaving:
        del cpu.ap_list[irq]
        irq.vcpu = None
    for irq in leaving:
        dist.queue(irq, sampled=True)


def _fold(dist: Distributor, cpu: VgicCpu, vif: VirtualCpuInterface) -> None:
    cpu.dirty = True
    ended = []
    for irq, value in zip(cpu.resident, vif.lr, strict=False):
        irq.lr = -1
        if lr.fold(irq, value):
            dist.vm.set_phys_active(cpu.vcpu_id, irq.hwintid, False)
        if irq.intid in dist.watched and lr.signals_eoi(value):
            ended.append(irq)
    count = vif.hcr >> ICH_HCR_EOICOUNT_SHIFT
    if count and cpu.outside and not vif.vmcr & VMCR_VEOIM:
        ended += _replay(dist, cpu, vif, count)
    if cpu.cleared:
        _forget_ended(cpu, vif)
    cpu.resident, cpu.outside, cpu.mapped = [], [], []
    for irq in ended:
        dist.ended(irq)


def _replay(dist: Distributor, cpu: VgicCpu, vif: VirtualCpuInterface, count: int) -> list[VgicIrq]:
    """Deactivate the interrupts that the guest ended while they were in no list register. Return
    these interrupts. ``count`` is their number, from ICH_HCR_EL2.EOIcount."""
    ended = ended_outside(cpu, vif, count)
    for irq in ended:
        irq.active, irq.acked = False, None
        if irq.hw:
            irq.line_level = False  # if the line is high, the host interrupt fires again
            dist.vm.set_phys_active(cpu.vcpu_id, irq.hwintid, False)
    return ended


def ended_outside(cpu: VgicCpu, vif: VirtualCpuInterface, count: int) -> list[VgicIrq]:
    """The interrupts that the guest ended while they were in no list register. ``count`` is the
    number of these interrupts, from ICH_HCR_EL2.EOIcount.

    Only interrupts that this vCPU acknowledged are candidates, because an active state that
    software wrote has no active-priority bit. The first candidates are interrupts whose
    active-priority bit was set at the flush and is clear now, because an end of interrupt drops the
    priority. The last candidates are interrupts whose bit was not set at the flush: the guest may
    have changed the binary point after the acknowledge, so that another bit was set. Each of the
    two sets is in order of urgency. KVM takes the first ``count`` interrupts without a list
    register.
    """
    before = cpu.running_before
    dropped = [old & ~now for old, now in zip(before, [*vif.ap0r, *vif.ap1r], strict=True)]
    acked = [irq for irq in cpu.outside if irq.active and irq.acked == cpu.vcpu_id]
    ended = [irq for irq in acked if _was_dropped(irq, vif, dropped)]
    ended += [irq for irq in acked if not _was_dropped(irq, vif, before)]
    return ended[:count]


def _was_dropped(irq: VgicIrq, vif: VirtualCpuInterface, dropped: list[int]) -> bool:
    """Whether the active-priority bit of an interrupt is set in ``dropped``, which has the words of
    AP0R and then of AP1R. A GICv2 guest uses only AP1R."""
    group = irq.running & LR_GROUP1
    level = vif.preemption_level(irq.running >> LR_PRIORITY_SHIFT & LR_PRIORITY_MASK, group)
    first = len(vif.ap0r) if group or not vif.sre else 0
    return bool(dropped[first + (level >> 5)] >> (level & 31) & 1)


def _forget_ended(cpu: VgicCpu, vif: VirtualCpuInterface) -> None:
    """Remove from ``cpu.cleared`` the interrupts that the guest has ended: their active-priority
    bits are clear now."""
    active = [*vif.ap0r, *vif.ap1r]
    for irq in [irq for irq in cpu.cleared if not _was_dropped(irq, vif, active)]:
        cpu.cleared.remove(irq)
        if irq.acked == cpu.vcpu_id:
            irq.acked = None
