"""The last write of a register, or the last raise or acknowledge of an interrupt, as text."""

from __future__ import annotations

from collections.abc import Callable

from armvirt.arch.gic import FIRST_LPI, GICR_FRAME_SIZE, ICC_REGISTERS, ISACTIVER
from armvirt.arch.timer import TIMER_PREFIXES
from armvirt.events import Stamp
from armvirt.hyp.diagnosis import register_names
from armvirt.hyp.diagnosis.finding import Check, Finding, Register
from armvirt.records import NamedTuple
from armvirt.trace.history import Past
from armvirt.trace.sources import ARRAY_SIZE, its_error
from armvirt.trace.writers import (
    ALL,
    ITS_COMMANDS,
    LOWERED,
    OFF,
    RAISED,
    TAKEN,
    LastWrite,
    LastWriters,
    latest,
)

Lookup = Callable[[int], "str | None"]

#: The system registers that `LastWriters` records.
SYSTEM_REGISTERS = frozenset(ICC_REGISTERS) | {
    f"{prefix}_{name}_EL0" for prefix in TIMER_PREFIXES.values() for name in ("CTL", "CVAL", "TVAL")
}
READ_ONLY = frozenset(
    name
    for key in ("running", "highest0", "highest1")
    for name, *_ in register_names.CPU_INTERFACE[key]
)

#: For a check of an LPI: the ITS commands that decide the check, and a verb. If none of the commands
#: was executed, the text is "never" and the verb; there is no text if the verb is None.
_COMMANDS: dict[Check, tuple[tuple[str, ...], str | None]] = {
    Check.EVENT: (("MAPTI", "MAPI", "DISCARD", "MAPD"), "mapped"),
    Check.ROUTE: (("MAPTI", "MAPI", "MOVI", "MAPC", "MOVALL"), None),
    Check.ENABLE: (("INV", "INVALL"), None),
}


class Written(NamedTuple):
    """The last event that a check of an interrupt depends on, as text. The event is the last write
    of the register that the check reads, or the last raise or acknowledge of the interrupt, or the
    last ITS command for it. ``short`` is a short text for a table. ``full`` is a text with the
    address of the guest's code. Both texts are "" if the event was not recorded, or if a guest
    cannot write the register. ``never`` is True if it is certain that there was no such event since
    the last reset of the machine. ``raised`` is True if the last event raised the input of the
    checked interrupt."""

    short: str = ""
    full: str = ""
    never: bool = False
    raised: bool = False


def place(pc: int, names: Lookup | None) -> str:
    """An address in the guest's code as text: ``0x40080120 (gic_init+0x20)``."""
    symbol = names(pc) if names is not None else None
    return f"{pc:#x}" + (f" ({symbol})" if symbol else "")


def moment(stamp: Stamp, names: Lookup | None) -> str:
    """The time of an event, and its symbol in the guest's code, as text:
    ``1,234 ns by gic_init+0x20``. If there is no symbol, the text has the address instead."""
    symbol = names(stamp.pc) if names is not None else None
    return f"{stamp.ns:,} ns by {symbol or f'{stamp.pc:#x}'}"


def of_finding(
    finding: Finding, intid: int, vcpu: int, recorder: LastWriters | None, names: Lookup | None
) -> Written:
    """The last write of the register that a check reads, as text. ``finding`` is the result of the
    check. ``intid`` and ``vcpu`` are the interrupt and the vCPU that were checked."""
    register = finding.register
    if recorder is None or register is None:
        return Written()
    write, verb = _last(recorder, finding.station, register, intid, vcpu)
    if write is None:
        return Written() if verb is None else _never(recorder, verb)
    short, full = (describe(write, register, names, full=full) for full in (False, True))
    return Written(short, full, raised=write.what == RAISED)


def _never(recorder: LastWriters, verb: str) -> Written:
    """The text for an event that never happened. ``verb`` is a participle for the event: "raised"
    for an interrupt, or "mapped" for an event of a device (an LPI). "" stands for a write of a
    register."""
    never = f"never {verb}".rstrip()
    short = never if recorder.since is None else f"not since {recorder.since:,} ns"
    return Written(short, recorder.never(verb or "written"), not recorder.blind)


def of_pending(past: Past, otherwise: Written) -> Written:
    """The time since which an interrupt is pending, as text. ``otherwise`` describes the last write
    or raise that the check of the pending state found. If a write has set the pending bit, the
    result is ``otherwise``.

    If no time was recorded, the interrupt becomes pending at this moment: its timer has fired, and
    the hypervisor handles the timer before the next instruction.
    """
    if past.waiting is not None:
        text = f"raised at {past.waiting.ns:,} ns"
    elif past.rose is not None:
        text = f"line high since {past.rose.ns:,} ns"
    elif otherwise.never or not past.raised.count or not otherwise.raised:
        return (
            Written("raised at this moment", "raised at this moment")
            if otherwise.never
            else otherwise
        )
    else:
        text = "raised at this moment"
    return Written(text, text)


def of_register(recorder: LastWriters, register: Register) -> LastWrite | None:
    """The last write of a register. If the register has a bit per interrupt, only writes of the bit
    ``register.bit`` count. None if there was no write."""
    if not register.frame:
        return recorder.system(register.cpu, register.name)
    return recorder.memory(
        register.frame, register.offset, register.size, register.bit, _bank(register)
    )


def describe(write: LastWrite, register: Register, names: Lookup | None, *, full: bool) -> str:
    """A write as text: ``1,234 ns, gic_init+0x20: 0x100``. ``register`` is the register that the
    caller asked for. If the guest wrote another register that changes it (for example TVAL, which
    changes CVAL), the text names the written register. ``full`` adds the address of the code."""
    symbol = names(write.pc) if names is not None else None
    where = place(write.pc, names) if full else symbol or f"{write.pc:#x}"
    if write.what == OFF:
        return f"reset at {write.ns:,} ns" + (
            f", when vCPU {write.vcpu} was switched off" if full else ""
        )
    if write.what in ITS_COMMANDS:
        skipped = f", skipped: {its_error(write.value)}" if write.value else ""
        return (
            f"{write.what} at {write.ns:,} ns"
            + (f" by {where}" if full else f", {where}")
            + skipped
        )
    if write.what in (RAISED, LOWERED, TAKEN):
        return f"{write.what} at {write.ns:,} ns" + (f" by {where}" if write.what == TAKEN else "")
    other = write.what.startswith(("GICD_", "GICR_", "CNT")) and write.what != register.name
    value = f"{write.what} = {write.value:#x}" if other else f"{write.value:#x}"
    if full:
        return f"last written by {where} at {write.ns:,} ns, value {value}"
    return f"{write.ns:,} ns, {where}: {value}"


def _last(
    recorder: LastWriters, station: Check, register: Register, intid: int, vcpu: int
) -> tuple[LastWrite | None, str | None]:  # fmt: skip
    """Return (event, verb). ``station`` is a check. The event is the last event that decides the
    result of this check; None if there was no such event. In that case the verb selects the text:
    "raised" means "never raised", "" means that no write happened, and None means that no text is
    displayed."""
    if intid >= FIRST_LPI and station in _COMMANDS:
        names, verb = _COMMANDS[station]
        return recorder.commanded(intid, names), verb
    write = of_register(recorder, register) if _writable(register) else None
    if is_bit_of(register, ISACTIVER):
        return latest([write, recorder.acknowledged(intid, vcpu)]), None
    if station is Check.PENDING:
        return latest([write, recorder.raised(intid, register.cpu)]), "raised"
    return write, "" if _writable(register) else None


def is_bit_of(register: Register, array: int) -> bool:
    """True if a register belongs to an array of registers with one bit per interrupt. ``array`` is
    the offset of the array in its frame, such as `ISACTIVER`."""
    within = register.offset % GICR_FRAME_SIZE  # GICR has the arrays in its second frame
    return register.bit >= 0 and array <= within < array + ARRAY_SIZE


def _bank(register: Register) -> int:
    """The vCPU whose writes of a register count. GICC registers and the GICD registers for private
    interrupts of a GICv2 are banked: each vCPU has its own register at the same address. The result
    is `ALL` for a register that is not banked. In GICR each vCPU has its own addresses, so GICR is
    not banked."""
    return register.cpu if register.frame in ("GICC", "GICD") else ALL


def _writable(register: Register) -> bool:
    """True if a guest can write the register. False for a list register, PSTATE, RPR and HPPIR."""
    guests = bool(register.frame) or register.name in SYSTEM_REGISTERS
    return guests and register.name not in READ_ONLY
