"""A physical CPU (PE): its EL2 registers, comparators and virtual CPU interface. A PE runs the
context of the vCPU that is bound to it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from armvirt.arch.esr import WfxKind, sysreg_trap, undefined, wfx
from armvirt.arch.gic import PPI_MAINTENANCE
from armvirt.arch.insn import (
    EXCEPTION_MASK,
    HLT,
    HLT_SEMIHOSTING,
    RT_MASK,
    SYSTEM_ENCODING,
    SYSTEM_READ,
    SYSTEM_SHIFT,
    WFXT,
    WFXT_IS_WFIT,
    WFXT_MASK,
)
from armvirt.arch.named import (
    HCR_E2H,
    HCR_EL2,
    HCR_FMO,
    HCR_IMO,
    HCR_TPU,
    HCR_TWE,
    HCR_TWI,
    HCR_VF,
    HCR_VI,
    SCTLR_EL1,
    SCTLR_NTWE,
    SCTLR_NTWI,
)
from armvirt.arch.pstate import PSTATE_F, PSTATE_I
from armvirt.arch.timer import (
    CNTFRQ_EL0,
    CNTHCTL_EL2,
    CNTHCTL_PCEN,
    CNTHCTL_PCTEN,
    CNTKCTL_EL1,
    CNTPCTSS_EL0,
    CNTPOFF_EL2,
    CNTV_CTL_EL0,
    CNTVCT_EL0,
    CNTVCTSS_EL0,
    CNTVOFF_EL2,
    EL0_ENABLES,
    KCTL_BITS,
    KCTL_BITS_ECV,
    PPI_PTIMER,
    PPI_VTIMER,
)
from armvirt.events import EventBus, ExceptionEntry, PolledWait, Stamp
from armvirt.hw.clock import NEVER, Clock
from armvirt.hw.config import HostConfig
from armvirt.hw.context import Context
from armvirt.hw.engine import Action, Leave
from armvirt.hw.engine.state import (
    WAIT_RECORD,
    EngineState,
    EventRecord,
    Repeatable,
    Shadowed,
    Waits,
)
from armvirt.hw.exit import EXIT_OFFSET, ExitKind, SyncExit, exit_fields, new_exit
from armvirt.hw.gic import PhysicalGic
from armvirt.hw.ich import IccAction, VirtualCpuInterface
from armvirt.hw.shadow import OnRepeats, ShadowRegisters
from armvirt.hw.timer import GenericTimer, Offsets
from armvirt.state import State, Stateful, checked, load_states, states_of

STATE_VERSION = 2

TIMER_EL2 = (CNTVOFF_EL2, CNTHCTL_EL2, CNTPOFF_EL2)
COUNTERS_SS = (CNTPCTSS_EL0, CNTVCTSS_EL0)
_DONE, _TRAP = IccAction.DONE, IccAction.TRAP
WHAT_NAMES = ("sync", "irq", "fiq")

OnExit = Callable[[SyncExit], int]


class Pe:
    """One physical CPU.

    ``run`` executes the bound context until a deadline, until a physical interrupt is signalled to
    EL2, or until the handler of synchronous exits returns STOP. Times are ns of virtual time.
    ``ecv`` is True if the guest has FEAT_ECV, and ``wfxt`` is True if the guest has FEAT_WFxT. The
    CPU model lacks these features, so the PE implements them. If ``config.cntpoff`` is True, EL2
    can use FEAT_ECV_POFF, even if the guest does not have FEAT_ECV.
    """

    def __init__(
        self, index: int, clock: Clock, gic: PhysicalGic, bus: EventBus, config: HostConfig, ns_per_insn: int = 1
    ) -> None:  # fmt: skip
        self.ecv, self.wfxt = "ecv" in config.cpu_features, "wfxt" in config.cpu_features
        #: {feature: PC of its first use}, for the features that this CPU does not have. Only
        #: reports use this dict; it is not saved.
        self.lacking: dict[str, int] = {}
        self.index, self.clock, self.gic, self.ns_per_insn = index, clock, gic, ns_per_insn
        self.bus = bus = bus.view(self.stamp)
        self.timer = GenericTimer(
            clock, config.frequency_hz, self._timer_line, bus, config.counter_start,
            ecv=self.ecv or config.cntpoff,
        )  # fmt: skip
        self.vif = VirtualCpuInterface(index, gic, bus, config.list_registers, config.priority_bits)
        self.shadow = ShadowRegisters(index, clock, self.vif, self.timer, gic)
        self.vif.on_change = self._lines_changed
        self.timer.on_change = self._timer_changed
        self.context: Context | None = None
        self._state: EngineState  # of the bound context's engine
        self.vcpu_id = -1
        self.on_poll: Callable[[], bool] = lambda: False
        self.on_skip: Callable[[int], None] | None = None
        self._el2: dict[int, int] = {}
        self._vi = self._vf = False  # HCR_EL2.VI and VF: interrupts that EL2 makes pending directly
        self._hold = 0  # 1: no virtual interrupt is taken, see `hold_interrupts`
        self._imo = self._fmo = (
            False  # copies of HCR_EL2.IMO and FMO for the accesses to the CPU interface
        )
        self._until = NEVER
        self._offsets: Offsets | None = None  # the values that the bound context's engine has
        self._on_exit: OnExit = lambda _: int(Action.STOP)
        self._running = False

    def __repr__(self) -> str:
        bound = f"runs vCPU {self.vcpu_id}" if self.context is not None else "idle"
        return f"<Pe {self.index}: {bound}>"

    # -- the bound context --

    def bind(self, context: Context, vcpu_id: int) -> None:
        """Bind the context of a vCPU to this CPU, and write the CPU's EL2 registers to the engine
        of the context."""
        self.context, self.vcpu_id = context, vcpu_id
        context.engine.callbacks = self
        self._state = state = context.engine.state
        state.frequency, state.counter_start = self.timer.frequency_hz, self.timer.counter.start
        state.ns_per_insn = self.ns_per_insn
        state.cntkctl_bits = KCTL_BITS_ECV if self.ecv else KCTL_BITS
        state.trace = int(self.bus.active)
        if context.engine.has_shadow:
            self.shadow.attach(state)
        context.program(CNTFRQ_EL0, self.timer.frequency_hz)
        for encoding, value in self._el2.items():
            self._to_engine(encoding, value)
        self._offsets = None
        self._timer_changed()
        self._lines_changed()

    def unbind(self) -> None:
        self.shadow.detach()
        self.context, self.vcpu_id = None, -1

    def write_el2(self, encoding: int, value: int) -> None:
        """Write an EL2 register (packed encoding) of this CPU."""
        if encoding in TIMER_EL2:
            self.timer.set(encoding, value)
            return
        self._el2[encoding] = value
        self._route()
        if self.context is not None:
            self._to_engine(encoding, value)

    def _route(self) -> None:
        """Apply the bits of HCR_EL2 that have an effect outside the engine."""
        hcr = self._el2.get(HCR_EL2, 0)
        self._imo, self._fmo = bool(hcr & HCR_IMO), bool(hcr & HCR_FMO)
        self.timer.set_e2h(bool(hcr & HCR_E2H))
        self._vi, self._vf = bool(hcr & HCR_VI), bool(hcr & HCR_VF)

    def _to_engine(self, encoding: int, value: int) -> None:
        assert self.context is not None
        if encoding == HCR_EL2:
            # TPU is always set in the engine, because the engine must drop translated code at cache
            # maintenance by the guest. If EL2 has not set TPU, the engine itself completes the
            # maintenance, and there is no exit to EL2.
            self.context.engine.state.native_maintenance = int(not value & HCR_TPU)
            # The engine's core has no FEAT_VHE. E2H has no effect on a guest's EL1 and EL0.
            value = value & ~(HCR_E2H | HCR_VI | HCR_VF) | HCR_TPU
            self._lines_changed()
        self.context.program(encoding, value)

    # -- state --

    @property
    def parts(self) -> Mapping[str, Stateful]:
        """The objects of the PE that have their own state, by name, in the order in which `load`
        restores them."""
        return {"timer": self.timer, "vif": self.vif}

    def state(self) -> State:
        """Return the EL2 registers by packed encoding, and the state of each object of `parts`."""
        el2 = {str(encoding): value for encoding, value in self._el2.items()}
        return {"version": STATE_VERSION, "el2": el2, "parts": states_of(self.parts)}

    def load(self, state: State) -> None:
        """Restore the state from a dict that `state` returned. Bind a context only after this
        call."""
        checked(state, "Pe", STATE_VERSION)
        load_states(self.parts, state["parts"], "a PE")
        self._el2 = {int(encoding): value for encoding, value in state["el2"].items()}
        self._route()

    # -- running --

    def run(self, until: int, on_exit: OnExit, yield_at: int = NEVER) -> ExitKind:
        """Run the bound context until the virtual time ``until`` in ns, or until an earlier event
        ends the run (`ExitKind`). A YIELD ends the run only at the virtual time ``yield_at`` or
        later. Returns the reason for which the run ended.

        Each synchronous exit is passed to ``on_exit``, which returns bits of `Action`. `run` itself
        does not return for a synchronous exit, unless ``on_exit`` returns STOP.
        """
        context = self.context
        assert context is not None
        state, clock = context.engine.state, self.clock
        context.do_maintenance()
        self.timer.update()
        if self.gic.deliverable(self.index):
            return ExitKind.IRQ
        self._until, self._on_exit = until, on_exit
        state.ns_base, state.count_base, state.wfe = clock.base, state.count, 0
        state.paced = int(self.on_skip is not None)
        base, ns_per_insn = state.count, self.ns_per_insn
        state.yield_at = (
            NEVER
            if yield_at == NEVER
            else base + max(0, -(-(yield_at - clock.base) // ns_per_insn))
        )
        self.shadow.start(self._shadowed(), self._vi, self._vf)
        clock.progress = lambda: (state.count - base) * ns_per_insn
        clock.on_earlier = self.refresh
        self._running = True
        try:
            why = context.engine.run(self._deadline())
        finally:
            self.shadow.write_back()
            self._running = False
            clock.on_earlier = clock.progress = None
            clock.base += (state.count - base) * ns_per_insn
        self.timer.update()
        return self._kind(why)

    def repeat_tick(self, on_repeats: OnRepeats) -> None:
        """Permit the engine to wake the guest from WFI without an entry to EL2. This applies to the
        next wake-ups whose cause is the virtual timer (`ShadowRegisters.permit`). The call has no
        effect while a trace sink (a receiver of trace events) is attached."""
        if not self.bus.active:
            self.shadow.permit(Repeatable.TICK, on_repeats)

    def repeat_sgi(self, value: int, on_repeats: OnRepeats) -> None:
        """Permit the engine to complete the guest's next writes of ``value`` to ICC_SGI1R_EL1
        without an entry to EL2. Each of these writes sends an SGI from the vCPU to itself
        (`ShadowRegisters.permit`). The call has no effect while a trace sink (a receiver of trace
        events) is attached."""
        if not self.bus.active:
            self.shadow.permit(Repeatable.SGI, on_repeats, value)

    def _shadowed(self) -> int:
        """The accesses that the engine may complete itself, as bits of `Shadowed`."""
        if self.bus.active:
            return 0
        return Shadowed.TIMERS | (Shadowed.ICC if self.vif.sre and self._imo and self._fmo else 0)

    def _kind(self, why: Leave) -> ExitKind:
        assert self.context is not None
        state = self.context.engine.state
        if why == Leave.VECTOR_LOOP:
            return ExitKind.VECTOR_LOOP
        waits, state.wfe = state.wfe, 0
        if waits == Waits.WFE:
            return ExitKind.WFE  # EL2 checks for interrupts before the vCPU blocks
        if self.gic.deliverable(self.index):
            return ExitKind.IRQ
        if waits:
            return ExitKind.YIELD
        if why == Leave.BUDGET:
            return ExitKind.SPIN if state.spin else ExitKind.BUDGET
        return ExitKind.STOPPED

    def next_event(self, until: int) -> int:
        """The virtual time in ns of the next event that happens even if the guest executes no
        instruction. Such an event is a clock entry that is due, or the rise of a timer line. The
        result is ``until`` if no event comes before the virtual time ``until``."""
        for when in (self.clock.deadline(), self.timer.deadline()):
            if when is not None and when < until:
                until = when
        return until

    def skip_to(self, when: int) -> None:
        """Advance the time to ``when`` ns as if the bound context executed a branch to itself until
        then. The instructions are counted, but not executed."""
        assert self.context is not None and not self._running
        count = -(-(when - self.clock.base) // self.ns_per_insn)
        if count > 0:
            self.context.engine.state.count += count
            self.clock.base += count * self.ns_per_insn
        self.timer.update()

    @property
    def running(self) -> bool:
        """Whether the engine is executing. This is also True in a callback of the engine."""
        return self._running

    def _deadline(self) -> int:
        """Return the instruction count at which the engine must leave for the next event."""
        assert self.context is not None
        state = self.context.engine.state
        until = self.next_event(self._until)
        self.shadow.set_limit(self._until)
        if until >= NEVER:
            return NEVER
        return state.count_base + max(0, -(-(until - state.ns_base) // self.ns_per_insn))

    def refresh(self) -> None:
        """Recompute the engine's deadline. This is called when the next event has changed, possibly
        during a run."""
        if self._running and self.context is not None:
            self.context.engine.state.deadline = self._deadline()

    def hold_interrupts(self, hold: bool) -> None:
        """Hold back virtual interrupts if ``hold`` is True; otherwise release them. EL2 holds them
        back while it completes an instruction that it has already emulated."""
        self._hold = int(hold)
        self._lines_changed()

    def request_stop(self) -> None:
        """Make the running engine stop at the next possible instruction. Called in callbacks of the
        engine."""
        if self._running and self.context is not None:
            self.context.engine.state.stop = 1

    # -- interrupt lines --

    def _timer_changed(self) -> None:
        """Copy changed offsets and traps of the counters to the engine, because the engine
        completes counter reads without a callback."""
        offsets = self.timer.offsets
        if self.context is not None and offsets != self._offsets:
            self._offsets = offsets
            state, timer = self.context.engine.state, self.timer
            state.cntvoff, state.cntpoff = timer.cntvoff, timer.physical_offset
            state.cnthctl = controls = timer.controls
            self.context.program(CNTHCTL_EL2, controls & (CNTHCTL_PCTEN | CNTHCTL_PCEN))
        if self._running:
            self.refresh()

    def _timer_line(self, name: str, level: bool) -> None:
        """Set the PPI of a timer to the new level of the timer's line. ``name`` is vtimer or
        ptimer. When the level falls, the PPI is not pending from the present instruction on (IHI
        0069 4.1.2).

        A list register does not follow the line of its physical interrupt. On hardware the list
        register stays pending after the line has fallen, so the guest can still take the interrupt
        until the next exit. In armvirt the fall of the line itself causes an exit, if the guest has
        not taken the interrupt yet (`VirtualCpuInterface.waits`). This exit also happens if the
        interrupt is in no list register.
        """
        intid = PPI_VTIMER if name == "vtimer" else PPI_PTIMER
        self.set_ppi(intid, level)
        if not level and self.vif.waits(intid):
            self.request_stop()

    def set_ppi(self, intid: int, level: bool) -> None:
        self.gic.set_line(self.index, intid, level)
        if self.gic.deliverable(self.index):
            self.request_stop()

    def _lines_changed(self) -> None:
        if self.context is not None:
            state = self.context.engine.state
            state.virq = int(self.vif.virq or self._vi) & ~self._hold
            state.vfiq = int(self.vif.vfiq or self._vf) & ~self._hold
        if self.gic.is_pending(self.index, PPI_MAINTENANCE) != self.vif.maintenance:
            self.set_ppi(PPI_MAINTENANCE, self.vif.maintenance)

    # -- callbacks of the engine (hw.engine.callbacks.PeCallbacks) --

    def el2_exit(self) -> int:
        state, shadow, gic, cpu = self._state, self.shadow, self.gic, self.index
        if state.dirty or shadow.repeating:
            shadow.write_back()
        action = self._on_exit(new_exit(exit_fields(state, EXIT_OFFSET)))
        if gic.irq_requests[cpu]:  # a deactivation by MMIO (GICV_EOIR, ICACTIVER) of a high line
            state.stop = 1
        if self.vif.changed or self.timer.changed or gic.changed[cpu]:
            shadow.load()
        return action

    def undefined(self) -> int:
        """Emulate an instruction that is UNDEFINED in Unicorn's core: MRS/MSR of the GIC CPU
        interface, HLT, or an instruction of FEAT_ECV or FEAT_WFxT."""
        self.shadow.write_back()
        action = self._undefined()
        self.shadow.load()
        return action

    def _undefined(self) -> int:
        assert self.context is not None
        state = self.context.engine.state
        insn = state.insn
        if insn & WFXT_MASK == WFXT:
            return self._wait_with_timeout(WfxKind.WFIT if insn & WFXT_IS_WFIT else WfxKind.WFET)
        if insn & EXCEPTION_MASK == HLT:
            if insn == HLT_SEMIHOSTING:
                return self._on_exit(SyncExit(undefined(), 0, 0, state.pc, 31, 0, insn))
            return self._undef()
        encoding = insn >> SYSTEM_SHIFT & SYSTEM_ENCODING
        is_read, value = insn & SYSTEM_READ != 0, state.rt_value
        if encoding in COUNTERS_SS:
            return self._counter(encoding)
        action, answer = self.vif.icc_access(
            encoding, not is_read, value, state.el, self._imo, self._fmo
        )
        if action is _DONE:
            if self.gic.deliverable(self.index):
                state.stop = 1
            if not is_read:
                return Action.ADVANCE
            state.rt_value = answer
            return Action.WRITE_RT | Action.ADVANCE
        if action is _TRAP:
            rt = insn & RT_MASK
            return self._on_exit(
                SyncExit(sysreg_trap(encoding, is_read, rt), 0, 0, state.pc, rt, value)
            )
        return self._undef()

    def _undef(self) -> int:
        assert self.context is not None
        state = self.context.engine.state
        state.enter_esr, state.enter_has_far = undefined(), 0
        return Action.ENTER

    def _lacking(self, feature: str) -> int:
        """Take an UNDEFINED exception, because this CPU does not have ``feature``. The attribute
        ``lacking`` keeps the PC of the first use of each feature."""
        assert self.context is not None
        self.lacking.setdefault(feature, self.context.engine.state.pc)
        return self._undef()

    def _counter(self, encoding: int) -> int:
        """Emulate an MRS of CNTPCTSS_EL0 or CNTVCTSS_EL0. The value is the value of CNTPCT_EL0 or
        CNTVCT_EL0, because the engine executes all accesses in program order."""
        assert self.context is not None
        state = self.context.engine.state
        syndrome = sysreg_trap(encoding, True, state.insn & RT_MASK)
        if not self.ecv:
            return self._lacking("ecv")
        if state.el == 0 and not self.context.system(CNTKCTL_EL1) & EL0_ENABLES[encoding]:
            return self.context.inject(syndrome)
        if self.timer.traps_to_el2(encoding):
            return self._on_exit(SyncExit(syndrome, 0, 0, state.pc, state.rt, state.rt_value))
        return self.context.answer(self.timer.read(encoding))

    def _wait_with_timeout(self, kind: WfxKind) -> int:
        """Emulate a WFET or WFIT (DDI 0487 C6.2). The trap conditions are the conditions of WFE and
        WFI. If the instruction does not trap, it completes at once; the architecture permits
        this."""
        assert self.context is not None
        state, wfi = self.context.engine.state, kind is WfxKind.WFIT
        if not self.wfxt:
            return self._lacking("wfxt")
        syndrome = wfx(kind, state.insn & RT_MASK)
        sctlr = self.context.system(SCTLR_EL1)
        if state.el == 0 and not sctlr & (SCTLR_NTWI if wfi else SCTLR_NTWE):
            return self.context.inject(syndrome)
        if self._el2.get(HCR_EL2, 0) & (HCR_TWI if wfi else HCR_TWE):
            return self._on_exit(SyncExit(syndrome, 0, 0, state.pc, state.rt, state.rt_value))
        return Action.ADVANCE

    def wait_for_event(self) -> int:
        """Complete a trapped WFET like a WFE. If the event register is set, clear it; otherwise
        leave the engine after the instruction. EL2 calls this method at the trap. Returns the
        `Action` bits for the engine."""
        assert self.context is not None
        if self.context.event_register:
            self.context.take_event(self.clock.now + self.ns_per_insn)
            return Action.ADVANCE
        self.context.engine.state.wfe = Waits.WFE
        return Action.ADVANCE | Action.STOP

    @property
    def interrupts(self) -> bool:
        """Whether a virtual interrupt is signalled and not masked by PSTATE. The guest takes this
        interrupt before the next instruction."""
        assert self.context is not None
        state, pstate = self.context.engine.state, self.context.pstate
        return bool(
            (state.virq and not pstate & PSTATE_I) or (state.vfiq and not pstate & PSTATE_F)
        )

    def timer_access(self) -> None:
        """Complete an access to a CNTV_* or CNTP_* register that EL2 does not trap."""
        assert self.context is not None
        self.shadow.write_back()
        state = self.context.engine.state
        if state.timer_write:
            self.timer.write(state.timer_encoding, state.value)
        else:
            state.value = self.timer.read(state.timer_encoding)
        self.shadow.load()

    def comparator(self, encoding: int) -> tuple[int, int] | None:
        """Return (CTL, CVAL) of a timer. ``encoding`` is the packed encoding of the timer's control
        register or of its counter. Returns None if EL2 traps an access to this register. The engine
        needs the values to skip polled waits."""
        if self.timer.traps_to_el2(encoding):
            return None
        self.shadow.write_back()
        virtual = encoding in (CNTV_CTL_EL0, CNTVCT_EL0)
        timer = self.timer.vtimer if virtual else self.timer.ptimer
        self.shadow.load()
        return timer.ctl, timer.cval

    def poll(self) -> bool:
        self.shadow.write_back()
        stop = self.on_poll()
        self.shadow.load()
        return stop

    def entries(self, records: list[EventRecord]) -> None:
        for r in records:
            stamp = Stamp(r.ns, r.count, self.vcpu_id, r.elr)
            if r.what == WAIT_RECORD:
                until = r.ns + r.target * r.esr * self.ns_per_insn
                self.bus.deliver(stamp, PolledWait(until, r.target, r.esr))
                continue
            self.bus.deliver(stamp, ExceptionEntry(WHAT_NAMES[r.what], r.esr, r.elr, r.target))

    def broadcast(self, encoding: int, value: int) -> None:
        assert self.context is not None
        self.context.domain.broadcast(self.context, encoding, value)

    def send_event(self, count: int) -> None:
        assert self.context is not None
        self.shadow.write_back()
        state = self.context.engine.state
        self.context.domain.send_event(
            self.context, state.ns_base + (count - state.count_base) * self.ns_per_insn
        )
        self.shadow.load()

    def stamp(self) -> Stamp:
        """Return the time, instruction count, vCPU and PC for a trace event that happens now."""
        if self.context is None:
            return Stamp(self.clock.now, 0, -1, 0)
        engine = self.context.engine
        return Stamp(
            self.clock.now,
            engine.state.count,
            self.vcpu_id,
            engine.state.pc if self._running else engine.pc,
        )
