"""Rules for SGIs that a vCPU does not receive. The SGI was never sent, was sent to no CPU or to
another CPU, or the guest wrote a register that does not generate SGIs of this group."""

from __future__ import annotations

from armvirt.arch.gic import ICC_REGISTERS, MPIDR_AFF0_TO_2, SgiRequest, SgirRequest, is_sgi
from armvirt.hyp.vgic.sgi import is_target
from armvirt.trace.history import Send, Times
from armvirt.views.causes.evidence import Cause, Evidence, times


def not_sent(evidence: Evidence) -> Cause | None:
    """Detect an SGI that is not pending, because no CPU has sent it to this vCPU. The cause names
    the CPU that last sent this SGI, and the vCPUs that received it."""
    if not is_sgi(evidence.intid) or evidence.pending or evidence.active:
        return None
    send = evidence.history.last_send(evidence.intid)
    if evidence.past.taken.count:
        return None  # the SGI has been taken before
    if send is None:
        if evidence.past.raised.count or evidence.recorder.blind:
            return None
        by = "GICD_SGIR" if evidence.dist.model == 2 else "ICC_SGI1R_EL1"
        text = f"was never sent: no CPU wrote {by} with this INTID"
        remedy = f"write {by} with INTID {evidence.intid} and a target list that names vCPU {evidence.vcpu}"
        return Cause("sgi-never-sent", text, remedy)
    if evidence.vcpu in send.targets:
        return None
    return _missed(evidence, send)


def _missed(evidence: Evidence, send: Send) -> Cause:
    sent = evidence.history.sent.get(evidence.intid, Times()).count
    who = receivers(send)
    wrote = f"{send.register} = {send.value:#x}"
    why, remedy = _why(evidence, send)
    name = "sgi-to-nobody" if not send.targets else "sgi-to-another"
    again = f"; sent {times(sent)} in all" if sent > 1 else ""
    text = (
        f"was sent to {who}, not to vCPU {evidence.vcpu}, by CPU {send.stamp.vcpu} at {evidence.when(send.stamp)} "
        f"({wrote}{again}): {why}"
    )
    return Cause(name, text, remedy)


def receivers(send: Send) -> str:
    """The vCPUs that received an SGI, as text: ``vCPU 1 and vCPU 2``. The text is ``nobody`` if no
    vCPU received the SGI."""
    return " and ".join(f"vCPU {target}" for target in send.targets) or "nobody"


def _why(evidence: Evidence, send: Send) -> tuple[str, str]:
    cpu = evidence.dist.cpu(evidence.vcpu)
    if send.register == "GICD_SGIR":
        old = SgirRequest.decode(send.value)
        listed = f"target list {old.targets:#04x}, filter {old.target_filter}"
        return listed, f"set bit {16 + evidence.vcpu} of what is written to GICD_SGIR"
    request = SgiRequest.decode(send.value)
    if is_target(request, evidence.dist.cpu(send.stamp.vcpu), cpu):
        group = cpu.private[evidence.intid].group
        assert send.register in ICC_REGISTERS
        return (
            f"{send.register} does not generate an SGI that is in group {group}",
            "write ICC_SGI1R_EL1",
        )
    affinity = cpu.mpidr & MPIDR_AFF0_TO_2
    aff3, aff2, aff1 = (request.affinity >> shift & 0xFF for shift in (32, 16, 8))
    listed = f"target list {request.targets:#06x} at Aff3.Aff2.Aff1 {aff3}.{aff2}.{aff1}"
    bit = affinity & 0xF
    return (
        listed,
        f"set bit {bit} of the target list, and the affinity fields to those of MPIDR_EL1 {affinity:#x}",
    )
