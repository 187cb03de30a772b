"""Rules for interrupts that never stop. The guest ends the interrupt while its line is still high,
or the guest takes the exception but does not acknowledge the interrupt."""

from __future__ import annotations

from armvirt.arch.gic import IGROUPR
from armvirt.arch.timer import TIMER_PREFIXES, TVAL_SIGN
from armvirt.board.slot import Wire
from armvirt.hyp.diagnosis import present_state as present
from armvirt.hyp.diagnosis.finding import Check, Register
from armvirt.hyp.timer.context import TimerRow
from armvirt.hyp.vgic.irq import VgicIrq
from armvirt.trace.history import Entry, Past
from armvirt.trace.writers import LastWrite
from armvirt.views.causes.evidence import Cause, Evidence, times

STORM = 20  # times taken and ended while the line is high: more than the 16 entries of a FIFO
SIGNALLED = (Check.PSTATE, Check.LOADED, Check.LIST_REGISTER, Check.HIGHEST, Check.VIRTUAL_LINE)


def storm(evidence: Evidence) -> Cause | None:
    """Detect a level-sensitive interrupt that is pending again after each end, because its line is
    still high (IHI 0069 4.1.2)."""
    past, irq = evidence.past, evidence.irq
    if irq is None or not irq.level or past.rose is None or not present.line(irq):
        return None
    if past.taken_high < STORM or past.ended_high < past.taken_high - 1:
        return None
    why, remedy = _timer(evidence, past) if evidence.timer else _device(evidence)
    counts = f"taken {times(past.taken_high)} and ended {times(past.ended_high)}"
    text = f"storms on vCPU {evidence.vcpu}: {counts}, and its line is high still, since {past.rose.ns:,} ns: {why}"
    return Cause("storm", text, remedy, on_its_way=False)


def _timer(evidence: Evidence, past: Past) -> tuple[str, str]:
    prefix = TIMER_PREFIXES[evidence.timer]
    compare, control = (
        Register(f"{prefix}_{name}_EL0", cpu=evidence.vcpu) for name in ("CVAL", "CTL")
    )
    row, write = evidence.timer_row(), evidence.write_of(compare)
    remedy = f"in the handler write {compare} or {prefix}_TVAL_EL0 for a time to come, or set {control}.IMASK"
    assert past.rose is not None
    if write is not None and write.ns > past.rose.ns:
        return (
            f"{compare} was moved, but to the past: {past_compare(evidence, compare, row)}",
            remedy,
        )
    now = f"CVAL {row.cval:#x}, count {row.now:#x}, {control} {row.ctl:#x}"
    return f"{compare} was not moved since ({evidence.wrote(compare)}; {now})", remedy


def past_compare(evidence: Evidence, compare: Register, row: TimerRow) -> str:
    """The reason, as text, why the count has already reached a CVAL that the guest wrote."""
    write = evidence.write_of(compare)
    text = f"CVAL {row.cval:#x}, count {row.now:#x} ({evidence.wrote(compare)})"
    if write is not None and (negative := negative_tval(evidence, write)):
        return f"{negative}; {text}"
    if row.cval < row.now // 2:
        return f"an interval is no compare value, the count has to be added; {text}"
    return text


def tval_of(evidence: Evidence) -> str:
    """The name of the TVAL register of the timer that raises the interrupt."""
    return f"{TIMER_PREFIXES[evidence.timer]}_TVAL_EL0"


def negative_tval(evidence: Evidence, write: LastWrite) -> str:
    """The text that explains a write of a negative TVAL. The text is "" for any other write."""
    if write.what != tval_of(evidence) or not write.value & TVAL_SIGN:
        return ""
    return f"{write.what} = {write.value:#x} is negative, for TVAL is a signed number of 32 bits"


def _device(evidence: Evidence) -> tuple[str, str]:
    wire = wire_of(evidence)
    if wire is None:
        return (
            "its device was not served",
            "in the handler clear the cause in the device, before the end of interrupt",
        )
    remedy = f"in the handler write {wire.name}ICR, or mask the source in {wire.name}IMSC"
    return (
        f"the {wire.name} ({wire.part}) was not served, and asserts it: {device_state(wire)}",
        remedy,
    )


def wire_of(evidence: Evidence) -> Wire | None:
    """The device of the board that drives the interrupt's line. None if no device drives the
    line."""
    return next(
        (wire for wire in evidence.machine.board.wires() if wire.intid == evidence.intid), None
    )


def device_state(wire: Wire) -> str:
    """The interrupt registers of a PrimeCell as text: ``UARTRIS 0x20, UARTIMSC 0x0, UARTMIS
    0x0``."""
    values = {row.name: row.value for row in wire.device.rows()}
    return ", ".join(f"{wire.name}{each} {values[each]:#x}" for each in ("RIS", "IMSC", "MIS"))


def unacknowledged(evidence: Evidence) -> Cause | None:
    """Detect a handler that does not read IAR, or that reads an IAR that returns 1023. The
    interrupt stays pending, so the vCPU takes the exception again after ERET."""
    cpu, irq, held = evidence.cpu, evidence.irq, evidence.held
    if irq is None or cpu.entry is None or cpu.entries < STORM or not evidence.pending:
        return None
    if held is not None and held.station not in SIGNALLED:
        return None  # another interrupt causes the exceptions
    if cpu.spurious.count >= STORM:
        return _wrong_register(evidence, irq, cpu.entry)
    read = iar(evidence, irq.group)
    text = f"is never acknowledged: {_exceptions(evidence, cpu.entry)} and did not read {read}"
    return Cause("no-acknowledge", text, f"read {read} first in the handler", on_its_way=False)


def _exceptions(evidence: Evidence, last: Entry) -> str:
    what = last.event.what.upper()
    return f"vCPU {evidence.vcpu} took {evidence.cpu.entries:,} {what} exceptions (the last at {last.stamp.ns:,} ns)"


def _wrong_register(evidence: Evidence, irq: VgicIrq, last: Entry) -> Cause:
    group, spurious = evidence.bit(IGROUPR), evidence.cpu.spurious
    text = (
        f"is never acknowledged: it is in group {irq.group} by {group.name} {group.field} ({evidence.wrote(group)}); "
        f"{_exceptions(evidence, last)} and read {times(spurious.count)} an IAR that does not give group {irq.group}, "
        f"last at {evidence.when(spurious.last)}"
    )
    remedy = f"write {1 - irq.group} to {group.field} of {group.name}, or read {iar(evidence, irq.group)}"
    return Cause("wrong-iar", text, remedy, on_its_way=False)


def iar(evidence: Evidence, group: int) -> str:
    """The name of the register that acknowledges an interrupt of this group."""
    if evidence.dist.model == 2:
        return "GICC_AIAR" if group else "GICC_IAR"
    return f"ICC_IAR{group}_EL1"
