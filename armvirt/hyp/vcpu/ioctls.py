"""The ioctls of a vCPU but for KVM_RUN: what it is, its registers, events and power, and how it is
debugged."""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from typing import TYPE_CHECKING

from armvirt.errors import KvmError
from armvirt.hyp.timer.arch_timer import ArchTimer
from armvirt.hyp.vcpu import attributes as vcpu_attr
from armvirt.hyp.vcpu import events as vcpu_events
from armvirt.hyp.vcpu import onereg
from armvirt.hyp.vcpu.debug import GuestDebug
from armvirt.hyp.vcpu.events import VcpuEvents
from armvirt.hyp.vcpu.exit_types import MmioExit, NisvExit
from armvirt.hyp.vcpu.features import STICKY, Feature, MpState, VcpuInit

if TYPE_CHECKING:
    from armvirt.hw.context import Context
    from armvirt.hw.pe import Pe
    from armvirt.hyp.host.host import Host
    from armvirt.hyp.kvm import Vm


class Power(Enum):
    """KVM_MP_STATE: RUNNABLE, STOPPED; and blocked in WFI or WFE."""

    OFF = "off"
    RUNNABLE = "runnable"
    BLOCKED = "blocked"


class VcpuApi:
    """The part of `armvirt.hyp.vcpu.vcpu.Vcpu` that its VMM calls between runs, or in an exit
    handler."""

    id: int
    index: int
    vm: Vm
    host: Host
    context: Context
    pe: Pe | None
    power: Power
    timer: ArchTimer

    def __init__(self) -> None:
        self.initialized = False
        self.debug = GuestDebug.NONE
        self.immediate_exit = False  # kvm_run.immediate_exit: the next `run` is EINTR
        self.spsr32 = [
            0,
            0,
            0,
            0,
        ]  # SPSR_abt, und, irq, fiq: registers of AArch32, kept for the VMM
        self.serror_pending = False
        self.suspended = False
        self.lines = 0  # HCR_EL2.VI and VF: the CPU's inputs, without an interrupt controller
        self.abortable: MmioExit | NisvExit | None = (
            None  # the exit that an external abort can answer
        )
        self.fault_address = 0  # FAR_EL2 of that exit
        self.affinity: frozenset[int] | None = None  # the PEs that it may be on, see `set_affinity`

    # -- implemented by the run loop --

    def init(self, *, power_off: bool = False) -> None:
        raise NotImplementedError

    def power_off(self) -> None:
        raise NotImplementedError

    def make_runnable(self) -> None:
        raise NotImplementedError

    def suspend(self) -> None:
        raise NotImplementedError

    def program_traps(self) -> None:
        raise NotImplementedError

    def wake(self) -> None:
        raise NotImplementedError

    # -- what it is --

    def vcpu_init(self, init: VcpuInit) -> None:
        """KVM_ARM_VCPU_INIT: reset, and runnable unless POWER_OFF is among the features.

        KvmError as `VcpuInit.check`; EINVAL where the VM's vCPUs were initialised with other
        features.
        """
        features = init.check() & STICKY
        if self.vm.vcpu_features not in (None, features):
            raise KvmError(
                "EINVAL", "the vCPUs of a VM are initialised with the same features, once and again"
            )
        self.vm.vcpu_features = features
        self.init(power_off=Feature.POWER_OFF in init.check())

    def check_initialized(self) -> None:
        """KvmError ENOEXEC before `init`, `vcpu_init` or `start`."""
        if not self.initialized:
            raise KvmError("ENOEXEC", f"vCPU {self.id} is not initialised")

    # -- where it runs --

    def set_affinity(self, pes: Iterable[int] | None) -> None:
        """Which physical CPUs of the host it may be on, by number; None: all. As sched_setaffinity
        of its thread: one that is elsewhere moves, at once or when it leaves the guest. KvmError
        EINVAL for none, and for a CPU that the host does not have."""
        allowed = None if pes is None else frozenset(pes)
        if allowed is not None and not (allowed and allowed <= set(range(len(self.host.pcpus)))):
            raise KvmError(
                "EINVAL", f"PEs {sorted(allowed)}: the host has {len(self.host.pcpus)}, from 0"
            )
        self.host.check_thread()
        self.affinity = allowed
        self.host.affinity_changed(self.index)

    def pin(self, pe: int) -> None:
        """`set_affinity` to one physical CPU."""
        self.set_affinity((pe,))

    def may_be_on(self, pe: int) -> bool:
        """Whether its affinity lets it run on a physical CPU."""
        return self.affinity is None or pe in self.affinity

    # -- registers --

    def get_one_reg(self, register: int) -> int:
        """KVM_GET_ONE_REG by id (uapi/asm/kvm.h). ENOENT for an id that is not there, ENOEXEC
        before `init`."""
        self.check_initialized()
        return onereg.get(self, register)  # type: ignore[arg-type]

    def set_one_reg(self, register: int, value: int) -> None:
        """KVM_SET_ONE_REG. ENOENT for an id that is not there, EINVAL for a value that cannot be,
        EBUSY for what is fixed once a vCPU has run, ENOEXEC before `init`."""
        self.check_initialized()
        onereg.set(self, register, value)  # type: ignore[arg-type]

    def get_reg_list(self) -> list[int]:
        """KVM_GET_REG_LIST: every id that get and set know. ENOEXEC before `init`."""
        self.check_initialized()
        return onereg.ids(self)  # type: ignore[arg-type]

    # -- attributes --

    def set_device_attr(self, group: int, attr: int, value: int | None) -> None:
        """KVM_SET_DEVICE_ATTR of a vCPU (see `vcpu_attr`). ENXIO for a group or an attribute that
        is not there."""
        vcpu_attr.group_of(self, group).set_attr(attr, value)  # type: ignore[arg-type]

    def get_device_attr(self, group: int, attr: int) -> int:
        """KVM_GET_DEVICE_ATTR: errors as `set_device_attr`."""
        return vcpu_attr.group_of(self, group).get_attr(attr)  # type: ignore[arg-type]

    def has_device_attr(self, group: int, attr: int) -> None:
        """KVM_HAS_DEVICE_ATTR: ENXIO if it is not there."""
        vcpu_attr.group_of(self, group).has_attr(attr)  # type: ignore[arg-type]

    # -- power --

    def get_mp_state(self) -> MpState:
        """KVM_GET_MP_STATE."""
        if self.power is Power.OFF:
            return MpState.STOPPED
        return MpState.SUSPENDED if self.suspended else MpState.RUNNABLE

    def set_mp_state(self, state: int) -> None:
        """KVM_SET_MP_STATE. A SUSPENDED vCPU sleeps until an interrupt can be delivered, and then
        exits with the system event wakeup; it goes on once it is RUNNABLE. KvmError EINVAL for
        another state."""
        if state not in tuple(MpState):
            raise KvmError("EINVAL", f"there is no MP state {state}")
        self.host.check_thread()
        if state == MpState.STOPPED:
            self.power_off()
        elif state == MpState.SUSPENDED:
            self.suspend()
        elif self.power is Power.OFF or self.suspended:
            self.make_runnable()

    # -- events --

    def get_vcpu_events(self) -> VcpuEvents:
        """KVM_GET_VCPU_EVENTS. ENOEXEC before `init`."""
        self.check_initialized()
        return VcpuEvents(serror_pending=self.serror_pending)

    def set_vcpu_events(self, events: VcpuEvents) -> None:
        """KVM_SET_VCPU_EVENTS: a virtual SError, pending until PSTATE.A lets it in, and an external
        abort for the access of the last exit. An SError that is pending cannot be taken back (as
        KVM's).

        KvmError ENOEXEC before `init`; EINVAL for a syndrome (no RAS extension), and for an abort
        when the last exit was no `MmioExit` or `NisvExit`."""
        self.check_initialized()
        self.host.check_thread()
        if events.serror_pending and events.serror_has_esr:
            raise KvmError(
                "EINVAL", "without the RAS extension an SError has no syndrome of the VMM's"
            )
        exit = self.abortable
        if events.ext_dabt_pending and exit is None:
            raise KvmError("EINVAL", "an external abort answers an MMIO or NISV exit")
        if events.serror_pending:
            self.serror_pending = True
            self.wake()
        if not events.ext_dabt_pending:
            return
        self.abortable = None
        if isinstance(exit, MmioExit):
            exit.abort = True
        elif exit is not None:
            vcpu_events.take_data_abort(self.context, self.fault_address)

    def set_line(self, number: int, level: bool) -> None:
        """KVM_IRQ_LINE of a CPU's own input, 0 for IRQ and 1 for FIQ (vcpu_interrupt_line)."""
        self.host.check_thread()
        bit = 1 << (6 if number else 7)  # HCR_EL2.VF, VI
        self.lines = self.lines | bit if level else self.lines & ~bit
        self.program_traps()
        if level:
            self.wake()

    # -- debugging --

    def set_guest_debug(self, control: int) -> None:
        """KVM_SET_GUEST_DEBUG: with SINGLESTEP each instruction exits with a `DebugExit`, with
        USE_SW_BP each BRK. KvmError EINVAL as `GuestDebug.checked`."""
        self.host.check_thread()
        self.debug = GuestDebug.checked(control)
        self.program_traps()
