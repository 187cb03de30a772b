"""Around a guest entry: ap_lists into list registers and back (kvm/vgic/vgic.c: flush, fold,
prune).

The walk costs microseconds per interrupt, and most exits change nothing. So list registers stay in
place between entries: whoever changes an interrupt marks the vCPU that holds it dirty, and only a
dirty vCPU needs `sync`, `flush`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from armvirt.arch.gic import (
    FIRST_LPI,
    FIRST_SPI,
    HCR_EN,
    HCR_EOICOUNT_SHIFT,
    LR_GROUP1,
    LR_PENDING,
    LR_PRIORITY_SHIFT,
    LR_STATE,
    VMCR_VEOIM,
)
from armvirt.events import ListRegisterWrite
from armvirt.hw.ich import VirtualCpuInterface
from armvirt.hyp.vgic import deactivation
from armvirt.hyp.vgic import hw_irq as mapped
from armvirt.hyp.vgic import list_registers as lr
from armvirt.hyp.vgic import spi_routing as routing
from armvirt.hyp.vgic.cpu import VgicCpu
from armvirt.hyp.vgic.irq import VgicIrq, target_oracle

if TYPE_CHECKING:
    from armvirt.hyp.vgic.vgic import Vgic


def load(cpu: VgicCpu, vif: VirtualCpuInterface) -> None:
    """Give a vCPU the virtual CPU interface of a PE; its list registers are filled by the flush
    that must follow."""
    cpu.vif = vif
    vif.sre = (
        cpu.model != 2
    )  # before ICH_VMCR_EL2, in which it decides about VFIQEn (kvm __vgic_v3_activate_traps)
    vif.restore(cpu._vmcr, cpu.ap0r, cpu.ap1r)
    cpu.dirty = cpu.used = True


def put(vgic: Vgic, cpu: VgicCpu) -> None:
    """Take everything out of the virtual CPU interface and leave it disabled."""
    vif = cpu.vif
    if vif is None:
        return
    sync(vgic, cpu)
    cpu.take_interface(vif)
    cpu.vif = None
    vif.sre = True
    vif.restore(0, [0] * len(vif.ap0r), [0] * len(vif.ap1r))
    vif.program(0, ())


def flush(vgic: Vgic, cpu: VgicCpu) -> None:
    """Fill the list registers from the ap_list (kvm vgic_flush_lr_state)."""
    vif = cpu.vif
    assert vif is not None
    if cpu.resident or cpu.outside:
        sync(vgic, cpu)
    cpu.dirty = False
    enables, vcpu_id = vgic.enables, cpu.vcpu_id
    irqs = [irq for irq in cpu.ap_list if target_oracle(irq, enables) == vcpu_id]
    foreign = _foreign_spis(vgic, cpu)
    watch, ends = bool(vgic.any_cpu), bool(cpu.cleared)
    if not irqs and not cpu.used and not foreign and not watch and not ends:
        return
    limit = len(vif.lr)
    unknown = [irq for irq in irqs if irq.sender_is_unknown]
    if unknown:  # no list register could be told from its end: it is found as one that had no room
        irqs = [irq for irq in irqs if irq not in unknown]
    resident, left_out = irqs, []
    if len(irqs) > limit:
        irqs = lr.by_urgency(irqs, vif.vmcr)
        left_out = irqs[limit:]
        resident = [
            irq for irq in cpu.ap_list if irq in irqs[:limit]
        ]  # of equals, the lowest list register wins
    cpu.resident, cpu.outside = resident, left_out + unknown
    hcr = HCR_EN
    if cpu.outside or foreign or watch or ends:
        left = lr.overflow(left_out, vif.vmcr)
        if unknown:
            left = left._replace(active=True)
        hcr = lr.configure_hcr(left, vif.vmcr, limit, foreign, watch, ends)
        cpu.running_before = [*vif.ap0r, *vif.ap1r]
    _fill(vgic, cpu, vif, hcr)


def _fill(vgic: Vgic, cpu: VgicCpu, vif: VirtualCpuInterface, hcr: int) -> None:
    values = []
    lonely = bool(cpu.outside) and len(vif.lr) == 1
    for index, irq in enumerate(cpu.resident):
        irq.lr = index
        values.append(lr.populate(irq, _may_pend(vgic, cpu, irq), lonely))
    cpu.mapped = [irq for irq in cpu.resident if irq.hw and irq.level]
    cpu.used = bool(values) or hcr != HCR_EN
    before = list(vif.lr) if vgic.bus.active else ()
    vif.program(hcr, values, _waiting(cpu) if cpu.outside else 0)
    for index, old in enumerate(before[: len(values)]):
        if values[index] != old:
            target, intid = vgic.id_base | cpu.vcpu_id, cpu.resident[index].intid
            vgic.bus.emit(ListRegisterWrite(target, index, intid, values[index]))


def _waiting(cpu: VgicCpu) -> int:
    """The host interrupts, a bit each, of mapped interrupts that are pending and found no list
    register."""
    return sum(1 << irq.hwintid for irq in cpu.outside if _waits(irq))


def _waits(irq: VgicIrq) -> bool:
    return irq.mapped_level and irq.line_level and not irq.active


def _may_pend(vgic: Vgic, cpu: VgicCpu, irq: VgicIrq) -> bool:
    """Whether an interrupt may be pending here: that it is active brings it on the list too."""
    return irq.enabled and bool(vgic.enables >> irq.group & 1) and irq.target == cpu.vcpu_id


def _foreign_spis(vgic: Vgic, cpu: VgicCpu) -> bool:
    """Whether an SPI is in flight on another vCPU, or active on none."""
    if vgic.stray_active:
        return True
    for other in vgic.cpus():
        if other is not cpu and any(FIRST_SPI <= irq.intid < FIRST_LPI for irq in other.ap_list):
            return True
    return False


def sync(vgic: Vgic, cpu: VgicCpu) -> None:
    """Fold the list registers into the interrupts and prune the ap_list (kvm vgic_sync_hwstate).

    Afterwards the list registers are stale: a flush has to come before the next entry. Calling it
    again is harmless.
    """
    vif = cpu.vif
    if vif is not None and (cpu.resident or cpu.outside or cpu.cleared):
        _fold(vgic, cpu, vif)
    if vgic.any_cpu:
        routing.groups_changed(vgic, cpu)
    if cpu.ap_list:
        for irq in cpu.ap_list:
            if irq.hw:
                mapped.resample(vgic, irq)
        prune(vgic, cpu)


def _fold(vgic: Vgic, cpu: VgicCpu, vif: VirtualCpuInterface) -> None:
    cpu.dirty = True
    ended = []
    for irq, value in zip(cpu.resident, vif.lr, strict=False):
        irq.lr = -1
        if lr.fold(irq, value):
            vgic.set_phys_active(cpu.vcpu_id, irq.hwintid, False)
        if irq.intid in vgic.watched and lr.signals_eoi(value):
            ended.append(irq)
    count = vif.hcr >> HCR_EOICOUNT_SHIFT
    if count and cpu.outside and not vif.vmcr & VMCR_VEOIM:
        ended += _replay(vgic, cpu, vif, count)
    if cpu.cleared:
        _forget_ended(cpu, vif)
    cpu.resident, cpu.outside, cpu.mapped = [], [], []
    for irq in ended:
        deactivation.ended(vgic, irq)


def _replay(vgic: Vgic, cpu: VgicCpu, vif: VirtualCpuInterface, count: int) -> list[VgicIrq]:
    """The guest ended ``count`` interrupts that were in no list register."""
    ended = ended_outside(cpu, vif, count)
    for irq in ended:
        irq.active, irq.acked = False, None
        if irq.hw:
            irq.line_level = (
                False  # one that is high fires again by itself, as after an end in a list register
            )
            vgic.set_phys_active(cpu.vcpu_id, irq.hwintid, False)
    return ended


def ended_outside(cpu: VgicCpu, vif: VirtualCpuInterface, count: int) -> list[VgicIrq]:
    """The ``count`` interrupts that were ended outside the list registers: the most urgent ones
    that were acknowledged.

    Their priorities were dropped since the flush, by which they are told from others whose active
    state was written by hand. With a binary point that was changed since the acknowledge, the bit
    may be another one: those that never had theirs are taken for what is left to account for. (KVM
    takes the first ``count`` that are outside.)
    """
    before = cpu.running_before
    dropped = [old & ~now for old, now in zip(before, [*vif.ap0r, *vif.ap1r], strict=True)]
    acked = [irq for irq in cpu.outside if irq.active and irq.acked == cpu.vcpu_id]
    ended = [irq for irq in acked if _was_dropped(irq, vif, dropped)]
    ended += [irq for irq in acked if not _was_dropped(irq, vif, before)]
    return ended[:count]


def _was_dropped(irq: VgicIrq, vif: VirtualCpuInterface, dropped: list[int]) -> bool:
    """Whether the active-priority bit of an interrupt is set in ``dropped``, which is laid out as
    AP0R then AP1R.

    Those of a GICv2 guest are all in AP1R.
    """
    group = irq.running & LR_GROUP1
    level = vif.preemption_level(irq.running >> LR_PRIORITY_SHIFT & 0xFF, group)
    first = len(vif.ap0r) if group or not vif.sre else 0
    return bool(dropped[first + (level >> 5)] >> (level & 31) & 1)


def _forget_ended(cpu: VgicCpu, vif: VirtualCpuInterface) -> None:
    """Of the interrupts that were made inactive by hand, those whose priority was dropped are ended
    now."""
    active = [*vif.ap0r, *vif.ap1r]
    for irq in [irq for irq in cpu.cleared if not _was_dropped(irq, vif, active)]:
        cpu.cleared.remove(irq)
        if irq.acked == cpu.vcpu_id:
            irq.acked = None


def prune(vgic: Vgic, cpu: VgicCpu) -> None:
    """Drop from the ap_list what no longer belongs there, and hand over what belongs to another
    vCPU."""
    enables, vcpu_id = vgic.enables, cpu.vcpu_id
    leaving = [irq for irq in cpu.ap_list if target_oracle(irq, enables) != vcpu_id]
    if not leaving:
        return
    for irq in leaving:
        del cpu.ap_list[irq]
        irq.vcpu = None
    for irq in leaving:
        vgic.queue(irq)


def offers_only(cpu: VgicCpu, intid: int) -> bool:
    """Whether all that is in flight on a vCPU is one pending interrupt, whose end needs no word
    from the hypervisor."""
    vif = cpu.vif
    if (
        vif is None
        or len(cpu.ap_list) != 1
        or len(cpu.resident) != 1
        or cpu.cleared
        or vif.hcr != HCR_EN
    ):
        return False
    return (
        cpu.resident[0].intid == intid and cpu.resident[0].hw and vif.lr[0] & LR_STATE == LR_PENDING
    )


def retracted(cpu: VgicCpu) -> bool:
    """Whether the line of a mapped interrupt fell while the interrupt is still pending in its list
    register, or waits for one. The PE has left the guest for it (`armvirt.hw.pe.Pe`); KVM finds it
    because it folds at every exit.
    """
    vif = cpu.vif
    if vif is None:
        return False
    waiting = [irq for irq in cpu.outside if _waits(irq)] if vif.waiting else []
    return any(_fell(irq, vif.lr[irq.lr]) for irq in cpu.mapped) or not all(map(_level, waiting))


def _fell(irq: VgicIrq, value: int) -> bool:
    return value & LR_STATE == LR_PENDING and not irq.pending_latch and not _level(irq)


def _level(irq: VgicIrq) -> bool:
    return irq.get_input_level is None or irq.get_input_level()
