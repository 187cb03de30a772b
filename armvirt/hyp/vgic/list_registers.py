"""The values of list registers and of ICH_HCR_EL2 (kvm/vgic/vgic-v3.c). Before a guest entry,
`populate` computes the value of a list register from an interrupt. After an exit, `fold` updates
the interrupt from the list register.

GICv2 and GICv3 guests use the same ICH_LR<n>_EL2. With ICC_SRE_EL1.SRE = 0, vINTID[12:10] is the
CPUID (IHI 0069 chapter 12, ICH_LR<n>_EL2). `armvirt.hyp.vgic.flush` calls these functions for each
interrupt of an ap_list.
"""

from __future__ import annotations

from collections.abc import Sequence

from armvirt.arch import gic as arch
from armvirt.arch.gic import (
    LR_ACTIVE,
    LR_CPUID_MASK,
    LR_CPUID_SHIFT,
    LR_EOI,
    LR_GROUP1,
    LR_HW,
    LR_PENDING,
    LR_PINTID_SHIFT,
    LR_PRIORITY_SHIFT,
    LR_STATE,
    VMCR_VENG0,
    VMCR_VENG1,
)
from armvirt.hyp.vgic.irq import VgicIrq
from armvirt.records import NamedTuple


def priority_and_group(irq: VgicIrq) -> int:
    """The present priority and group of an interrupt, as the Priority and Group fields of a list
    register."""
    return irq.priority << LR_PRIORITY_SHIFT | (LR_GROUP1 if irq.group else 0)


def populate(irq: VgicIrq, may_pend: bool, come_back: bool = False) -> int:
    """Move an interrupt into a list register, and return the value of ICH_LR<n>_EL2 (kvm
    vgic_v3_populate_lr).

    ``may_pend`` is False if the interrupt or its group is disabled, or if the interrupt is routed
    to another vCPU. Such an interrupt is active. Its list register gets the active state, but not
    the pending state. (KVM sets the pending state too.) The EOI bit raises a maintenance interrupt
    when the guest deactivates the interrupt.

    ``come_back`` is True if the PE has a single list register and other interrupts also need a list
    register. Then every list register with HW = 0 gets the EOI bit, because no other maintenance
    interrupt reports that the list register is free.

    A list register never has a level-sensitive interrupt as pending and active at once. With HW = 1
    the architecture forbids this state. With HW = 0, the EOI bit raises a maintenance interrupt
    when the guest deactivates the interrupt, and then EL2 reads the line. The EOI bit is also set
    for a GICv2 SGI if the SGI of another sender is pending, because a list register has only one
    sender.

    An active interrupt that is mapped to a host interrupt can also have ``pending_latch`` set, by a
    write of ISPENDR. Then its list register gets HW = 0 and the EOI bit. The interrupt has to
    become pending when it becomes inactive (IHI 0069 4.1.2), but with HW = 1 the deactivation
    raises no maintenance interrupt. (KVM keeps HW = 1, so KVM finds the latch only at the next
    exit.)

    An active interrupt keeps the priority and the group of its acknowledge until its deactivation,
    even if the guest writes IPRIORITYR or IGROUPR (IMPLEMENTATION DEFINED: IHI 0069,
    GICD_IPRIORITYR<n>). With another priority in the list register, the guest's end of interrupt
    would not deactivate the interrupt. (In KVM such an interrupt can stay active.)
    """
    now = priority_and_group(irq)
    latched = irq.hw and irq.active and irq.pending_latch
    again = irq.level or not may_pend or come_back or latched
    if irq.active:
        value = irq.intid | irq.running | LR_ACTIVE | irq.active_source << LR_CPUID_SHIFT
        changed = irq.running != now
        may_pend = may_pend and not (irq.hw or irq.level or irq.source or changed)
        again = again or bool(irq.source) or changed
    else:
        irq.running = now
        value = irq.intid | now
    irq.offered = may_pend and (irq.pending_latch or (irq.level and irq.line_level))
    if irq.offered:
        value |= LR_PENDING
        if not irq.level:
            irq.pending_latch = False
            if irq.source:
                value |= _take_source(irq) << LR_CPUID_SHIFT
                again = again or irq.pending_latch
        elif irq.hw:
            irq.line_level = False  # the fold samples the line again
    if irq.hw and not latched:
        return value | LR_HW | irq.hwintid << LR_PINTID_SHIFT
    return value | (LR_EOI if again else 0)


def _take_source(irq: VgicIrq) -> int:
    """Remove the sender with the lowest CPUID from the pending senders of a GICv2 SGI, and return
    this CPUID. ``pending_latch`` stays set if other senders are pending."""
    first = irq.source & -irq.source
    irq.source &= ~first
    irq.pending_latch = irq.source != 0
    return first.bit_length() - 1


def fold(irq: VgicIrq, value: int) -> bool:
    """Update an interrupt from its list register (kvm vgic_v3_fold_lr_state). Return True if the
    caller has to deactivate the host interrupt.

    If a write of ISPENDR set the latch of a level-sensitive interrupt, the acknowledge clears the
    latch (IHI 0048 figure 4-10). KVM clears the latch at the end of interrupt, so KVM loses a write
    of ISPENDR between the acknowledge and the end of interrupt.

    If a level-sensitive interrupt is mapped to a host interrupt and is still pending, the line is
    read. If the line is low, the guest will not deactivate the host interrupt, so the caller has to
    deactivate it.

    The guest may have ended an interrupt that is mapped to a host interrupt. With HW = 1 the end of
    interrupt has also deactivated the host interrupt. With HW = 0 the caller has to deactivate the
    host interrupt. In both cases, if the line is high, the host interrupt then fires again, and the
    interrupt is added at the end of the ap_list. (In KVM the interrupt keeps its old position in
    the ap_list if the host interrupt has fired again before the exit.)
    """
    was_active = irq.active
    irq.active = active = bool(value & LR_ACTIVE)
    pending = bool(value & LR_PENDING)
    taken, irq.offered = irq.offered and not pending, False
    if taken and active:
        irq.acked = irq.vcpu
    elif was_active and not active:
        irq.acked = None
    if not irq.level:
        irq.pending_latch = irq.pending_latch or pending
        if irq.carries_cpuid:
            sender = value >> LR_CPUID_SHIFT & LR_CPUID_MASK
            irq.source |= 1 << sender if pending else 0
            irq.active_source = sender if active else 0
        return irq.hw and was_active and not active and not value & LR_HW
    if taken:
        irq.pending_latch = False
    if irq.hw and pending:
        return not irq.sample_line()
    if irq.hw and not active:
        irq.line_level = False
        return not value & LR_HW
    return False


def signals_eoi(value: int) -> bool:
    """Whether the value of a list register shows that the guest has ended the interrupt (kvm
    lr_signals_eoi_mi): the EOI bit is 1, HW is 0, and the state is inactive."""
    return value & (LR_STATE | LR_HW | LR_EOI) == LR_EOI


def group_enabled(irq: VgicIrq, vmcr: int) -> bool:
    return bool(vmcr & (VMCR_VENG1 if irq.group else VMCR_VENG0))


def by_urgency(irqs: Sequence[VgicIrq], vmcr: int) -> list[VgicIrq]:
    """The interrupts in the order in which they get list registers. First come the pending
    interrupts of enabled groups, by priority. Then come the active interrupts of enabled groups, by
    priority. The interrupts of disabled groups come last.

    Interrupts of the same priority keep the order of the ap_list. Therefore the result does not
    depend on which interrupts had a list register at the last exit.
    """
    return sorted(irqs, key=lambda i: (not group_enabled(i, vmcr), i.active, i.priority))


class Overflow(NamedTuple):
    """Properties of the interrupts for which a flush has no list register. ``pending`` is True if
    there is a pending interrupt of an enabled group. ``active`` is True if there is an active
    interrupt. ``any`` is True if there is at least one interrupt."""

    pending: bool
    active: bool
    any: bool


def overflow(outside: Sequence[VgicIrq], vmcr: int) -> Overflow:
    return Overflow(
        any(not irq.active and group_enabled(irq, vmcr) for irq in outside),
        any(irq.active for irq in outside),
        bool(outside),
    )


def configure_hcr(
    left: Overflow, vmcr: int, list_registers: int, foreign_spis: bool, watch_groups: bool = False,
    watch_ends: bool = False,
) -> int:  # fmt: skip
    """ICH_HCR_EL2 for a guest entry, with the enables of maintenance interrupts (kvm
    vgic_v3_configure_hcr). The list below has the bits that each argument sets. ``left`` describes
    the interrupts that have no list register.

    * ``left.pending``: NPIE, which reports that no list register is pending.
    * ``left.active``: LRENPIE, which reports that the guest ended an interrupt without a list
      register. Also TDIR, because EOIcount does not tell which INTID ICC_DIR_EL1 deactivates.
    * ``left.any``: UIE, which reports that at most one list register is in use. With a single list
      register UIE stays 0, because this condition would always be true.
    * ``left.any`` or ``watch_groups`` (there are 1-of-N SPIs): VGrp0DIE or VGrp0EIE, and VGrp1DIE
      or VGrp1EIE, which report that the guest changed a group enable.
    * ``watch_ends`` (`VgicCpu.cleared` is not empty): LRENPIE.
    * ``foreign_spis`` (another vCPU has an SPI that this vCPU may deactivate with EOImode 1): TDIR.
    """
    hcr = arch.ICH_HCR_EN
    if left.any or watch_groups:
        hcr |= arch.ICH_HCR_VGRP0DIE if vmcr & VMCR_VENG0 else arch.ICH_HCR_VGRP0EIE
        hcr |= arch.ICH_HCR_VGRP1DIE if vmcr & VMCR_VENG1 else arch.ICH_HCR_VGRP1EIE
    if left.any:
        hcr |= arch.ICH_HCR_UIE if list_registers > 1 else 0
    hcr |= arch.ICH_HCR_NPIE if left.pending else 0
    hcr |= arch.ICH_HCR_LRENPIE if left.active or watch_ends else 0
    return hcr | (arch.ICH_HCR_TDIR if left.active or foreign_spis else 0)
