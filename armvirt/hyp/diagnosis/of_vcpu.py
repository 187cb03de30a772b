"""Why a vCPU does not take an interrupt: `armvirt.hyp.diagnosis.trace`, with the state of the vCPU
and of its timers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Protocol

from armvirt.arch.named import VBAR_EL1
from armvirt.arch.timer import TIMER_PREFIXES
from armvirt.errors import KvmError
from armvirt.hyp.diagnosis import trace as diagnose
from armvirt.hyp.diagnosis.finding import CpuView, Finding, TimerView
from armvirt.hyp.diagnosis.trace import Comparison

if TYPE_CHECKING:
    from armvirt.hyp.vcpu.vcpu import Vcpu
    from armvirt.hyp.vgic.vgic import Vgic


class Vm(Protocol):
    """What the diagnosis uses of a VM."""

    vgic: Vgic | None

    @property
    def vcpus(self) -> Iterable[Vcpu]: ...

    def vcpu(self, vcpu_id: int) -> Vcpu:
        """The vCPU with an id; KvmError ENOENT if it was not created."""
        ...


def trace(vm: Vm, vcpu_id: int, intid: int) -> list[Finding]:
    """The finding of every check of an interrupt on its way to a vCPU. KvmError ENXIO without a
    GIC, EINVAL for an INTID that does not exist."""
    return diagnose.trace(_vgic(vm), vcpu_id, intid, view(vm.vcpu(vcpu_id), intid))


def compare(vm: Vm, vcpu_id: int, taken: int, other: int) -> Comparison:
    """Why a vCPU takes the interrupt ``taken`` and not ``other``. The errors are those of
    `trace`."""
    return diagnose.compare(_vgic(vm), vcpu_id, taken, other, view(vm.vcpu(vcpu_id), other))


def view(vcpu: Vcpu, intid: int) -> CpuView:
    """The state of a vCPU outside the vGIC, for the diagnosis of one interrupt."""
    context = vcpu.context
    return CpuView(_power(vcpu), context.pstate, context.system(VBAR_EL1), _timer(vcpu, intid))


def _power(vcpu: Vcpu) -> str:
    """The value of `CpuView.power`. It is "waking" for a runnable vCPU that is on no PE, if no
    other runnable vCPU uses the same PE."""
    if vcpu.pe is None and vcpu.runnable:
        rivals = (other for other in vcpu.host.vcpus if other is not vcpu and other.runnable)
        if not any(other.sched.home == vcpu.sched.home for other in rivals):
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
