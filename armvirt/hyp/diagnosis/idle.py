"""Why does nothing wake this VM? One sentence per cause that can be named, for the diagnosis of a
dead end."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from armvirt.arch.timer import CTL_ENABLE, CTL_IMASK
from armvirt.hyp.diagnosis import of_vcpu as diagnosis
from armvirt.hyp.diagnosis.trace import first_held
from armvirt.hyp.host.standstill import FOREVER_NS

if TYPE_CHECKING:
    from armvirt.hyp.vcpu.protocols import Vm
    from armvirt.hyp.vcpu.vcpu import Vcpu

YEAR_NS = 365 * 24 * 3600 * 10**9

REGISTERS = {"vtimer": "CNTV_CTL_EL0", "ptimer": "CNTP_CTL_EL0"}
NAMES = {"vtimer": "virtual timer", "ptimer": "physical timer"}


def causes(vm: Vm) -> list[str]:
    """What each powered-on vCPU waits for in vain; empty where nothing was even programmed."""
    return [text for vcpu in vm.vcpus if vcpu.power.value != "off" for text in _of(vm, vcpu)]


def _of(vm: Vm, vcpu: Vcpu) -> Iterator[str]:
    who = "" if len(list(vm.vcpus)) == 1 else f"CPU {vcpu.id}: "
    for row in vcpu.timer.rows():
        name, ppi, ctl, fires = (
            str(row["timer"]),
            int(str(row["ppi"])),
            int(str(row["ctl"])),
            row["fires_in_ns"],
        )
        if not ctl & CTL_ENABLE:
            continue
        if ctl & CTL_IMASK:
            yield f"{who}the {NAMES[name]} is masked by {REGISTERS[name]}.IMASK"
        elif isinstance(fires, int) and fires >= FOREVER_NS:
            yield f"{who}the {NAMES[name]} fires in {fires // YEAR_NS:,} years, nothing else will"
        elif fires == 0 and vm.vgic is not None:
            finding = first_held(diagnosis.trace(vm, vcpu.id, ppi))
            if finding is not None:
                yield f"{who}the {NAMES[name]} has fired (INTID {ppi}), but {finding.text}"
