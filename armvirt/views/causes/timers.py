"""Rules for timers that do not fire. The rules detect three mistakes of a guest: it never started
the timer, it started the other timer instead, or it wrote a CVAL that is far in the future."""

from __future__ import annotations

from armvirt.arch.timer import CTL_ENABLE, CTL_IMASK, NS_PER_SECOND, TIMER_PREFIXES
from armvirt.hyp.diagnosis.finding import Check, Register, span
from armvirt.hyp.timer.context import TimerRow
from armvirt.trace.sources import TIMER_INTIDS
from armvirt.trace.writers import LastWrite
from armvirt.views.causes.evidence import Cause, Evidence
from armvirt.views.causes.storms import negative_tval, tval_of

NEAR = 8  # a CVAL less than CNTVOFF_EL2 / NEAR after CNTPCT_EL0 was computed from CNTPCT_EL0
FAR_NS = 10**9


def never_started(evidence: Evidence) -> Cause | None:
    """Detect a timer that is off because the guest never wrote CTL. If the guest started the other
    timer instead, the cause says so."""
    held = evidence.holds(Check.TIMER)
    if held is None or not evidence.timer:
        return None
    row, prefix = evidence.timer_row(), TIMER_PREFIXES[evidence.timer]
    control, compare = (
        Register(f"{prefix}_{name}_EL0", cpu=evidence.vcpu) for name in ("CTL", "CVAL")
    )
    if row.ctl & CTL_ENABLE or evidence.recorder.blind:
        return None
    other = "ptimer" if evidence.timer == "vtimer" else "vtimer"
    if evidence.write_of(control) is not None:
        return None
    if not _runs(evidence, other):
        return _not_enabled(evidence, control, compare)
    theirs = Register(f"{TIMER_PREFIXES[other]}_CTL_EL0", cpu=evidence.vcpu)
    intid = TIMER_INTIDS[other]
    text = (
        f"never fires on vCPU {evidence.vcpu}: {control}.ENABLE is 0 ({evidence.wrote(control)}); the guest started "
        f"the other timer, {theirs}, whose interrupt is INTID {intid} ({evidence.wrote(theirs)})"
    )
    return Cause(
        "other-timer",
        text,
        f"enable INTID {intid}, or use {prefix}_* in place of {TIMER_PREFIXES[other]}_*",
    )


def _not_enabled(evidence: Evidence, control: Register, compare: Register) -> Cause:
    programmed = evidence.write_of(compare)
    though = (
        ""
        if programmed is None
        else f", though {programmed.what} was written ({evidence.wrote(compare)})"
    )
    off = f"the timer is off, {control}.ENABLE is 0 ({evidence.wrote(control)})"
    text = f"never fires on vCPU {evidence.vcpu}: {off}{though}"
    return Cause("timer-off", text, f"write 1 to {control} (ENABLE, and not IMASK)")


def _runs(evidence: Evidence, name: str) -> bool:
    return evidence.timer_row(name).ctl & (CTL_ENABLE | CTL_IMASK) == CTL_ENABLE


def far_away(evidence: Evidence) -> Cause | None:
    """Detect a CVAL that the count reaches only after `FAR_NS` ns or more. There are two possible
    mistakes: the guest computed CVAL from the physical count, or wrote a TVAL that is negative as a
    number of 32 bits."""
    if not evidence.holds(Check.TIMER) or not evidence.timer:
        return None
    row, prefix = evidence.timer_row(), TIMER_PREFIXES[evidence.timer]
    distance = row.fires_in_ns or 0
    compare = Register(f"{prefix}_CVAL_EL0", cpu=evidence.vcpu)
    write = evidence.write_of(compare)
    if row.ctl & (CTL_ENABLE | CTL_IMASK) != CTL_ENABLE or distance < FAR_NS or write is None:
        return None
    if (why := _mistake(evidence, row, write)) is None:
        return None
    now = f"count {row.now:#x}, CVAL {row.cval:#x}"
    text = f"fires in {span(distance)} only: {why}; {now} ({evidence.wrote(compare)})"
    return Cause("cval-far", text, f"write a lower value to {compare}")


def _mistake(evidence: Evidence, row: TimerRow, write: LastWrite) -> str | None:
    if negative := negative_tval(evidence, write):
        return f"{negative}, and CVAL lies below zero"
    if write.what == tval_of(evidence):
        return None
    if evidence.timer != "vtimer" or not row.offset:
        return None
    hz = evidence.machine.board.config.cntfrq
    physical = row.now + row.offset - (evidence.machine.ns - write.ns) * hz // NS_PER_SECOND
    if not 0 <= row.cval - physical < row.offset // NEAR:
        return None
    return "CNTV_CVAL_EL0 was computed from CNTPCT_EL0, but the timer compares with CNTVCT_EL0, CNTVOFF_EL2 less"
