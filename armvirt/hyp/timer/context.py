"""The data of the virtualized timers: timer ids, contexts, offsets, and the map of direct and
emulated timers. Also the functions that compute whether a timer can fire, without a change of state
(include/kvm/arm_arch_timer.h, arch/arm64/kvm/arch_timer.c).

Counts and CVALs are ticks modulo 2**64; times are ns of virtual time.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from typing import Protocol

from armvirt.arch import timer as arch
from armvirt.arch.bits import MASK64
from armvirt.arch.timer import CTL_ENABLE, CTL_WRITABLE
from armvirt.errors import KvmError
from armvirt.hw.timer import PTIMER, VTIMER, SystemCounter
from armvirt.hyp.host.hrtimer import HrTimer
from armvirt.records import NamedTuple
from armvirt.state import State, checked, fields_of, load_fields

STATE_VERSION = 1


class TimerId(IntEnum):
    """KVM's timer ids. HVTIMER and HPTIMER are for nested virtualization, which armvirt does not
    emulate. These two timers only have a PPI number."""

    PTIMER = 0
    VTIMER = 1
    HVTIMER = 2
    HPTIMER = 3


class TimerRow(NamedTuple):
    """The present state of one timer of a vCPU, for tables and for the diagnosis. ``fires_in_ns``
    is 0 while the timer condition is met, and None while the timer is disabled or masked. ``map``
    is "direct" or "emulated". ``owner`` names what makes the timer fire: "comparator", "hrtimer",
    "bg_timer" or "nobody"."""

    timer: str
    ppi: int
    ctl: int
    cval: int
    now: int
    offset: int
    loaded: bool
    irq_level: bool
    fires_in_ns: int | None
    map: str
    owner: str
    vm_offset: int
    vcpu_offset: int | None


#: The names of the timers in trace events and in `armvirt.hw`.
TIMER_NAMES = {
    TimerId.VTIMER: VTIMER, TimerId.PTIMER: PTIMER, TimerId.HVTIMER: "hvtimer", TimerId.HPTIMER: "hptimer",
}  # fmt: skip
DEFAULT_PPI = {
    TimerId.VTIMER: arch.PPI_VTIMER, TimerId.PTIMER: arch.PPI_PTIMER,
    TimerId.HVTIMER: arch.PPI_HVTIMER, TimerId.HPTIMER: arch.PPI_HPTIMER,
}  # fmt: skip
#: The physical PPI of a direct timer.
HOST_PPI = {TimerId.VTIMER: arch.PPI_VTIMER, TimerId.PTIMER: arch.PPI_PTIMER}

#: The bit of each timer in ``struct kvm_sync_regs.device_irq_level`` (uapi/asm/kvm.h).
DEVICE_IRQ_BITS = {TimerId.VTIMER: 1 << 0, TimerId.PTIMER: 1 << 1}


class TimerVgic(Protocol):
    """The functions of the vGIC that the timers call (include/kvm/arm_vgic.h)."""

    def inject(
        self, vcpu_id: int | None, intid: int, level: bool, owner: object = None
    ) -> None: ...

    def map_phys_irq(
        self, vcpu_id: int, intid: int, host_intid: int, get_input_level: Callable[[], bool]
    ) -> None: ...

    def set_owner(self, vcpu_id: int, intid: int, owner: object) -> None: ...

    def is_active(self, vcpu_id: int, intid: int) -> bool: ...

    def reset_mapped_irq(self, vcpu_id: int, intid: int) -> None: ...


class OffsetUser(Protocol):
    """The interface to the timers of a vCPU for a change of the VM's offsets. The counts of the
    timers depend on these offsets."""

    def offset_moves(self) -> None:
        """Save the timers from the PE, because an offset will change next. The save uses the
        present offset."""

    def offset_changed(self) -> None:
        """Update the timers, because an offset has changed."""


# Pure decisions ---------------------------------------------------------------------------------


def timer_can_fire(ctl: int) -> bool:
    """Whether the timer is enabled and not masked."""
    return ctl & CTL_WRITABLE == CTL_ENABLE


def timer_should_fire(ctl: int, cval: int, now: int) -> bool:
    """Whether the timer's output is high. ``now`` is the timer's count: the physical count minus
    the timer's offset."""
    return timer_can_fire(ctl) and cval <= now


# Structures -------------------------------------------------------------------------------------


class ArchTimerVmData:
    """The timer data that all vCPUs of a VM share: the PPIs, and the offsets (ticks that are
    subtracted from the physical count).

    ``virtual_start`` is the virtual count in ticks when the VM is created (0 in KVM). ``vhe`` is
    True for a VHE host, where both timers are direct, and False for an nVHE host. ``cntpoff`` is
    True for a VHE host with FEAT_ECV_POFF.
    """

    SAVED = ("voffset", "poffset", "counter_offset_set")

    def __init__(
        self,
        counter: SystemCounter,
        virtual_start: int = 0,
        *,
        vhe: bool = False,
        cntpoff: bool = False,
    ) -> None:
        self.counter, self.vhe = counter, vhe
        self.cntpoff = cntpoff and vhe  # has_cntpoff(): KVM uses it on VHE hosts only
        self.voffset = counter.count() - virtual_start & MASK64
        self.poffset = 0
        self.ppi = dict(DEFAULT_PPI)
        self.counter_offset_set = False
        self.ppis_immutable = False
        self._timers: list[OffsetUser] = []

    def attach(self, timer: OffsetUser) -> None:
        """Register the timers of a vCPU. A change of an offset updates all registered timers."""
        self._timers.append(timer)

    def set_counter_offset(self, offset: int) -> None:
        """Subtract ``offset`` (ticks) from the virtual and the physical counter
        (KVM_ARM_SET_COUNTER_OFFSET). After this call, `set_count` has no effect."""
        self.counter_offset_set = True
        self._move(offset & MASK64, offset & MASK64)

    def set_count(self, timer_id: TimerId, count: int) -> None:
        """Choose the VM's offset of a timer so that the timer's counter now reads ``count`` ticks
        (KVM_SET_ONE_REG of CNT). After `set_counter_offset`, this method has no effect."""
        if self.counter_offset_set:
            return
        offset = self.counter.count() - count & MASK64
        if timer_id is TimerId.VTIMER:
            self._move(offset, self.poffset)
        else:
            self._move(self.voffset, offset)

    def set_ppi(self, timer_id: TimerId, intid: int) -> None:
        """Set a timer's PPI (KVM_ARM_VCPU_TIMER_CTRL). KvmError EINVAL if ``intid`` is not a PPI,
        EBUSY after the first run of a vCPU."""
        self.check_ppi(intid)
        self.check_changeable()
        self.ppi[timer_id] = intid

    @staticmethod
    def check_ppi(intid: int) -> None:
        """Raise KvmError EINVAL if ``intid`` is not a PPI."""
        if not 16 <= intid <= 31:
            raise KvmError("EINVAL", f"timer interrupt {intid} is not a PPI (16 to 31)")

    def check_changeable(self) -> None:
        """Raise KvmError EBUSY if a vCPU has run."""
        if self.ppis_immutable:
            raise KvmError("EBUSY", "timer interrupts are fixed once a vCPU has run")

    def offset(self, timer_id: TimerId) -> int:
        return self.voffset if timer_id is TimerId.VTIMER else self.poffset

    def _move(self, voffset: int, poffset: int) -> None:
        """Change both offsets. Before the change, all timers are saved from the PEs; after the
        change, all timers are updated."""
        for timer in self._timers:
            timer.offset_moves()
        self.voffset, self.poffset = voffset, poffset
        for timer in self._timers:
            timer.offset_changed()

    def reset(self) -> None:
        """Do nothing at the reset of a vCPU. The offsets and the PPIs belong to the VM and stay."""

    def state(self) -> dict[str, object]:
        return {
            "version": STATE_VERSION,
            **fields_of(self, self.SAVED),
            "ppi": {TIMER_NAMES[t]: intid for t, intid in self.ppi.items()},
        }

    def load(self, state: State) -> None:
        """Restore the result of `state`. The caller restores the timers of the vCPUs afterwards,
        because the timers use these offsets."""
        checked(state, "ArchTimerVmData", STATE_VERSION)
        load_fields(self, self.SAVED, state)
        ppi = state["ppi"]
        self.ppi = {
            timer_id: ppi.get(name, DEFAULT_PPI[timer_id]) for timer_id, name in TIMER_NAMES.items()
        }


class ArchTimerOffset:
    """The offset of one timer of a vCPU in ticks: the VM's offset, plus the vCPU's own offset if
    one is set.

    ``vcpu_offset`` is the vCPU's own offset, None if the vCPU has no own offset. It corresponds to
    the CNTVOFF_EL2 or CNTPOFF_EL2 that a guest hypervisor would write for its guest.
    `ArchTimer.set_vcpu_offset` changes ``vcpu_offset``.
    """

    __slots__ = ("_timer_id", "_vm_data", "vcpu_offset")

    def __init__(self, vm_data: ArchTimerVmData, timer_id: TimerId) -> None:
        self._vm_data, self._timer_id = vm_data, timer_id
        self.vcpu_offset: int | None = None

    @property
    def vm_offset(self) -> int:
        return self._vm_data.offset(self._timer_id)

    @property
    def value(self) -> int:
        """The sum of ``vm_offset`` and ``vcpu_offset`` modulo 2**64 (timer_get_offset)."""
        data = self._vm_data
        vm_offset = data.voffset if self._timer_id is TimerId.VTIMER else data.poffset
        return vm_offset + (self.vcpu_offset or 0) & MASK64


class ArchTimerContext:
    """One timer of one vCPU.

    While ``loaded`` is False, ``ctl`` and ``cval`` are the guest's values. While ``loaded`` is
    True, the PE's timer has the guest's values. ``irq_level`` is the output level that was last
    injected into the vGIC.
    """

    __slots__ = ("ctl", "cval", "hrtimer", "irq_level", "loaded", "name", "offset", "timer_id")

    def __init__(self, timer_id: TimerId, offset: ArchTimerOffset) -> None:
        self.timer_id, self.offset, self.name = timer_id, offset, TIMER_NAMES[timer_id]
        self.ctl = self.cval = 0
        self.loaded = self.irq_level = False
        self.hrtimer: HrTimer | None = None


class ArchTimerCpu:
    """The timers of one vCPU, and the background timer that wakes the vCPU while it is blocked."""

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
    """Which timers are direct (they use the PE's timers) and which are emulated."""

    direct_vtimer: ArchTimerContext
    direct_ptimer: ArchTimerContext | None
    emul_vtimer: ArchTimerContext | None
    emul_ptimer: ArchTimerContext | None

    @property
    def direct(self) -> tuple[ArchTimerContext, ...]:
        return tuple(c for c in (self.direct_vtimer, self.direct_ptimer) if c is not None)

    @property
    def emulated(self) -> tuple[ArchTimerContext, ...]:
        return tuple(c for c in (self.emul_vtimer, self.emul_ptimer) if c is not None)


def get_timer_map(cpu: ArchTimerCpu, vhe: bool = False) -> TimerMap:
    """Return which timers are direct and which are emulated. On a VHE host both timers are direct.
    On an nVHE host the virtual timer is direct and the physical timer is emulated."""
    if vhe:
        return TimerMap(
            direct_vtimer=cpu.vtimer, direct_ptimer=cpu.ptimer, emul_vtimer=None, emul_ptimer=None
        )
    return TimerMap(
        direct_vtimer=cpu.vtimer, direct_ptimer=None, emul_vtimer=None, emul_ptimer=cpu.ptimer
    )
