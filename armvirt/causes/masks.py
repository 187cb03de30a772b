"""A priority that the mask does not let through: which of the two was meant?"""

from __future__ import annotations

from armvirt.arch.gic import FIRST_LPI
from armvirt.causes.evidence import Cause, Evidence
from armvirt.hyp.vgic import naming

OPEN = 0xF0  # a mask of at least this is meant to be open


def masked(evidence: Evidence) -> Cause | None:
    """Names both writers. (A mask that was never written is the plain case, and the station says all of it.)"""
    held, irq = evidence.holds("mask"), evidence.irq
    if held is None or irq is None or held.register is None or evidence.written(held).never:
        return None
    mask = held.value or 0
    byte = naming.priority_byte(evidence.vgic, evidence.vgic.cpu(evidence.vcpu), irq.intid)
    name = "its configuration byte" if irq.intid >= FIRST_LPI else f"{byte.name} {byte.field}"
    by = "" if irq.intid >= FIRST_LPI else f" ({evidence.wrote(byte)})"
    ours = f"priority {irq.priority:#04x} in {name}{by}"
    theirs = f"{held.register.name} {mask:#04x} ({evidence.wrote(held.register)})"
    where = f"is not taken by vCPU {evidence.vcpu}"
    if mask >= OPEN:
        return Cause("priority", f"{where}: {ours} is too low, it is not below {theirs}", held.remedy)
    return Cause("mask", f"{where}: {theirs} masks {ours}", held.remedy)

