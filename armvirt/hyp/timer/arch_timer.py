"""The virtualized Generic Timer, shaped like KVM's (arch/arm64/kvm/arch_timer.c).

A *direct* timer uses a timer of the PE: while the vCPU is loaded, the PE's comparator has the
guest's CTL and CVAL and an offset. The comparator's PPI goes to the host, and the host injects the
guest's PPI, which is mapped to the physical PPI. An *emulated* timer has no timer of the
PE: each access to its registers traps to EL2, and a host timer takes the place of the comparator.
On an nVHE host the virtual timer is direct and the physical timer is emulated. A VHE host uses the
EL2 timers, so both EL1 timers are direct.

Counts and CVALs are ticks modulo 2**64; times are ns of virtual time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from armvirt.arch import timer as arch
from armvirt.arch.bits import MASK64
from armvirt.arch.timer import (
    CNTHCTL_ECV,
    CNTHCTL_PCEN,
    CNTHCTL_PCTEN,
    EL1_ENABLES_E2H_SHIFT,
)
from armvirt.errors import KvmError
from armvirt.events import EventBus, TimerLine
from armvirt.hw.clock import Clock
from armvirt.hw.timer import GenericTimer, output
from armvirt.hyp.host.hrtimer import HrTimer
from armvirt.hyp.timer.context import (
    DEVICE_IRQ_BITS,
    HOST_PPI,
    ArchTimerContext,
    ArchTimerCpu,
    ArchTimerVmData,
    TimerId,
    TimerRow,
    TimerVgic,
    get_timer_map,
    timer_can_fire,
    timer_should_fire,
)
from armvirt.state import State, checked, fields_of, load_fields
from armvirt.tables import Showable, Table, table_of

STATE_VERSION = 1


class ArchTimer(Showable):
    """One vCPU's timers.

    ``set_phys_active(host_intid, active)`` writes the active state of a PPI in the GIC of the PE on
    which the vCPU is loaded or is being loaded; ``wake`` wakes the blocked vCPU. ``name`` is the
    owner of the vCPU's host timers in the clock's queue, and must be unique within a host.

    ``wfit`` is the virtual count (ticks) at which the WFIT that blocks the vCPU times out, None
    without such a WFIT. ``blocked``: the vCPU blocks, and the background timer wakes it.
    """

    SAVED = ("wfit", "blocked")

    def __init__(
        self,
        vm_data: ArchTimerVmData,
        vcpu_id: int,
        clock: Clock,
        vgic: TimerVgic,
        set_phys_active: Callable[[int, bool], None],
        wake: Callable[[], None],
        bus: EventBus | None = None,
        name: str = "",
    ) -> None:
        self.vm_data, self.vcpu_id, self.clock, self.vgic = vm_data, vcpu_id, clock, vgic
        self.set_phys_active, self.wake = set_phys_active, wake
        self.bus = bus if bus is not None else EventBus()
        self.hw: GenericTimer | None = None
        self.cpu = ArchTimerCpu(vm_data)
        owner = name or f"vcpu{vcpu_id}"
        self.cpu.bg_timer = self._bg = HrTimer(clock, owner, "bg_timer", self._bg_timer_expired)
        self.map = get_timer_map(self.cpu, vm_data.vhe)
        self._direct, self.emulated = self.map.direct, self.map.emulated
        self._direct_vtimer = self.map.direct_vtimer
        self._of_host_ppi = {HOST_PPI[context.timer_id]: context for context in self._direct}
        for context in self.emulated:
            context.hrtimer = HrTimer(
                clock, owner, context.name, partial(self._hrtimer_expired, context)
            )
        self.wfit: int | None = None
        self.blocked = False
        vm_data.attach(self)

    def __repr__(self) -> str:
        return f"<ArchTimer of vCPU {self.vcpu_id}>"

    def _ppi(self, context: ArchTimerContext) -> int:
        return self.vm_data.ppi[context.timer_id]

    def now(self, context: ArchTimerContext) -> int:
        """The count of a context: the physical count minus the context's offset."""
        return self.vm_data.counter.count() - context.offset.value & MASK64

    def ctl_cval(self, context: ArchTimerContext) -> tuple[int, int]:
        """CTL (writable bits) and CVAL of a context: from the PE's timer if it has them, else from
        the context."""
        hw = self.hw
        if context.loaded and hw is not None:
            if context is self._direct_vtimer:
                return hw.vtimer.ctl, hw.vtimer.cval
            if not self._shifted(context):
                return hw.ptimer.ctl, hw.ptimer.cval
        return context.ctl, context.cval

    def _shifted(self, context: ArchTimerContext) -> bool:
        """Whether the PE compares with another CVAL than the guest's: the physical timer is direct
        and has an offset, and the host has no CNTPOFF_EL2.

        In this case CNTP_* traps, so the context keeps the values that the guest wrote.
        """
        return (
            context is self.map.direct_ptimer
            and not self.vm_data.cntpoff
            and context.offset.value != 0
        )

    def should_fire(self, context: ArchTimerContext) -> bool:
        """Whether the output of a context is high (timer_should_fire), loaded or not. The level of
        a loaded virtual timer is the output of the PE's comparator."""
        hw = self.hw
        if context is self._direct_vtimer and context.loaded and hw is not None:
            return output(hw.vtimer.ctl, hw.vtimer.cval, hw.virtual_count())
        ctl, cval = self.ctl_cval(context)
        count = self.vm_data.counter.count() - context.offset.value & MASK64
        return timer_should_fire(ctl, cval, count)

    def compute_delta(self, context: ArchTimerContext) -> int:
        """The ns until the timer condition is met, 0 if it is met now. Rounded up: at that ns the
        condition is true."""
        return self._delta_to(context, self.ctl_cval(context)[1])

    def _delta_to(self, context: ArchTimerContext, count: int) -> int:
        ticks = count - self.now(context)
        return self.vm_data.counter.ns_after(ticks) - self.clock.now if ticks > 0 else 0

    def is_pending(self) -> bool:
        """Whether the output of a timer is high, so that a blocked vCPU must wake up
        (kvm_timer_is_pending)."""
        return any(self.should_fire(context) for context in self.cpu.contexts)

    # Lines and host timers -----------------------------------------------------------------------

    def update_irq(self, context: ArchTimerContext, level: bool) -> None:
        """Inject the level of a context into the vGIC, also if the level did not change: the vGIC
        can lower a mapped line by itself."""
        changed, context.irq_level = level != context.irq_level, level
        if changed and context.hrtimer is not None and self.bus.active:
            # For a direct timer, the PE's timer emits this event.
            self.bus.emit(TimerLine(context.name, int(level)))
        if self.cpu.enabled:
            self.vgic.inject(self.vcpu_id, self.vm_data.ppi[context.timer_id], level, context)

    def timer_emulate(self, context: ArchTimerContext) -> None:
        """Update the level and the host timer of an emulated context; called after every change of
        the context."""
        assert context.hrtimer is not None
        level = self.should_fire(context)
        if level != context.irq_level:
            self.update_irq(context, level)
        if level or not timer_can_fire(context.ctl):
            context.hrtimer.cancel()
        else:
            context.hrtimer.start(self.clock.now + self.compute_delta(context))

    def sync(self) -> None:
        """At an exit: lower the line of an emulated timer if its condition ended because the count
        passed 2**64. No host timer is armed for that wrap: a guest without any other event would
        then never count as stuck."""
        for context in self.emulated:
            if context.irq_level and not self.should_fire(context):
                self.timer_emulate(context)

    def _hrtimer_expired(self, context: ArchTimerContext) -> None:
        assert context.hrtimer is not None
        delta = self.compute_delta(context)
        if delta:
            context.hrtimer.start(self.clock.now + delta)  # expired early: an offset has changed
        else:
            self.update_irq(context, True)

    def _bg_timer_expired(self) -> None:
        deltas = [delta for _, delta in self._waits()] + self._wfit_delay()
        if 0 in deltas:
            self.wake()
        elif deltas:
            self._bg.start(self.clock.now + min(deltas))

    def _waits(self) -> list[tuple[ArchTimerContext, int]]:
        """The contexts that can fire, each with the ns until its timer condition is met."""
        return [
            (c, self.compute_delta(c))
            for c in self.cpu.contexts
            if timer_can_fire(self.ctl_cval(c)[0])
        ]

    def host_irq(self, intid: int) -> bool:
        """The host's handler for a timer PPI that the host has acknowledged. Returns whether the
        PPI was for the guest's timer.

        The physical interrupt stays active until the guest deactivates it through its list
        register. If the line is low by now, the guest gets no interrupt to deactivate, so the
        handler deactivates the physical interrupt.
        """
        context = self._of_host_ppi.get(intid)
        if context is None or not context.loaded:
            return False
        if not self.should_fire(context):
            if self._shifted(context):
                # The guest's count has passed 2**64, the PE's has not: compute CVAL again.
                self._save()
                self._restore()
            self.set_phys_active(intid, False)
            return False
        self.update_irq(context, True)
        return True

    def _wfit_delay(self) -> list[int]:
        """The ns until the timeout of a WFIT that blocks the vCPU, as a list of length 1; an empty
        list without such a WFIT (wfit_delay_ns)."""
        return [] if self.wfit is None else [self._delta_to(self.cpu.vtimer, self.wfit)]

    def virtual_count(self) -> int:
        """The present CNTVCT_EL0 of this vCPU, loaded or not."""
        return self.now(self.cpu.vtimer)

    def ns_of_virtual_count(self, count: int) -> int:
        """The first ns at which the virtual count is ``count`` or more; the present ns if the count
        is reached already."""
        return self.clock.now + self._delta_to(self.cpu.vtimer, count)

    def next_event(self, cntkctl: int) -> int | None:
        """The ns of the next event, after now, of the guest's event stream or of the PE's event
        stream (only while loaded); None if no event stream is enabled."""
        if self.hw is not None:
            return self.hw.next_event(cntkctl)
        ticks = arch.ticks_to_edge(cntkctl, self.virtual_count())
        return None if ticks is None else self.vm_data.counter.ns_after(ticks)

    def event_since(self, cntkctl: int, ns: int) -> bool:
        """Whether an event stream had an event after ``ns`` and up to now, with the present
        settings."""
        counter = self.vm_data.counter
        elapsed = counter.count() - counter.count_at(ns) & MASK64
        streams = [(cntkctl, self.virtual_count())]
        if self.hw is not None:
            streams.append((self.hw.cnthctl, counter.count()))
        edges = (
            arch.ticks_to_edge(control, count - elapsed & MASK64) for control, count in streams
        )
        return any(edge is not None and edge <= elapsed for edge in edges)

    def next_rise(self) -> int | None:
        """The ns at which the next timer line that is low now rises, whether or not the vCPU is
        loaded; None if no line will rise."""
        deltas = [delta for _, delta in self._waits() if delta]
        return self.clock.now + min(deltas) if deltas else None

    # If the VMM has the interrupt controller -----------------------------------------------------

    @property
    def device_irq_level(self) -> int:
        """The levels of the timers for ``kvm_run.s.regs.device_irq_level``: bit 0 is the virtual
        timer, bit 1 the physical timer."""
        return sum(DEVICE_IRQ_BITS[c.timer_id] for c in self.cpu.contexts if c.irq_level)

    def sync_user(self) -> None:
        """kvm_timer_sync_user, without a vGIC: if a line has fallen, deactivate the physical PPI,
        so that the host can take the interrupt again."""
        for context in self._direct:
            if context.loaded and context.irq_level and not self.should_fire(context):
                self.update_irq(context, False)
                self.set_phys_active(HOST_PPI[context.timer_id], False)

    # Lifecycle -----------------------------------------------------------------------------------

    def enable(self) -> None:
        """kvm_timer_enable, at the vCPU's first run: check the PPIs, make them unchangeable, and
        map the PPIs of the direct timers.

        KvmError EINVAL if two timers share a PPI, EEXIST if a PPI has another owner.
        """
        if self.cpu.enabled:
            return
        self.check_ppis()
        for context in self.cpu.contexts:
            self.vgic.set_owner(self.vcpu_id, self._ppi(context), context)
        for context in self._direct:
            self._map(context)
        self.vm_data.ppis_immutable = True
        self.cpu.enabled = True

    def check_ppis(self) -> None:
        """KvmError EINVAL if two timers share a PPI."""
        if len({self._ppi(context) for context in self.cpu.contexts}) != len(self.cpu.contexts):
            raise KvmError("EINVAL", "two timers share a PPI")

    def repeat_levels(self) -> None:
        """After `enable`: inject the lines that are high. A line that rose before `enable` was not
        injected into the vGIC, and a vCPU that is not loaded does not inject it again."""
        for context in self.cpu.contexts:
            if context.irq_level:
                self.update_irq(context, True)

    def _map(self, context: ArchTimerContext) -> None:
        """kvm_vgic_map_phys_irq; `should_fire` is the get_input_level function of the interrupt."""
        host_intid = HOST_PPI[context.timer_id]
        self.vgic.map_phys_irq(
            self.vcpu_id, self._ppi(context), host_intid, partial(self.should_fire, context)
        )

    def vcpu_reset(self) -> None:
        """kvm_timer_vcpu_reset: disable the timers, keep CVAL, lower the lines, and make the mapped
        interrupts inactive."""
        hw = self.hw
        self._save()
        for context in self.cpu.contexts:
            context.ctl = 0
            self.update_irq(context, False)
        self._cancel_hrtimers()
        self.unblocking()
        if self.cpu.enabled:
            for context in self._direct:
                self.vgic.reset_mapped_irq(self.vcpu_id, self._ppi(context))
        if hw is not None:
            self.vcpu_load(hw)

    reset = vcpu_reset

    def vcpu_load(self, hw: GenericTimer) -> None:
        """kvm_timer_vcpu_load: load the guest's timers on a PE, before the guest runs there."""
        self.hw = hw
        for context in self._direct:
            self._load_gic(context)
        self.unblocking()
        self._restore()
        for context in self.emulated:
            self.timer_emulate(context)
        self._set_traps(hw)

    def vcpu_put(self) -> None:
        """kvm_timer_vcpu_put: save the guest's timers from the PE. If the vCPU blocks, the caller
        calls `blocking` next."""
        hw = self.hw
        if hw is None:
            return
        self._save()
        self._cancel_hrtimers()
        self._allow(hw, CNTHCTL_PCTEN | CNTHCTL_PCEN)
        self.hw = None

    def attach(self, hw: GenericTimer) -> None:
        """Mark the timers as loaded on a PE whose registers hold this vCPU's timers already
        (restored state)."""
        self.hw = hw
        for context in self._direct:
            context.loaded = True

    def detach(self) -> None:
        """Mark the timers as not loaded, without saving them: the caller replaces the state
        next."""
        self.hw = None
        for context in self._direct:
            context.loaded = False

    def blocking(self) -> None:
        """kvm_timer_blocking, after `vcpu_put`: arm the background timer for the earliest timer
        that can fire, or for the timeout of a WFIT.

        A timer is skipped if its condition is met and the vGIC already has the high level
        (``irq_level``): its interrupt is disabled or masked by priority, and each wake-up for it
        would be followed by another. (KVM wakes the vCPU, kvm_cpu_has_pending_timer, and WFI
        spins.) ``irq_level`` is valid only at this moment: the vGIC can lower a mapped line by
        itself later.
        """
        self.blocked = True
        deltas = [
            delta for context, delta in self._waits() if delta or not context.irq_level
        ] + self._wfit_delay()
        if deltas:
            self._bg.start(self.clock.now + min(deltas))
        else:
            self._bg.cancel()

    @property
    def wakes_for(self) -> int | None:
        """The INTID of the virtual timer, if it is loaded, the vCPU's timers are ``enabled``, and
        neither the physical timer nor a WFIT timeout can wake the vCPU; else None."""
        vtimer, ptimer = self.cpu.vtimer, self.cpu.ptimer
        if not (vtimer.loaded and self.cpu.enabled) or self.wfit is not None:
            return None
        if timer_can_fire(self.ctl_cval(ptimer)[0]):
            return None
        return self.vm_data.ppi[TimerId.VTIMER]

    def slept(self, times: int) -> None:
        """Set the state after ``times`` repetitions of: `blocking`, expiry of the background timer
        for the virtual timer, `vcpu_load`."""
        self.clock.skip(times)
        self.update_irq(self.cpu.vtimer, True)
        self.set_phys_active(HOST_PPI[TimerId.VTIMER], True)

    def unblocking(self) -> None:
        """kvm_timer_unblocking: cancel the background timer and the timeout of a WFIT."""
        self.blocked = False
        self._bg.cancel()
        self.wfit = None

    def _load_gic(self, context: ArchTimerContext) -> None:
        """kvm_timer_vcpu_load_gic: sample the line again, and set the active state of the physical
        PPI before the timer runs.

        The physical PPI must be active while the guest's interrupt is active *or* the line is high:
        the guest gets the interrupt by a list register, and an inactive physical PPI would cause an
        exit at once.
        """
        self.update_irq(context, self.should_fire(context))
        active = context.irq_level
        if self.cpu.enabled:
            active = active or self.vgic.is_active(self.vcpu_id, self._ppi(context))
        self.set_phys_active(HOST_PPI[context.timer_id], active)

    def _save(self) -> None:
        """timer_save_state of the direct timers; afterwards the PE's timers are disabled and have
        the offset 0."""
        hw = self.hw
        for context in self._direct:
            if hw is not None and context.loaded:
                context.ctl, context.cval = self.ctl_cval(context)
                self._program(hw, context, 0, 0, hw.comparator(context.name).cval)
                context.loaded = False

    def _restore(self) -> None:
        """timer_restore_state of the direct timers: CTL is written last, so that no timer runs with
        an incomplete state."""
        hw = self.hw
        for context in self._direct:
            if hw is not None and not context.loaded:
                if self._shifted(context):
                    cval = self._shift(context)
                    self._program(
                        hw, context, 0, context.ctl if cval <= MASK64 else 0, min(cval, MASK64)
                    )
                else:
                    self._program(hw, context, context.offset.value, context.ctl, context.cval)
                context.loaded = True

    @staticmethod
    def _program(
        hw: GenericTimer, context: ArchTimerContext, offset: int, ctl: int, cval: int
    ) -> None:
        program = hw.program_virtual if context.timer_id is TimerId.VTIMER else hw.program_physical
        program(offset, ctl, cval)

    def _shift(self, context: ArchTimerContext) -> int:
        """The CVAL for a PE without a physical offset (no CNTPOFF_EL2) with which its timer fires
        when the guest's would. The value is above 64 bits if the PE's count passes 2**64 first.

        KVM adds the offset modulo 2**64, so a CVAL far in the future fires at once. This
        calculation is exact until the guest's count or the PE's count passes 2**64.
        """
        offset = context.offset.value
        rolled = 0 if self.vm_data.counter.count() >= offset else 1 << 64
        return max(context.cval + offset - rolled, 0)

    def _set_traps(self, hw: GenericTimer) -> None:
        """timer_set_traps (VHE): CNTP_* and CNTPCT_EL0 do not trap, unless the physical timer has
        an offset and the host has no CNTPOFF_EL2. __timer_enable_traps (nVHE): CNTP_* always traps,
        and CNTPCT_EL0 traps while the physical timer has an offset."""
        moved = self.cpu.ptimer.offset.value != 0
        if self.vm_data.vhe:
            self._allow(
                hw, 0 if moved and not self.vm_data.cntpoff else CNTHCTL_PCTEN | CNTHCTL_PCEN
            )
        else:
            self._allow(hw, 0 if moved else CNTHCTL_PCTEN)

    def _allow(self, hw: GenericTimer, enables: int) -> None:
        """Write CNTHCTL_EL2 in the layout of the host (HCR_EL2.E2H on VHE)."""
        if self.vm_data.vhe:
            enables = enables << EL1_ENABLES_E2H_SHIFT | (
                CNTHCTL_ECV if self.vm_data.cntpoff else 0
            )
        hw.set(arch.CNTHCTL_EL2, enables)

    def _cancel_hrtimers(self) -> None:
        for context in self.cpu.contexts:
            if context.hrtimer is not None:
                context.hrtimer.cancel()

    def set_vcpu_offset(self, timer_id: TimerId, offset: int | None) -> None:
        """Set the vCPU's own offset of a timer in ticks, which is added to the VM's offset; None:
        no own offset."""
        self.offset_moves()
        self.context(timer_id).offset.vcpu_offset = None if offset is None else offset & MASK64
        self.offset_changed()

    def offset_moves(self) -> None:
        """Before an offset changes: save the direct timers from the PE, with the present offset."""
        self._save()

    def offset_changed(self) -> None:
        """After an offset has changed (the caller called `offset_moves` first): update lines, host
        timers and traps."""
        hw = self.hw
        if hw is not None:
            self.vcpu_load(hw)
            return
        for context in self.cpu.contexts:
            self.update_irq(context, self.should_fire(context))
        if self.blocked:
            self.blocking()

    # Register access -----------------------------------------------------------------------------

    def context(self, timer_id: TimerId) -> ArchTimerContext:
        return self.cpu.vtimer if timer_id is TimerId.VTIMER else self.cpu.ptimer

    def set_ctl_cval(self, context: ArchTimerContext, ctl: int, cval: int) -> None:
        """Write CTL and CVAL of a context. If the context is loaded, save it first and restore it
        afterwards."""
        was_loaded = context.loaded
        if was_loaded:
            self._save()
        context.ctl, context.cval = ctl, cval
        if was_loaded:
            self._restore()
        else:
            self._software_changed(context)

    def _software_changed(self, context: ArchTimerContext) -> None:
        """After a context that is not loaded was changed: update its level and its host timer."""
        if self.hw is not None:
            self.timer_emulate(context)
            return
        self.update_irq(context, self.should_fire(context))
        if self.blocked:
            self.blocking()

    # Showing and saving --------------------------------------------------------------------------

    def shown(self) -> list[TimerRow]:
        """The present state of both timers."""
        return [self._shown(context) for context in self.cpu.contexts]

    def _shown(self, context: ArchTimerContext) -> TimerRow:
        ctl, cval = self.ctl_cval(context)
        offset = context.offset
        return TimerRow(
            context.name, self._ppi(context), ctl, cval, self.now(context), offset.value,
            context.loaded, context.irq_level,
            self.compute_delta(context) if timer_can_fire(ctl) else None,
            "direct" if context in self._direct else "emulated", self._owner(context),
            offset.vm_offset, offset.vcpu_offset,
        )  # fmt: skip

    def rows(self) -> list[dict[str, object]]:
        """The present state of both timers as plain data for a table."""
        return [row._asdict() for row in self.shown()]

    def _owner(self, context: ArchTimerContext) -> str:
        """What makes the timer fire now: the PE's comparator, hrtimer or bg_timer; "nobody" if
        nothing does."""
        if context.loaded:
            return "comparator"
        if context.hrtimer is not None and context.hrtimer.active:
            return "hrtimer"
        waits = self._bg.active and timer_can_fire(context.ctl)
        return "bg_timer" if waits else "nobody"

    def tables(self) -> Sequence[Table | str]:
        """The contexts as a table for people, with counts in hexadecimal, and the expiry of the
        background timer if armed."""
        hexed = ("cval", "now", "offset", "vm_offset", "vcpu_offset")
        rows = [
            {k: f"{v:#x}" if k in hexed and isinstance(v, int) else v for k, v in row.items()}
            for row in self.rows()
        ]
        where = "on no CPU" if self.hw is None else "on a CPU"
        form = "VHE" if self.vm_data.vhe else "nVHE"
        contexts = table_of(f"vCPU {self.vcpu_id}: timers, {where}, {form} host", rows)
        return [
            contexts,
            *([f"background timer: {self._bg.expires} ns"] if self._bg.active else []),
        ]

    def state(self) -> dict[str, object]:
        """The guest's view of both timers, loaded or not. The clock saves the host timers that are
        armed."""
        timers = {}
        for context in self.cpu.contexts:
            ctl, cval = self.ctl_cval(context)
            timers[context.name] = {
                "ctl": ctl, "cval": cval, "irq_level": context.irq_level, "vcpu_offset": context.offset.vcpu_offset,
            }  # fmt: skip
        return {
            "version": STATE_VERSION, "enabled": self.cpu.enabled, **fields_of(self, self.SAVED), **timers,
        }  # fmt: skip

    def load(self, state: State) -> None:
        """Restore `state`. Afterwards the timers are not loaded; the caller calls `attach` or
        `vcpu_load` if the vCPU was on a PE."""
        checked(state, "ArchTimer", STATE_VERSION)
        self.hw = None
        if state["enabled"]:
            self.enable()
        else:
            self.cpu.enabled = False  # saved before the first run, which will map the interrupts
        load_fields(self, self.SAVED, state)
        for context in self.cpu.contexts:
            saved = state[context.name]
            assert isinstance(saved, dict)
            context.ctl, context.cval, context.irq_level = (
                saved["ctl"],
                saved["cval"],
                saved["irq_level"],
            )
            context.offset.vcpu_offset = saved["vcpu_offset"]
            context.loaded = False
