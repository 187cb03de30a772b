"""Why does nothing wake this VM? One sentence per cause that can be named, for the diagnosis of a dead end."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from armvirt.arch.timer import CTL_ENABLE, CTL_IMASK
from armvirt.hyp import diagnosis
from armvirt.hyp.vgic.diagnose import first_held

if TYPE_CHECKING:
    from armvirt.hyp.kvm import Vm
    from armvirt.hyp.vcpu import Vcpu

REGISTERS = {"vtimer": "CNTV_CTL_EL0", "ptimer": "CNTP_CTL_EL0"}
NAMES = {"vtimer": "virtual timer", "ptimer": "physical timer"}


def causes(vm: Vm) -> list[str]:
    """What each powered-on vCPU waits for in vain; empty where nothing was even programmed."""
    return [text for vcpu in vm.vcpus if vcpu.power.value != "off" for text in _of(vm, vcpu)]


def _of(vm: Vm, vcpu: Vcpu) -> Iterator[str]:
    who = "" if len(list(vm.vcpus)) == 1 else f"CPU {vcpu.id}: "
    for row in vcpu.timer.rows():
        name, ppi, ctl = str(row["timer"]), int(str(row["ppi"])), int(str(row["ctl"]))
        if not ctl & CTL_ENABLE:
            continue
        if ctl & CTL_IMASK:
            yield f"{who}the {NAMES[name]} is masked by {REGISTERS[name]}.IMASK"
        elif row["fires_in_ns"] == 0 and vm.vgic is not None:
            finding = first_held(diagnosis.trace(vm, vcpu.id, ppi))
            if finding is not None:
                yield f"{who}the {NAMES[name]} has fired (INTID {ppi}), but {finding.text}"
