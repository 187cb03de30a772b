"""The last write of each register: a sink that records it for each register word of the GIC and the
timers.

In registers with a bit per INTID each bit is recorded separately, for a set register and its clear
register together, because a write for another interrupt does not matter. In other registers each
byte is recorded, because a priority has one byte.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from armvirt.arch.gic import (
    GICC_ROWS,
    GICD_ROWS,
    GICR_FRAME_SIZE,
    GICR_RD_ROWS,
    GICR_SGI_ROWS,
    GICR_SIZE,
    GITS_ROWS,
    ICC_REGISTERS,
    MmioRow,
)
from armvirt.arch.timer import TIMER_PREFIXES
from armvirt.events import (
    Acknowledge,
    Event,
    ExceptionEntry,
    GicAccess,
    IccWrite,
    ItsCommand,
    Schedule,
    Stamp,
    TimerWrite,
    VgicInject,
)
from armvirt.trace.history import History

BITS_FROM, BITS_TO = 0x100, 0x400  # ISENABLER to ICACTIVER
CLEAR = 0x80  # from a set register to its clear register
BIT_REGISTERS = ("ISENABLER", "ICENABLER", "ISPENDR", "ICPENDR", "ISACTIVER", "ICACTIVER")
ALL = -1  # any vCPU: for registers that are not banked
NOWHERE = -2
#: ITS commands that change an LPI by its event, and those that change all of a collection, of a
#: device, or everything.
BY_EVENT = frozenset({"MAPTI", "MAPI", "MOVI", "DISCARD", "INV"})
BY_COLLECTION = frozenset({"MAPC", "INVALL"})
ITS_COMMANDS = BY_EVENT | BY_COLLECTION | {"MAPD", "MOVALL"}
RAISED, LOWERED, TAKEN = (
    "raised",
    "lowered",
    "taken",
)  # no register write: an interrupt's input
OFF = "off"  # not a register write: the vCPU was powered off, and the register reset

Key = tuple[object, ...]


class LastWrite(NamedTuple):
    """The last write. ``what`` is a register, or raised, lowered or taken (an interrupt), `OFF`, or
    an ITS command. Then the value (for a command its error, 0 without error), and when, by which
    vCPU and where."""

    what: str
    value: int
    ns: int
    vcpu: int
    pc: int


class LastWriters:
    """A sink: the last write of each register, and in ``history`` the past of each interrupt.
    Events before the sink was attached are unknown."""

    def __init__(self) -> None:
        self._handlers: dict[type, Callable[[Stamp, Any], None]] = {
            GicAccess: self._gic, IccWrite: self._icc, TimerWrite: self._timer, VgicInject: self._inject,
            ExceptionEntry: self._exception, Acknowledge: self._acknowledge,
            ItsCommand: self._its, Schedule: self._schedule,
        }  # fmt: skip
        self.since: int | None = None
        self.blind = False
        self._forget()

    def __repr__(self) -> str:
        return f"<LastWriters of {len(self._writes):,} registers>"

    def _forget(self) -> None:
        self.history = History()
        self._writes: dict[Key, LastWrite] = {}
        self._entries: dict[int, Stamp] = {}
        self._places: dict[int, tuple[int, int]] = {}  # the device and collection of an LPI

    def restart(self, ns: int, *, loaded: bool = False) -> None:
        """The machine was reset at ``ns``, or (``loaded``) a saved state of that time was loaded:
        forget all events. ``since`` is set to that time; ``blind`` means that there are unknown
        earlier events."""
        self._forget()
        self.since, self.blind = ns, loaded

    def never(self, what: str) -> str:
        """``never written``; after a restart, with the time of the restart."""
        return f"never {what}" if self.since is None else f"not {what} since {self.since:,} ns"

    def __call__(self, stamp: Stamp, event: Event) -> None:
        self.history(stamp, event)
        handler = self._handlers.get(type(event))
        if handler is not None:
            handler(stamp, event)

    # Queries --------------------------------------------------------------------------------------

    def memory(
        self, frame: str, offset: int, size: int = 4, bit: int = -1, vcpu: int = ALL
    ) -> LastWrite | None:
        """The last write of a register of a frame; with ``bit``, of this bit in a register with
        a bit per INTID. ``vcpu`` is for registers that are banked, or of each vCPU, at one
        address."""
        if bit >= 0 and _has_bits(frame, offset):
            return self._writes.get((frame, offset & ~CLEAR, "bit", bit, vcpu))
        return latest(self._writes.get((frame, offset + n, vcpu)) for n in range(size))

    def system(self, vcpu: int, name: str) -> LastWrite | None:
        """The last write of a system register. For CNT*_CVAL, a write of CNT*_TVAL counts too (TVAL
        is a view of CVAL)."""
        view = name.replace("_CVAL_", "_TVAL_")
        return latest(self._writes.get((vcpu, each)) for each in {name, view})

    def raised(self, intid: int, vcpu: int = ALL) -> LastWrite | None:
        """The last change of an interrupt's input; ``vcpu`` is for private interrupts."""
        return self._writes.get(("input", intid, vcpu))

    def acknowledged(self, intid: int, vcpu: int) -> LastWrite | None:
        """The last acknowledge of an interrupt by a vCPU."""
        return self._writes.get(("ack", intid, vcpu))

    def entered(self, vcpu: int) -> Stamp | None:
        """The interrupt exception that a vCPU has taken without an acknowledge since."""
        return self._entries.get(vcpu)

    def commanded(self, intid: int, names: Iterable[str]) -> LastWrite | None:
        """The last of these ITS commands that applied to an LPI, its collection, or all LPIs."""
        device, collection = self._places.get(intid, (NOWHERE, NOWHERE))
        writes = (
            self._writes.get(("its", name, _subject(name, intid, device, collection)))
            for name in names
        )
        return latest(writes)

    # Events ---------------------------------------------------------------------------------------

    def _gic(self, stamp: Stamp, event: GicAccess) -> None:
        if not event.is_write:
            return
        frame, offset, value = event.frame, event.offset, event.value
        write = LastWrite(_name(frame, offset), value, stamp.ns, stamp.vcpu, stamp.pc)
        for vcpu in (ALL, stamp.vcpu):
            if _has_bits(frame, offset):
                base, first = offset & ~CLEAR & ~3, 8 * (offset & 3)
                for bit in _bits(value):
                    self._writes[frame, base, "bit", first + bit, vcpu] = write
                continue
            for n in range(event.size):
                self._writes[frame, offset + n, vcpu] = write

    def _icc(self, stamp: Stamp, event: IccWrite) -> None:
        self._system(stamp, event.register, event.value)

    def _schedule(self, stamp: Stamp, event: Schedule) -> None:
        """CPU_OFF resets the CPU interface of a GICv3 (IHI 0069 12.2): forget the last writes of
        its registers."""
        if event.what == "off":
            for key in self._writes:
                if key[0] == event.target and key[1] in ICC_REGISTERS:
                    self._writes[key] = LastWrite(OFF, 0, stamp.ns, event.target, stamp.pc)

    def _timer(self, stamp: Stamp, event: TimerWrite) -> None:
        self._system(
            stamp,
            f"{TIMER_PREFIXES.get(event.timer, event.timer)}_{event.register.upper()}_EL0",
            event.value,
        )

    def _system(self, stamp: Stamp, name: str, value: int) -> None:
        self._writes[stamp.vcpu, name] = LastWrite(name, value, stamp.ns, stamp.vcpu, stamp.pc)

    def _inject(self, stamp: Stamp, event: VgicInject) -> None:
        write = LastWrite(
            RAISED if event.level else LOWERED, event.level, stamp.ns, stamp.vcpu, stamp.pc
        )
        self._writes["input", event.intid, ALL] = write
        self._writes["input", event.intid, event.target] = write

    def _its(self, stamp: Stamp, event: ItsCommand) -> None:
        """A command with an error is recorded too, if it names the LPI: it is the reason why
        nothing changed."""
        if event.op not in ITS_COMMANDS:
            return
        subject = _subject(event.op, event.intid, event.device, event.icid)
        self._writes["its", event.op, subject] = LastWrite(
            event.op, event.error, stamp.ns, stamp.vcpu, stamp.pc
        )
        if event.op in BY_EVENT and event.icid >= 0 and not event.error:
            self._places[event.intid] = event.device, event.icid

    def _exception(self, stamp: Stamp, event: ExceptionEntry) -> None:
        if event.what in ("irq", "fiq"):
            self._entries[stamp.vcpu] = stamp

    def _acknowledge(self, stamp: Stamp, event: Acknowledge) -> None:
        self._entries.pop(stamp.vcpu, None)
        taken = LastWrite(TAKEN, event.intid, stamp.ns, stamp.vcpu, stamp.pc)
        self._writes["ack", event.intid, stamp.vcpu] = taken


def _subject(op: str, intid: int, device: int, collection: int) -> int:
    """The subject of a command: an LPI, a collection, a device, or `ALL`."""
    return (
        intid
        if op in BY_EVENT
        else collection
        if op in BY_COLLECTION
        else device
        if op == "MAPD"
        else ALL
    )


def _has_bits(frame: str, offset: int) -> bool:
    if frame == "GICR":
        offset = offset % GICR_SIZE - GICR_FRAME_SIZE
    return frame in ("GICD", "GICR") and BITS_FROM <= offset < BITS_TO


def _name(frame: str, offset: int) -> str:
    """The name of the register; for a pair of set and clear registers, the one that was written.
    Else its frame and offset."""
    if not _has_bits(frame, offset):
        return f"{frame}+{offset:#x}"
    within = offset % GICR_SIZE % GICR_FRAME_SIZE if frame == "GICR" else offset
    return f"{frame}_{BIT_REGISTERS[within - BITS_FROM >> 7]}{within % CLEAR // 4}"


_ROWS: dict[str, tuple[MmioRow, ...]] = {
    "GICD": GICD_ROWS, "GICR": GICR_RD_ROWS, "GICC": GICC_ROWS, "GITS": GITS_ROWS,
}  # fmt: skip


def register_name(frame: str, offset: int) -> str:
    """``GICR_WAKER``; for an array of registers with the word, ``GICD_ISPENDR1``; for an unknown
    offset ``GICR+0x40``."""
    within, rows = offset, _ROWS.get(frame, ())
    if frame == "GICR":
        within = offset % GICR_SIZE
        if within >= GICR_FRAME_SIZE:
            within, rows = within - GICR_FRAME_SIZE, GICR_SGI_ROWS
    row = next((row for row in rows if row.offset <= within < row.end), None)
    if row is None:
        return f"{frame}+{offset:#x}"
    if not row.bits_per_irq:
        return row.name
    return f"{row.name.removesuffix('0')}{(within - row.offset) // row.widths[-1]}"


def _bits(value: int) -> Iterable[int]:
    while value:
        yield (value & -value).bit_length() - 1
        value &= value - 1


def latest(writes: Iterable[LastWrite | None]) -> LastWrite | None:
    return max(
        (write for write in writes if write is not None), key=lambda write: write.ns, default=None
    )
