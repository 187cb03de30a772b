"""The virtualized Generic Timer (arch/arm64/kvm/arch_timer.c).

A *direct* timer uses a timer of the PE. While the vCPU is loaded, the PE's timer has the guest's
CTL and CVAL, and the offset. The PE's timer raises a physical PPI of the host. The host then
injects the guest's PPI, which is mapped to the physical PPI. An *emulated* timer uses no timer of
the PE: each access to its CTL, CVAL and TVAL traps to EL2, and a host timer expires when the timer
condition is met. On an nVHE host the virtual timer is direct and the physical timer is emulated. A
VHE host uses the EL2 timers for itself, so both EL1 timers are direct.

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
    """The timers of one vCPU.

    ``set_phys_active(host_intid, active)`` writes the active state of a PPI in the GIC of the PE on
    which the vCPU is loaded or is being loaded. ``wake()`` wakes the blocked vCPU. ``name``
    identifies the vCPU's host timers in the event queue of the clock. It must be unique among all
    VMs of the host.

    ``wfit`` is the virtual count (ticks) at which the WFIT of a blocked vCPU times out; None if the
    vCPU does not wait in a WFIT. ``blocked`` is True while the vCPU is blocked. Then the background
    timer has to wake the vCPU.
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
        """The count of a timer (ticks): the physical count minus the timer's offset."""
        return self.vm_data.counter.count() - context.offset.value & MASK64

    def ctl_cval(self, context: ArchTimerContext) -> tuple[int, int]:
        """CTL (the writable bits) and CVAL of a timer. While the PE's timer has the guest's values,
        both are read from the PE, otherwise from ``context``."""
        hw = self.hw
        if context.loaded and hw is not None:
            if context is self._direct_vtimer:
                return hw.vtimer.ctl, hw.vtimer.cval
            if not self._shifted(context):
                return hw.ptimer.ctl, hw.ptimer.cval
        return context.ctl, context.cval

    def _shifted(self, context: ArchTimerContext) -> bool:
        """Whether the CVAL in the PE's timer must differ from the guest's CVAL. The result is True
        for the direct physical timer if the timer has an offset and the host has no CNTPOFF_EL2.

        While the result is True, CNTP_* traps, and the context keeps the values that the guest
        wrote.
        """
        return (
            context is self.map.direct_ptimer
            and not self.vm_data.cntpoff
            and context.offset.value != 0
        )

    def should_fire(self, context: ArchTimerContext) -> bool:
        """Whether the output of a timer is high (timer_should_fire). The timer may be loaded or
        not. For a loaded direct virtual timer, the result is the output of the PE's comparator."""
        hw = self.hw
        if context is self._direct_vtimer and context.loaded and hw is not None:
            return output(hw.vtimer.ctl, hw.vtimer.cval, hw.virtual_count())
        ctl, cval = self.ctl_cval(context)
        count = self.vm_data.counter.count() - context.offset.value & MASK64
        return timer_should_fire(ctl, cval, count)

    def compute_delta(self, context: ArchTimerContext) -> int:
        """The virtual time in ns from now until the timer condition is met, rounded up; 0 if the
        condition is met now."""
        return self._delta_to(context, self.ctl_cval(context)[1])

    def _delta_to(self, context: ArchTimerContext, count: int) -> int:
        ticks = count - self.now(context)
        return self.vm_data.counter.ns_after(ticks) - self.clock.now if ticks > 0 else 0

    def is_pending(self) -> bool:
        """Whether the output of one or both timers is high. A blocked vCPU must then wake up
        (kvm_timer_is_pending)."""
        return any(self.should_fire(context) for context in self.cpu.contexts)

    # Lines and host timers -----------------------------------------------------------------------

    def update_irq(self, context: ArchTimerContext, level: bool) -> None:
        """Inject the output level of a timer into the vGIC, even if the level has not changed since
        the last call. The vGIC may have another level than the last call injected: if the timer's
        interrupt is mapped to a host interrupt (HW = 1), the vGIC itself can lower the line of the
        interrupt."""
        changed, context.irq_level = level != context.irq_level, level
        if changed and context.hrtimer is not None and self.bus.active:
            # Only for an emulated timer: the PE's timer emits the event of a direct timer.
            self.bus.emit(TimerLine(context.name, int(level)))
        if self.cpu.enabled:
            self.vgic.inject(self.vcpu_id, self.vm_data.ppi[context.timer_id], level, context)

    def timer_emulate(self, context: ArchTimerContext) -> None:
        """Update the output level and the host timer of an emulated timer. The caller does this
        after every change of the emulated timer."""
        assert context.hrtimer is not None
        level = self.should_fire(context)
        if level != context.irq_level:
            self.update_irq(context, level)
        if level or not timer_can_fire(context.ctl):
            context.hrtimer.cancel()
        else:
            context.hrtimer.start(self.clock.now + self.compute_delta(context))

    def sync(self) -> None:
        """Lower the output of an emulated timer whose count has passed 2**64, because its condition
        is then not met any more. EL2 calls this method at every exit.

        No host timer is armed for the time at which the count passes 2**64. Otherwise an event
        would always be due, and the host could not detect a stuck guest: a guest is stuck if it
        waits and no event is due.
        """
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
        """The timers that can fire (enabled and not masked), each with the time in ns until its
        condition is met."""
        return [
            (c, self.compute_delta(c))
            for c in self.cpu.contexts
            if timer_can_fire(self.ctl_cval(c)[0])
        ]

    def host_irq(self, intid: int) -> bool:
        """Handle a timer PPI that the host has acknowledged. Return True if the guest's PPI was
        injected.

        The guest's PPI is mapped to the physical PPI. The physical PPI stays active until the guest
        deactivates its PPI. If the timer's output is low already, the guest gets no interrupt that
        it could deactivate. In this case, this handler deactivates the physical PPI itself.
        """
        context = self._of_host_ppi.get(intid)
        if context is None or not context.loaded:
            return False
        if not self.should_fire(context):
            if self._shifted(context):
                # The guest's count has passed 2**64 and the PE's count has not: the PE's timer
                # needs another CVAL.
                self._save()
                self._restore()
            self.set_phys_active(intid, False)
            return False
        self.update_irq(context, True)
        return True

    def _wfit_delay(self) -> list[int]:
        """The time in ns until the WFIT of a blocked vCPU times out (wfit_delay_ns), as a list with
        one item. The list is empty if the vCPU does not wait in a WFIT."""
        return [] if self.wfit is None else [self._delta_to(self.cpu.vtimer, self.wfit)]

    def virtual_count(self) -> int:
        """The present CNTVCT_EL0 of this vCPU (ticks), whether or not the vCPU is loaded."""
        return self.now(self.cpu.vtimer)

    def ns_of_virtual_count(self, count: int) -> int:
        """The first virtual time (ns) at which the virtual count is ``count`` or more. If the
        virtual count is ``count`` or more already, the result is the present time."""
        return self.clock.now + self._delta_to(self.cpu.vtimer, count)

    def next_event(self, cntkctl: int) -> int | None:
        """The virtual time (ns) of the next event of an event stream; None if no event stream is
        enabled. An event at the present time does not count. ``cntkctl`` is the guest's
        CNTKCTL_EL1, which controls the guest's event stream. While the vCPU is loaded, the event
        stream of CNTHCTL_EL2 of the PE counts, too."""
        if self.hw is not None:
            return self.hw.next_event(cntkctl)
        ticks = arch.ticks_to_edge(cntkctl, self.virtual_count())
        return None if ticks is None else self.vm_data.counter.ns_after(ticks)

    def event_since(self, cntkctl: int, ns: int) -> bool:
        """Whether an event stream had an event after the virtual time ``ns``, up to and including
        the present time. ``cntkctl`` is the guest's CNTKCTL_EL1. The calculation assumes that the
        settings of the event streams have not changed since ``ns``."""
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
        """The virtual time (ns) at which the next timer output goes from low to high; None if no
        output will go high. The vCPU may be loaded or not."""
        deltas = [delta for _, delta in self._waits() if delta]
        return self.clock.now + min(deltas) if deltas else None

    # If the VMM has the interrupt controller -----------------------------------------------------

    @property
    def device_irq_level(self) -> int:
        """The levels of the timers for ``kvm_run.s.regs.device_irq_level``: bit 0 is the virtual
        timer, bit 1 the physical timer."""
        return sum(DEVICE_IRQ_BITS[c.timer_id] for c in self.cpu.contexts if c.irq_level)

    def sync_user(self) -> None:
        """For a VM without a vGIC: deactivate the physical PPI of a timer whose output has fallen,
        so that the host can take the PPI again (kvm_timer_sync_user)."""
        for context in self._direct:
            if context.loaded and context.irq_level and not self.should_fire(context):
                self.update_irq(context, False)
                self.set_phys_active(HOST_PPI[context.timer_id], False)

    # Lifecycle -----------------------------------------------------------------------------------

    def enable(self) -> None:
        """Prepare the timers at the vCPU's first run (kvm_timer_enable): check the PPIs, forbid
        later changes of the PPIs, and map the PPIs of the direct timers.

        KvmError EINVAL if two timers share a PPI, EEXIST if a PPI has another device as its owner
        already (kvm_vgic_set_owner).
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
        """Raise KvmError EINVAL if two timers share a PPI."""
        if len({self._ppi(context) for context in self.cpu.contexts}) != len(self.cpu.contexts):
            raise KvmError("EINVAL", "two timers share a PPI")

    def repeat_levels(self) -> None:
        """Inject the timer outputs that are high. The caller has called `enable` just before. An
        output that rose before `enable` was not injected. If the vCPU is not loaded, nothing else
        would inject it later."""
        for context in self.cpu.contexts:
            if context.irq_level:
                self.update_irq(context, True)

    def _map(self, context: ArchTimerContext) -> None:
        """Map a timer's PPI to the physical PPI (kvm_vgic_map_phys_irq). The vGIC reads the output
        level of the timer by `should_fire`, the get_input_level function of the PPI."""
        host_intid = HOST_PPI[context.timer_id]
        self.vgic.map_phys_irq(
            self.vcpu_id, self._ppi(context), host_intid, partial(self.should_fire, context)
        )

    def vcpu_reset(self) -> None:
        """Disable the timers, lower their outputs, and make the PPIs of the direct timers inactive
        (kvm_timer_vcpu_reset). CVAL does not change."""
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
        """Load the guest's timers on a PE, before the guest runs there (kvm_timer_vcpu_load)."""
        self.hw = hw
        for context in self._direct:
            self._load_gic(context)
        self.unblocking()
        self._restore()
        for context in self.emulated:
            self.timer_emulate(context)
        self._set_traps(hw)

    def vcpu_put(self) -> None:
        """Save the guest's timers from the PE (kvm_timer_vcpu_put). If the vCPU blocks, the caller
        then calls `blocking`."""
        hw = self.hw
        if hw is None:
            return
        self._save()
        self._cancel_hrtimers()
        self._allow(hw, CNTHCTL_PCTEN | CNTHCTL_PCEN)
        self.hw = None

    def attach(self, hw: GenericTimer) -> None:
        """Mark the timers as loaded on a PE. The PE's registers already hold this vCPU's timers,
        because the state of the PE was restored."""
        self.hw = hw
        for context in self._direct:
            context.loaded = True

    def detach(self) -> None:
        """Mark the timers as not loaded. The timers are not saved from the PE, because the caller
        will restore another state."""
        self.hw = None
        for context in self._direct:
            context.loaded = False

    def blocking(self) -> None:
        """Arm the background timer of a vCPU that blocks (kvm_timer_blocking). The caller has
        already called `vcpu_put`. The background timer expires when the earliest timer condition is
        met or the WFIT times out.

        A timer is left out if its condition is met and the vGIC already has the high level
        (``irq_level``). The guest has disabled this timer's interrupt or masked it by priority, so
        the vCPU would block again after each wake-up. (KVM wakes the vCPU,
        kvm_cpu_has_pending_timer, and the guest executes WFI again and again.)

        When the vCPU blocks, ``irq_level`` is equal to the level in the vGIC. At other times the
        level in the vGIC can be low while ``irq_level`` is high, because the vGIC itself can lower
        the line of an interrupt that is mapped to a host interrupt (HW = 1).
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
        """The INTID of the virtual timer, if the virtual timer is the only timer that can wake the
        vCPU: the physical timer is disabled or masked, and the vCPU does not wait in a WFIT.
        Otherwise None. The result is also None while the virtual timer is not loaded, and before
        `enable`."""
        vtimer, ptimer = self.cpu.vtimer, self.cpu.ptimer
        if not (vtimer.loaded and self.cpu.enabled) or self.wfit is not None:
            return None
        if timer_can_fire(self.ctl_cval(ptimer)[0]):
            return None
        return self.vm_data.ppi[TimerId.VTIMER]

    def repeat_wakeups(self, times: int) -> None:
        """Set the state that the timers have after ``times`` wake-ups by the virtual timer. In each
        wake-up, the vCPU blocks (`blocking`), the background timer expires for the virtual timer,
        and the vCPU is loaded (`vcpu_load`)."""
        self.clock.skip(times)
        self.update_irq(self.cpu.vtimer, True)
        self.set_phys_active(HOST_PPI[TimerId.VTIMER], True)

    def unblocking(self) -> None:
        """Cancel the background timer and the timeout of a WFIT (kvm_timer_unblocking)."""
        self.blocked = False
        self._bg.cancel()
        self.wfit = None

    def _load_gic(self, context: ArchTimerContext) -> None:
        """Inject the present output level of a timer, and set the active state of the physical PPI,
        before the timer runs on the PE (kvm_timer_vcpu_load_gic).

        The physical PPI must be active while the guest's interrupt is active, and also while the
        output is high. A high output reaches the guest by a list register. If the physical PPI were
        inactive while the output is high, it would cause an exit at once.
        """
        self.update_irq(context, self.should_fire(context))
        active = context.irq_level
        if self.cpu.enabled:
            active = active or self.vgic.is_active(self.vcpu_id, self._ppi(context))
        self.set_phys_active(HOST_PPI[context.timer_id], active)

    def _save(self) -> None:
        """Save the direct timers from the PE (timer_save_state). Afterwards the PE's timers are
        disabled and have the offset 0."""
        hw = self.hw
        for context in self._direct:
            if hw is not None and context.loaded:
                context.ctl, context.cval = self.ctl_cval(context)
                self._program(hw, context, 0, 0, hw.comparator(context.name).cval)
                context.loaded = False

    def _restore(self) -> None:
        """Write the direct timers to the PE (timer_restore_state). CTL is written last, so that no
        timer runs with an incomplete state."""
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
        """The CVAL for the PE's physical timer on a PE without CNTPOFF_EL2. With this CVAL the PE's
        timer fires at the same time as the guest's timer would. The value exceeds 64 bits if the
        PE's count passes 2**64 before that time.

        KVM adds the offset modulo 2**64, so in KVM a timer with a CVAL far in the future fires at
        once. This calculation is exact until the guest's count or the PE's count passes 2**64.
        """
        offset = context.offset.value
        rolled = 0 if self.vm_data.counter.count() >= offset else 1 << 64
        return max(context.cval + offset - rolled, 0)

    def _set_traps(self, hw: GenericTimer) -> None:
        """Write the traps of CNTP_* and CNTPCT_EL0.

        On a VHE host (timer_set_traps), CNTP_* and CNTPCT_EL0 trap if the physical timer has an
        offset and the host has no CNTPOFF_EL2. On an nVHE host (__timer_enable_traps), CNTP_*
        always traps, and CNTPCT_EL0 traps if the physical timer has an offset.
        """
        moved = self.cpu.ptimer.offset.value != 0
        if self.vm_data.vhe:
            self._allow(
                hw, 0 if moved and not self.vm_data.cntpoff else CNTHCTL_PCTEN | CNTHCTL_PCEN
            )
        else:
            self._allow(hw, 0 if moved else CNTHCTL_PCTEN)

    def _allow(self, hw: GenericTimer, enables: int) -> None:
        """Write CNTHCTL_EL2. ``enables`` has EL1PCTEN and EL1PCEN in the layout of HCR_EL2.E2H = 0.
        On a VHE host the bits are moved to the layout of HCR_EL2.E2H = 1."""
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
        """Set the vCPU's own offset of a timer, in ticks. If ``offset`` is None, remove the own
        offset. The own offset is added to the VM's offset."""
        self.offset_moves()
        self.context(timer_id).offset.vcpu_offset = None if offset is None else offset & MASK64
        self.offset_changed()

    def offset_moves(self) -> None:
        """Save the direct timers from the PE, because the caller will change an offset next. The
        save uses the present offset."""
        self._save()

    def offset_changed(self) -> None:
        """Update outputs, host timers and traps after a change of an offset. The caller has called
        `offset_moves` before the change."""
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
        """Write CTL and CVAL of a timer. If the timer is loaded on a PE, it is saved from the PE
        before the write, and restored to the PE after the write."""
        was_loaded = context.loaded
        if was_loaded:
            self._save()
        context.ctl, context.cval = ctl, cval
        if was_loaded:
            self._restore()
        else:
            self._software_changed(context)

    def _software_changed(self, context: ArchTimerContext) -> None:
        """Update the output level and the host timer after a change of a timer that is not
        loaded."""
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
        """The name of what makes the timer fire. "comparator" is the PE's timer. "hrtimer" is the
        host timer of an emulated timer. "bg_timer" is the background timer of a blocked vCPU.
        "nobody" means that the timer will not fire."""
        if context.loaded:
            return "comparator"
        if context.hrtimer is not None and context.hrtimer.active:
            return "hrtimer"
        waits = self._bg.active and timer_can_fire(context.ctl)
        return "bg_timer" if waits else "nobody"

    def tables(self) -> Sequence[Table | str]:
        """A table of both timers for display, with counts in hexadecimal. If the background timer
        is armed, the list has a second item: a line of text with the expiry of the background timer
        in ns."""
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
        """CTL, CVAL, output level and own offset of both timers. These are the guest's values,
        whether or not the vCPU is loaded. The result does not say which host timers are armed,
        because the saved state of the clock has them."""
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
        """Restore the result of `state`. Afterwards the timers are not loaded. If the vCPU was on a
        PE, the caller calls `attach` or `vcpu_load` next."""
        checked(state, "ArchTimer", STATE_VERSION)
        self.hw = None
        if state["enabled"]:
            self.enable()
        else:
            self.cpu.enabled = False  # the first run will call `enable`
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
