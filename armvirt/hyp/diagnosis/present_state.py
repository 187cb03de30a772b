"""An interrupt's state as it is at this moment, list registers looked at where they are. Nothing is
folded or changed.

While an interrupt is in a list register its fields are what they were when it was put there
(`VgicIrq`); a fold would bring them up to date, and change the run. These functions say what the
fold would find.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from armvirt.arch.gic import (
    HCR_EOICOUNT_SHIFT,
    IDLE_PRIORITY,
    LR_ACTIVE,
    LR_GROUP1,
    LR_PENDING,
    LR_PRIORITY_SHIFT,
    VMCR_BPR_MASK,
    VMCR_VBPR0_SHIFT,
    VMCR_VBPR1_SHIFT,
    VMCR_VCBPR,
    VMCR_VEOIM,
)
from armvirt.hyp.vgic import flush
from armvirt.hyp.vgic.cpu import VgicCpu
from armvirt.hyp.vgic.irq import VgicIrq

if TYPE_CHECKING:
    from armvirt.hyp.vgic.distributor import Distributor


def list_register(dist: Distributor, irq: VgicIrq) -> int:
    """ICH_LR<n>_EL2 that holds an interrupt, 0 if none does."""
    if irq.lr < 0 or irq.vcpu is None:
        return 0
    vif = dist.cpu(irq.vcpu).vif
    return 0 if vif is None else vif.lr[irq.lr]


def line(irq: VgicIrq) -> bool:
    """The input of a level interrupt. A mapped one is lowered while it is in flight, so its source
    is asked."""
    if irq.hw and irq.get_input_level is not None:
        return irq.get_input_level()
    return irq.line_level


def pending(dist: Distributor, irq: VgicIrq) -> bool:
    """Whether it is pending: in its list register, by its latch, or by its line."""
    offered = bool(list_register(dist, irq) & LR_PENDING)
    if not irq.level:
        return offered or irq.pending_latch
    # The latch that ISPENDR sets on a level interrupt died if the list register offered it and no
    # longer does.
    latch = irq.pending_latch and (offered or not (irq.lr >= 0 and irq.offered))
    return latch or line(irq)


def active(dist: Distributor, irq: VgicIrq) -> bool:
    """Whether it is active. One that is in no list register may have been ended already, which
    EOIcount says."""
    if irq.lr >= 0:
        return bool(list_register(dist, irq) & LR_ACTIVE)
    return irq.active and irq not in _ended_outside(dist, irq)


def _ended_outside(dist: Distributor, irq: VgicIrq) -> list[VgicIrq]:
    cpu = None if irq.vcpu is None else dist.cpu(irq.vcpu)
    if cpu is None or cpu.vif is None or cpu.vif.vmcr & VMCR_VEOIM or not cpu.outside:
        return []
    return flush.ended_outside(cpu, cpu.vif, cpu.vif.hcr >> HCR_EOICOUNT_SHIFT)


def preemption_bits(cpu: VgicCpu) -> int:
    """Of the interface that a vCPU is on; one that is on none has what the next has."""
    return cpu.prebits if cpu.vif is None else cpu.vif.prebits


def binary_point(cpu: VgicCpu, group: int) -> int:
    """ICC_BPR<group>_EL1 as it acts: raised to its minimum, and with CBPR that of group 0 (IHI 0069
    4.8.5)."""
    least, vmcr = 7 - preemption_bits(cpu), cpu.vmcr
    bpr0 = max(vmcr >> VMCR_VBPR0_SHIFT & VMCR_BPR_MASK, least)
    if not group:
        return bpr0
    bpr1 = max(vmcr >> VMCR_VBPR1_SHIFT & VMCR_BPR_MASK, least + 1)
    return min(bpr0 + 1, 8) if vmcr & VMCR_VCBPR else bpr1


def group_priority(cpu: VgicCpu, group: int, priority: int) -> int:
    """The part of a priority that decides preemption: group 0 drops BPR0 + 1 low bits, group 1
    drops BPR1."""
    if cpu.vif is not None:
        return cpu.vif.preemption_level(priority, group) << 8 - cpu.vif.prebits
    dropped = binary_point(cpu, group) + (0 if group else 1)
    return priority & 0xFF << dropped & 0xFF


def running_priority(cpu: VgicCpu) -> int:
    """ICC_RPR_EL1 of a vCPU, loaded or not; 0xFF if nothing runs."""
    if cpu.vif is not None:
        return cpu.vif.running_priority()
    for word, (group0, group1) in enumerate(zip(cpu.ap0r, cpu.ap1r, strict=True)):
        bits = group0 | group1
        if bits:
            return 32 * word + (bits & -bits).bit_length() - 1 << 8 - cpu.prebits
    return IDLE_PRIORITY


def running(dist: Distributor, cpu: VgicCpu) -> VgicIrq | None:
    """The interrupt that a vCPU handles at its running priority. None if nothing runs, or it cannot
    be told: an LPI has no active state, and software may have written the active-priority
    registers."""
    level = running_priority(cpu)
    if level == IDLE_PRIORITY:
        return None
    found = (i for i in cpu.ap_list if active(dist, i) and _dropped_by(cpu, i) == level)
    return next(found, None)


def _dropped_by(cpu: VgicCpu, irq: VgicIrq) -> int:
    """The group priority that the end of an active interrupt drops."""
    return group_priority(
        cpu, int(bool(irq.running & LR_GROUP1)), irq.running >> LR_PRIORITY_SHIFT & 0xFF
    )


def highest_pending(dist: Distributor, cpu: VgicCpu) -> VgicIrq | None:
    """What ICC_HPPIR<n>_EL1 would name on a loaded vCPU: pending in a list register, its group
    enabled, the lowest priority value, then the lowest list register."""
    if cpu.vif is None:
        return None
    offered = [
        irq for irq in cpu.resident
        if list_register(dist, irq) & (LR_PENDING | LR_ACTIVE) == LR_PENDING and cpu.vmcr >> irq.group & 1
    ]  # fmt: skip
    return min(offered, key=lambda irq: (irq.priority, irq.lr), default=None)
