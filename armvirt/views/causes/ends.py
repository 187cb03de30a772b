"""Rules for interrupts that stay active, because the guest did not write EOIR or DIR, or wrote
another INTID."""

from __future__ import annotations

from armvirt.arch.gic import (
    GICC_CPUID_MASK,
    GICC_CPUID_SHIFT,
    GICC_INTID,
    ICACTIVER,
    ISACTIVER,
    OFFSETS,
    VMCR_VEOIM,
)
from armvirt.arch.pstate import PSTATE_I
from armvirt.hyp.diagnosis import present_state as present
from armvirt.hyp.diagnosis.finding import Check, Register
from armvirt.hyp.vcpu.power import Power
from armvirt.hyp.vgic.irq import VgicIrq
from armvirt.trace.history import Stray
from armvirt.views.causes.evidence import Cause, Evidence, taken

UNSURE = " (PSTATE.I is 0: its handler has returned, or lets others in)"


def not_ended(evidence: Evidence) -> Cause | None:
    """Detect an interrupt that stays active, because a write of EOIR or DIR is missing or wrong, or
    because the guest wrote ISACTIVER. A missing write is not reported while IRQs are masked,
    because the interrupt's handler may still run."""
    irq = evidence.irq
    if irq is None or not evidence.active or irq.vcpu not in (None, evidence.vcpu):
        return None
    return _why_active(evidence, irq)


def behind(evidence: Evidence) -> Cause | None:
    """Detect an interrupt that waits behind an active interrupt, which it does not preempt. The
    cause is that the guest has not ended the active interrupt, or that the binary point gives both
    interrupts the same group priority."""
    irq = evidence.irq
    if not evidence.holds(Check.RUNNING) or irq is None:
        return None
    runner = present.running(evidence.dist, evidence.dist.cpu(evidence.vcpu))
    if runner is None:
        return _dropped_by_nobody(evidence, irq)
    if irq.priority < runner.priority:
        return _same_group_priority(evidence, irq, runner)
    stuck = _why_active(evidence._replace(intid=runner.intid), runner)
    if stuck is None:
        return None
    priorities = f"its priority {irq.priority:#04x} does not preempt {runner.priority:#04x}"
    ahead = f"INTID {runner.intid}"
    return stuck._replace(text=f"waits behind {ahead}: {priorities}, and {ahead} {stuck.text}")


def _dropped_by_nobody(evidence: Evidence, irq: VgicIrq) -> Cause | None:
    """The cause, if a priority is still active although no interrupt is active. There are two
    possibilities: the priority is that of an LPI, because an LPI has no active state, or DIR has
    deactivated the interrupt without an EOIR."""
    running, returned = evidence.cpu.running, _handler_has_returned(evidence)
    if not running or returned is False:
        return None
    intid, stamp = running[-1]
    end = eoir(evidence, irq.group)
    which = "its own last time" if intid == evidence.intid else f"INTID {intid}"
    text = (
        f"waits behind {which}, taken at {evidence.when(stamp)} and not ended since: no write of {end} has dropped its "
        f"priority{'' if returned else UNSURE}"
    )
    name = "no-end" if returned else "not-ended"
    return Cause(
        name, text, f"end INTID {intid} with a write of {intid} to {end}", on_its_way=False
    )


def _same_group_priority(evidence: Evidence, irq: VgicIrq, runner: VgicIrq) -> Cause:
    """The cause for an interrupt that has a higher priority than the running interrupt, but the
    same group priority. Such an interrupt does not preempt the running interrupt (IHI 0069
    4.8.5)."""
    old = evidence.dist.model == 2
    register = Register(
        "GICC_BPR" if old else f"ICC_BPR{irq.group}_EL1",
        "",
        "GICC" if old else "",
        8 if old else 0,
        cpu=evidence.vcpu,
    )
    point = present.binary_point(evidence.dist.cpu(evidence.vcpu), irq.group)
    text = (
        f"does not preempt INTID {runner.intid} on vCPU {evidence.vcpu}: with binary point {point} in {register.name} "
        f"({evidence.wrote(register)}) priority {irq.priority:#04x} and {runner.priority:#04x} are one group priority"
    )
    return Cause(
        "binary-point", text, f"write less to {register}, or change a priority", on_its_way=False
    )


def _why_active(evidence: Evidence, irq: VgicIrq) -> Cause | None:
    cpu, past = evidence.cpu, evidence.past
    last, by_hand = past.taken.last, evidence.write_of(evidence.bit(ISACTIVER))
    if (
        by_hand is not None
        and by_hand.what == evidence.bit(ISACTIVER).name
        and (last is None or by_hand.ns > last.ns)
    ):
        return _active_by_hand(evidence)
    if last is None:
        return None
    if (stray := cpu.dropped.get(irq.intid)) is not None:
        return _ended_as_another(evidence, irq, stray)
    if (idle := cpu.idle_ends.get(irq.intid)) is not None:
        return _ended_in_vain(evidence, irq, idle)
    if (wrong := _wrong_cpuid(evidence, irq)) is not None:
        return wrong
    if past.ended.last is not None and past.ended.last.ns > last.ns:
        return _not_deactivated(evidence, irq)
    return _ended_on_another_cpu(evidence, irq) or _no_end(evidence, irq)


def _active_by_hand(evidence: Evidence) -> Cause:
    register, clear = evidence.bit(ISACTIVER), evidence.bit(ICACTIVER)
    text = f"is active by a write of {register.name}, not by an acknowledge: {evidence.wrote(register)}"
    remedy = f"write 1 to {clear.field} of {clear.name} ({clear.address})"
    return Cause("active-by-hand", text, remedy, on_its_way=False)


def _active(evidence: Evidence) -> str:
    return f"is still active on vCPU {evidence.vcpu}: {taken(evidence.past.taken, evidence)}"


def _no_end(evidence: Evidence, irq: VgicIrq) -> Cause | None:
    returned = _handler_has_returned(evidence)
    if returned is False:
        return None
    end = eoir(evidence, irq.group)
    again = "; it is pending again" if evidence.pending else ""
    text = f"{_active(evidence)}, and not ended since: no write of {end}{'' if returned else UNSURE}{again}"
    name = "no-end" if returned else "not-ended"
    return Cause(
        name, text, f"end its handler with a write of {irq.intid} to {end}", on_its_way=False
    )


def _ended_on_another_cpu(evidence: Evidence, irq: VgicIrq) -> Cause | None:
    """The cause, if the guest ended the interrupt on another vCPU. EOIR acts only on the CPU
    interface of the CPU that writes EOIR (IHI 0069 4.8.3)."""
    last = evidence.past.taken.last
    for cpu in evidence.dist.cpus():
        theirs = evidence.history.cpu(cpu.vcpu_id)
        strays = (theirs.idle_ends.get(irq.intid), *theirs.dropped.values())
        for stray in strays:
            if (
                stray is None
                or last is None
                or stray.written != irq.intid
                or stray.stamp.ns < last.ns
            ):
                continue
            if cpu.vcpu_id == evidence.vcpu:
                continue
            end = eoir(evidence, irq.group)
            text = f"{_active(evidence)}, and ended on vCPU {cpu.vcpu_id}, by {end} at {evidence.when(stray.stamp)}"
            remedy = f"write {end} on the CPU that read IAR; with EOImode 1 any CPU may write DIR"
            return Cause("end-other-cpu", text, remedy, on_its_way=False)
    return None


def _handler_has_returned(evidence: Evidence) -> bool | None:
    """True if the interrupt's handler has returned, False if the handler may still run with IRQs
    masked, None if this is not known.

    The handler has returned if the vCPU sleeps, or if it executes the interrupted function again
    with IRQs unmasked. The result is None if IRQs are unmasked in any other function: there the
    handler may have returned, or may have unmasked IRQs. (There is no event for ERET.)
    """
    vcpu, entry = evidence.machine.board.vcpus[evidence.vcpu], evidence.cpu.entry
    if vcpu.power is not Power.RUNNABLE:
        return True
    if vcpu.context.pstate & PSTATE_I or entry is None:
        return False
    here = _function(evidence, vcpu.context.pc)
    return True if here is not None and here == _function(evidence, entry.event.elr) else None


def _function(evidence: Evidence, pc: int) -> str | None:
    symbol = evidence.names(pc) if evidence.names is not None else None
    return symbol.partition("+")[0] if symbol else None


def _ended_as_another(evidence: Evidence, irq: VgicIrq, stray: Stray) -> Cause:
    """The cause, if a write of EOIR with another INTID (``stray``) dropped the priority of this
    interrupt. EOIR drops the highest active priority, whatever INTID is written (IHI 0069
    12.2.10)."""
    end, other, when = eoir(evidence, irq.group), stray.written, evidence.when(stray.stamp)
    theirs = evidence.history.of(other, evidence.vcpu)
    if theirs.ended.count == theirs.taken.count > 0:
        text = (
            f"{_active(evidence)}; INTID {other} was ended twice, and the second write of {end}, at {when}, "
            f"dropped the priority of INTID {irq.intid} in its place"
        )
        return Cause("end-twice", text, f"write {end} once for each acknowledge", on_its_way=False)
    name, how = (
        ("end-order", "in the wrong order")
        if theirs.taken.count
        else ("end-wrong-intid", "by a wrong INTID")
    )
    text = f"{_active(evidence)}, and ended {how}: {end} was written with {other}, not {irq.intid}, at {when}"
    remedy = f"write to {end} what IAR gave; what was taken last ends first"
    return Cause(name, text, remedy, on_its_way=False)


def _ended_in_vain(evidence: Evidence, irq: VgicIrq, idle: Stray) -> Cause:
    end = eoir(evidence, irq.group)
    text = (
        f"{_active(evidence)}; its end at {evidence.when(idle.stamp)} found no priority running, for another write of "
        f"{end} had dropped it"
    )
    return Cause("end-twice", text, f"write {end} once for each acknowledge", on_its_way=False)


def _not_deactivated(evidence: Evidence, irq: VgicIrq) -> Cause | None:
    """The cause, if EOImode is 1 and the guest wrote EOIR but not DIR. With EOImode 1 EOIR only
    drops the priority, and DIR deactivates the interrupt (IHI 0069 4.8.3)."""
    if not evidence.dist.cpu(evidence.vcpu).vmcr & VMCR_VEOIM:
        return None
    past, register = evidence.past, evidence.control("dir")
    control = "GICC_CTLR.EOImode" if evidence.dist.model == 2 else "ICC_CTLR_EL1.EOImode"
    last = past.deactivated.last
    written = (
        "was never written for it"
        if last is None
        else f"was written for it at {evidence.when(last)} only"
    )
    text = (
        f"{_active(evidence)}; {control} is 1, so EOIR at {evidence.when(past.ended.last)} dropped its priority only, "
        f"and {register.name} {written}"
    )
    remedy = f"write {irq.intid} to {register.name} after EOIR, or set EOImode to 0"
    return Cause("no-deactivation", text, remedy, on_its_way=False)


def _wrong_cpuid(evidence: Evidence, irq: VgicIrq) -> Cause | None:
    """The cause, if the guest ended an SGI with a wrong CPUID. A write of GICC_EOIR for an SGI must
    contain the CPUID that GICC_IAR returned (IHI 0048 4.4.5)."""
    write, last = (
        evidence.recorder.memory("GICC", OFFSETS["GICC_EOIR"], 4, vcpu=evidence.vcpu),
        evidence.past.taken.last,
    )
    if not irq.carries_cpuid or write is None or last is None or write.ns < last.ns:
        return None
    value = irq.intid | _sender(evidence, irq) << GICC_CPUID_SHIFT
    if write.value & GICC_INTID != irq.intid or write.value == value:
        return None
    text = (
        f"{_active(evidence)}; GICC_IAR gave {value:#x}, with the number of the CPU that sent it, and GICC_EOIR was "
        f"written with {write.value:#x} at {write.ns:,} ns by {evidence.place(write.pc)}"
    )
    return Cause(
        "end-wrong-cpuid",
        text,
        "write to GICC_EOIR the whole value that GICC_IAR gave",
        on_its_way=False,
    )


def _sender(evidence: Evidence, irq: VgicIrq) -> int:
    lr = present.list_register(evidence.dist, irq)
    return lr >> GICC_CPUID_SHIFT & GICC_CPUID_MASK if lr else irq.active_source


def eoir(evidence: Evidence, group: int) -> str:
    """The name of the register that ends an interrupt of this group."""
    return "GICC_EOIR" if evidence.dist.model == 2 else f"ICC_EOIR{group}_EL1"
