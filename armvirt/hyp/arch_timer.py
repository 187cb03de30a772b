"""The virtualized Generic Timer, shaped like KVM's (arch/arm64/kvm/arch_timer.c, nVHE host).

The virtual timer is *direct*: while a vCPU is loaded, the PE's own comparator runs with the guest's CTL and CVAL
behind CNTVOFF_EL2, its interrupt reaches the host, and the host injects it as an interrupt that is mapped to the
physical one. The physical timer is *emulated*: CNTP_* traps, and a host timer stands for the comparator.

Counts and CVALs are ticks modulo 2**64; times are ns of virtual time.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from typing import NamedTuple, Protocol

from armvirt.arch import timer as arch
from armvirt.arch.timer import CTL_ENABLE, CTL_ISTATUS, CTL_WRITABLE, MASK64, CntHctl
from armvirt.errors import KvmError
from armvirt.events import EventBus, TimerLine, TimerWrite
from armvirt.hw.clock import Clock
from armvirt.hw.timer import PTIMER, VTIMER, GenericTimer, SystemCounter
from armvirt.hyp.host.hrtimer import HrTimer


class TimerId(IntEnum):
    """KVM's timer ids. The two of EL2 (hvtimer, hptimer) need nested virtualization."""

    PTIMER = 0
    VTIMER = 1


class TimerRegister(IntEnum):
    """KVM's register selectors of one timer."""

    CNT = 0
    CVAL = 1
    TVAL = 2
    CTL = 3


#: Names as trace events and the hardware use them.
TIMER_NAMES = {TimerId.VTIMER: VTIMER, TimerId.PTIMER: PTIMER}
DEFAULT_PPI = {TimerId.VTIMER: arch.PPI_VTIMER, TimerId.PTIMER: arch.PPI_PTIMER}

#: Guest accesses that can trap (kvm/sys_regs.c): which timer and which of its registers an encoding names.
TRAPPED: dict[int, tuple[TimerId, TimerRegister]] = {
    arch.CNTPCT_EL0: (TimerId.PTIMER, TimerRegister.CNT),
    arch.CNTP_TVAL_EL0: (TimerId.PTIMER, TimerRegister.TVAL),
    arch.CNTP_CTL_EL0: (TimerId.PTIMER, TimerRegister.CTL),
    arch.CNTP_CVAL_EL0: (TimerId.PTIMER, TimerRegister.CVAL),
    arch.CNTVCT_EL0: (TimerId.VTIMER, TimerRegister.CNT),
    arch.CNTV_TVAL_EL0: (TimerId.VTIMER, TimerRegister.TVAL),
    arch.CNTV_CTL_EL0: (TimerId.VTIMER, TimerRegister.CTL),
    arch.CNTV_CVAL_EL0: (TimerId.VTIMER, TimerRegister.CVAL),
}

#: ONE_REG registers by the encoding in their id. KVM's ids of the virtual timer's CVAL and CNT are swapped against the
#: architecture and frozen as ABI (Documentation/virt/kvm/api.rst); those of the physical timer are not.
ONE_REGS: dict[int, tuple[TimerId, TimerRegister]] = {
    arch.CNTV_CTL_EL0: (TimerId.VTIMER, TimerRegister.CTL),
    arch.CNTVCT_EL0: (TimerId.VTIMER, TimerRegister.CVAL),
    arch.CNTV_CVAL_EL0: (TimerId.VTIMER, TimerRegister.CNT),
    arch.CNTP_CTL_EL0: (TimerId.PTIMER, TimerRegister.CTL),
    arch.CNTP_CVAL_EL0: (TimerId.PTIMER, TimerRegister.CVAL),
    arch.CNTPCT_EL0: (TimerId.PTIMER, TimerRegister.CNT),
}


class TimerVgic(Protocol):
    """What the timer needs of the vGIC (include/kvm/arm_vgic.h)."""

    def inject(self, vcpu_id: int | None, intid: int, level: bool, owner: object = None) -> None: ...

    def map_phys_irq(self, vcpu_id: int, intid: int, host_intid: int, get_input_level: Callable[[], bool]) -> None: ...

    def set_owner(self, vcpu_id: int, intid: int, owner: object) -> None: ...

    def is_active(self, vcpu_id: int, intid: int) -> bool: ...

    def reset_mapped_irq(self, vcpu_id: int, intid: int) -> None: ...


# Pure decisions -----------------------------------------------------------------------------------------------------


def timer_can_fire(ctl: int) -> bool:
    """Whether the timer is enabled and not masked."""
    return ctl & CTL_WRITABLE == CTL_ENABLE


def timer_should_fire(ctl: int, cval: int, now: int) -> bool:
    """Whether the timer's output is high; ``now`` is the count less the timer's offset."""
    return timer_can_fire(ctl) and cval <= now


def ctl_with_status(ctl: int, cval: int, now: int) -> int:
    """CTL as KVM computes it for a reader: ISTATUS follows the condition even while ENABLE is 0 (then UNKNOWN)."""
    return ctl | (CTL_ISTATUS if cval <= now else 0)


# Structures ---------------------------------------------------------------------------------------------------------


class ArchTimerVmData:
    """What all vCPUs of a VM share: the offsets (ticks subtracted from the physical count) and the PPIs.

    The virtual count is ``virtual_start`` at creation: KVM's choice of CNTVOFF, for 0.
    """

    def __init__(self, counter: SystemCounter, virtual_start: int = 0) -> None:
        self.counter = counter
        self.voffset = counter.count() - virtual_start & MASK64
        self.poffset = 0
        self.ppi = dict(DEFAULT_PPI)
        self.counter_offset_set = False
        self.ppis_immutable = False
        self._timers: list[ArchTimer] = []

    def attach(self, timer: ArchTimer) -> None:
        """Add a vCPU's timer: it follows when an offset moves."""
        self._timers.append(timer)

    def set_counter_offset(self, offset: int) -> None:
        """KVM_ARM_SET_COUNTER_OFFSET: subtract ``offset`` from both counters; later writes of CNT are ignored."""
        self.counter_offset_set = True
        self.voffset = self.poffset = offset & MASK64
        self._update()

    def set_count(self, timer_id: TimerId, count: int) -> None:
        """Make a counter read ``count`` now, on every vCPU (ONE_REG CNT); no effect after SET_COUNTER_OFFSET."""
        if self.counter_offset_set:
            return
        offset = self.counter.count() - count & MASK64
        if timer_id is TimerId.VTIMER:
            self.voffset = offset
        else:
            self.poffset = offset
        self._update()

    def set_ppi(self, timer_id: TimerId, intid: int) -> None:
        """KVM_ARM_VCPU_TIMER_CTRL: choose a timer's PPI. EINVAL if it is none, EBUSY after the first run."""
        if not 16 <= intid <= 31:
            raise KvmError("EINVAL", f"timer interrupt {intid} is not a PPI (16 to 31)")
        if self.ppis_immutable:
            raise KvmError("EBUSY", "timer interrupts are fixed once a vCPU has run")
        self.ppi[timer_id] = intid

    def offset(self, timer_id: TimerId) -> int:
        return self.voffset if timer_id is TimerId.VTIMER else self.poffset

    def _update(self) -> None:
        for timer in self._timers:
            timer.offset_changed()

    def reset(self) -> None:
        """Nothing of this resets with a vCPU: offsets and PPIs last as long as the VM."""

    def state(self) -> dict[str, object]:
        return {
            "version": 1,
            "voffset": self.voffset,
            "poffset": self.poffset,
            "ppi": {TIMER_NAMES[t]: intid for t, intid in self.ppi.items()},
            "counter_offset_set": self.counter_offset_set,
        }

    def load(self, state: dict[str, object]) -> None:
        """Restore `state`. Load it before the vCPUs' timers, which read the offsets."""
        voffset, poffset, ppi = state["voffset"], state["poffset"], state["ppi"]
        assert isinstance(voffset, int) and isinstance(poffset, int) and isinstance(ppi, dict)
        self.voffset, self.poffset = voffset, poffset
        self.ppi = {timer_id: ppi[name] for timer_id, name in TIMER_NAMES.items()}
        self.counter_offset_set = bool(state["counter_offset_set"])


class ArchTimerOffset:
    """Where a context's offset lives: KVM's pointer into the VM's data."""

    __slots__ = ("_timer_id", "_vm_data")

    def __init__(self, vm_data: ArchTimerVmData, timer_id: TimerId) -> None:
        self._vm_data, self._timer_id = vm_data, timer_id

    @property
    def value(self) -> int:
        return self._vm_data.offset(self._timer_id)


class ArchTimerContext:
    """One timer of one vCPU.

    ``ctl`` and ``cval`` are the guest's while the context is not ``loaded``; afterwards the hardware has them.
    ``irq_level`` is the level that was last told to the vGIC.
    """

    __slots__ = ("ctl", "cval", "hrtimer", "irq_level", "loaded", "offset", "timer_id")

    def __init__(self, timer_id: TimerId, offset: ArchTimerOffset) -> None:
        self.timer_id, self.offset = timer_id, offset
        self.ctl = self.cval = 0
        self.loaded = self.irq_level = False
        self.hrtimer: HrTimer | None = None

    @property
    def name(self) -> str:
        return TIMER_NAMES[self.timer_id]


class ArchTimerCpu:
    """The timers of one vCPU, and the background timer that wakes it while it is blocked."""

    __slots__ = ("bg_timer", "enabled", "ptimer", "vtimer")

    def __init__(self, vm_data: ArchTimerVmData) -> None:
        self.vtimer = ArchTimerContext(TimerId.VTIMER, ArchTimerOffset(vm_data, TimerId.VTIMER))
        self.ptimer = ArchTimerContext(TimerId.PTIMER, ArchTimerOffset(vm_data, TimerId.PTIMER))
        self.bg_timer: HrTimer | None = None
        self.enabled = False

    @property
    def contexts(self) -> tuple[ArchTimerContext, ...]:
        return self.vtimer, self.ptimer


class TimerMap(NamedTuple):
    """Which timers run on hardware and which in software."""

    direct_vtimer: ArchTimerContext
    direct_ptimer: ArchTimerContext | None
    emul_vtimer: ArchTimerContext | None
    emul_ptimer: ArchTimerContext | None


def get_timer_map(cpu: ArchTimerCpu) -> TimerMap:
    """The map of an nVHE host: the virtual timer is direct, the physical timer is emulated."""
    return TimerMap(direct_vtimer=cpu.vtimer, direct_ptimer=None, emul_vtimer=None, emul_ptimer=cpu.ptimer)


# The timer of a vCPU ------------------------------------------------------------------------------------------------


class ArchTimer:
    """One vCPU's timers.

    ``set_phys_active(host_intid, active)`` writes the active state of a PPI in the GIC of the PE on which the vCPU
    is (being) loaded; ``wake`` wakes the blocked vCPU. ``name`` is the owner of its host timers in the clock's queue,
    unique within a host.
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
        ptimer = self.cpu.ptimer
        ptimer.hrtimer = HrTimer(clock, owner, ptimer.name, lambda: self._hrtimer_expired(ptimer))
        self.map = get_timer_map(self.cpu)
        vm_data.attach(self)

    def _ppi(self, context: ArchTimerContext) -> int:
        return self.vm_data.ppi[context.timer_id]

    def now(self, context: ArchTimerContext) -> int:
        """A context's count: the physical count less its offset."""
        return self.vm_data.counter.count() - context.offset.value & MASK64

    def _ctl_cval(self, context: ArchTimerContext) -> tuple[int, int]:
        """CTL (writable bits) and CVAL, wherever they are."""
        if context.loaded and self.hw is not None:
            return self.hw.vtimer.ctl, self.hw.vtimer.cval
        return context.ctl, context.cval

    def should_fire(self, context: ArchTimerContext) -> bool:
        """timer_should_fire of a context, loaded or not."""
        ctl, cval = self._ctl_cval(context)
        return timer_should_fire(ctl, cval, self.now(context))

    def compute_delta(self, context: ArchTimerContext) -> int:
        """The ns until the context's condition holds, 0 if it holds: exact, rounded up to the first such ns."""
        ticks = self._ctl_cval(context)[1] - self.now(context)
        return self.vm_data.counter.ns_after(ticks) - self.clock.now if ticks > 0 else 0

    def is_pending(self) -> bool:
        """Whether a timer's output is high: a blocked vCPU must wake up (kvm_timer_is_pending)."""
        return any(self.should_fire(context) for context in self.cpu.contexts)

    # Lines and host timers ------------------------------------------------------------------------------------

    def update_irq(self, context: ArchTimerContext, level: bool) -> None:
        """Tell the vGIC a context's level, also if it did not change: the vGIC lowers mapped lines by itself."""
        changed, context.irq_level = level != context.irq_level, level
        if changed and context.hrtimer is not None and self.bus.active:
            self.bus.emit(TimerLine(context.name, int(level)))  # a direct timer's line is the hardware's event
        if self.cpu.enabled:
            self.vgic.inject(self.vcpu_id, self._ppi(context), level, context)

    def timer_emulate(self, context: ArchTimerContext) -> None:
        """Bring an emulated context's level and host timer up to date; every change of it ends here."""
        assert context.hrtimer is not None
        level = self.should_fire(context)
        if level != context.irq_level:
            self.update_irq(context, level)
        if level or not timer_can_fire(context.ctl):
            context.hrtimer.cancel()
        else:
            context.hrtimer.start(self.clock.now + self.compute_delta(context))

    def _hrtimer_expired(self, context: ArchTimerContext) -> None:
        assert context.hrtimer is not None
        delta = self.compute_delta(context)
        if delta:
            context.hrtimer.start(self.clock.now + delta)  # woke early: an offset moved
        else:
            self.update_irq(context, True)

    def _bg_timer_expired(self) -> None:
        deltas = [delta for _, delta in self._waits()]
        if 0 in deltas:
            self.wake()
        elif deltas:
            self._bg.start(self.clock.now + min(deltas))

    def _waits(self) -> list[tuple[ArchTimerContext, int]]:
        """The contexts that can fire, each with the ns until it does."""
        return [(c, self.compute_delta(c)) for c in self.cpu.contexts if timer_can_fire(self._ctl_cval(c)[0])]

    def host_irq(self, intid: int) -> bool:
        """The host's handler of a timer PPI, already acknowledged. Returns whether it was the guest's timer.

        The physical interrupt stays active until the guest deactivates it through its list register. One that is
        spurious (the line fell meanwhile) has nobody who would, so it is deactivated here.
        """
        context = self.map.direct_vtimer
        if intid != arch.PPI_VTIMER or not context.loaded:
            return False
        if not self.should_fire(context):
            self.set_phys_active(intid, False)
            return False
        self.update_irq(context, True)
        return True

    # Lifecycle ------------------------------------------------------------------------------------------------

    def enable(self) -> None:
        """kvm_timer_enable, at the vCPU's first run: check and freeze the PPIs, map the direct timer's.

        EINVAL if two timers share a PPI or one is taken by somebody else.
        """
        if self.cpu.enabled:
            return
        if len(set(self.vm_data.ppi.values())) != len(self.vm_data.ppi):
            raise KvmError("EINVAL", "two timers share a PPI")
        for context in self.cpu.contexts:
            self.vgic.set_owner(self.vcpu_id, self._ppi(context), context)
        direct = self.map.direct_vtimer
        self.vgic.map_phys_irq(self.vcpu_id, self._ppi(direct), arch.PPI_VTIMER, lambda: self.should_fire(direct))
        self.vm_data.ppis_immutable = True
        self.cpu.enabled = True

    def vcpu_reset(self) -> None:
        """kvm_timer_vcpu_reset: timers off, CVAL untouched, lines low, and the mapped interrupt back to inactive."""
        hw = self.hw
        self._save()
        for context in self.cpu.contexts:
            context.ctl = 0
            self.update_irq(context, False)
        self._cancel_hrtimers()
        self._bg.cancel()
        if self.cpu.enabled:
            self.vgic.reset_mapped_irq(self.vcpu_id, self._ppi(self.map.direct_vtimer))
        if hw is not None:
            self.vcpu_load(hw)

    reset = vcpu_reset

    def vcpu_load(self, hw: GenericTimer) -> None:
        """kvm_timer_vcpu_load: put the guest's timers onto a PE, before the guest runs there."""
        self.hw = hw
        self._load_gic(self.map.direct_vtimer)
        self.unblocking()
        self._restore()
        if self.map.emul_ptimer is not None:
            self.timer_emulate(self.map.emul_ptimer)
        self._set_traps(hw)

    def vcpu_put(self) -> None:
        """kvm_timer_vcpu_put: take the guest's timers off the PE. `blocking` follows if the vCPU sleeps."""
        hw = self.hw
        if hw is None:
            return
        self._save()
        self._cancel_hrtimers()
        hw.set(arch.CNTHCTL_EL2, int(CntHctl.EL1PCTEN | CntHctl.EL1PCEN))
        self.hw = None

    def attach(self, hw: GenericTimer) -> None:
        """Be loaded on a PE whose registers hold this vCPU's timer already (restored state)."""
        self.hw = hw
        self.map.direct_vtimer.loaded = True

    def detach(self) -> None:
        """Be loaded nowhere, without saving: the state is about to be replaced."""
        self.hw = None
        self.map.direct_vtimer.loaded = False

    def blocking(self) -> None:
        """kvm_timer_blocking, after `vcpu_put`: arm the background timer for the first timer that can fire, if any.

        A timer that fires already and was told to the vGIC is none: its interrupt is disabled, or masked by priority,
        and waking for it would wake for ever. (KVM does wake, by kvm_cpu_has_pending_timer, and lets WFI spin.) The
        level that was told is true at this moment only: a mapped line falls in the vGIC without a word to us.
        """
        deltas = [delta for context, delta in self._waits() if delta or not context.irq_level]
        if deltas:
            self._bg.start(self.clock.now + min(deltas))
        else:
            self._bg.cancel()

    def unblocking(self) -> None:
        """kvm_timer_unblocking."""
        self._bg.cancel()

    def _load_gic(self, context: ArchTimerContext) -> None:
        """kvm_timer_vcpu_load_gic: resample the line, and set the host's active state before the timer runs.

        The interrupt must be active on the host while the guest has it active *or* its line is high: the guest will
        get it by list register, and an inactive one would throw the guest out again at once.
        """
        self.update_irq(context, self.should_fire(context))
        active = context.irq_level
        if self.cpu.enabled:
            active = active or self.vgic.is_active(self.vcpu_id, self._ppi(context))
        self.set_phys_active(arch.PPI_VTIMER, active)

    def _save(self) -> None:
        """timer_save_state of the direct timer: the PE's comparator is off afterwards, at no offset."""
        context, hw = self.map.direct_vtimer, self.hw
        if hw is None or not context.loaded:
            return
        context.ctl, context.cval = hw.vtimer.ctl, hw.vtimer.cval
        hw.program_virtual(0, 0, context.cval)
        context.loaded = False

    def _restore(self) -> None:
        """timer_restore_state of the direct timer: CTL last, so that the timer never runs with half of its state."""
        context, hw = self.map.direct_vtimer, self.hw
        if hw is None or context.loaded:
            return
        hw.program_virtual(context.offset.value, context.ctl, context.cval)
        context.loaded = True

    def _set_traps(self, hw: GenericTimer) -> None:
        """CNTP_* traps always; CNTPCT_EL0 only while the guest's physical count differs from the machine's."""
        hw.set(arch.CNTHCTL_EL2, 0 if self.vm_data.poffset else int(CntHctl.EL1PCTEN))

    def _cancel_hrtimers(self) -> None:
        for context in self.cpu.contexts:
            if context.hrtimer is not None:
                context.hrtimer.cancel()

    def offset_changed(self) -> None:
        """An offset of the VM moved under this vCPU: lines, host timers and traps follow, up and down."""
        hw = self.hw
        if hw is not None:
            self._save()
            self.vcpu_load(hw)
            return
        for context in self.cpu.contexts:
            self.update_irq(context, self.should_fire(context))
        if self._bg.active:
            self.blocking()

    # Register access ------------------------------------------------------------------------------------------

    def trap(self, encoding: int, is_write: bool, value: int = 0) -> int:
        """A trapped guest access (kvm_arm_timer_{read,write}_sysreg); returns what a read gives, 0 for a write.

        KeyError where the guest gets UNDEF: not a timer register, or a write of a counter.
        """
        timer_id, register = TRAPPED[encoding]
        context = self._context(timer_id)
        if not is_write:
            return self._read(context, register)
        if register is TimerRegister.CNT:
            raise KeyError(encoding)
        if self.bus.active:
            self.bus.emit(TimerWrite(context.name, register.name.lower(), value & MASK64))
        self._write(context, register, value & MASK64)
        return 0

    def get_one_reg(self, encoding: int) -> int:
        """KVM_GET_ONE_REG of a timer register, by the encoding in the id (`ONE_REGS`). KeyError for another one."""
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
        return arch.tval_of(cval, now) if register is TimerRegister.TVAL else ctl_with_status(ctl, cval, now)

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
        """A context that no hardware has was changed: its level and the host timer that stands for it follow."""
        if self.hw is not None:
            self.timer_emulate(context)
            return
        if (level := self.should_fire(context)) != context.irq_level:
            self.update_irq(context, level)
        if self._bg.active:
            self.blocking()

    # State ----------------------------------------------------------------------------------------------------

    def rows(self) -> list[dict[str, object]]:
        """Both timers as plain data for a table; ``fires_in_ns`` is None for a timer that cannot fire."""
        result: list[dict[str, object]] = []
        for context in self.cpu.contexts:
            ctl, cval = self._ctl_cval(context)
            delta = self.compute_delta(context) if timer_can_fire(ctl) else None
            result.append(
                {
                    "timer": context.name,
                    "ppi": self._ppi(context),
                    "ctl": ctl,
                    "cval": cval,
                    "now": self.now(context),
                    "offset": context.offset.value,
                    "loaded": context.loaded,
                    "irq_level": context.irq_level,
                    "fires_in_ns": delta,
                }
            )
        return result

    def state(self) -> dict[str, object]:
        """The guest's view of both timers, wherever they are loaded. The clock saves the armed host timers."""
        timers = {}
        for context in self.cpu.contexts:
            ctl, cval = self._ctl_cval(context)
            timers[context.name] = {"ctl": ctl, "cval": cval, "irq_level": context.irq_level}
        return {"version": 1, "enabled": self.cpu.enabled, **timers}

    def load(self, state: dict[str, object]) -> None:
        """Restore `state`. The vCPU comes back loaded on no PE: `vcpu_load` follows if it was on one."""
        self.hw = None
        if state["enabled"]:
            self.enable()
        else:
            self.cpu.enabled = False  # of before the first run, which will map the interrupt (again)
        for context in self.cpu.contexts:
            saved = state[context.name]
            assert isinstance(saved, dict)
            context.ctl, context.cval, context.irq_level = saved["ctl"], saved["cval"], saved["irq_level"]
            context.loaded = False
