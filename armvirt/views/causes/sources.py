"""Rules for interrupts that are not pending. The interrupt was never raised, has lost its pending
state, or has been taken already."""

from __future__ import annotations

from armvirt.arch.gic import FIRST_LPI, ICFGR, NR_PRIVATE
from armvirt.arch.timer import TIMER_PREFIXES
from armvirt.hyp.diagnosis.finding import Check, Register
from armvirt.trace.history import FELL, Loss
from armvirt.views.causes.evidence import Cause, Evidence, taken, times
from armvirt.views.causes.sgis import receivers
from armvirt.views.causes.storms import device_state, wire_of


def line_fell(evidence: Evidence) -> Cause | None:
    """Detect an interrupt whose line rose, but fell before the guest took the interrupt. A
    level-sensitive interrupt is not pending while its line is low (IHI 0069 4.1.2)."""
    lost = evidence.past.lost
    if (
        lost is None
        or lost.how != FELL
        or evidence.pending
        or evidence.active
        or _came_since(evidence, lost)
    ):
        return None
    why, remedy = "", "take the interrupt before its source is withdrawn"
    if evidence.timer:
        prefix = TIMER_PREFIXES[evidence.timer]
        why = _timer_change(evidence, prefix, lost)
        remedy = f"leave {prefix}_CTL_EL0 and {prefix}_CVAL_EL0 alone until the handler runs"
    text = (
        f"is not pending any more: its line rose at {lost.raised.ns:,} ns and fell at {lost.stamp.ns:,} ns{why}, "
        f"before vCPU {evidence.vcpu} took it"
    )
    return Cause("line-fell", text, remedy)


def _came_since(evidence: Evidence, lost: Loss) -> bool:
    """True if the interrupt was raised or taken after ``lost``, the loss of its pending state."""
    past = evidence.past
    return any(
        each is not None and each.ns > lost.stamp.ns for each in (past.taken.last, past.raised.last)
    )


def _timer_change(evidence: Evidence, prefix: str, lost: Loss) -> str:
    registers = [Register(f"{prefix}_{name}_EL0", cpu=evidence.vcpu) for name in ("CTL", "CVAL")]
    for register in registers:
        write = evidence.write_of(register)
        if write is not None and write.ns == lost.stamp.ns:
            return f" by {write.what} = {write.value:#x} ({evidence.place(write.pc)})"
    return ""


def latch_lost(evidence: Evidence) -> Cause | None:
    """Detect an interrupt that is not pending because ICPENDR or an ITS command cleared its pending
    state."""
    lost = evidence.past.lost
    if (
        lost is None
        or lost.how == FELL
        or evidence.pending
        or evidence.active
        or _came_since(evidence, lost)
    ):
        return None
    text = (
        f"is not pending any more: it was since {lost.raised.ns:,} ns, and {lost.how} at {evidence.when(lost.stamp)} "
        "took that back before the guest took it"
    )
    return Cause("latch-lost", text, f"do not use {lost.how} on an interrupt that has to come")


def edge_of_a_level(evidence: Evidence) -> Cause | None:
    """Detect an SPI whose line stays high although the SPI is configured as edge-triggered. Such an
    SPI becomes pending only once, at the rising edge."""
    irq = evidence.irq
    if (
        irq is None
        or irq.level
        or irq.intid < 32
        or not irq.line_level
        or not evidence.holds(Check.PENDING)
    ):
        return None
    if evidence.active or evidence.pending:
        return None
    register = Register(f"GICD_ICFGR{irq.intid // 16}", "", "GICD", ICFGR + irq.intid // 16 * 4)
    wire = wire_of(evidence)
    who = (
        "its device asserts it"
        if wire is None
        else f"the {wire.name} asserts it, {device_state(wire)}"
    )
    bit = 2 * (irq.intid % 16) + 1
    text = (
        f"is not pending though its line is high ({who}): {register.name} bit {bit} is 1, edge-triggered "
        f"({evidence.wrote(register)}), and the edge was taken {times(evidence.past.taken.count)}"
    )
    remedy = f"write 0 to bit {bit} of {register.name}, or serve the device until its line falls"
    return Cause("edge-not-level", text, remedy)


def never_raised(evidence: Evidence) -> Cause | None:
    """Detect an SPI that was never raised. The cause gives the state of the device that drives the
    line."""
    if (
        not NR_PRIVATE <= evidence.intid < FIRST_LPI
        or not evidence.holds(Check.PENDING)
        or evidence.active
    ):
        return None
    if evidence.past.raised.count or evidence.recorder.blind:
        return None
    wire = wire_of(evidence)
    if wire is None:
        return Cause(
            "never-raised",
            "was never raised: no device has asserted its line, and ISPENDR was not written",
        )
    text = f"was never raised: the {wire.name} ({wire.part}) asserts nothing: {device_state(wire)}"
    return Cause("never-raised", text, f"unmask the source in {wire.name}IMSC, and let it happen")


def served(evidence: Evidence) -> Cause | None:
    """Detect an interrupt that was taken and that its source has not raised since. The cause also
    tells how often the interrupt was raised while it was pending already: the guest takes such an
    interrupt only once."""
    past = evidence.past
    if (
        not evidence.holds(Check.PENDING)
        or evidence.active
        or not past.taken.count
        or past.raised.last is None
    ):
        return None
    merged = (
        f", {times(past.again)} of them while it was pending, which counts once"
        if past.again
        else ""
    )
    raised = f"raised {times(past.raised.count)}{merged}, last at {past.raised.last.ns:,} ns"
    send = evidence.history.last_send(evidence.intid)
    text = f"is not pending: it was {raised}, and {taken(past.taken, evidence)}"
    if send is not None and evidence.intid < 16 and evidence.vcpu not in send.targets:
        text += f"; the last one, at {send.stamp.ns:,} ns, was sent to {receivers(send)}"
    return Cause("served", text, "let its source raise it again")
