"""Why no vCPU of a VM can wake up: one sentence per cause, for the diagnosis of a stuck guest."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from armvirt.arch.timer import CTL_ENABLE, CTL_IMASK
from armvirt.hyp.diagnosis import of_vcpu as diagnosis
from armvirt.hyp.diagnosis.trace import first_held
from armvirt.hyp.host.standstill import FOREVER_NS
from armvirt.hyp.vcpu.power import Power

if TYPE_CHECKING:
    from armvirt.hyp.diagnosis.of_vcpu import Vm
    from armvirt.hyp.vcpu.vcpu import Vcpu

YEAR_NS = 365 * 24 * 3600 * 10**9

REGISTERS = {"vtimer": "CNTV_CTL_EL0", "ptimer": "CNTP_CTL_EL0"}
NAMES = {"vtimer": "virtual timer", "ptimer": "physical timer"}


class IdleCause(NamedTuple):
    """A sentence about an event that will not wake a vCPU. ``intid`` is the interrupt that has
    fired and is blocked, None for another cause."""

    text: str
    intid: int | None = None


def causes(vm: Vm) -> list[IdleCause]:
    """Why the enabled timers of each powered-on vCPU do not wake it; empty if no timer is
    enabled."""
    on = (vcpu for vcpu in vm.vcpus if vcpu.power is not Power.OFF)
    return [cause for vcpu in on for cause in _of(vm, vcpu)]


def _of(vm: Vm, vcpu: Vcpu) -> Iterator[IdleCause]:
    who = "" if len(list(vm.vcpus)) == 1 else f"CPU {vcpu.id}: "
    for row in vcpu.timer.shown():
        name, fires = NAMES[row.timer], row.fires_in_ns
        if not row.ctl & CTL_ENABLE:
            continue
        if row.ctl & CTL_IMASK:
            yield IdleCause(f"{who}the {name} is masked by {REGISTERS[row.timer]}.IMASK")
        elif fires is not None and fires >= FOREVER_NS:
            years = fires // YEAR_NS
            yield IdleCause(f"{who}the {name} fires in {years:,} years, nothing else will")
        elif fires == 0 and vm.vgic is not None:
            finding = first_held(diagnosis.trace(vm, vcpu.id, row.ppi))
            if finding is not None:
                text = f"{who}the {name} has fired (INTID {row.ppi}), but {finding.text}"
                yield IdleCause(text, row.ppi)
