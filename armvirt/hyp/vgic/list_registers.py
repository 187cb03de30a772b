"""List registers: what goes into them before an entry, what comes back (kvm/vgic/vgic-v3.c).

A GICv2 guest is served by the same ICH_LR<n>_EL2 as a GICv3 one: with ICC_SRE_EL1.SRE = 0 its CPUID
field is in vINTID[12:10] (IHI 0069 chapter 12, ICH_LR<n>_EL2). These functions know one interrupt
or one list at a time; `armvirt.hyp.vgic.flush` walks the lists.
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
    """The Priority and Group fields of a list register for an interrupt that becomes active, or
    may."""
    return irq.priority << LR_PRIORITY_SHIFT | (LR_GROUP1 if irq.group else 0)


def populate(irq: VgicIrq, may_pend: bool, come_back: bool = False) -> int:
    """Move an interrupt into a list register: its ICH_LR<n>_EL2 value (kvm vgic_v3_populate_lr).

    Level interrupts are never pending and active at once: hardware forbids it with HW = 1, and
    without it the EOI bit brings the guest back here when it deactivates, to look at the line
    again. The same goes for an SGI of a GICv2 that is active or has a second sender. ``may_pend``
    is False while the interrupt or the distributor is disabled, or it has been routed elsewhere:
    one that is active then stays so and nothing more, and the EOI bit serves to hand on what pends
    meanwhile. (KVM lets it pend again here.) ``come_back`` asks for the EOI bit whatever it is: a
    single list register, with others waiting outside, has no other way to be filled before the next
    end of interrupt.

    A mapped interrupt that is active and latched (ISPENDR) gets HW = 0 and the EOI bit: it is
    pending as soon as it is inactive (IHI 0069 4.1.2), and a list register with HW = 1 has no
    maintenance interrupt that would say so. (KVM keeps HW = 1, and the latch waits for the next
    exit.)

    Priority and group of an active interrupt are those of its acknowledge, whatever was written to
    IPRIORITYR or IGROUPR since. That is IMPLEMENTATION DEFINED (IHI 0069, GICD_IPRIORITYR<n>); the
    end of an interrupt whose list register has another priority than the one that is dropped would
    not deactivate it (in KVM it can get stuck so).
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
            irq.line_level = False  # sampled again when the list register is folded
    if irq.hw and not latched:
        return value | LR_HW | irq.hwintid << LR_PINTID_SHIFT
    return value | (LR_EOI if again else 0)


def _take_source(irq: VgicIrq) -> int:
    """The lowest sender of a GICv2 SGI leaves the set of those that wait; the latch stays set for
    the others."""
    first = irq.source & -irq.source
    irq.source &= ~first
    irq.pending_latch = irq.source != 0
    return first.bit_length() - 1


def fold(irq: VgicIrq, value: int) -> bool:
    """Take an interrupt back from a list register; True if the host interrupt behind it has to be
    deactivated.

    After kvm vgic_v3_fold_lr_state, but for the latch that ISPENDR sets on a level interrupt: it
    dies when the guest acknowledges (IHI 0048 figure 4-10), where KVM drops it at the end of
    interrupt, with one that was set meanwhile. The line of a mapped interrupt is sampled if the
    guest has not seen the interrupt; a line that is low leaves nothing that the guest would
    deactivate. A guest that has ended the interrupt has deactivated the host interrupt, which fires
    again by itself if the line is high, and that is a new arrival. (KVM samples the line here too,
    if it was reported high again, so that the order of two exits decides whether the interrupt is a
    new one.) An end of interrupt under HW = 0 has left the host interrupt active.
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
    """Whether a list register says that the guest has ended its interrupt (kvm
    lr_signals_eoi_mi)."""
    return value & (LR_STATE | LR_HW | LR_EOI) == LR_EOI


def group_enabled(irq: VgicIrq, vmcr: int) -> bool:
    return bool(vmcr & (VMCR_VENG1 if irq.group else VMCR_VENG0))


def by_urgency(irqs: Sequence[VgicIrq], vmcr: int) -> list[VgicIrq]:
    """Who gets a list register when there are too few: what the guest can take, by priority; then
    what is active.

    Interrupts of a disabled group come last; otherwise in order of arrival, as where all have room:
    which of two equals is taken first must not depend on how many there were at the last exit.
    """
    return sorted(irqs, key=lambda i: (not group_enabled(i, vmcr), i.active, i.priority))


class Overflow(NamedTuple):
    """What is left without a list register."""

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
    """ICH_HCR_EL2 for an entry: the maintenance interrupts that are needed (kvm
    vgic_v3_configure_hcr).

    Something pending outside: come back when no list register is pending. Something active outside:
    come back when the guest ends what is in no list register, and trap ICC_DIR_EL1, whose INTID is
    not counted but needed. Anything outside: come back when the list registers run empty, or when a
    group is switched on or off; ``watch_groups`` asks for that too, for it decides who gets 1-of-N
    interrupts. With a single list register, "nearly empty" would be always. ``watch_ends``: come
    back at such an end of interrupt though nothing active is outside, for interrupts that were made
    inactive by hand before they were ended. ``foreign_spis``: an SPI is in flight on another vCPU,
    and this one may deactivate it there if it uses EOImode 1, now or as soon as it says so.
    """
    hcr = arch.HCR_EN
    if left.any or watch_groups:
        hcr |= arch.HCR_VGRP0DIE if vmcr & VMCR_VENG0 else arch.HCR_VGRP0EIE
        hcr |= arch.HCR_VGRP1DIE if vmcr & VMCR_VENG1 else arch.HCR_VGRP1EIE
    if left.any:
        hcr |= arch.HCR_UIE if list_registers > 1 else 0
    hcr |= arch.HCR_NPIE if left.pending else 0
    hcr |= arch.HCR_LRENPIE if left.active or watch_ends else 0
    return hcr | (arch.HCR_TDIR if left.active or foreign_spis else 0)
