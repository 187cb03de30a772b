"""The power state of a vCPU: MP state, sleep in WFI, wake-up (arch/arm64/kvm/arm.c:
kvm_arm_vcpu_power_off, kvm_arm_vcpu_suspend; virt/kvm/kvm_main.c: kvm_vcpu_block,
kvm_vcpu_wake_up)."""

from __future__ import annotations

from enum import Enum, IntEnum
from typing import TYPE_CHECKING

from armvirt.errors import KvmError
from armvirt.events import Schedule
from armvirt.hyp.vcpu.parts import VcpuPart
from armvirt.state import State, checked

if TYPE_CHECKING:
    from armvirt.hyp.vcpu.event_wait import EventWait
    from armvirt.hyp.vcpu.protocols import VcpuCore

STATE_VERSION = 1


class MpState(IntEnum):
    """KVM_MP_STATE_* (uapi/linux/kvm.h). For a vCPU that is blocked in WFI, the MP state is
    RUNNABLE."""

    RUNNABLE = 0
    STOPPED = 5
    SUSPENDED = 10


class Power(Enum):
    """The power state of a vCPU: OFF (KVM_MP_STATE_STOPPED), RUNNABLE, or BLOCKED. A BLOCKED vCPU
    waits in WFI, in WFE or for console input, or has the MP state SUSPENDED."""

    OFF = "off"
    RUNNABLE = "runnable"
    BLOCKED = "blocked"


class PowerState(VcpuPart):
    """The power state of one vCPU. ``initialized`` is true after the first reset
    (KVM_ARM_VCPU_INIT). ``suspended`` is true in the MP state SUSPENDED.

    ``owner`` is the name of the vCPU's wake-up in the event queue of the virtual clock.
    """

    __slots__ = ("_owner", "_vcpu", "_wait", "initialized", "power", "suspended")

    def __init__(self, vcpu: VcpuCore, wait: EventWait, owner: str) -> None:
        self._vcpu, self._wait, self._owner = vcpu, wait, owner
        self.power = Power.OFF
        self.initialized = self.suspended = False
        vcpu.host.clock.register(owner, lambda kind: self.wake())

    def __repr__(self) -> str:
        return f"<PowerState: {self.power.value}>"

    def set(self, power: Power) -> None:
        """Change the power state. If the vCPU becomes runnable, the host kernel chooses a PE for
        the vCPU."""
        vcpu = self._vcpu
        if power is not self.power and vcpu.host.bus.active:
            vcpu.host.bus.emit(Schedule(vcpu.uid, power.value))
        self.power = power
        if power is Power.RUNNABLE:
            vcpu.host.clock.cancel(self._owner)
            vcpu.host.woken(vcpu)
        else:
            vcpu.sched.leave()

    @property
    def in_wfi(self) -> bool:
        """Whether the vCPU is blocked in WFI or in PSCI CPU_SUSPEND, or has the MP state
        SUSPENDED."""
        vcpu = self._vcpu
        asleep = self.power is Power.BLOCKED and vcpu.timer.hw is None and not self._wait.active
        return (
            asleep and vcpu.host.clock.armed(self._owner) is None
        )  # if armed, the vCPU waits for console input

    # -- MP state --

    def power_off(self) -> None:
        """Power the vCPU off, for CPU_OFF or a system event. The vCPU runs again only after the
        next reset or `make_runnable`."""
        self.set(Power.OFF)
        self._vcpu.timer.unblocking()
        self._vcpu.host.clock.cancel(self._owner)
        self._wait.forget()
        self.suspended = False
        self._vcpu.outcome.cancel_wait()
        self._vcpu.request_stop()

    def make_runnable(self) -> None:
        """Leave the state OFF or SUSPENDED. The vCPU continues at its present PC."""
        self.suspended = False
        self._wait.forget()
        self._vcpu.timer.unblocking()
        self.set(Power.RUNNABLE)

    def suspend(self) -> None:
        """Set the MP state SUSPENDED, and block the vCPU until an interrupt can be delivered. Then
        the vCPU exits to the VMM with the system event wakeup (kvm_vcpu_suspend)."""
        vcpu = self._vcpu
        self.suspended = True
        vcpu.outcome.cancel_wait()
        self._wait.forget()
        if vcpu.host.driving and self.power is Power.RUNNABLE:
            vcpu.request_stop()  # the next entry blocks the vCPU (KVM_REQ_SUSPEND)
            return
        if vcpu.pe is not None:
            vcpu.put()
        self.set(Power.BLOCKED)
        if vcpu.runnable_interrupt():
            self.wake()
        else:
            vcpu.timer.blocking()

    def get_mp_state(self) -> MpState:
        """The MP state (KVM_GET_MP_STATE)."""
        if self.power is Power.OFF:
            return MpState.STOPPED
        return MpState.SUSPENDED if self.suspended else MpState.RUNNABLE

    def set_mp_state(self, state: int) -> None:
        """Set the MP state (KVM_SET_MP_STATE). KvmError EINVAL for an unknown state."""
        if state not in tuple(MpState):
            raise KvmError("EINVAL", f"there is no MP state {state}")
        self._vcpu.host.check_thread()
        if state == MpState.STOPPED:
            self.power_off()
        elif state == MpState.SUSPENDED:
            self.suspend()
        elif self.power is Power.OFF or self.suspended:
            self.make_runnable()

    # -- sleep and wake-up --

    def wake(self) -> None:
        """Make the vCPU runnable if it is blocked (kvm_vcpu_wake_up)."""
        if self.power is Power.BLOCKED:
            self.set(Power.RUNNABLE)

    def wake_at(self, when: int) -> None:
        """Wake the vCPU up at the virtual time ``when`` (ns) at the latest."""
        clock = self._vcpu.host.clock
        armed = clock.armed(self._owner)
        if armed is None or when < armed:
            clock.arm(when, self._owner)

    def block(self) -> None:
        """If an interrupt can be delivered, do nothing. Otherwise put the vCPU (vcpu_put), block
        it, and arm its background timer (kvm_vcpu_block)."""
        vcpu = self._vcpu
        if vcpu.runnable_interrupt():
            return
        vcpu.put()
        self.set(Power.BLOCKED)
        vcpu.timer.blocking()

    def sleep(self, until: int | None) -> None:
        """Block the vCPU. `wake`, or the virtual time ``until`` (ns), ends the sleep. If ``until``
        is None, only `wake` ends the sleep. The vCPU stays loaded on its PE."""
        self.set(Power.BLOCKED)
        if until is not None:
            self.wake_at(until)

    def resume_wfi(self, wfit: int | None) -> None:
        """Continue the WFI or WFIT of a migrated vCPU: block the vCPU, unless an interrupt can be
        delivered. ``wfit`` is the virtual count at which WFIT ends; None for WFI."""
        vcpu = self._vcpu
        vcpu.outcome.cancel_wait()
        if vcpu.pe is not None:
            vcpu.put()
        vcpu.timer.wfit = wfit
        if vcpu.runnable_interrupt():
            self.make_runnable()
            return
        self.set(Power.BLOCKED)
        vcpu.timer.blocking()

    # -- part of a vCPU --

    def reset(self) -> None:
        self.initialized, self.suspended = True, False

    def state(self) -> State:
        return {
            "version": STATE_VERSION,
            "power": self.power.value,
            "initialized": self.initialized,
            "suspended": self.suspended,
            "waiting": self._vcpu.outcome.waits,
        }

    def load(self, state: State) -> None:
        checked(state, "PowerState", STATE_VERSION)
        self.power = Power(state["power"])
        self.initialized, self.suspended = bool(state["initialized"]), bool(state["suspended"])
        self._vcpu.outcome.restore(bool(state["waiting"]))
