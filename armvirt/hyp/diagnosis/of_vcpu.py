"""Why did no interrupt come to a vCPU? `armvirt.hyp.diagnosis.trace`, with what the vCPU and its
timers know."""

from __future__ import annotations

from typing import TYPE_CHECKING

from armvirt.arch.el1 import VBAR_EL1
from armvirt.arch.timer import TIMER_PREFIXES
from armvirt.errors import KvmError
from armvirt.hyp.diagnosis import trace as diagnose
from armvirt.hyp.diagnosis.finding import CpuView, Finding, TimerView
from armvirt.hyp.diagnosis.trace import Comparison

if TYPE_CHECKING:
    from armvirt.hyp.vcpu.protocols import Vm
    from armvirt.hyp.vcpu.vcpu import Vcpu
    from armvirt.hyp.vgic.vgic import Vgic


def trace(vm: Vm, vcpu_id: int, intid: int) -> list[Finding]:
    """Every station of an interrupt on its way to a vCPU. KvmError ENXIO without a GIC, EINVAL for
    an INTID that does not exist."""
    return diagnose.trace(_vgic(vm), vcpu_id, intid, view(vm.vcpu(vcpu_id), intid))


def compare(vm: Vm, vcpu_id: int, taken: int, other: int) -> Comparison:
    """Why a vCPU takes one interrupt and not the other; errors as `trace`."""
    return diagnose.compare(_vgic(vm), vcpu_id, taken, other, view(vm.vcpu(vcpu_id), other))


def view(vcpu: Vcpu, intid: int) -> CpuView:
    """A vCPU as the diagnosis of one interrupt needs it."""
    context = vcpu.context
    return CpuView(_power(vcpu), context.pstate, context.system(VBAR_EL1), _timer(vcpu, intid))


def _power(vcpu: Vcpu) -> str:
    """As `CpuView.power` has it. A vCPU that can run and is on no PE, with nobody else who wants
    that PE, has been woken at this very moment."""
    if vcpu.pe is None and vcpu.runnable:
        rivals = (other for other in vcpu.host.vcpus if other is not vcpu and other.runnable)
        if not any(other.home == vcpu.home for other in rivals):
            return "waking"
    return str(vcpu.power.value)


def _vgic(vm: Vm) -> Vgic:
    if vm.vgic is None:
        raise KvmError("ENXIO", "this VM has no interrupt controller")
    return vm.vgic


def _timer(vcpu: Vcpu, intid: int) -> TimerView | None:
    for row in vcpu.timer.shown():
        if row.ppi == intid:
            prefix = TIMER_PREFIXES[row.timer]
            return TimerView(prefix, row.ctl, row.cval, row.now, row.fires_in_ns)
    return None
