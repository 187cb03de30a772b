"""Why did no interrupt arrive? The stations of an interrupt, from its input to the PE, and the first one that holds it.

Nothing here changes anything: list registers are looked at where they are, not folded.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from armvirt.arch import gic as arch
from armvirt.arch.gic import LR_ACTIVE, LR_PENDING
from armvirt.hw.ich import VirtualCpuInterface
from armvirt.hyp.vgic.core import Vgic
from armvirt.hyp.vgic.cpu import VgicCpu
from armvirt.hyp.vgic.irq import VgicIrq


class Finding(NamedTuple):
    """One station. ``passed``: the interrupt gets past it. ``text`` says what is so, with the register to look at."""

    station: str
    passed: bool
    text: str


class _Case(NamedTuple):
    vgic: Vgic
    irq: VgicIrq
    cpu: VgicCpu
    lr: int  # ICH_LR<n>_EL2, 0 if it is in none

    @property
    def vif(self) -> VirtualCpuInterface | None:
        return self.cpu.vif

    @property
    def pending(self) -> bool:
        return bool(self.lr & LR_PENDING) or self.irq.pending

    @property
    def active(self) -> bool:
        return bool(self.lr & LR_ACTIVE) if self.irq.lr >= 0 else self.irq.active


def _input(case: _Case) -> Finding:
    kind = "level, line " + ("high" if case.irq.line_level else "low") if case.irq.level else "edge"
    if case.active and not case.pending:
        return Finding("input", False, f"it is active and not pending again ({kind}): the guest has not ended it")
    state = "pending" if case.pending else "not pending: its source never fired, or it was served"
    return Finding("input", case.pending, f"{state} ({kind})")


def _enabled(case: _Case) -> Finding:
    register = "GICR_ISENABLER0" if arch.is_private(case.irq.intid) else f"GICD_ISENABLER{case.irq.intid // 32}"
    on = case.irq.enabled
    return Finding("enable", on, f"{register} bit {case.irq.intid % 32} is {int(on)}")


def _distributor(case: _Case) -> Finding:
    group = case.irq.group
    on = bool(case.vgic.enables >> group & 1)
    return Finding("distributor", on, f"GICD_CTLR.EnableGrp{group} is {int(on)}")


def _route(case: _Case) -> Finding:
    target = case.irq.target
    if target is None:
        return Finding("route", False, f"GICD_IROUTER{case.irq.intid} names affinity {case.irq.mpidr:#x}: no such vCPU")
    if target != case.cpu.vcpu_id:
        return Finding("route", False, f"it is routed to vCPU {target}")
    return Finding("route", True, f"routed to vCPU {target}")


def _not_active(case: _Case) -> Finding:
    text = "already active: it waits for the guest's end of interrupt" if case.active else "not active"
    return Finding("active", not case.active, text)


def _group(case: _Case) -> Finding:
    group = case.irq.group
    on = bool(case.cpu.vmcr >> group & 1)
    return Finding("group", on, f"ICC_IGRPEN{group}_EL1.Enable is {int(on)}")


def _mask(case: _Case) -> Finding:
    mask, priority = case.cpu.priority_mask, case.irq.priority
    relation = "is below" if priority < mask else "is not below"
    return Finding("mask", priority < mask, f"priority {priority:#04x} {relation} ICC_PMR_EL1 {mask:#04x}")


def _running(case: _Case) -> Finding:
    running = case.vif.running_priority() if case.vif is not None else arch.IDLE_PRIORITY
    ahead = case.irq.priority < running
    text = "nothing is running" if running == arch.IDLE_PRIORITY else f"running priority {running:#04x} (ICC_RPR_EL1)"
    return Finding("running", ahead, text)


def _list_register(case: _Case) -> Finding:
    if case.vif is None:
        return Finding("list register", False, "its vCPU is on no physical CPU")
    if not case.lr & LR_PENDING:
        return Finding("list register", False, "pending in no list register yet: it goes in before the next entry")
    return Finding("list register", True, f"LR{case.irq.lr}: {arch.ListRegister.decode(case.lr)}")


def _signal(case: _Case) -> Finding:
    line = "vFIQ" if case.irq.group == 0 else "vIRQ"
    high = case.vif is not None and (case.vif.vfiq if case.irq.group == 0 else case.vif.virq)
    return Finding("signal", high, f"{line} is {'high: see PSTATE.I and .F, and VBAR_EL1' if high else 'low'}")


_STATIONS: tuple[Callable[[_Case], Finding], ...] = (
    _input, _enabled, _distributor, _route, _not_active, _group, _mask, _running, _list_register, _signal,
)  # fmt: skip


def trace(vgic: Vgic, vcpu_id: int, intid: int) -> list[Finding]:
    """Every station of an interrupt on its way to a vCPU. KvmError EINVAL for an INTID that does not exist."""
    irq, cpu = vgic.irq(vcpu_id, intid), vgic.cpu(vcpu_id)
    holder = vgic.cpu(irq.vcpu) if irq.vcpu is not None else cpu
    lr = holder.vif.lr[irq.lr] if irq.lr >= 0 and holder.vif is not None else 0
    case = _Case(vgic, irq, cpu, lr)
    return [station(case) for station in _STATIONS]


def blocker(vgic: Vgic, vcpu_id: int, intid: int) -> Finding | None:
    """The first station that holds an interrupt back; None if it is signalled to the PE."""
    return next((finding for finding in trace(vgic, vcpu_id, intid) if not finding.passed), None)
