"""List register values: written from an interrupt before an entry (`populate`), read back into the
interrupt after an exit (`fold`); and ICH_HCR_EL2 (kvm/vgic/vgic-v3.c).

GICv2 and GICv3 guests use the same ICH_LR<n>_EL2; with ICC_SRE_EL1.SRE = 0, vINTID[12:10] is the
CPUID (IHI 0069 chapter 12, ICH_LR<n>_EL2). `armvirt.hyp.vgic.flush` calls these functions for each
interrupt of an ap_list.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

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


def priority_and_group(irq: VgicIrq) -> int:
    """The Priority and Group fields of a list register for an interrupt."""
    return irq.priority << LR_PRIORITY_SHIFT | (LR_GROUP1 if irq.group else 0)


def populate(irq: VgicIrq, may_pend: bool, come_back: bool = False) -> int:
    """Move an interrupt into a list register; returns ICH_LR<n>_EL2 (kvm vgic_v3_populate_lr).

    ``may_pend`` is False if the interrupt is disabled or routed to another vCPU: the list register
    of such an active interrupt is active and not pending, and its EOI bit raises a maintenance
    interrupt when the guest deactivates the interrupt. (KVM sets the pending bit too.)
    ``come_back`` sets the EOI bit of any interrupt without HW: with a single list register, no
    other maintenance interrupt reports that the list register is free.

    A level-sensitive interrupt is never pending and active at once. HW = 1 forbids this state; with
    HW = 0 the EOI bit raises a maintenance interrupt when the guest deactivates the interrupt, and
    EL2 reads the line again. The same applies to a GICv2 SGI that is active or has a second sender.

    A mapped interrupt that is active, and whose latch ISPENDR has set, gets HW = 0 and the EOI bit:
    the interrupt becomes pending when it becomes inactive (IHI 0069 4.1.2), and a list register
    with HW = 1 raises no maintenance interrupt at deactivation. (KVM keeps HW = 1, and sees the
    latch only at the next exit.)

    An active interrupt keeps the priority and group of its acknowledge until its deactivation,
    whatever the guest writes to IPRIORITYR or IGROUPR. That is IMPLEMENTATION DEFINED (IHI 0069,
    GICD_IPRIORITYR<n>). With another priority in the list register, the guest's end of interrupt
    would not deactivate the interrupt (in KVM the interrupt can stay active for this reason).
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
    """Remove the lowest sender of a GICv2 SGI, and return it; ``pending_latch`` stays set if there
    are other senders."""
    first = irq.source & -irq.source
    irq.source &= ~first
    irq.pending_latch = irq.source != 0
    return first.bit_length() - 1


def fold(irq: VgicIrq, value: int) -> bool:
    """Move the state of a list register back into its interrupt; True if the host interrupt has to
    be deactivated (kvm vgic_v3_fold_lr_state).

    The acknowledge clears the latch that ISPENDR set on a level-sensitive interrupt (IHI 0048
    figure 4-10). KVM clears the latch at the end of interrupt, and so loses an ISPENDR write that
    came in between.

    The line of a mapped interrupt is sampled if the guest has not acknowledged the interrupt. If
    the line is low, the guest will not deactivate the host interrupt, so EL2 does. If the guest has
    ended the interrupt, the host interrupt is inactive too; if the line is high, the host interrupt
    fires again, as a new arrival. (KVM samples the line here too if the line was reported high
    again, so the order of two exits decides whether the interrupt is a new arrival.) After an end
    of interrupt with HW = 0 the host interrupt is still active, so EL2 deactivates it.
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
    """Whether the guest has ended the interrupt of a list register with the EOI bit (kvm
    lr_signals_eoi_mi)."""
    return value & (LR_STATE | LR_HW | LR_EOI) == LR_EOI


def group_enabled(irq: VgicIrq, vmcr: int) -> bool:
    return bool(vmcr & (VMCR_VENG1 if irq.group else VMCR_VENG0))


def by_urgency(irqs: Sequence[VgicIrq], vmcr: int) -> list[VgicIrq]:
    """Order of list register allocation if there are too few: pending interrupts of enabled groups,
    by priority; active interrupts; interrupts of disabled groups.

    Interrupts of the same priority keep the order of the ap_list, so the result does not depend on
    which of them had a list register at the last exit.
    """
    return sorted(irqs, key=lambda i: (not group_enabled(i, vmcr), i.active, i.priority))


class Overflow(NamedTuple):
    """Whether pending interrupts, active interrupts, or any interrupts are without a list
    register."""

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
    """ICH_HCR_EL2 for an entry, with the maintenance interrupts to enable (kvm
    vgic_v3_configure_hcr).

    * Pending interrupts without a list register: NPIE (no list register is pending).
    * Active interrupts without a list register: LRENPIE (the guest ends an interrupt without a list
      register), and TDIR, because EOIcount does not say which INTID ICC_DIR_EL1 deactivates.
    * Any interrupt without a list register: UIE (at most one list register is in use). Not with a
      single list register, because UIE would always be pending.
    * Any interrupt without a list register, or ``watch_groups`` (1-of-N SPIs exist): VGrp0DIE or
      VGrp0EIE, and VGrp1DIE or VGrp1EIE (a group enable changes).
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
