"""The present state of an interrupt. The functions read the list registers, and change no state.

While an interrupt is in a list register, the fields of `VgicIrq` have the values of the last flush.
A fold (the copy of the list registers back to `VgicIrq`) would update the fields, but it would also
change how the run continues. Therefore these functions compute the state that a fold would store.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from armvirt.arch import gic as arch
from armvirt.arch.gic import (
    ICH_HCR_EOICOUNT_SHIFT,
    IDLE_PRIORITY,
    LR_ACTIVE,
    LR_GROUP1,
    LR_PENDING,
    LR_PRIORITY_MASK,
    LR_PRIORITY_SHIFT,
    VMCR_VCBPR,
    VMCR_VEOIM,
)
from armvirt.hyp.vgic import flush
from armvirt.hyp.vgic.cpu import VgicCpu
from armvirt.hyp.vgic.irq import VgicIrq

if TYPE_CHECKING:
    from armvirt.hyp.vgic.distributor import Distributor


def list_register(dist: Distributor, irq: VgicIrq) -> int:
    """The value of the ICH_LR<n>_EL2 that has an interrupt; 0 if no list register has the
    interrupt."""
    if irq.lr < 0 or irq.vcpu is None:
        return 0
    vif = dist.cpu(irq.vcpu).vif
    return 0 if vif is None else vif.lr[irq.lr]


def line(irq: VgicIrq) -> bool:
    """The present level of the input of a level-sensitive interrupt. If the interrupt is mapped to
    a host interrupt, the level comes from the function ``get_input_level``. In this case,
    ``line_level`` is not up to date while the interrupt is in a list register."""
    if irq.hw and irq.get_input_level is not None:
        return irq.get_input_level()
    return irq.line_level


def pending(dist: Distributor, irq: VgicIrq) -> bool:
    """Whether an interrupt is pending. It can be pending in its list register, by its latch, or by
    its line."""
    offered = bool(list_register(dist, irq) & LR_PENDING)
    if not irq.level:
        return offered or irq.pending_latch
    # The acknowledge clears the latch that ISPENDR sets on a level-sensitive interrupt. The guest
    # has acknowledged the interrupt if its list register was pending at the flush and is not now.
    latch = irq.pending_latch and (offered or not (irq.lr >= 0 and irq.offered))
    return latch or line(irq)


def active(dist: Distributor, irq: VgicIrq) -> bool:
    """Whether an interrupt is active. If the interrupt is in no list register, the guest may have
    ended it since the last flush. ICH_HCR_EL2.EOIcount is the number of interrupts that the guest
    has ended outside the list registers."""
    if irq.lr >= 0:
        return bool(list_register(dist, irq) & LR_ACTIVE)
    return irq.active and irq not in _ended_outside(dist, irq)


def _ended_outside(dist: Distributor, irq: VgicIrq) -> list[VgicIrq]:
    cpu = None if irq.vcpu is None else dist.cpu(irq.vcpu)
    if cpu is None or cpu.vif is None or cpu.vif.vmcr & VMCR_VEOIM or not cpu.outside:
        return []
    return flush.ended_outside(cpu, cpu.vif, cpu.vif.hcr >> ICH_HCR_EOICOUNT_SHIFT)


def preemption_bits(cpu: VgicCpu) -> int:
    """The number of preemption bits of the virtual CPU interface on which the vCPU is loaded. If
    the vCPU is not loaded, the result is the number that all virtual CPU interfaces of the host
    have."""
    return cpu.prebits if cpu.vif is None else cpu.vif.prebits


def binary_point(cpu: VgicCpu, group: int) -> int:
    """The effective binary point of a group. With CBPR = 1, group 1 uses BPR0 + 1."""
    common = group and cpu.vmcr & VMCR_VCBPR
    point = arch.binary_point(cpu.vmcr, preemption_bits(cpu), 0 if common else group)
    return point + 1 if common else point


def group_priority(cpu: VgicCpu, group: int, priority: int) -> int:
    """The bits of ``priority`` that the CPU interface compares for preemption (IHI 0069 4.8.5)."""
    if cpu.vif is not None:
        return priority & cpu.vif.group_masks[group]
    return priority & arch.GROUP_MASKS[group][binary_point(cpu, group)]


def running_priority(cpu: VgicCpu) -> int:
    """ICC_RPR_EL1 of a vCPU, loaded or not; 0xFF (idle priority) if no interrupt is active."""
    if cpu.vif is not None:
        return cpu.vif.running_priority()
    return arch.running_priority(cpu.ap0r, cpu.ap1r, cpu.prebits)


def running(dist: Distributor, cpu: VgicCpu) -> VgicIrq | None:
    """The active interrupt of a vCPU whose priority is the running priority. The result is None at
    the idle priority. The result is also None if the interrupt is an LPI, which has no active
    state, or if software has written the active-priority registers."""
    level = running_priority(cpu)
    if level == IDLE_PRIORITY:
        return None
    found = (i for i in cpu.ap_list if active(dist, i) and _dropped_by(cpu, i) == level)
    return next(found, None)


def _dropped_by(cpu: VgicCpu, irq: VgicIrq) -> int:
    """The group priority that an active interrupt had at its acknowledge. The priority drop of the
    interrupt clears the active-priority bit of this group priority."""
    return group_priority(
        cpu, int(bool(irq.running & LR_GROUP1)), irq.running >> LR_PRIORITY_SHIFT & LR_PRIORITY_MASK
    )


def highest_pending(dist: Distributor, cpu: VgicCpu) -> VgicIrq | None:
    """The interrupt in ICC_HPPIR<n>_EL1 of a loaded vCPU; None if there is no such interrupt. The
    candidates are the interrupts that are pending in a list register and whose group is enabled.
    The interrupt with the lowest priority value is first. At equal priority, the lowest list
    register is first."""
    if cpu.vif is None:
        return None
    offered = [
        irq for irq in cpu.resident
        if list_register(dist, irq) & (LR_PENDING | LR_ACTIVE) == LR_PENDING and cpu.vmcr >> irq.group & 1
    ]  # fmt: skip
    return min(offered, key=lambda irq: (irq.priority, irq.lr), default=None)
