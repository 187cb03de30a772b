"""Shadow copies of PE registers, which the native engine accesses without a call to Python.

At each interrupt a guest reads IAR, writes EOIR, and writes a timer register once or twice. Each of
these accesses is arithmetic on the registers of one PE, but would cost a call from the native
engine to Python. Therefore the engine's state has copies of these registers during a run: the list
registers and active priorities, both comparators, and the private interrupts of the PE. The engine
changes the copies by the rules of `VirtualCpuInterface`, `GenericTimer` and `PhysicalGic` (shadow.h
has these rules in C), and sets state.dirty. Changed copies are written back to the PE at the end of
a run, and at the start of each callback that uses these registers.

While a trace sink (a receiver of trace events) is attached, no register has a shadow copy, because
each access is a trace event. The portable engine has no shadow registers.
"""

from __future__ import annotations

from collections.abc import Callable

from armvirt.hw.clock import Clock
from armvirt.hw.engine.state import EngineState, Shadow
from armvirt.hw.gic import PhysicalGic
from armvirt.hw.ich import VirtualCpuInterface
from armvirt.hw.timer import GenericTimer

OnRepeats = Callable[[int], None]


class ShadowRegisters:
    """Copies the registers of one PE to the engine's state and back. The methods have no effect if
    no context is bound to the PE, or if the engine of the bound context has no shadow registers."""

    __slots__ = (
        "_on_repeats",
        "_shadow",
        "_state",
        "clock",
        "cpu",
        "gic",
        "repeating",
        "timer",
        "vif",
    )

    def __init__(
        self,
        cpu: int,
        clock: Clock,
        vif: VirtualCpuInterface,
        timer: GenericTimer,
        gic: PhysicalGic,
    ) -> None:
        self.cpu, self.clock, self.vif, self.timer, self.gic = cpu, clock, vif, timer, gic
        self._state: EngineState | None = None
        self._shadow: Shadow | None = None
        self.repeating = False
        self._on_repeats: OnRepeats = lambda _: None

    def attach(self, state: EngineState) -> None:
        """Bind the state of an engine that has shadow registers. The next `load` copies all
        registers."""
        self._state, self._shadow = state, state.shadow
        self.vif.changed = self.timer.changed = self.gic.changed[self.cpu] = True

    def detach(self) -> None:
        """Stop using the engine's state, because its context is no longer bound to the PE."""
        if self._shadow is not None:
            self._shadow.accesses = 0
        self._state = self._shadow = None

    def start(self, accesses: int, own_virq: bool, own_vfiq: bool) -> None:
        """Copy the registers to the engine at the start of a run. ``accesses`` (bits of `Shadowed`)
        are the accesses that the engine may complete itself. ``own_virq`` is HCR_EL2.VI, and
        ``own_vfiq`` is HCR_EL2.VF."""
        shadow = self._shadow
        if shadow is not None:
            shadow.accesses, shadow.own_virq, shadow.own_vfiq = accesses, own_virq, own_vfiq
            self.load()

    def set_limit(self, ns: int) -> None:
        """End the run at the virtual time ``ns``, or at the time of the next entry of the clock's
        queue if that is earlier. The engine itself computes the time at which a timer line rises,
        so this limit does not include timer lines."""
        if self._shadow is not None:
            due = self.clock.deadline()
            self._shadow.event_ns = ns if due is None else min(due, ns)

    def permit(self, what: int, on_repeats: OnRepeats, value: int = 0) -> None:
        """Permit the engine to deliver the interrupt in list register 0 again without an entry to
        EL2. The engine saves the present value of list register 0. To deliver the interrupt again,
        the engine writes the saved value to list register 0. ``what`` is a `Repeatable`.

        If ``what`` is `Repeatable.TICK`, the interrupt is the interrupt of the virtual timer. The
        engine delivers it again in two cases:

        1. The guest executes WFI, and the next event is the rise of the timer's line. The engine
           advances the time to this event, delivers the interrupt, and continues the guest.
        2. The guest ends the interrupt while the line is still high. The engine delivers the
           interrupt at once.

        If ``what`` is `Repeatable.SGI`, the interrupt is an SGI that the vCPU has sent to itself by
        a write of ``value`` to ICC_SGI1R_EL1. The engine delivers the SGI again if the guest writes
        the same value while all list registers are inactive.

        The permission ends at the next entry to EL2 or at the end of the run. If the engine has
        delivered the interrupt again, ``on_repeats(n)`` is then called before any other code of
        EL2. For an SGI, ``n`` is the number of repeated writes. For the timer, ``n`` is how often
        case 1 has happened. During this call, list register 0 is inactive, as after the guest's end
        of interrupt. After this call, the shadow registers are written to the PE.
        """
        shadow, vif = self._shadow, self.vif
        if shadow is not None:
            self._on_repeats, self.repeating = on_repeats, True
            shadow.repeat, shadow.repeat_lr, shadow.repeat_hcr = what, vif.lr[0], vif.hcr
            shadow.repeat_value = value

    def write_back(self) -> None:
        """Copy the shadow registers that the engine has changed to the PE. Code outside the engine
        must call `write_back` before it reads these registers of the PE. The permission that
        `permit` gave ends."""
        state = self._state
        if state is None:
            return
        if self.repeating:
            self._end_repeat(state)
        if state.dirty:
            self._copy_back(state)

    def load(self) -> None:
        """Copy registers of the PE to the engine. Only the registers that have changed since the
        last `load` or `write_back` are copied."""
        shadow = self._shadow
        if shadow is None:
            return
        if self.vif.changed:
            self._load_interface(shadow)
        if self.timer.changed:
            self.timer.changed = False
            for n, timer in enumerate((self.timer.vtimer, self.timer.ptimer)):
                shadow.ctl[n], shadow.cval[n], shadow.line[n] = timer.ctl, timer.cval, timer.line
        if self.gic.changed[self.cpu]:
            self.gic.changed[self.cpu] = False
            shadow.ppi_line, shadow.ppi_latch, shadow.ppi_active, shadow.ppi_enabled = (
                self.gic.words(self.cpu)
            )

    def _load_interface(self, shadow: Shadow) -> None:
        vif = self.vif
        vif.changed = False
        shadow.lrs, shadow.prebits = len(vif.lr), vif.prebits
        shadow.lr[: len(vif.lr)] = vif.lr
        group0, group1 = shadow.ap
        group0[: len(vif.ap0r)] = vif.ap0r
        group1[: len(vif.ap1r)] = vif.ap1r
        shadow.hcr, shadow.vmcr, shadow.waiting = vif.hcr, vif.vmcr, vif.waiting
        shadow.mask[:] = vif.group_masks
        shadow.candidate, shadow.signalled, shadow.maintenance = (
            vif.candidate,
            vif.signalled >= 0,
            vif.maintenance,
        )

    def _end_repeat(self, state: EngineState) -> None:
        shadow, self.repeating = state.shadow, False
        repeats, retaken = shadow.repeats, shadow.retaken
        shadow.repeat = shadow.repeats = shadow.retaken = 0
        if repeats or retaken:
            self.clock.base += state.repeat_ns
            state.repeat_ns = 0
            self.vif.end(0)
            self._on_repeats(repeats)

    def _copy_back(self, state: EngineState) -> None:
        """Copy the changed shadow registers to the PE, and recompute the outputs that depend on
        these registers."""
        shadow, vif, timer = state.shadow, self.vif, self.timer
        state.dirty = 0
        for n, comparator in enumerate((timer.vtimer, timer.ptimer)):
            comparator.ctl, comparator.cval, comparator.line = (
                shadow.ctl[n],
                shadow.cval[n],
                bool(shadow.line[n]),
            )
        self.gic.set_private(self.cpu, shadow.ppi_line, shadow.ppi_active)
        lrs, aprs = len(vif.lr), len(vif.ap0r)
        group0, group1 = shadow.ap
        vif.set_registers(shadow.hcr, shadow.vmcr, shadow.lr[:lrs], group0[:aprs], group1[:aprs])
        vif.changed = timer.changed = self.gic.changed[self.cpu] = False
