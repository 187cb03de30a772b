"""The virtualized Generic Timer, shaped like KVM's (arch/arm64/kvm/arch_timer.c).

A *direct* timer runs on hardware: while a vCPU is loaded, the PE's own comparator has the guest's
CTL and CVAL behind an offset, its interrupt reaches the host, and the host injects it as an
interrupt that is mapped to the physical one. An *emulated* timer traps, and a host timer stands for
the comparator. On an nVHE host the virtual timer is direct and the physical one emulated; a VHE
host has a timer of its own, so both are direct.

Counts and CVALs are ticks modulo 2**64; times are ns of virtual time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from armvirt.arch import timer as arch
from armvirt.arch.timer import (
    CNTHCTL_ECV,
    CNTHCTL_PCEN,
    CNTHCTL_PCTEN,
    CTL_WRITABLE,
    EL1_ENABLES_E2H_SHIFT,
)
from armvirt.arch.words import MASK64
from armvirt.errors import KvmError
from armvirt.events import EventBus, TimerLine, TimerWrite
from armvirt.hw.clock import Clock
from armvirt.hw.timer import GenericTimer
from armvirt.hyp.host.hrtimer import HrTimer
from armvirt.hyp.timer.context import (
    DEFAULT_PPI,
    DEVICE_IRQ_BITS,
    HOST_PPI,
    ONE_REGS,
    TIMER_ATTRIBUTES,
    TIMER_CTRL,
    TIMER_NAMES,
    TRAPPED,
    ArchTimerContext,
    ArchTimerCpu,
    ArchTimerOffset,
    ArchTimerVmData,
    TimerId,
    TimerMap,
    TimerRegister,
    TimerRow,
    TimerVgic,
    ctl_with_status,
    get_timer_map,
    timer_can_fire,
    timer_should_fire,
)
from armvirt.state import State, checked
from armvirt.tables import Showable, Table, table_of

STATE_VERSION = 1

__all__ = [
    "DEFAULT_PPI",
    "ONE_REGS",
    "TIMER_CTRL",
    "TIMER_NAMES",
    "TRAPPED",
    "ArchTimer",
    "ArchTimerContext",
    "ArchTimerCpu",
    "ArchTimerOffset",
    "ArchTimerVmData",
    "TimerId",
    "TimerMap",
    "TimerRegister",
    "TimerVgic",
    "ctl_with_status",
    "get_timer_map",
    "timer_can_fire",
    "timer_should_fire",
]


class ArchTimer(Showable):
    """One vCPU's timers.

    ``set_phys_active(host_intid, active)`` writes the active state of a PPI in the GIC of the PE on
    which the vCPU is (being) loaded; ``wake`` wakes the blocked vCPU. ``name`` is the owner of its
    host timers in the clock's queue, unique within a host.
    """

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
        """A context's count: the physical count less its offset."""
        return self.vm_data.counter.count() - context.offset.value & MASK64

    def _ctl_cval(self, context: ArchTimerContext) -> tuple[int, int]:
        """CTL (writable bits) and CVAL, wherever they are."""
        hw = self.hw
        if context.loaded and hw is not None:
            if context is self._direct_vtimer:
                return hw.vtimer.ctl, hw.vtimer.cval
            if not self._shifted(context):
                return hw.ptimer.ctl, hw.ptimer.cval
        return context.ctl, context.cval

    def _shifted(self, context: ArchTimerContext) -> bool:
        """Whether the hardware compares with another CVAL than the guest's: a physical offset, and
        no CNTPOFF_EL2.

        Then CNTP_* traps, so that the context has what the guest wrote.
        """
        return (
            context is self.map.direct_ptimer
            and not self.vm_data.cntpoff
            and context.offset.value != 0
        )

    def should_fire(self, context: ArchTimerContext) -> bool:
        """timer_should_fire of a context, loaded or not."""
        ctl, cval = self._ctl_cval(context)
        count = self.vm_data.counter.count() - context.offset.value & MASK64
        return timer_should_fire(ctl, cval, count)

    def compute_delta(self, context: ArchTimerContext) -> int:
        """The ns until the context's condition holds, 0 if it holds: exact, rounded up to the first
        such ns."""
        return self._delta_to(context, self._ctl_cval(context)[1])

    def _delta_to(self, context: ArchTimerContext, count: int) -> int:
        ticks = count - self.now(context)
        return self.vm_data.counter.ns_after(ticks) - self.clock.now if ticks > 0 else 0

    def is_pending(self) -> bool:
        """Whether a timer's output is high: a blocked vCPU must wake up (kvm_timer_is_pending)."""
        return any(self.should_fire(context) for context in self.cpu.contexts)

    # Lines and host timers -----------------------------------------------------------------------

    def update_irq(self, context: ArchTimerContext, level: bool) -> None:
        """Tell the vGIC a context's level, also if it did not change: the vGIC lowers mapped lines
        by itself."""
        changed, context.irq_level = level != context.irq_level, level
        if changed and context.hrtimer is not None and self.bus.active:
            self.bus.emit(
                TimerLine(context.name, int(level))
            )  # a direct timer's line is the hardware's event
        if self.cpu.enabled:
            self.vgic.inject(self.vcpu_id, self.vm_data.ppi[context.timer_id], level, context)

    def timer_emulate(self, context: ArchTimerContext) -> None:
        """Bring an emulated context's level and host timer up to date; every change of it ends
        here."""
        assert context.hrtimer is not None
        level = self.should_fire(context)
        if level != context.irq_level:
            self.update_irq(context, level)
        if level or not timer_can_fire(context.ctl):
            context.hrtimer.cancel()
        else:
            context.hrtimer.start(self.clock.now + self.compute_delta(context))

    def sync(self) -> None:
        """At an exit with a high line of an emulated timer: the line falls if the timer's count has
        rolled over 2**64. No host timer is armed for that, because it would keep a guest that waits
        for nothing alive for centuries."""
        for context in self.emulated:
            if context.irq_level and not self.should_fire(context):
                self.timer_emulate(context)

    def _hrtimer_expired(self, context: ArchTimerContext) -> None:
        assert context.hrtimer is not None
        delta = self.compute_delta(context)
        if delta:
            context.hrtimer.start(self.clock.now + delta)  # woke early: an offset moved
        else:
            self.update_irq(context, True)

    def _bg_timer_expired(self) -> None:
        deltas = [delta for _, delta in self._waits()] + self._wfit_delay()
        if 0 in deltas:
            self.wake()
        elif deltas:
            self._bg.start(self.clock.now + min(deltas))

    def _waits(self) -> list[tuple[ArchTimerContext, int]]:
        """The contexts that can fire, each with the ns until it does."""
        return [
            (c, self.compute_delta(c))
            for c in self.cpu.contexts
            if timer_can_fire(self._ctl_cval(c)[0])
        ]

    def host_irq(self, intid: int) -> bool:
        """The host's handler of a timer PPI, already acknowledged. Returns whether it was the
        guest's timer.

        The physical interrupt stays active until the guest deactivates it through its list
        register. One that is spurious (the line fell meanwhile) has nobody who would, so it is
        deactivated here.
        """
        context = self._of_host_ppi.get(intid)
        if context is None or not context.loaded:
            return False
        if not self.should_fire(context):
            if self._shifted(
                context
            ):  # the guest's count has rolled over, the hardware's has not: shift anew
                self._save()
                self._restore()
            self.set_phys_active(intid, False)
            return False
        self.update_irq(context, True)
        return True

    def _wfit_delay(self) -> list[int]:
        """The ns until a WFIT that blocks the vCPU times out, as a list of none or one
        (wfit_delay_ns)."""
        return [] if self.wfit is None else [self._delta_to(self.cpu.vtimer, self.wfit)]

    def virtual_count(self) -> int:
        """CNTVCT_EL0 of this vCPU now, loaded or not."""
        return self.now(self.cpu.vtimer)

    def ns_of_virtual_count(self, count: int) -> int:
        """The first ns at which the virtual count is ``count`` or more: now if it is."""
        return self.clock.now + self._delta_to(self.cpu.vtimer, count)

    def next_event(self, cntkctl: int) -> int | None:
        """The ns of the next event of the guest's event stream and of the PE's, after now; None: no
        stream."""
        if self.hw is not None:
            return self.hw.next_event(cntkctl)
        ticks = arch.ticks_to_edge(cntkctl, self.virtual_count())
        return None if ticks is None else self.vm_data.counter.ns_after(ticks)

    def event_since(self, cntkctl: int, ns: int) -> bool:
        """Whether the event streams had an event after ``ns`` and up to now, under the present
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
        """The ns at which the first line rises that is low now, wherever the timers are; None: none
        will."""
        deltas = [delta for _, delta in self._waits() if delta]
        return self.clock.now + min(deltas) if deltas else None

    # A VMM with an interrupt controller of its own -----------------------------------------------

    @property
    def device_irq_level(self) -> int:
        """The levels for ``kvm_run.s.regs.device_irq_level``: bit 0 the virtual timer, bit 1 the
        physical one."""
        return sum(DEVICE_IRQ_BITS[c.timer_id] for c in self.cpu.contexts if c.irq_level)

    def sync_user(self) -> None:
        """kvm_timer_sync_user, without a vGIC: a line that fell lets the host's interrupt in
        again."""
        for context in self._direct:
            if context.loaded and context.irq_level and not self.should_fire(context):
                self.update_irq(context, False)
                self.set_phys_active(HOST_PPI[context.timer_id], False)

    # Attributes ----------------------------------------------------------------------------------

    def set_attr(self, attr: int, value: int | None, in_kernel: bool) -> None:
        """KVM_ARM_VCPU_TIMER_CTRL: the PPI of a timer, of all vCPUs. ``in_kernel``: the VM has a
        vGIC.

        EINVAL without a vGIC and for what is no PPI, EFAULT for None (no memory behind the
        pointer), EBUSY after the first run, ENXIO for another attribute: checked in this order
        (kvm_arm_timer_set_attr).
        """
        if not in_kernel:
            raise KvmError("EINVAL", "the VM has no interrupt controller")
        if value is None:
            raise KvmError("EFAULT", "no value")
        self.vm_data.check_ppi(value)
        self.vm_data.check_changeable()
        self.vm_data.set_ppi(self._attribute(attr), value)

    def get_attr(self, attr: int) -> int:
        """The PPI of a timer. ENXIO for another attribute."""
        return self.vm_data.ppi[self._attribute(attr)]

    def has_attr(self, attr: int) -> None:
        """KVM_HAS_DEVICE_ATTR: ENXIO where there is no such attribute."""
        self._attribute(attr)

    @staticmethod
    def _attribute(attr: int) -> TimerId:
        if attr not in TIMER_ATTRIBUTES:
            raise KvmError("ENXIO", f"no timer attribute {attr}")
        return TIMER_ATTRIBUTES[attr]

    # Lifecycle -----------------------------------------------------------------------------------

    def enable(self) -> None:
        """kvm_timer_enable, at the vCPU's first run: check and freeze the PPIs, map the direct
        timer's.

        EINVAL if two timers share a PPI or one is taken by somebody else.
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
        """After `enable`: lines that rose before the vGIC knew whose they are were told in vain,
        and a vCPU that sleeps is not loaded to tell them again."""
        for context in self.cpu.contexts:
            if context.irq_level:
                self.update_irq(context, True)

    def _map(self, context: ArchTimerContext) -> None:
        """kvm_vgic_map_phys_irq, with the line's level as get_input_level gives it."""
        host_intid = HOST_PPI[context.timer_id]
        self.vgic.map_phys_irq(
            self.vcpu_id, self._ppi(context), host_intid, partial(self.should_fire, context)
        )

    def vcpu_reset(self) -> None:
        """kvm_timer_vcpu_reset: timers off, CVAL untouched, lines low, and the mapped interrupt
        back to inactive."""
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
        """kvm_timer_vcpu_load: put the guest's timers onto a PE, before the guest runs there."""
        self.hw = hw
        for context in self._direct:
            self._load_gic(context)
        self.unblocking()
        self._restore()
        for context in self.emulated:
            self.timer_emulate(context)
        self._set_traps(hw)

    def vcpu_put(self) -> None:
        """kvm_timer_vcpu_put: take the guest's timers off the PE. `blocking` follows if the vCPU
        sleeps."""
        hw = self.hw
        if hw is None:
            return
        self._save()
        self._cancel_hrtimers()
        self._allow(hw, CNTHCTL_PCTEN | CNTHCTL_PCEN)
        self.hw = None

    def attach(self, hw: GenericTimer) -> None:
        """Be loaded on a PE whose registers hold this vCPU's timer already (restored state)."""
        self.hw = hw
        for context in self._direct:
            context.loaded = True

    def detach(self) -> None:
        """Be loaded nowhere, without saving: the state is about to be replaced."""
        self.hw = None
        for context in self._direct:
            context.loaded = False

    def blocking(self) -> None:
        """kvm_timer_blocking, after `vcpu_put`: arm the background timer for the first timer that
        can fire, if any.

        A timer that fires already and was told to the vGIC is none: its interrupt is disabled, or
        masked by priority, and waking for it would wake for ever. (KVM does wake, by
        kvm_cpu_has_pending_timer, and lets WFI spin.) The level that was told is true at this
        moment only: a mapped line falls in the vGIC without a word to us.
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
        """The INTID of the virtual timer, if it is on hardware and no other timer could wake the
        vCPU; else None."""
        vtimer, ptimer = self.cpu.vtimer, self.cpu.ptimer
        if not (vtimer.loaded and self.cpu.enabled) or self.wfit is not None:
            return None
        if timer_can_fire(self._ctl_cval(ptimer)[0]):
            return None
        return self.vm_data.ppi[TimerId.VTIMER]

    def slept(self, times: int) -> None:
        """What so many rounds of `blocking`, the background timer's end and `vcpu_load` for the
        virtual timer leave."""
        self.clock.skip(times)
        self.update_irq(self.cpu.vtimer, True)
        self.set_phys_active(HOST_PPI[TimerId.VTIMER], True)

    def unblocking(self) -> None:
        """kvm_timer_unblocking; a WFIT is over with it."""
        self.blocked = False
        self._bg.cancel()
        self.wfit = None

    def _load_gic(self, context: ArchTimerContext) -> None:
        """kvm_timer_vcpu_load_gic: resample the line, and set the host's active state before the
        timer runs.

        The interrupt must be active on the host while the guest has it active *or* its line is
        high: the guest will get it by list register, and an inactive one would throw the guest out
        again at once.
        """
        self.update_irq(context, self.should_fire(context))
        active = context.irq_level
        if self.cpu.enabled:
            active = active or self.vgic.is_active(self.vcpu_id, self._ppi(context))
        self.set_phys_active(HOST_PPI[context.timer_id], active)

    def _save(self) -> None:
        """timer_save_state of the direct timers: the PE's comparators are off afterwards, at no
        offset."""
        hw = self.hw
        for context in self._direct:
            if hw is not None and context.loaded:
                context.ctl, context.cval = self._ctl_cval(context)
                self._program(hw, context, 0, 0, hw.comparator(context.name).cval)
                context.loaded = False

    def _restore(self) -> None:
        """timer_restore_state of the direct timers: CTL last, so that none ever runs with half of
        its state."""
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
        """The CVAL by which hardware that knows no physical offset does what the guest's says;
        beyond 64 bits if its count rolls over first.

        KVM adds the offset modulo 2**64, and a far CVAL fires at once. This is exact until one of
        the counts rolls over.
        """
        offset = context.offset.value
        rolled = 0 if self.vm_data.counter.count() >= offset else 1 << 64
        return max(context.cval + offset - rolled, 0)

    def _set_traps(self, hw: GenericTimer) -> None:
        """timer_set_traps (VHE): CNTP_* and CNTPCT_EL0 are the guest's, unless they need an offset
        that there is no CNTPOFF_EL2 for. __timer_enable_traps (nVHE): CNTP_* traps always, and
        CNTPCT_EL0 while it has an offset."""
        moved = self.cpu.ptimer.offset.value != 0
        if self.vm_data.vhe:
            self._allow(
                hw, 0 if moved and not self.vm_data.cntpoff else CNTHCTL_PCTEN | CNTHCTL_PCEN
            )
        else:
            self._allow(hw, 0 if moved else CNTHCTL_PCTEN)

    def _allow(self, hw: GenericTimer, enables: int) -> None:
        """Write CNTHCTL_EL2 in the layout that the host runs with."""
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
        """Give a timer an offset of this vCPU's own, in ticks, on top of the VM's; None: none."""
        self.offset_moves()
        self._context(timer_id).offset.vcpu_offset = None if offset is None else offset & MASK64
        self.offset_changed()

    def offset_moves(self) -> None:
        """An offset is about to move: the hardware gives back what it has, by the present one."""
        self._save()

    def offset_changed(self) -> None:
        """An offset moved under this vCPU (`offset_moves` came before): lines, host timers and
        traps follow."""
        hw = self.hw
        if hw is not None:
            self.vcpu_load(hw)
            return
        for context in self.cpu.contexts:
            self.update_irq(context, self.should_fire(context))
        if self.blocked:
            self.blocking()

    # Register access -----------------------------------------------------------------------------

    def trap(self, encoding: int, is_write: bool, value: int = 0) -> int:
        """A trapped guest access (kvm_arm_timer_{read,write}_sysreg); returns what a read gives, 0
        for a write.

        KeyError where the guest gets UNDEF: not a timer register, or a write of a counter.
        """
        timer_id, register = TRAPPED[encoding]
        context = self._context(timer_id)
        if not is_write:
            found = self._read(context, register)
            disabled = register is TimerRegister.CTL and not found & arch.CTL_ENABLE
            # ISTATUS is UNKNOWN while ENABLE is 0 (DDI 0487, CNTP_CTL_EL0): the guest reads what
            # the hardware answers where nothing traps, and cannot tell the hosts apart. (KVM gives
            # the condition; `get_one_reg` does.)
            return found & ~arch.CTL_ISTATUS if disabled else found
        if register is TimerRegister.CNT:
            raise KeyError(encoding)
        if self.bus.active:
            self.bus.emit(TimerWrite(context.name, register.name.lower(), value & MASK64))
        self._write(context, register, value & MASK64)
        return 0

    def get_one_reg(self, encoding: int) -> int:
        """KVM_GET_ONE_REG of a timer register, by the encoding in the id (`ONE_REGS`). KeyError for
        another one."""
        timer_id, register = ONE_REGS[encoding]
        return self._read(self._context(timer_id), register)

    def set_one_reg(self, encoding: int, value: int) -> None:
        """KVM_SET_ONE_REG of a timer register; CNT moves the counter of the whole VM."""
        timer_id, register = ONE_REGS[encoding]
        if register is TimerRegister.CNT:
            self.vm_data.set_count(timer_id, value & MASK64)
        else:
            self._write(self._context(timer_id), register, value & MASK64)

    def _context(self, timer_id: TimerId) -> ArchTimerContext:
        return self.cpu.vtimer if timer_id is TimerId.VTIMER else self.cpu.ptimer

    def _read(self, context: ArchTimerContext, register: TimerRegister) -> int:
        ctl, cval = self._ctl_cval(context)
        now = self.now(context)
        if register is TimerRegister.CNT:
            return now
        if register is TimerRegister.CVAL:
            return cval
        return (
            arch.tval_of(cval, now)
            if register is TimerRegister.TVAL
            else ctl_with_status(ctl, cval, now)
        )

    def _write(self, context: ArchTimerContext, register: TimerRegister, value: int) -> None:
        """Change a context where it is: a direct one is saved, changed and restored."""
        was_loaded = context.loaded
        if was_loaded:
            self._save()
        if register is TimerRegister.CTL:
            context.ctl = value & CTL_WRITABLE
        elif register is TimerRegister.CVAL:
            context.cval = value
        else:
            context.cval = arch.cval_from_tval(value, self.now(context))
        if was_loaded:
            self._restore()
        else:
            self._software_changed(context)

    def _software_changed(self, context: ArchTimerContext) -> None:
        """A context that no hardware has was changed: its level and the host timer that stands for
        it follow."""
        if self.hw is not None:
            self.timer_emulate(context)
            return
        self.update_irq(context, self.should_fire(context))
        if self.blocked:
            self.blocking()

    # Showing and saving --------------------------------------------------------------------------

    def shown(self) -> list[TimerRow]:
        """Both timers at this moment."""
        return [self._shown(context) for context in self.cpu.contexts]

    def _shown(self, context: ArchTimerContext) -> TimerRow:
        ctl, cval = self._ctl_cval(context)
        offset = context.offset
        return TimerRow(
            context.name, self._ppi(context), ctl, cval, self.now(context), offset.value,
            context.loaded, context.irq_level,
            self.compute_delta(context) if timer_can_fire(ctl) else None,
            "direct" if context in self._direct else "emulated", self._owner(context),
            offset.vm_offset, offset.vcpu_offset,
        )  # fmt: skip

    def rows(self) -> list[dict[str, object]]:
        """Both timers as plain data for a table."""
        return [row._asdict() for row in self.shown()]

    def _owner(self, context: ArchTimerContext) -> str:
        """Who makes the timer fire at this moment: a comparator, or which host timer; nobody."""
        if context.loaded:
            return "comparator"
        if context.hrtimer is not None and context.hrtimer.active:
            return "hrtimer"
        waits = self._bg.active and timer_can_fire(context.ctl)
        return "bg_timer" if waits else "nobody"

    def tables(self) -> Sequence[Table | str]:
        """The contexts and the map for people; counts in hexadecimal."""
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
        """The guest's view of both timers, wherever they are loaded. The clock saves the armed host
        timers."""
        timers = {}
        for context in self.cpu.contexts:
            ctl, cval = self._ctl_cval(context)
            timers[context.name] = {
                "ctl": ctl, "cval": cval, "irq_level": context.irq_level, "vcpu_offset": context.offset.vcpu_offset,
            }  # fmt: skip
        return {
            "version": STATE_VERSION, "enabled": self.cpu.enabled, "wfit": self.wfit, "blocked": self.blocked, **timers,
        }  # fmt: skip

    def load(self, state: State) -> None:
        """Restore `state`. The vCPU comes back loaded on no PE: `vcpu_load` follows if it was on
        one."""
        checked(state, "ArchTimer", STATE_VERSION)
        self.hw = None
        if state["enabled"]:
            self.enable()
        else:
            self.cpu.enabled = (
                False  # of before the first run, which will map the interrupt (again)
            )
        self.wfit = state["wfit"]
        self.blocked = bool(state["blocked"])
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
