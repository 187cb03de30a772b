"""Makes the rows of a timeline from events.

A `Life` is one occurrence of an interrupt: the stages from its rising line to its end of interrupt
(`armvirt.trace.lifecycle`). This module decides to which `Life` an event belongs.
`armvirt.trace.render` displays the rows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from armvirt.arch.gic import FIRST_LPI, LR_PENDING, LR_STATE, LR_STATE_SHIFT, SPECIAL_INTIDS
from armvirt.arch.timer import TIMER_PREFIXES, signed_tval
from armvirt.events import (
    Acknowledge,
    Console,
    EndOfInterrupt,
    Event,
    ExceptionEntry,
    GicAccess,
    ItsCommand,
    ListRegisterWrite,
    Schedule,
    Stamp,
    TimerLine,
    TimerWrite,
    VgicInject,
)
from armvirt.intids import IntidNames
from armvirt.printable import printable
from armvirt.records import NamedTuple
from armvirt.trace.lifecycle import Life, Parking, Summary, summarize
from armvirt.trace.sources import (
    ANY,
    BARRIERS,
    FORGETS,
    TIMER_INTIDS,
    its_text,
    key_of,
    pends,
)

LR_STATES = ("inactive", "pending", "active", "pending and active")
LONGEST_LINE = 1000  # maximum length of a displayed console line, in characters
EOI_REGISTERS = ("EOIR0", "EOIR1", "EOIR", "AEOIR")


class Row(NamedTuple):
    """One row of the timeline. ``ns`` is the virtual time of the event in ns. ``delta`` is the time
    since the previous row in ns. ``vcpu`` is -1 if there is no vCPU. ``stage`` is the kind of the
    event (for example "fire" or "eoi"), ``text`` describes the event, and ``pc`` is the address in
    the guest's code. In the row of an end of interrupt, ``life`` has all stages of this interrupt;
    in all other rows ``life`` is None."""

    ns: int
    delta: int
    vcpu: int
    stage: str
    text: str
    pc: int
    life: Life | None = None


class Timeline:
    """A sink that makes a timeline. The function ``show`` is called with each row as soon as the
    row is complete. ``lives`` has a `Life` for each occurrence of an interrupt in the run.

    ``frequency`` is the frequency of the counter in Hz. ``names`` has the names of the board's
    INTIDs. ``virtual_start`` is the virtual count at time 0 in ticks; None if the count is unknown.
    The timeline uses this count to display how long it takes until the count reaches a CVAL.
    ``model`` is the version of the GIC.
    """

    def __init__(
        self,
        show: Callable[[Row], None],
        frequency: int,
        names: IntidNames,
        virtual_start: int | None = 0,
        model: int = 3,
    ) -> None:
        self._show, self._frequency, self._virtual_start, self._model = (
            show,
            frequency,
            virtual_start,
            model,
        )
        self._names = names
        self._last_ns = 0
        self._waiting: dict[tuple[int, int], Life] = {}  # by `key_of`: not acknowledged yet
        self._withdrawn: set[tuple[int, int]] = (
            set()
        )  # keys of `_waiting`: the guest cleared the pending state
        self._running: dict[
            tuple[int, int], list[Life]
        ] = {}  # by (vCPU, INTID): acknowledged and not ended
        self._entered: dict[
            int, Stamp
        ] = {}  # by vCPU: interrupt exception without an acknowledge since
        self._line = bytearray()
        self._parking = Parking()
        self.lives: list[Life] = []
        self._handlers: dict[type, Callable[[Stamp, Any], None]] = {
            TimerWrite: self._timer_write,
            TimerLine: self._timer_line,
            VgicInject: self._inject,
            ListRegisterWrite: self._list_register,
            ExceptionEntry: self._exception,
            Acknowledge: self._acknowledge,
            EndOfInterrupt: self._end,
            Console: self._console,
            GicAccess: self._gic_access,
            ItsCommand: self._its_command,
            Schedule: self._schedule,
        }

    def __repr__(self) -> str:
        return f"<Timeline of {len(self.lives):,} interrupts, at {self._last_ns:,} ns>"

    def __call__(self, stamp: Stamp, event: Event) -> None:
        handler = self._handlers.get(type(event))
        if handler is not None:
            handler(stamp, event)

    def summaries(self) -> list[Summary]:
        return summarize(self.lives)

    def flush(self) -> None:
        """Show the last line of the guest's console, if the guest has not ended this line with a
        line feed."""
        if self._line:
            self._console_row(Stamp(self._last_ns, 0, -1, 0))

    def _row(
        self, stamp: Stamp, stage: str, text: str, life: Life | None = None, vcpu: int | None = None
    ) -> None:
        who = stamp.vcpu if vcpu is None else vcpu
        self._show(Row(stamp.ns, stamp.ns - self._last_ns, who, stage, text, stamp.pc, life))
        self._last_ns = stamp.ns

    # Programming and firing

    def _timer_write(self, stamp: Stamp, event: TimerWrite) -> None:
        name = f"{TIMER_PREFIXES.get(event.timer, event.timer)}_{event.register.upper()}_EL0"
        self._row(stamp, "program", f"{name} = {self._value(stamp, event)}")

    def _value(self, stamp: Stamp, event: TimerWrite) -> str:
        if event.register == "ctl":
            names = [name for bit, name in enumerate(("ENABLE", "IMASK")) if event.value >> bit & 1]
            return "|".join(names) or "0"
        if event.register == "tval":
            ticks = signed_tval(event.value)
            return f"{ticks} ({self._distance(ticks)})"
        count = self._virtual_count(stamp.ns) if event.timer == "vtimer" else None
        where = f" ({self._distance(event.value - count)})" if count is not None else ""
        return f"{event.value:#x}{where}"

    def _virtual_count(self, ns: int) -> int | None:
        return (
            None
            if self._virtual_start is None
            else self._virtual_start + ns * self._frequency // 10**9
        )

    def _distance(self, ticks: int) -> str:
        seconds = abs(ticks) / self._frequency
        if seconds > 3600 * 24:
            return "never" if ticks > 0 else "long past"
        units = (("s", 1.0), ("ms", 1e-3), ("us", 1e-6))
        unit, scale = next((pair for pair in units if seconds >= pair[1]), ("ns", 1e-9))
        amount = f"{seconds / scale:.3f}".rstrip("0").rstrip(".") + f" {unit}"
        return f"in {amount}" if ticks >= 0 else f"{amount} ago"

    def _timer_line(self, stamp: Stamp, event: TimerLine) -> None:
        intid = TIMER_INTIDS.get(event.timer)
        if intid is None or stamp.vcpu < 0 or self._parking.hides(stamp, event):
            return
        if event.level:
            self._fire(stamp, stamp.vcpu, intid, f"{event.timer} line rises, INTID {intid}")
            return
        life = self._waiting.pop((stamp.vcpu, intid), None)
        self._row(
            stamp, "lower", f"{event.timer} line falls" + (", never acknowledged" if life else "")
        )

    def _schedule(self, stamp: Stamp, event: Schedule) -> None:
        for timer in self._parking.schedule(stamp, event):
            self._timer_line(stamp._replace(vcpu=event.target), TimerLine(timer, 0))

    def _fire(self, stamp: Stamp, vcpu: int, intid: int, text: str) -> None:
        life, key = Life(intid, vcpu, fire=stamp), key_of(vcpu, intid)
        self._waiting[key] = life
        self._withdrawn.discard(key)
        self.lives.append(life)
        self._row(stamp, "fire", text, vcpu=vcpu)

    def _inject(self, stamp: Stamp, event: VgicInject) -> None:
        """Handle an interrupt from a source that is not a timer: a line, a message or an SGI.
        Interrupts of the timers are left to `_timer_line`."""
        if event.intid in TIMER_INTIDS.values() or not event.level:
            return
        if event.intid < 16 and event.target < 0:
            self._row(
                stamp,
                "fire",
                f"sent by CPU {stamp.vcpu} to nobody, {self._names.described(event.intid)}",
            )
            return
        sgi = event.intid < 16 and stamp.vcpu >= 0
        how = f"sent by CPU {stamp.vcpu}" if sgi else "raised"
        if not self._is_waiting(event.target, event.intid):
            self._fire(
                stamp, event.target, event.intid, f"{how}, {self._names.described(event.intid)}"
            )
        elif sgi or event.intid >= FIRST_LPI:
            self._row(
                stamp,
                "fire",
                f"{how} again, {self._names.described(event.intid)}",
                vcpu=event.target,
            )

    def _is_waiting(self, vcpu: int, intid: int) -> bool:
        key = key_of(vcpu, intid)
        return key in self._waiting and key not in self._withdrawn

    def _gic_access(self, stamp: Stamp, event: GicAccess) -> None:
        """Handle writes of ISPENDR and ICPENDR. A write of ISPENDR starts a new `Life`, unless the
        interrupt is waiting already. After a write of ICPENDR the interrupt is not pending, so the
        next event that raises the interrupt starts a new `Life`."""
        for intid, vcpu, register, sets in pends(event, stamp.vcpu, self._model):
            if not sets:
                self._withdrawn.add(key_of(vcpu, intid))
            elif not self._is_waiting(vcpu, intid):
                self._fire(
                    stamp, vcpu, intid, f"written to {register}, {self._names.described(intid)}"
                )

    def _its_command(self, stamp: Stamp, event: ItsCommand) -> None:
        if event.op in FORGETS and not event.error:
            self._withdrawn.add(key_of(ANY, event.intid))
        if event.op not in BARRIERS or event.error:
            self._row(stamp, "its", its_text(event))

    # Delivery and the guest's handler

    def _list_register(self, stamp: Stamp, event: ListRegisterWrite) -> None:
        life = self._waiting.get(key_of(event.target, event.intid))
        if (
            life is None
            or not event.value & LR_PENDING
            or (life.list is not None and life.vcpu == event.target)
        ):
            return  # KVM writes list registers at every entry; only the first is shown
        life.list, life.vcpu = stamp, event.target
        state = LR_STATES[(event.value & LR_STATE) >> LR_STATE_SHIFT]
        self._row(
            stamp,
            "list",
            f"LR{event.lr} {state}, {self._names.named(event.intid)}",
            vcpu=event.target,
        )

    def _exception(self, stamp: Stamp, event: ExceptionEntry) -> None:
        if event.what not in ("irq", "fiq"):
            return
        self._entered[stamp.vcpu] = stamp
        self._row(stamp, "deliver", f"{event.what.upper()} to {event.target:#x} from")

    def _acknowledge(self, stamp: Stamp, event: Acknowledge) -> None:
        if event.intid in SPECIAL_INTIDS:
            self._entered.pop(stamp.vcpu, None)
            self._row(stamp, "ack", f"{event.intid}, spurious")
            return
        life = self._waiting.pop(key_of(stamp.vcpu, event.intid), None)
        if life is None:
            life = Life(event.intid, stamp.vcpu)
            self.lives.append(life)
        life.vcpu = stamp.vcpu
        life.ack, entered = stamp, self._entered.pop(stamp.vcpu, None)
        # An exception before the interrupt fired was taken for another interrupt.
        if entered is not None and (life.fire is None or entered.ns >= life.fire.ns):
            life.deliver = entered
        self._running.setdefault((stamp.vcpu, event.intid), []).append(life)
        self._row(stamp, "ack", self._names.named(event.intid))

    def _end(self, stamp: Stamp, event: EndOfInterrupt) -> None:
        stack = self._running.get((stamp.vcpu, event.intid))
        if event.register not in EOI_REGISTERS or not stack:
            self._row(stamp, "eoi", f"{self._names.named(event.intid)} by {event.register}")
            return
        life = stack.pop()
        life.eoi = stamp
        self._row(stamp, "eoi", self._names.named(event.intid), life)

    # The guest's console

    def _console(self, stamp: Stamp, event: Console) -> None:
        if event.direction != "tx":
            return
        if event.byte == 0x0A:
            self._console_row(stamp)
        elif event.byte != 0x0D:
            self._line.append(event.byte)

    def _console_row(self, stamp: Stamp) -> None:
        text = self._line.decode("utf-8", "replace")
        self._line.clear()
        self._row(stamp, "console", printable(text, LONGEST_LINE))
