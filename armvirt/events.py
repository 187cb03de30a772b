"""Typed trace events, and the bus that delivers them to sinks. A sink is a function that is called
with each event, for example to write a trace.

Events are plain tuples of ids and numbers. They do not contain other objects. The bus adds a stamp
to each event: virtual time (ns), retired instructions, vCPU and PC. Then the bus calls its sinks
with the stamp and the event. If a bus has no sink, its ``active`` is False. Code that emits events
tests ``active`` first, so a run without sinks costs one attribute read per event.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal, Protocol

from armvirt.records import NamedTuple


class Stamp(NamedTuple):
    """The time and place of an event: virtual time in ns, number of instructions that the vCPU has
    retired, vCPU id (-1 if the event belongs to no vCPU), and PC."""

    ns: int
    insns: int
    vcpu: int
    pc: int


class ExceptionEntry(NamedTuple):
    """EL1 takes an exception. ``what`` is sync, irq, fiq or serror. ``target`` is the address of
    the vector."""

    what: str
    esr: int
    elr: int
    target: int
    kind: Literal["exception"] = "exception"


class PolledWait(NamedTuple):
    """armvirt has skipped iterations of a loop in which the guest only polls. The PC of the stamp
    is in this loop. ``rounds`` is the number of skipped iterations. Each iteration has ``length``
    instructions. ``until`` is the virtual time in ns at the end of the last skipped iteration."""

    until: int
    rounds: int
    length: int
    kind: Literal["polled-wait"] = "polled-wait"


class TimerWrite(NamedTuple):
    """The guest writes a timer register. ``timer`` is vtimer or ptimer. ``register`` is ctl, cval
    or tval."""

    timer: str
    register: str
    value: int
    kind: Literal["timer-write"] = "timer-write"


class TimerLine(NamedTuple):
    """The output of a timer changes. ``timer`` is vtimer or ptimer. ``level`` is the new level."""

    timer: str
    level: int
    kind: Literal["timer-line"] = "timer-line"


class VgicInject(NamedTuple):
    """The level of an interrupt line changes, or an SGI or LPI becomes pending in the vGIC.
    ``level`` is the new level of the line. For an SGI or LPI, ``level`` is always 1. ``target`` is
    the id of the target vCPU; -1 if the interrupt has no target."""

    intid: int
    level: int
    target: int
    kind: Literal["vgic-inject"] = "vgic-inject"


class ListRegisterWrite(NamedTuple):
    """The hypervisor writes a list register of a vCPU. ``target`` is the id of the vCPU. ``lr`` is
    the number n of ICH_LR<n>_EL2, and ``value`` is its new value. ``intid`` is the INTID of the
    interrupt in the list register."""

    target: int
    lr: int
    intid: int
    value: int
    kind: Literal["lr"] = "lr"


class Acknowledge(NamedTuple):
    """The guest reads IAR. ``intid`` is the INTID that IAR returns; 1023 is a spurious
    interrupt."""

    intid: int
    kind: Literal["ack"] = "ack"


class EndOfInterrupt(NamedTuple):
    """The guest ends an interrupt. ``register`` is EOIR0, EOIR1 or DIR; for a GICv2, EOIR, AEOIR or
    DIR."""

    intid: int
    register: str
    kind: Literal["eoi"] = "eoi"


class IccWrite(NamedTuple):
    """The guest writes a control register of its CPU interface (``register`` is for example
    ICC_PMR_EL1).

    The registers IAR, EOIR and DIR have other events: `Acknowledge` and `EndOfInterrupt`.
    `IccWrite` is for display. The trace hash does not include this event.
    """

    register: str
    value: int
    kind: Literal["icc-write"] = "icc-write"


class GicAccess(NamedTuple):
    """The guest reads or writes a register of GICD, GICR, GICC or GITS. ``frame`` is the name of
    this register frame. ``offset`` is the offset of the register in the frame, and ``size`` is the
    size of the access, both in bytes."""

    frame: str
    offset: int
    size: int
    value: int
    is_write: int
    kind: Literal["gic-mmio"] = "gic-mmio"


class ItsCommand(NamedTuple):
    """An ITS executes a command from its queue. ``op`` is the name of the command, or the opcode if
    the command is unknown. A field that the command does not have is -1.

    ``event`` is the EventID. ``intid`` is the INTID to which the EventID is mapped. For DISCARD,
    ``intid`` is the INTID to which the EventID was mapped before the command. ``icid`` is the
    collection ID. ``target`` is the number of the target processor: RDbase of MAPC, or RDbase2 of
    MOVALL. ``valid`` is the V bit of MAPD and MAPC.

    ``error`` is 0 if the ITS executed the command. Otherwise the ITS skipped the command, and
    ``error`` is the reason: an error code of IHI 0069 5.3, or a negative errno. The errno is -16 if
    the ITS is disabled, or if LPIs are disabled on the target.
    """

    op: str
    device: int
    event: int
    intid: int
    error: int
    icid: int = -1
    target: int = -1
    valid: int = -1
    kind: Literal["its"] = "its"


class Mmio(NamedTuple):
    """The guest accesses a device of the VMM. ``address`` is the IPA. ``value`` is the value that
    the guest writes, or the value that a read returns."""

    address: int
    size: int
    value: int
    is_write: int
    kind: Literal["mmio"] = "mmio"


class Hypercall(NamedTuple):
    """The guest makes a PSCI or SMCCC call. The event has the result of the call."""

    function: int
    args: tuple[int, ...]
    result: int
    kind: Literal["hypercall"] = "hypercall"


class Console(NamedTuple):
    """One byte on the guest's console. ``direction`` is tx if the guest sends the byte, and rx if
    the guest receives the byte."""

    direction: str
    byte: int
    kind: Literal["console"] = "console"


class Schedule(NamedTuple):
    """A vCPU is scheduled, or its power state changes. ``target`` is the id of the vCPU. If
    ``what`` is load or put, the hypervisor loads the vCPU on a physical CPU or puts it (vcpu_load,
    vcpu_put). Otherwise ``what`` is the new state: off, runnable or blocked."""

    target: int
    what: str
    kind: Literal["sched"] = "sched"


class Event(Protocol):
    """The interface of every event: a kind, and the methods of a named tuple."""

    @property
    def kind(self) -> str: ...

    def __iter__(self) -> Iterator[object]: ...

    def _asdict(self) -> dict[str, object]: ...


Sink = Callable[[Stamp, Event], None]


class Late:
    """Keeps an exception that a sink or a console listener raised during a run. The exception is
    raised at the end of the run instead. If the exception were raised at once, it would interrupt
    the handling of an exit, and the machine could not run on afterwards.

    ``stop`` is a function that requests the end of the current run; None if there is no run.
    """

    __slots__ = ("error", "stop")

    def __init__(self) -> None:
        self.error: BaseException | None = None
        self.stop: Callable[[], None] | None = None

    def __repr__(self) -> str:
        return (
            f"<Late with {type(self.error).__name__} kept>"
            if self.error
            else "<Late with no error>"
        )

    def keep(self, error: BaseException) -> None:
        """Handle ``error``, which an ``except`` clause has caught. If there is no run, raise
        ``error`` at once. Otherwise request the end of the run, and keep ``error``. If an error is
        kept already, ``error`` is dropped."""
        if self.stop is None:
            raise error
        self.error = self.error or error
        self.stop()

    def over(self) -> None:
        """Raise the kept error, if there is one. `Host.run` calls this method after the run has
        stopped."""
        self.stop, error, self.error = None, self.error, None
        if error is not None:
            raise error


class EventBus:
    """Delivers events from all packages to the sinks.

    `emit` calls the function ``stamp`` to get the stamp of the event, which is its time, vCPU and
    PC. Each host, PE and vCPU has a `view` of the bus with its own function ``stamp``. If a sink
    raises an exception during a run, ``late`` keeps the exception and stops the run. Then the
    exception is raised.
    """

    __slots__ = ("_sinks", "_views", "active", "late", "stamp")

    def __init__(self) -> None:
        self._sinks: list[Sink] = []
        self._views: list[EventBus] = []
        self.late = Late()
        self.active = False
        self.stamp: Callable[[], Stamp] = lambda: Stamp(0, 0, -1, 0)

    def __repr__(self) -> str:
        return f"<EventBus with {len(self._sinks)} sinks and {len(self._views)} views>"

    def subscribe(self, sink: Sink) -> None:
        self._sinks.append(sink)
        self._activate()

    def _activate(self) -> None:
        self.active = True
        for view in self._views:
            view._activate()

    def view(self, stamp: Callable[[], Stamp]) -> EventBus:
        """Return an `EventBus` with the same sinks, but with another function ``stamp``. A view is
        necessary for events whose time or CPU is not the current one. For example, a timer of one
        CPU may expire in the time slice of another CPU."""
        view = EventBus()
        view._sinks, view.active, view.stamp, view.late = self._sinks, self.active, stamp, self.late
        self._views.append(view)
        return view

    def emit(self, event: Event) -> None:
        """Deliver an event to the sinks with the current stamp, which is the time, vCPU and PC of
        the event. Call this method only if ``active`` is True, because only then the bus has a
        sink."""
        self.deliver(self.stamp(), event)

    def deliver(self, stamp: Stamp, event: Event) -> None:
        """Deliver an event to the sinks. ``stamp`` is the time, vCPU and PC of the event."""
        for sink in self._sinks:
            try:
                sink(stamp, event)
            except BaseException as error:
                self.late.keep(error)
