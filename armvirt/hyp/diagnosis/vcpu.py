"""Why a vCPU does not take an interrupt, and why no vCPU of a VM can wake up. This module passes
the state of the vCPU and of its timers to `armvirt.hyp.diagnosis.trace`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Protocol

from armvirt.arch.named import VBAR_EL1
from armvirt.arch.timer import CTL_ENABLE, CTL_IMASK, TIMER_PREFIXES
from armvirt.errors import KvmError
from armvirt.hyp.diagnosis import trace as diagnose
from armvirt.hyp.diagnosis.finding import YEAR, CpuView, Finding, TimerView
from armvirt.hyp.diagnosis.trace import Comparison, first_held
from armvirt.hyp.host.standstill import FOREVER_NS
from armvirt.hyp.vcpu.power import Power
from armvirt.records import NamedTuple

if TYPE_CHECKING:
    from armvirt.hyp.vcpu.vcpu import Vcpu
    from armvirt.hyp.vgic.vgic import Vgic

REGISTERS = {"vtimer": "CNTV_CTL_EL0", "ptimer": "CNTP_CTL_EL0"}
NAMES = {"vtimer": "virtual timer", "ptimer": "physical timer"}


class Vm(Protocol):
    """The attributes of a VM that the diagnosis uses."""

    vgic: Vgic | None

    @property
    def vcpus(self) -> Iterable[Vcpu]: ...

    def vcpu(self, vcpu_id: int) -> Vcpu:
        """The vCPU with the id ``vcpu_id``. KvmError ENOENT if the vCPU was not created."""
        ...


def trace(vm: Vm, vcpu_id: int, intid: int) -> list[Finding]:
    """Check an interrupt on its way to a vCPU, and return the `Finding` of each check. KvmError
    ENXIO without a GIC, EINVAL for an INTID that does not exist."""
    return diagnose.trace(_vgic(vm), vcpu_id, intid, view(vm.vcpu(vcpu_id), intid))


def compare(vm: Vm, vcpu_id: int, taken: int, other: int) -> Comparison:
    """Explain why a vCPU takes one interrupt and not another. ``taken`` is the INTID of the
    interrupt that the vCPU takes. ``other`` is the INTID of the interrupt that it does not take.
    The errors are those of `trace`."""
    return diagnose.compare(_vgic(vm), vcpu_id, taken, other, view(vm.vcpu(vcpu_id), other))


def view(vcpu: Vcpu, intid: int) -> CpuView:
    """The state of a vCPU outside the vGIC. The result also has the timer that drives one
    interrupt. ``intid`` is the INTID of this interrupt."""
    context = vcpu.context
    timer, vbar = _timer(vcpu, intid), context.system(VBAR_EL1)
    return CpuView(vcpu.power, context.pstate, vbar, timer, _is_waking(vcpu))


def _is_waking(vcpu: Vcpu) -> bool:
    """Whether a vCPU is runnable, is not loaded on a PE, and is the only runnable vCPU that queues
    at its PE (`CpuView.waking`)."""
    if vcpu.pe is not None or not vcpu.runnable:
        return False
    rivals = (other for other in vcpu.host.vcpus if other is not vcpu and other.runnable)
    return not any(other.sched.home == vcpu.sched.home for other in rivals)


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


# Why no vCPU wakes up ---------------------------------------------------------------------------


class IdleCause(NamedTuple):
    """A reason why a vCPU does not wake up, as a sentence in ``text``. If a timer has fired and its
    interrupt is blocked, ``intid`` is the INTID of this interrupt. Otherwise ``intid`` is None."""

    text: str
    intid: int | None = None


def idle_causes(vm: Vm) -> list[IdleCause]:
    """The reasons why the enabled timers of the powered-on vCPUs do not wake their vCPUs. A
    disabled timer gives no reason."""
    on = (vcpu for vcpu in vm.vcpus if vcpu.power is not Power.OFF)
    return [cause for vcpu in on for cause in _idle(vm, vcpu)]


def _idle(vm: Vm, vcpu: Vcpu) -> Iterator[IdleCause]:
    who = "" if len(list(vm.vcpus)) == 1 else f"CPU {vcpu.id}: "
    for row in vcpu.timer.shown():
        name, fires = NAMES[row.timer], row.fires_in_ns
        if not row.ctl & CTL_ENABLE:
            continue
        if row.ctl & CTL_IMASK:
            yield IdleCause(f"{who}the {name} is masked by {REGISTERS[row.timer]}.IMASK")
        elif fires is not None and fires >= FOREVER_NS:
            years = fires // YEAR
            yield IdleCause(f"{who}the {name} fires in {years:,} years, nothing else will")
        elif fires == 0 and vm.vgic is not None:
            finding = first_held(trace(vm, vcpu.id, row.ppi))
            if finding is not None:
                text = f"{who}the {name} has fired (INTID {row.ppi}), but {finding.text}"
                yield IdleCause(text, row.ppi)
