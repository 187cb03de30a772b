"""A vCPU: its registers and parts, its power state, vcpu_load and vcpu_put (struct kvm_vcpu), and
the calls of its VMM.

`armvirt.hyp.run.loop` runs the vCPU. Registers, events and attributes have modules of their own.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from typing import TYPE_CHECKING

from armvirt.arch import translation
from armvirt.arch.named import MIDR_EL1, VMPIDR_EL2, VPIDR_EL2, VTCR_EL2, VTTBR_EL2
from armvirt.arch.pstate import PSTATE_F, PSTATE_I
from armvirt.errors import KvmError
from armvirt.events import Schedule, Stamp
from armvirt.hw.clock import NEVER
from armvirt.hw.pe import Pe
from armvirt.hyp.firmware.pvtime import StolenTime
from armvirt.hyp.host.runnable import Enter
from armvirt.hyp.host.sched import RunDelay
from armvirt.hyp.timer.arch_timer import ArchTimer
from armvirt.hyp.vcpu import attributes, idregs, onereg
from armvirt.hyp.vcpu import events as vcpu_events
from armvirt.hyp.vcpu.event_wait import EventWait
from armvirt.hyp.vcpu.events import GuestDebug, InFlight, VcpuEvents
from armvirt.hyp.vcpu.exit_types import Exit, ExitHandler, Outcome, StuckExit
from armvirt.hyp.vcpu.init import STICKY, Feature, MpState, Start, VcpuInit, reset
from armvirt.hyp.vcpu.traps import activate_traps
from armvirt.state import State, checked

if TYPE_CHECKING:
    from armvirt.hyp.vcpu.protocols import Vm, Vmm

STATE_VERSION = 2

DAIF_IF = PSTATE_I | PSTATE_F


class Power(Enum):
    """The power state: OFF (KVM_MP_STATE_STOPPED), RUNNABLE, or BLOCKED (asleep in WFI or WFE, for
    input, or SUSPENDED)."""

    OFF = "off"
    RUNNABLE = "runnable"
    BLOCKED = "blocked"


class Vcpu:
    """One virtual CPU. `Vm.create_vcpu` creates it.

    ``id`` is the vCPU's number in the VM. ``uid`` is unique on the host and identifies the vCPU in
    trace events (in a host's first VM it equals ``id``). ``index`` is the index in `Host.vcpus`.
    ``home`` is the PE at which the vCPU queues, None before the vCPU was first runnable. ``enter``
    runs the vCPU once and ``vmm`` is the link to its VMM; both are set after creation. ``outcome``
    says how the last entry ended.

    ``immediate_exit`` is kvm_run.immediate_exit. ``lines`` are HCR_EL2.VI and VF: the interrupt
    inputs in a VM without an interrupt controller. ``affinity`` are the PEs on which the vCPU may
    run, None for all. ``spsr32`` are SPSR_abt, und, irq and fiq of AArch32, which only the VMM can
    access. ``fault_address`` is FAR_EL2 of the last `NisvExit`.
    """

    enter: Enter
    vmm: Vmm

    def __init__(self, vm: Vm, vcpu_id: int) -> None:
        self.vm, self.id, self.host = vm, vcpu_id, vm.host
        self.uid, self.index = vm.id_base | vcpu_id, len(vm.host.vcpus)
        self.mpidr = idregs.mpidr_of(vcpu_id)
        self.context = vm.domain.create()
        vm.mmu.attach(self.context)
        self.context.watch_wfe()
        self.context.set_system(VMPIDR_EL2, self.mpidr)
        self.context.set_system(VPIDR_EL2, self.context.system(MIDR_EL1))
        self.outcome = Outcome()
        self.initialized = False
        self.power = Power.OFF
        self.suspended = False
        self.pe: Pe | None = None
        self.home: int | None = None
        self.affinity: frozenset[int] | None = None
        self.delay = RunDelay()
        self.timer = ArchTimer(
            vm.timer_data,
            vcpu_id,
            vm.host.clock,
            vm.timer_vgic,
            self._set_phys_active,
            self.wake,
            vm.host.bus.view(self._stamp),
            f"vm{vm.id}-vcpu{vcpu_id}",
        )
        vm.host.clock.register(self._owner, lambda kind: self.wake())
        self.stolen_time: StolenTime = StolenTime(vm.mmu, lambda: self.run_delay_ns)
        self._monitor: tuple[int, int, int] | None = None  # set by `resume`, for the next `load`
        self.event_wait = EventWait(self)
        self.context.on_event = self.event_wait.event
        self.debug = GuestDebug.NONE
        self.single_step = False
        self.immediate_exit = False
        self.serror_pending = False
        self.spsr32 = [0, 0, 0, 0]
        self.lines = 0
        self.fault_address = 0
        self.faults_until = 0
        self.device_irq_level = 0

    def __repr__(self) -> str:
        return f"<Vcpu {self.id}: {self.power.value}>"

    def _stamp(self) -> Stamp:
        """The present time stamp of the PE on which the vCPU is loaded; else of the host."""
        return self.pe.stamp() if self.pe is not None else self.host.bus.stamp()

    @property
    def _owner(self) -> str:
        """The name of the vCPU's wake-ups in the clock's queue."""
        return f"vm{self.vm.id}-vcpu{self.id}-wfe"

    # -- KVM_RUN and exits --

    @property
    def exit_handler(self) -> ExitHandler | None:
        """Gets the exits that EL2 does not finish, while no caller is in `run`."""
        return self.vmm.handler

    @exit_handler.setter
    def exit_handler(self, handler: ExitHandler | None) -> None:
        self.vmm.handler = handler

    def run(self, until: int = NEVER) -> Exit | None:
        """KVM_RUN: run the host until this vCPU exits to the VMM, at most up to ``until`` ns (then
        the result is None).

        The caller writes the answer into the exit object (the data of a read, a result) and calls
        `run` again. Other vCPUs need an ``exit_handler``, because `run` does not return their
        exits. If no vCPU can ever run again, the exit is a `StuckExit`.

        KvmError ENOEXEC before `init`; ENXIO, EINVAL and EBUSY of `Vm.first_run` at the VM's first
        run; EBUSY during `Host.run` (for example in an exit handler). While ``immediate_exit`` is
        set, `run` completes the access that the caller has answered, and raises EINTR. If this
        access causes another exit (its second transfer), `run` returns that exit instead.
        """
        return self.vmm.run(until)

    @property
    def has_vmm(self) -> bool:
        """Whether a VMM can get the vCPU's exits."""
        return self.vmm.present

    def stuck(self, cause: str) -> None:
        """Report to the VMM that the guest cannot make progress, with the cause."""
        alone = len(list(self.vm.vcpus)) == 1
        self.vmm.tell(StuckExit(cause, self.context.pc, None if alone else self.id))

    # -- power --

    def init(self, *, power_off: bool = False) -> None:
        """KVM_ARM_VCPU_INIT: reset to EL1h with PC 0. With ``power_off`` the vCPU stays off until
        PSCI CPU_ON."""
        self.start(Start(0, 0), run=not power_off)

    def start(self, start: Start, *, run: bool = True) -> None:
        """Reset the vCPU to ``start``, then set its power state, in this order
        (kvm_psci_vcpu_on)."""
        self.initialized, self.suspended, self.serror_pending = True, False, False
        self.spsr32 = [0] * len(self.spsr32)
        self.faults_until = 0
        self.event_wait.entered()
        self._forget_answers()
        reset(self.context, start)
        self.timer.vcpu_reset()
        self._set_power(Power.RUNNABLE if run else Power.OFF)

    def _forget_answers(self) -> None:
        """Discard the VMM's answers and the migrated exclusive monitor: they belong to the state
        before."""
        self.vmm.forget()
        self._monitor = None

    def _set_power(self, power: Power) -> None:
        if power is not self.power and self.host.bus.active:
            what = {Power.OFF: "off", Power.RUNNABLE: "runnable", Power.BLOCKED: "blocked"}[power]
            self.host.bus.emit(Schedule(self.uid, what))
        self.power = power
        if power is Power.RUNNABLE:
            self.host.clock.cancel(self._owner)
            self.host.woken(self)
        else:
            self.delay.leave()

    @property
    def runnable(self) -> bool:
        """Whether the vCPU can run on a PE."""
        return self.power is Power.RUNNABLE

    @property
    def is_off(self) -> bool:
        return self.power is Power.OFF

    @property
    def is_blocked(self) -> bool:
        """Whether the vCPU sleeps until an interrupt, an event or console input."""
        return self.power is Power.BLOCKED

    @property
    def run_delay_ns(self) -> int:
        """The ns for which the vCPU was runnable while another vCPU had its PE, up to the last time
        at which the vCPU got a PE (run_delay)."""
        return self.delay.total

    @property
    def in_wfi(self) -> bool:
        """Whether the vCPU is blocked in WFI, in CPU_SUSPEND, or SUSPENDED."""
        asleep = (
            self.power is Power.BLOCKED and self.timer.hw is None and not self.event_wait.active
        )
        return asleep and self.host.clock.armed(self._owner) is None  # if armed: waits for input

    def power_off(self) -> None:
        """CPU_OFF, or a system event: the vCPU does not run before the next `start` or
        `make_runnable`."""
        self._set_power(Power.OFF)
        self.timer.unblocking()
        self.host.clock.cancel(self._owner)
        self.event_wait.forget()
        self.suspended = False
        self.outcome.cancel_wait()
        self.request_stop()

    def make_runnable(self) -> None:
        """Leave OFF or SUSPENDED, and continue at the present PC."""
        self.suspended = False
        self.event_wait.forget()
        self.timer.unblocking()
        self._set_power(Power.RUNNABLE)

    def suspend(self) -> None:
        """KVM_MP_STATE_SUSPENDED: block like in WFI; at the wake-up the vCPU exits to the VMM with
        the system event wakeup (kvm_vcpu_suspend)."""
        self.suspended = True
        self.outcome.cancel_wait()
        self.event_wait.forget()
        if self.host.driving and self.power is Power.RUNNABLE:
            self.request_stop()  # in the guest perhaps: suspend at the next entry (KVM_REQ_SUSPEND)
            return
        if self.pe is not None:
            self.put()
        self._set_power(Power.BLOCKED)
        if self.runnable_interrupt():
            self.wake()
        else:
            self.timer.blocking()

    def in_flight(self) -> InFlight:
        """The state of the vCPU that is needed for a migration but that no ioctl of KVM saves, see
        `InFlight`. KvmError ENOEXEC before `init`."""
        self.check_initialized()
        asleep = self.in_wfi and not self.suspended
        monitor = self._monitor or self.context.exclusive
        wait, age = self.event_wait, self.host.clock.now - self.context.event_cleared
        return InFlight(asleep, self.timer.wfit if asleep else None, monitor, self.context.event_register, age,
                        wait.active, wait.until)  # fmt: skip

    def resume(self, state: InFlight) -> None:
        """Restore the `in_flight` state of a migrated vCPU, after its registers, interrupts, timers
        and counters. KvmError ENOEXEC before `init`, EBUSY during `Host.run`, EBADF after
        `Host.close`."""
        self.check_initialized()
        self.host.check_standing()
        self._monitor = state.monitor
        self.event_wait.resume(state)
        if not state.asleep:
            return
        self.outcome.cancel_wait()
        if self.pe is not None:
            self.put()
        self.timer.wfit = state.wfit
        if self.runnable_interrupt():
            self.make_runnable()
            return
        self._set_power(Power.BLOCKED)
        self.timer.blocking()

    def wake(self) -> None:
        """kvm_vcpu_wake_up: make the vCPU runnable if it is blocked."""
        if self.power is Power.BLOCKED:
            self._set_power(Power.RUNNABLE)

    # -- load and put --

    def load(self, pe: Pe) -> None:
        """Bind the vCPU to a PE (vcpu_load): exclusive monitor, stage 2, traps, vGIC, timers."""
        self.vm.first_run()
        self.pe = pe
        if not self.event_wait.active:
            self.context.clear_exclusive()
        if self._monitor is not None:
            self.context.exclusive, self._monitor = self._monitor, None
        pe.bind(self.context, self.uid)
        vm = self.vm
        pe.write_el2(VTCR_EL2, translation.vtcr(vm.mmu.stage2.shape))
        pe.write_el2(VTTBR_EL2, vm.mmu.stage2.vttbr)
        self.program_traps()
        self.stolen_time.update()
        if vm.vgic is not None:
            vm.vgic.load(self.id, pe.vif)
        else:
            pe.vif.sre = False  # a guest without a GIC: ICC_*_EL1 are UNDEFINED
        self.timer.vcpu_load(pe.timer)
        if self.host.bus.active:
            self.host.bus.emit(Schedule(self.uid, "load"))

    def program_traps(self) -> None:
        """Program MDCR_EL2 and HCR_EL2 of the PE on which the vCPU is loaded; the values depend on
        guest debug and on the vCPU's interrupt inputs."""
        if self.pe is not None:
            activate_traps(
                self.pe,
                vhe=self.vm.timer_data.vhe,
                breakpoints=GuestDebug.USE_SW_BP in self.debug,
                lines=self.lines,
            )

    def attach(self, pe: Pe) -> None:
        """Bind the vCPU to ``pe`` after a restore: like `load`, but the PE's registers are restored
        already."""
        self.pe = pe
        pe.bind(self.context, self.uid)
        if self.vm.vgic is not None:
            self.vm.vgic.attach(self.id, pe.vif)
        self.timer.attach(pe.timer)

    def detach(self) -> None:
        """Unbind the vCPU from the PE without saving its registers: the caller restores a state
        next."""
        if self.pe is not None:
            self.timer.detach()
            if self.vm.vgic is not None:
                self.vm.vgic.detach(self.id)
            self.pe.unbind()
            self.pe = None

    def put(self) -> None:
        """Save the vCPU's registers from the PE and unbind it (vcpu_put)."""
        assert self.pe is not None
        if self.host.bus.active:
            self.host.bus.emit(Schedule(self.uid, "put"))
        self.timer.vcpu_put()
        if self.vm.vgic is not None:
            self.vm.vgic.put(self.id)
        self.pe.unbind()
        self.pe = None

    # -- waiting --

    def wait(self, until: int | None = None) -> None:
        """WFI: block the vCPU after this exit; WFIT: until the virtual count ``until`` at most."""
        self.outcome.wait()
        self.timer.wfit = until

    def wait_for_event(self, until: int | None) -> int:
        """WFET: like WFE, but with an event when the virtual count is ``until``."""
        assert self.pe is not None
        self.event_wait.until = until
        return self.pe.wait_for_event()

    def runnable_interrupt(self) -> bool:
        """Whether an interrupt can be delivered (kvm_arch_vcpu_runnable)."""
        if self.serror_pending:
            return True
        vgic = self.vm.vgic
        if vgic is None:
            return bool(self.lines) or self.timer.is_pending()
        return vgic.pending(self.id)

    def block(self) -> None:
        """kvm_vcpu_block: unless an interrupt can be delivered, put the vCPU, and arm its
        background timer."""
        if self.runnable_interrupt():
            return
        self.put()
        self._set_power(Power.BLOCKED)
        self.timer.blocking()

    def sleep(self, until: int | None) -> None:
        """Block the vCPU without a put, until ``until`` ns (None: no limit) or an earlier
        wake-up."""
        self._set_power(Power.BLOCKED)
        if until is not None:
            self.wake_at(until)

    def wake_at(self, when: int) -> None:
        """Wake the vCPU up at ``when`` ns at the latest."""
        armed = self.host.clock.armed(self._owner)
        if armed is None or when < armed:
            self.host.clock.arm(when, self._owner)

    @property
    def hears(self) -> bool:
        """Whether virtual IRQs or virtual FIQs are unmasked (PSTATE.I or PSTATE.F is 0)."""
        return self.context.pstate & DAIF_IF != DAIF_IF

    def next_rise(self) -> int | None:
        """The ns at which the next of the vCPU's timer lines rises; None if no line will rise."""
        return self.timer.next_rise()

    def request_stop(self) -> None:
        """Leave the guest after the present exit."""
        if self.pe is not None:
            self.pe.request_stop()

    def _set_phys_active(self, intid: int, active: bool) -> None:
        if self.pe is not None:
            self.pe.gic.set_active(self.pe.index, intid, active)

    # -- initialisation --

    def vcpu_init(self, init: VcpuInit) -> None:
        """KVM_ARM_VCPU_INIT: reset the vCPU; it is runnable unless POWER_OFF is among the features.

        KvmError: the errors of `VcpuInit.check`; EINVAL if the VM's vCPUs were initialised with
        other features.
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

    # -- affinity --

    def set_affinity(self, pes: Iterable[int] | None) -> None:
        """Set the PEs on which the vCPU may run, by number; None: all (sched_setaffinity of its
        thread). If the vCPU is on another PE, it moves at once, or during `Host.run` after the next
        exit. KvmError EINVAL for an empty set and for a PE that the host does not have."""
        allowed = None if pes is None else frozenset(pes)
        if allowed is not None and not (allowed and allowed <= set(range(len(self.host.pcpus)))):
            raise KvmError(
                "EINVAL", f"PEs {sorted(allowed)}: the host has {len(self.host.pcpus)}, from 0"
            )
        self.host.check_thread()
        self.affinity = allowed
        self.host.affinity_changed(self.index)

    def pin(self, pe: int) -> None:
        """Set the affinity to one PE (see `set_affinity`)."""
        self.set_affinity((pe,))

    def may_be_on(self, pe: int) -> bool:
        """Whether PE ``pe`` is in the vCPU's affinity."""
        return self.affinity is None or pe in self.affinity

    # -- registers --

    def get_one_reg(self, register: int) -> int:
        """KVM_GET_ONE_REG by id (uapi/asm/kvm.h). KvmError ENOENT for an unknown id, ENOEXEC before
        `init`."""
        self.check_initialized()
        return onereg.get(self, register)

    def set_one_reg(self, register: int, value: int) -> None:
        """KVM_SET_ONE_REG. KvmError ENOENT for an unknown id, EINVAL for an invalid value, EBUSY
        for a register that cannot change after a vCPU has run, ENOEXEC before `init`."""
        self.check_initialized()
        onereg.set(self, register, value)

    def get_reg_list(self) -> list[int]:
        """KVM_GET_REG_LIST: the ids of all registers. KvmError ENOEXEC before `init`."""
        self.check_initialized()
        return onereg.ids(self)

    # -- attributes --

    def set_device_attr(self, group: int, attr: int, value: int | None) -> None:
        """KVM_SET_DEVICE_ATTR of a vCPU (see `attributes`). KvmError ENXIO for an unknown group or
        attribute."""
        attributes.group_of(self, group).set_attr(attr, value)

    def get_device_attr(self, group: int, attr: int) -> int:
        """KVM_GET_DEVICE_ATTR of a vCPU. KvmError: the errors of `set_device_attr`."""
        return attributes.group_of(self, group).get_attr(attr)

    def has_device_attr(self, group: int, attr: int) -> None:
        """KVM_HAS_DEVICE_ATTR of a vCPU. KvmError ENXIO for an unknown group or attribute."""
        attributes.group_of(self, group).has_attr(attr)

    # -- power --

    def get_mp_state(self) -> MpState:
        """KVM_GET_MP_STATE: the MP state of the vCPU."""
        if self.power is Power.OFF:
            return MpState.STOPPED
        return MpState.SUSPENDED if self.suspended else MpState.RUNNABLE

    def set_mp_state(self, state: int) -> None:
        """KVM_SET_MP_STATE. A SUSPENDED vCPU sleeps until an interrupt can be delivered, and then
        exits with the system event wakeup; it continues after the VMM has set RUNNABLE. KvmError
        EINVAL for an unknown state."""
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
        """KVM_GET_VCPU_EVENTS. KvmError ENOEXEC before `init`."""
        self.check_initialized()
        return VcpuEvents(serror_pending=self.serror_pending)

    def set_vcpu_events(self, events: VcpuEvents) -> None:
        """KVM_SET_VCPU_EVENTS: make a virtual SError pending, until PSTATE.A unmasks it, and inject
        an external abort for the access of the last exit. As in KVM, a pending SError cannot be
        cancelled.

        KvmError ENOEXEC before `init`; EINVAL for a syndrome (no RAS extension), and for an abort
        if the last exit was not an `MmioExit` or a `NisvExit`.
        """
        self.check_initialized()
        self.host.check_thread()
        vcpu_events.set_events(self, events)

    def set_line(self, number: int, level: bool) -> None:
        """KVM_IRQ_LINE of the vCPU's own interrupt inputs: 0 is IRQ, 1 is FIQ
        (vcpu_interrupt_line)."""
        self.host.check_thread()
        bit = 1 << (6 if number else 7)  # HCR_EL2.VF, VI
        self.lines = self.lines | bit if level else self.lines & ~bit
        self.program_traps()
        if level:
            self.wake()

    # -- debugging --

    def set_guest_debug(self, control: int) -> None:
        """KVM_SET_GUEST_DEBUG: with SINGLESTEP each instruction exits with a `DebugExit`, with
        USE_SW_BP each BRK. KvmError: the errors of `GuestDebug.checked`."""
        self.host.check_thread()
        self.debug = GuestDebug.checked(control)
        self.single_step = GuestDebug.SINGLESTEP in self.debug
        self.program_traps()

    def translate(self, va: int) -> int | None:
        """KVM_TRANSLATE: the IPA of a virtual address at the present exception level; None if the
        address is not mapped."""
        return self.context.translate(va)

    # -- state --

    def state(self) -> dict[str, object]:
        return {
            "version": STATE_VERSION, "context": self.context.state(), "timer": self.timer.state(),
            "power": self.power.value, "waiting": self.outcome.waits, "home": self.home, "delay": self.delay.state(),
            "device_irq_level": self.device_irq_level, "event_wait": self.event_wait.state(),
            "faults_until": self.faults_until,
            "stolen_time": self.stolen_time.state(),
            "initialized": self.initialized,
            "suspended": self.suspended, "serror_pending": self.serror_pending, "lines": self.lines,
            "spsr32": list(self.spsr32), "affinity": None if self.affinity is None else sorted(self.affinity),
        }  # fmt: skip

    def load_state(self, state: State) -> None:
        """Restore `state`; afterwards the vCPU is not loaded on a PE (see `attach`)."""
        checked(state, "Vcpu", STATE_VERSION)
        self._forget_answers()
        self.context.load(state["context"])
        self.timer.load(state["timer"])
        self.power = Power(state["power"])
        self.home = state["home"]
        self.delay.load(state["delay"])
        self.outcome.restore(bool(state["waiting"]))
        self.device_irq_level, self.faults_until = state["device_irq_level"], state["faults_until"]
        self.event_wait.load(state["event_wait"])
        self.stolen_time.load(state["stolen_time"])
        self.initialized, self.suspended = bool(state["initialized"]), bool(state["suspended"])
        self.serror_pending, self.lines = bool(state["serror_pending"]), int(state["lines"])
        self.spsr32 = list(state["spsr32"])
        affinity = state["affinity"]
        self.affinity = None if affinity is None else frozenset(affinity)
