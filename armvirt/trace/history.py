"""Counts of past events: a sink that records how often an interrupt was raised, taken and ended.

The sink keeps only the data that ``armvirt explain`` needs: counts, first and last times, and the
interrupts that are not finished. So the memory that the sink needs does not grow with the length of
the run.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from armvirt.arch.esr import EC, exception_class
from armvirt.arch.gic import (
    FIRST_LPI,
    GITS_TRANSLATER,
    OFFSETS,
    SPECIAL_INTIDS,
    SgiRequest,
    SgirRequest,
)
from armvirt.arch.pstate import VECTOR_END
from armvirt.events import (
    Acknowledge,
    EndOfInterrupt,
    Event,
    ExceptionEntry,
    GicAccess,
    IccWrite,
    ItsCommand,
    Schedule,
    Stamp,
    TimerLine,
    TimerWrite,
    VgicInject,
)
from armvirt.records import NamedTuple
from armvirt.trace.lifecycle import Parking
from armvirt.trace.sources import FORGETS, TIMER_INTIDS, key_of, pends

SGI_REGISTERS = frozenset({"ICC_SGI0R_EL1", "ICC_SGI1R_EL1", "ICC_ASGI1R_EL1"})
GICD_SGIR, GICC_IAR = OFFSETS["GICD_SGIR"], OFFSETS["GICC_IAR"]
FELL = "fell"  # cause of a `Loss`: the line of the interrupt fell


@dataclass(slots=True)
class Times:
    """How often something happened, and when it happened first and last."""

    count: int = 0
    first: Stamp | None = None
    last: Stamp | None = None

    def add(self, stamp: Stamp) -> None:
        self.count += 1
        self.first, self.last = self.first or stamp, stamp


class Loss(NamedTuple):
    """The event that cleared the pending state of an interrupt before the guest took the interrupt.
    ``how`` is the cause: `FELL` (the line fell), the name of an ICPENDR register, or the name of an
    ITS command. ``raised`` says when the interrupt became pending, and ``stamp`` says when the
    pending state was cleared."""

    how: str
    raised: Stamp
    stamp: Stamp


@dataclass(slots=True)
class Past:
    """The history of one interrupt. A private interrupt has a history for each vCPU, and a shared
    interrupt has one history.

    ``raised`` counts the events that raise the interrupt. ``again`` counts the events that raise
    the interrupt while it is pending already. ``taken`` counts the acknowledges, ``ended`` counts
    the ends of interrupt, and ``deactivated`` counts the writes of DIR. ``waiting`` is the time at
    which the interrupt became pending; None if it is not pending, or if the guest has acknowledged
    it since. ``lost`` is the last event that cleared the pending state before an acknowledge.

    ``rose`` is the time at which the line of the interrupt rose; None if the line is low, or if
    there is no line. ``taken_high`` and ``ended_high`` count the acknowledges and the ends of
    interrupt since ``rose``.
    """

    raised: Times = field(default_factory=Times)
    taken: Times = field(default_factory=Times)
    ended: Times = field(default_factory=Times)
    deactivated: Times = field(default_factory=Times)
    again: int = 0
    waiting: Stamp | None = None
    rose: Stamp | None = None
    taken_high: int = 0
    ended_high: int = 0
    lost: Loss | None = None


class Send(NamedTuple):
    """An SGI that a CPU sent by a write of ``value`` to ``register``. ``targets`` are the vCPUs
    that received the SGI."""

    stamp: Stamp
    register: str
    value: int
    targets: tuple[int, ...]


class Stray(NamedTuple):
    """A write of EOIR that did not end the interrupt whose INTID was written. ``written`` is this
    INTID."""

    written: int
    stamp: Stamp


class Message(NamedTuple):
    """A message (MSI) that made no LPI pending. ``error`` is the error of the ITS command INT that
    sent the message, or -1 if a CPU sent the message by a store to GITS_TRANSLATER."""

    stamp: Stamp
    device: int
    event: int
    error: int


class Poll(NamedTuple):
    """Consecutive reads of one register of the GIC by a CPU. All reads returned ``value``.
    ``frame`` is the register frame, such as GICD. ``offset`` is the offset of the register in the
    frame in bytes. ``times`` is the number of reads. ``since`` is the time of the first read, and
    ``last`` is the time of the last read."""

    frame: str
    offset: int
    value: int
    times: int
    since: Stamp
    last: Stamp


class Faults(NamedTuple):
    """Consecutive synchronous exceptions of one vCPU. Each one after the first comes from the same
    instruction as the exception before it, or from an instruction in the vector table. ``times`` is
    the number of exceptions. ``stamp`` (time, vCPU and PC) and ``event`` describe the last
    exception."""

    times: int
    stamp: Stamp
    event: ExceptionEntry


class Entry(NamedTuple):
    """An IRQ or FIQ exception that a CPU took."""

    stamp: Stamp
    event: ExceptionEntry


@dataclass(slots=True)
class CpuPast:
    """The history of one vCPU.

    ``running`` has a pair (INTID, time of the acknowledge) for each interrupt that the vCPU
    acknowledged and whose priority no EOIR has dropped since. The most recent interrupt is the
    last. ``entry`` is the last IRQ or FIQ exception.

    ``entries`` and ``spurious`` count from the last acknowledge that returned the INTID of an
    interrupt. ``entries`` is the number of IRQ and FIQ exceptions since then. ``spurious`` counts
    the reads of IAR since then that returned a special INTID (1020 to 1023).

    ``faults`` has the vCPU's last synchronous exceptions and their number. It is None if there was
    no such exception, or if the vCPU has written a register of the GIC or of a timer, taken an IRQ
    or FIQ, or acknowledged an interrupt since then. An exception for SVC does not count. ``poll``
    has the memory-mapped GIC register that the vCPU read last, its value, and the number of
    consecutive reads that returned this value. It is None if there was no read, or if the vCPU has
    since written a memory-mapped GIC register or read GICC_IAR.

    The keys of ``dropped`` and ``idle_ends`` are INTIDs. ``dropped[n]`` is a write of EOIR that
    dropped the priority of INTID n, although another INTID was written. ``idle_ends[n]`` is a write
    of INTID n to EOIR while no priority was active.
    """

    running: list[tuple[int, Stamp]] = field(default_factory=list)
    entries: int = 0
    entry: Entry | None = None
    spurious: Times = field(default_factory=Times)
    faults: Faults | None = None
    poll: Poll | None = None
    dropped: dict[int, Stray] = field(default_factory=dict)
    idle_ends: dict[int, Stray] = field(default_factory=dict)


class History:
    """The sink that records the history of a run."""

    def __init__(self) -> None:
        self._past: dict[tuple[int, int], Past] = {}
        self._cpus: dict[int, CpuPast] = {}
        self._sends: dict[int, Send] = {}
        self.sent: dict[int, Times] = {}
        self.to_nobody: dict[int, Times] = {}
        self.lost_message: Message | None = None
        self._parking = Parking()
        self._model = 3  # version of the GIC: 2 after an access to a GICC frame
        self._handlers: dict[type, Callable[[Stamp, Any], None]] = {
            ExceptionEntry: self._exception, TimerLine: self._timer_line, VgicInject: self._inject,
            Acknowledge: self._acknowledge, EndOfInterrupt: self._end, IccWrite: self._icc, GicAccess: self._gic,
            ItsCommand: self._its, Schedule: self._schedule, TimerWrite: self._timer_write,
        }  # fmt: skip

    def __repr__(self) -> str:
        return f"<History of {len(self._past):,} interrupts>"

    def __call__(self, stamp: Stamp, event: Event) -> None:
        handler = self._handlers.get(type(event))
        if handler is not None:
            handler(stamp, event)

    # Queries --------------------------------------------------------------------------------------

    def of(self, intid: int, vcpu: int) -> Past:
        """The history of an interrupt. ``vcpu`` selects the vCPU of a private interrupt, and has no
        effect for a shared interrupt."""
        return self._past.get(key_of(vcpu, intid)) or Past()

    def cpu(self, vcpu: int) -> CpuPast:
        return self._cpus.get(vcpu) or CpuPast()

    def last_send(self, intid: int) -> Send | None:
        """The last SGI with this INTID that any CPU has sent to any receiver. None if no CPU has
        sent this SGI."""
        return self._sends.get(intid)

    # Events ---------------------------------------------------------------------------------------

    def _of(self, vcpu: int, intid: int) -> Past:
        return self._past.setdefault(key_of(vcpu, intid), Past())

    def _cpu(self, vcpu: int) -> CpuPast:
        return self._cpus.setdefault(vcpu, CpuPast())

    def _timer_line(self, stamp: Stamp, event: TimerLine) -> None:
        intid = TIMER_INTIDS.get(event.timer)
        if intid is None or stamp.vcpu < 0 or self._parking.hides(stamp, event):
            return
        past = self._of(stamp.vcpu, intid)
        if event.level:
            self._rises(past, stamp)
        else:
            _falls(past, stamp)

    def _timer_write(self, stamp: Stamp, event: TimerWrite) -> None:
        self._cpu(stamp.vcpu).faults = None

    def _schedule(self, stamp: Stamp, event: Schedule) -> None:
        for timer in self._parking.schedule(stamp, event):
            _falls(self._of(event.target, TIMER_INTIDS[timer]), stamp)

    def _inject(self, stamp: Stamp, event: VgicInject) -> None:
        """Record a change of a line, a message or an SGI. This method ignores the interrupts of the
        timers, because `_timer_line` records the lines of the timers."""
        intid, target = event.intid, event.target
        if intid in TIMER_INTIDS.values():
            return
        if intid < 16:
            self._sent(stamp, intid, target)
        if intid < 32 and target < 0:
            return
        lost = self.lost_message
        if intid >= FIRST_LPI and lost is not None and lost.stamp == stamp:
            self.lost_message = None
        past = self._of(target, intid)
        if event.level and 16 <= intid < FIRST_LPI:
            self._rises(past, stamp)
        elif event.level:
            _raises(past, stamp)
        else:
            _falls(past, stamp)

    def _rises(self, past: Past, stamp: Stamp) -> None:
        _raises(past, stamp)
        past.rose, past.taken_high, past.ended_high = stamp, 0, 0

    def _acknowledge(self, stamp: Stamp, event: Acknowledge) -> None:
        cpu = self._cpu(stamp.vcpu)
        if event.intid in SPECIAL_INTIDS:
            cpu.spurious.add(stamp)
            return
        cpu.entries, cpu.spurious, cpu.faults = 0, Times(), None
        cpu.running.append((event.intid, stamp))
        cpu.dropped.pop(event.intid, None)
        cpu.idle_ends.pop(event.intid, None)
        past = self._of(stamp.vcpu, event.intid)
        past.taken.add(stamp)
        past.taken_high += 1
        past.waiting = None

    def _end(self, stamp: Stamp, event: EndOfInterrupt) -> None:
        """Record a write of EOIR or DIR. EOIR drops the highest active priority, whatever INTID is
        written. An interrupt counts as ended only if its own INTID is written (IHI 0069
        12.2.10)."""
        intid, cpu = event.intid, self._cpu(stamp.vcpu)
        if event.register == "DIR":
            self._of(stamp.vcpu, intid).deactivated.add(stamp)
        elif not cpu.running:
            cpu.idle_ends[intid] = Stray(intid, stamp)
        elif (top := cpu.running.pop()[0]) != intid:
            cpu.dropped[top] = Stray(intid, stamp)
        else:
            past = self._of(stamp.vcpu, intid)
            past.ended.add(stamp)
            past.ended_high += 1

    def _exception(self, stamp: Stamp, event: ExceptionEntry) -> None:
        cpu = self._cpu(stamp.vcpu)
        if event.what in ("irq", "fiq"):
            cpu.entries += 1
            cpu.entry, cpu.faults = Entry(stamp, event), None
        elif event.what == "sync" and exception_class(event.esr) != EC.SVC64:
            last, vectors = cpu.faults, event.target & ~(VECTOR_END - 1)
            same = last is not None and (
                last.event.elr == event.elr or 0 <= event.elr - vectors < VECTOR_END
            )
            cpu.faults = Faults(last.times + 1 if last is not None and same else 1, stamp, event)

    # Registers

    def _icc(self, stamp: Stamp, event: IccWrite) -> None:
        self._cpu(stamp.vcpu).faults = None
        if event.register in SGI_REGISTERS:
            self._sends[SgiRequest.decode(event.value).intid] = Send(
                stamp, event.register, event.value, ()
            )

    def _gic(self, stamp: Stamp, event: GicAccess) -> None:
        if event.frame == "GICC":
            self._model = 2
        if not event.is_write:
            self._read(stamp, event)
            return
        self._cpu(stamp.vcpu).poll = self._cpu(stamp.vcpu).faults = None
        if event.frame == "GITS" and event.offset == GITS_TRANSLATER:
            self.lost_message = Message(stamp, 0, event.value, -1)  # reset if an LPI gets pending
        if event.frame == "GICD" and event.offset == GICD_SGIR and event.size == 4:
            intid = SgirRequest.decode(event.value).intid
            self._sends[intid] = Send(stamp, "GICD_SGIR", event.value, ())
        for intid, vcpu, register, sets in pends(event, stamp.vcpu, self._model):
            past = self._of(vcpu, intid)
            if sets:
                _raises(past, stamp)
            else:
                _loses(past, stamp, register)

    def _read(self, stamp: Stamp, event: GicAccess) -> None:
        cpu, here = self._cpu(stamp.vcpu), (event.frame, event.offset, event.value)
        last = cpu.poll
        if event.frame == "GICC" and event.offset == GICC_IAR:
            cpu.poll = None
        elif last is not None and last[:3] == here:
            cpu.poll = last._replace(times=last.times + 1, last=stamp)
        else:
            cpu.poll = Poll(*here, 1, stamp, stamp)

    def _sent(self, stamp: Stamp, intid: int, target: int) -> None:
        send = self._sends.get(intid)
        if send is None or (send.stamp.ns, send.stamp.vcpu) != (stamp.ns, stamp.vcpu):
            return  # the VMM sent this SGI, not a CPU
        if target >= 0:
            self._sends[intid] = send._replace(targets=(*send.targets, target))
        if not send.targets:
            self.sent.setdefault(intid, Times()).add(stamp)
        if target < 0:
            self.to_nobody.setdefault(intid, Times()).add(stamp)

    def _its(self, stamp: Stamp, event: ItsCommand) -> None:
        if event.op == "INT" and event.error:
            self.lost_message = Message(stamp, event.device, event.event, event.error)
        if event.op in FORGETS and not event.error and event.intid >= FIRST_LPI:
            _loses(self._of(-1, event.intid), stamp, event.op)


def _raises(past: Past, stamp: Stamp) -> None:
    past.raised.add(stamp)
    if past.waiting is None:
        past.waiting = stamp
    else:
        past.again += 1


def _falls(past: Past, stamp: Stamp) -> None:
    _loses(past, stamp, FELL)
    past.rose = None


def _loses(past: Past, stamp: Stamp, how: str) -> None:
    if past.waiting is not None:
        past.lost, past.waiting = Loss(how, past.waiting, stamp), None
