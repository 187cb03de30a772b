"""A sink that records the last write of each register of the GIC and of the timers.

In an array of registers with a bit per INTID, the sink has one record for each bit. So a write for
one interrupt does not replace the record of another interrupt. A bit of a set register (ISENABLER)
and the same bit of its clear register (ICENABLER) share one record. In all other registers each
byte has a record, because the priority of an interrupt has one byte.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

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
from armvirt.records import NamedTuple
from armvirt.trace.history import History

BITS_FROM, BITS_TO = 0x100, 0x400  # offsets of ISENABLER to ICACTIVER
CLEAR = 0x80  # offset from a set register to its clear register
BIT_REGISTERS = ("ISENABLER", "ICENABLER", "ISPENDR", "ICPENDR", "ISACTIVER", "ICACTIVER")
ALL = -1  # in place of a vCPU id: any vCPU, for registers that are not banked
NOWHERE = -2
#: ITS commands that change one LPI (by its event), and ITS commands that change all LPIs of a
#: collection, of a device, or of the ITS.
BY_EVENT = frozenset({"MAPTI", "MAPI", "MOVI", "DISCARD", "INV"})
BY_COLLECTION = frozenset({"MAPC", "INVALL"})
ITS_COMMANDS = BY_EVENT | BY_COLLECTION | {"MAPD", "MOVALL"}
RAISED, LOWERED, TAKEN = (
    "raised",
    "lowered",
    "taken",
)  # no register writes: an interrupt's input, and its acknowledge
OFF = "off"  # not a register write: the vCPU was powered off, and the register reset

Key = tuple[object, ...]


class LastWrite(NamedTuple):
    """The last write of a register, or the last event of another kind. ``what`` is the name of the
    register or of an ITS command. For other events ``what`` is `RAISED` or `LOWERED` (the input of
    an interrupt), `TAKEN` (an acknowledge), or `OFF` (the vCPU was powered off and the register was
    reset).

    For a write, ``value`` is the written value. For an ITS command, ``value`` is the error of the
    command; 0 if there was no error. ``ns`` is the virtual time of the event in ns. ``vcpu`` is the
    id of the vCPU that caused the event. ``pc`` is the address in the guest's code at which this
    vCPU was.
    """

    what: str
    value: int
    ns: int
    vcpu: int
    pc: int


class LastWriters:
    """A sink that records the last write of each register. ``history`` has the counts and times of
    the past events of each interrupt. Events before the sink was attached are unknown."""

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
        self._places: dict[int, tuple[int, int]] = {}  # by LPI: device and collection

    def restart(self, ns: int, *, loaded: bool = False) -> None:
        """Forget all events, because the machine was reset or a saved state was loaded. ``ns`` is
        the virtual time in ns of the reset or of the saved state. It is stored in ``since``.
        ``loaded`` is True after the load of a saved state. It is stored in ``blind``, which means
        that the events before ``since`` are unknown."""
        self._forget()
        self.since, self.blind = ns, loaded

    def never(self, what: str) -> str:
        """The text for an event that never happened. ``what`` is a participle, for example
        "written". The text is then ``never written``, or after a restart
        ``not written since 1,234 ns``."""
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
        """The last write of a memory-mapped register. ``frame`` is the name of the register frame,
        such as GICD. ``offset`` is the offset of the register in the frame, and ``size`` is the
        size of the register, both in bytes. If ``bit`` is not -1 and the register has a bit per
        INTID, the result is the last write of this bit. If ``vcpu`` is the id of a vCPU, only its
        writes count; this is necessary for a banked register, which each vCPU has at the same
        address. If ``vcpu`` is `ALL`, the writes by all vCPUs count."""
        if bit >= 0 and _has_bits(frame, offset):
            return self._writes.get((frame, offset & ~CLEAR, "bit", bit, vcpu))
        return latest(self._writes.get((frame, offset + n, vcpu)) for n in range(size))

    def system(self, vcpu: int, name: str) -> LastWrite | None:
        """The last write of a system register of a vCPU. A write of CNT*_TVAL changes CNT*_CVAL, so
        it counts as a write of CNT*_CVAL, too."""
        view = name.replace("_CVAL_", "_TVAL_")
        return latest(self._writes.get((vcpu, each)) for each in {name, view})

    def raised(self, intid: int, vcpu: int = ALL) -> LastWrite | None:
        """The last rise or fall of an interrupt's input. ``vcpu`` is the vCPU of a private
        interrupt, or `ALL` for a shared interrupt."""
        return self._writes.get(("input", intid, vcpu))

    def acknowledged(self, intid: int, vcpu: int) -> LastWrite | None:
        """The last acknowledge of an interrupt by a vCPU."""
        return self._writes.get(("ack", intid, vcpu))

    def entered(self, vcpu: int) -> Stamp | None:
        """The time of the last IRQ or FIQ exception of a vCPU. None if there was no such exception,
        or if the vCPU has acknowledged an interrupt since."""
        return self._entries.get(vcpu)

    def commanded(self, intid: int, names: Iterable[str]) -> LastWrite | None:
        """The last ITS command that applied to the LPI ``intid``, to its device or collection, or
        to all LPIs. Only commands whose name is in ``names`` count. None if there was no such
        command."""
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
        """Handle a scheduling event. Only CPU_OFF has an effect: it resets the GICv3 CPU interface of
        the vCPU (IHI 0069 12.2), so the marker `OFF` replaces the last write of each register of
        this interface."""
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
        """Record an ITS command. A command with an error is recorded, too: the error is the reason
        why the LPI did not change."""
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
    """The number of the LPI, collection or device on which an ITS command acts; `ALL` for other
    commands."""
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
    """The name of a register with a bit per INTID. For any other register the result is its frame
    and offset."""
    if not _has_bits(frame, offset):
        return f"{frame}+{offset:#x}"
    within = offset % GICR_SIZE % GICR_FRAME_SIZE if frame == "GICR" else offset
    return f"{frame}_{BIT_REGISTERS[within - BITS_FROM >> 7]}{within % CLEAR // 4}"


_ROWS: dict[str, tuple[MmioRow, ...]] = {
    "GICD": GICD_ROWS, "GICR": GICR_RD_ROWS, "GICC": GICC_ROWS, "GITS": GITS_ROWS,
}  # fmt: skip


def register_name(frame: str, offset: int) -> str:
    """The name of the register at an offset of a frame, for example ``GICR_WAKER``. In an array of
    registers the name contains the index of the register: ``GICD_ISPENDR1``. For an unknown offset
    the result is the frame and the offset: ``GICR+0x40``."""
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
