"""Flush and sync (kvm/vgic/vgic.c). A flush writes the interrupts of a vCPU's ap_list into list
registers before a guest entry. After an exit, a sync folds the list registers into the interrupts
and prunes the ap_list.

Most exits change no interrupt, and a fold and a flush cost microseconds per interrupt. Therefore
list registers keep their values from one entry to the next. `Distributor.queue` marks a vCPU dirty
when an interrupt changes. `sync` and `flush` have to run before the vCPU's next entry only if
`stale` returns True. Code that reads or writes pending or active state calls `sync_all` first.
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
    in three cases: the vCPU is marked dirty (`VgicCpu.dirty`); the maintenance interrupt is
    pending; or the line of an interrupt that is mapped to a host interrupt fell (`retracted`)."""
    vif = cpu.vif
    if cpu.dirty or vif is None:
        return cpu.dirty
    return vif.maintenance or (bool(cpu.mapped or vif.waiting) and retracted(cpu))


def retracted(cpu: VgicCpu) -> bool:
    """Whether the line of an interrupt that is mapped to a host interrupt fell before the guest
    acknowledged the interrupt. Such an interrupt is still pending in its list register, or has no
    list register.

    `armvirt.hw.pe.Pe` leaves the guest when such a line falls. (KVM reads the line at the next
    exit, because KVM folds at every exit.)
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


def offers_only(cpu: VgicCpu, intid: int, hw: bool) -> bool:
    """Whether one interrupt is the only interrupt that the vCPU can take. ``intid`` is the INTID of
    this interrupt. The result is True if three conditions are met:

    1. The interrupt is the only interrupt on the ap_list, and is pending in list register 0.
    2. ICH_HCR_EL2 enables no trap and no maintenance interrupt.
    3. If ``hw`` is True, the interrupt is mapped to a host interrupt. If ``hw`` is False, it is not
       mapped.
    """
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
        cpu.resident[0].intid == intid
        and cpu.resident[0].hw is hw
        and vif.lr[0] & LR_STATE == LR_PENDING
    )


# Flush -------------------------------------------------------------------------------------------


def flush(dist: Distributor, cpu: VgicCpu) -> None:
    """Write the list registers of a loaded vCPU from its ap_list (kvm vgic_flush_lr_state).

    A flush moves no interrupt to another ap_list, because every interrupt is already on the correct
    ap_list. For an interrupt in a list register, the sync has checked the ap_list. For another
    interrupt, `Distributor.queue` updates the ap_list at each change of the interrupt.
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
        # register could match. If the guest ends an interrupt without a list register, the PE
        # increments ICH_HCR_EL2.EOIcount.
        unknown = [irq for irq in resident if irq.sender_is_unknown]
        resident = [irq for irq in resident if irq not in unknown]
    if len(resident) > limit:
        irqs = lr.by_urgency(resident, vif.vmcr)
        left_out = irqs[limit:]
        # The interrupts keep the order of the ap_list, because the PE signals interrupts of equal
        # priority in the order of their list registers.
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
    """A bit map of host INTIDs. The bit of a host interrupt is set if the corresponding interrupt
    of the guest is pending and has no list register."""
    return sum(1 << irq.hwintid for irq in cpu.outside if _waits(irq))


def _waits(irq: VgicIrq) -> bool:
    return irq.mapped_level and irq.line_level and not irq.active


def _may_pend(dist: Distributor, cpu: VgicCpu, irq: VgicIrq) -> bool:
    """Whether an interrupt of the ap_list may be pending on this vCPU: the interrupt and its group
    are enabled, and this vCPU is the target. An active interrupt stays on the ap_list even if it is
    disabled or routed to another vCPU."""
    return irq.enabled and bool(dist.enables >> irq.group & 1) and irq.target == cpu.vcpu_id


def _foreign_spis(dist: Distributor, cpu: VgicCpu) -> bool:
    """Whether the ap_list of another vCPU has an SPI."""
    for other in dist.vcpus.values():
        if other is not cpu:
            for irq in other.ap_list:
                if FIRST_SPI <= irq.intid < FIRST_LPI:
                    return True
    return False


# Sync: fold and prune ----------------------------------------------------------------------------


def sync(dist: Distributor, cpu: VgicCpu) -> None:
    """Fold the list registers into the interrupts, and prune the ap_list (kvm vgic_sync_hwstate).

    After this call the list registers are out of date until the next flush. A second call before
    this flush has no effect.
    """
    vif = cpu.vif
    if vif is not None and (cpu.resident or cpu.outside or cpu.cleared):
        _fold(dist, cpu, vif)
    if dist.any_cpu:
        routing.groups_changed(dist, cpu)
    if cpu.ap_list:
        prune(dist, cpu)


def sync_all(dist: Distributor) -> None:
    """Call `sync` for every vCPU that has an interrupt in a list register."""
    for cpu in dist.vcpus.values():
        if cpu.resident:
            sync(dist, cpu)


def sync_owner(dist: Distributor, irq: VgicIrq) -> None:
    """Sync the vCPU that has ``irq`` in a list register. If no list register has ``irq``, do
    nothing. The caller makes ``irq`` pending after this call.

    If the guest has ended ``irq``, the sync removes ``irq`` from the ap_list, and the caller then
    adds ``irq`` at the end of the ap_list. Without the sync, the order of the ap_list would depend
    on exits: ``irq`` would keep its old position if no exit had synced the vCPU after the end of
    interrupt. If ``irq`` is edge-triggered and alone on the ap_list, there is no order to keep, and
    this function does nothing.
    """
    if irq.lr >= 0 and irq.vcpu is not None:
        cpu = dist.vcpus[irq.vcpu]
        if irq.level or len(cpu.ap_list) > 1:
            sync(dist, cpu)


def fold_irq(dist: Distributor, irq: VgicIrq) -> None:
    """Sync the vCPU that has ``irq`` in a list register. If no list register has ``irq``, do
    nothing. The caller changes the trigger of ``irq`` after this call."""
    if irq.lr >= 0 and irq.vcpu is not None:
        sync(dist, dist.vcpus[irq.vcpu])


def prune(dist: Distributor, cpu: VgicCpu) -> None:
    """Remove from the vCPU's ap_list the interrupts that must not be on this ap_list (kvm
    vgic_prune_ap_list). If `target_oracle` returns another vCPU for such an interrupt, the
    interrupt is added to the ap_list of that vCPU. The lines of interrupts that are mapped to host
    interrupts are read before `target_oracle` is called."""
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
    """Deactivate the interrupts that the guest ended while they were in no list register, and
    return the deactivated interrupts. ``count`` is the number of these interrupts, from
    ICH_HCR_EL2.EOIcount."""
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

    EOIcount does not tell the INTIDs. Therefore this function chooses ``count`` of the active
    interrupts that have no list register and that this vCPU has acknowledged. (An interrupt that
    software made active has no active-priority bit.) It chooses them in this order:

    1. Interrupts whose active-priority bit was set at the last flush and is clear now. The guest's
       end of interrupt clears this bit.
    2. Interrupts whose active-priority bit was not set at the last flush. If the guest changed the
       binary point after the acknowledge, the acknowledge set another bit than the bit that this
       function computes now.

    Within 1 and within 2, the order is the order of `list_registers.by_urgency`. KVM takes the
    first ``count`` active interrupts of the ap_list that have no list register.
    """
    before = cpu.running_before
    dropped = [old & ~now for old, now in zip(before, [*vif.ap0r, *vif.ap1r], strict=True)]
    acked = [irq for irq in cpu.outside if irq.active and irq.acked == cpu.vcpu_id]
    ended = [irq for irq in acked if _was_dropped(irq, vif, dropped)]
    ended += [irq for irq in acked if not _was_dropped(irq, vif, before)]
    return ended[:count]


def _was_dropped(irq: VgicIrq, vif: VirtualCpuInterface, dropped: list[int]) -> bool:
    """Whether the active-priority bit of an interrupt is set in ``dropped``. ``dropped`` has first
    the words of AP0R<n>, then the words of AP1R<n>. A GICv2 guest uses only AP1R<n>."""
    group = irq.running & LR_GROUP1
    level = vif.preemption_level(irq.running >> LR_PRIORITY_SHIFT & LR_PRIORITY_MASK, group)
    first = len(vif.ap0r) if group or not vif.sre else 0
    return bool(dropped[first + (level >> 5)] >> (level & 31) & 1)


def _forget_ended(cpu: VgicCpu, vif: VirtualCpuInterface) -> None:
    """Remove from ``cpu.cleared`` the interrupts whose active-priority bits are clear now, because
    the guest has ended these interrupts."""
    active = [*vif.ap0r, *vif.ap1r]
    for irq in [irq for irq in cpu.cleared if not _was_dropped(irq, vif, active)]:
        cpu.cleared.remove(irq)
        if irq.acked == cpu.vcpu_id:
            irq.acked = None
