"""A vCPU (struct kvm_vcpu): the list of the parts of its state (registers, traps, timers and so
on), vcpu_load and vcpu_put, and the ioctls that its VMM calls.

Each part has a module of its own. `armvirt.hyp.run.loop` runs the vCPU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from armvirt.arch.named import MIDR_EL1, VMPIDR_EL2, VPIDR_EL2
from armvirt.arch.pstate import PSTATE_F, PSTATE_I
from armvirt.errors import KvmError
from armvirt.events import Schedule, Stamp
from armvirt.hw.clock import NEVER
from armvirt.hw.context import Context
from armvirt.hw.pe import Pe
from armvirt.hyp.host.runnable import Enter
from armvirt.hyp.timer.arch_timer import ArchTimer
from armvirt.hyp.vcpu import events as vcpu_events
from armvirt.hyp.vcpu import idregs, onereg
from armvirt.hyp.vcpu.event_wait import EventWait
from armvirt.hyp.vcpu.events import GuestDebug, InFlight, VcpuEvents
from armvirt.hyp.vcpu.exit_types import Exit, Outcome, StuckExit
from armvirt.hyp.vcpu.parts import SchedPart, StolenTimePart, TimerPart, VcpuParts, VgicPart
from armvirt.hyp.vcpu.power import MpState, Power, PowerState
from armvirt.hyp.vcpu.reset import STICKY, Feature, Registers, Start, VcpuInit
from armvirt.hyp.vcpu.traps import Traps
from armvirt.hyp.vgic.vgic import Vgic
from armvirt.state import State, checked

if TYPE_CHECKING:
    from armvirt.hyp.vcpu.protocols import Vm, Vmm

STATE_VERSION = 3

DAIF_IF = PSTATE_I | PSTATE_F

ExitHandler = Callable[["Vcpu", Exit], "bool | None"]
"""A function of the VMM that handles an exit which EL2 does not complete itself. The function
writes the answer into the exit object. If the function returns true, `Host.run` stops."""


class Vcpu:
    """One virtual CPU. `Vm.create_vcpu` creates it.

    ``id`` is the vCPU's number in the VM. ``uid`` identifies the vCPU in trace events, and is
    unique among all VMs of the host. In the first VM of a host, ``uid`` equals ``id``. ``index`` is
    the index in `Host.vcpus`. ``pe`` is the PE on which the vCPU is loaded; None if the vCPU is not
    loaded. ``enter`` is a function that lets the vCPU enter the guest once. ``vmm`` is the
    interface to the vCPU's VMM. The creator of the vCPU sets ``enter`` and ``vmm``. ``outcome``
    says how the last guest entry ended. ``wake``, ``wake_at``, ``block`` and ``sleep`` are the
    methods of `PowerState`.

    An exit that EL2 does not complete itself goes to the caller of `run`. If no caller is in `run`,
    the exit goes to ``exit_handler``. ``immediate_exit`` is kvm_run.immediate_exit. ``debug`` is
    the control word of `set_guest_debug`. ``fault_address`` is FAR_EL2 of the last `NisvExit`.
    """

    enter: Enter
    vmm: Vmm

    def __init__(self, vm: Vm, vcpu_id: int) -> None:
        self.vm, self.id, self.host = vm, vcpu_id, vm.host
        self.uid, self.index = vm.id_base | vcpu_id, len(vm.host.vcpus)
        self.mpidr = idregs.mpidr_of(vcpu_id)
        self.context = _new_context(vm, self.mpidr)
        self.pe: Pe | None = None
        self.outcome = Outcome()
        self.exit_handler: ExitHandler | None = None
        self.immediate_exit = False
        self.debug = GuestDebug.NONE
        self.single_step = False
        self.fault_address = 0
        self.event_wait = EventWait(self)
        self.context.on_event = self.event_wait.event
        name = f"vm{vm.id}-vcpu{vcpu_id}"
        self.power_state = PowerState(self, self.event_wait, f"{name}-wfe")
        self.wake, self.wake_at = self.power_state.wake, self.power_state.wake_at
        self.block, self.sleep = self.power_state.block, self.power_state.sleep
        self.timer = ArchTimer(
            vm.timer_data,
            vcpu_id,
            vm.host.clock,
            vm.timer_vgic,
            self._set_phys_active,
            self.wake,
            vm.host.bus.view(self._stamp),
            name,
        )
        # The parts, in the order of vcpu_load.
        self.parts = VcpuParts()
        add = self.parts.add
        add("event_wait", self.event_wait)
        self.registers = add("registers", Registers(self.context))
        self.traps = add("traps", Traps(vm.mmu, vm.timer_data.vhe))
        self.sched = add("sched", SchedPart())
        self.stolen_time = add("stolen_time", StolenTimePart(vm.mmu, lambda: self.sched.run_delay))
        self._vgic_part = add("vgic", VgicPart(vm.vgic, vcpu_id))
        self.timer_part = add("timer", TimerPart(self.timer, vm.vgic is not None))
        add("power", self.power_state)

    def __repr__(self) -> str:
        return f"<Vcpu {self.id}: {self.power.value}>"

    def _stamp(self) -> Stamp:
        """Return the stamp (the time and the place) of a trace event of this vCPU. The stamp comes
        from the PE on which the vCPU is loaded, or from the host if the vCPU is not loaded."""
        return self.pe.stamp() if self.pe is not None else self.host.bus.stamp()

    # -- KVM_RUN and exits --

    def run(self, until: int = NEVER) -> Exit | None:
        """KVM_RUN: run the host until this vCPU exits to the VMM, and return the exit. ``until`` is
        a virtual time in ns. If the virtual time reaches ``until`` first, return None.

        The caller writes the answer into the exit object (the data of a load, the result of a call)
        and calls `run` again. The other vCPUs need an ``exit_handler``, because `run` does not
        return their exits. If no vCPU can ever run again, the exit is a `StuckExit`.

        If ``immediate_exit`` is set, `run` completes the access that the caller has answered,
        executes nothing else, and raises KvmError EINTR. But if the instruction makes a second
        access that exits, `run` returns this second exit.

        Other KvmErrors: ENOEXEC before `init`; EBUSY during `Host.run` (for example in an exit
        handler); at the first run in the VM, the errors of `Vm.first_run`.
        """
        return self.vmm.run(until)

    @property
    def has_vmm(self) -> bool:
        """Whether an exit of the vCPU can be delivered: a caller is in `run`, or ``exit_handler``
        is set."""
        return self.vmm.present

    def stuck(self, cause: str) -> None:
        """Report to the VMM that the guest cannot make progress. ``cause`` is a text that says
        why."""
        alone = self.vm.online_vcpus == 1
        self.vmm.tell(StuckExit(cause, self.context.pc, None if alone else self.id))

    # -- power --

    def init(self, *, power_off: bool = False) -> None:
        """KVM_ARM_VCPU_INIT: reset the vCPU to EL1h with PC 0. If ``power_off`` is true, the vCPU
        stays off until PSCI CPU_ON starts it."""
        self.start(Start(0, 0), run=not power_off)

    def start(self, start: Start, *, run: bool = True) -> None:
        """Reset the vCPU. ``start`` is the state in which it starts: PC, x0 and endianness. Then
        make the vCPU runnable, or power it off if ``run`` is False (kvm_psci_vcpu_on)."""
        self.vmm.forget()
        self.registers.reset_state = start
        self.parts.reset()
        self.power_state.set(Power.RUNNABLE if run else Power.OFF)

    @property
    def power(self) -> Power:
        return self.power_state.power

    @property
    def runnable(self) -> bool:
        """Whether the vCPU can run on a PE."""
        return self.power_state.power is Power.RUNNABLE

    @property
    def is_off(self) -> bool:
        return self.power_state.power is Power.OFF

    @property
    def is_blocked(self) -> bool:
        """Whether the vCPU sleeps until an interrupt, an event or console input."""
        return self.power_state.power is Power.BLOCKED

    @property
    def suspended(self) -> bool:
        """Whether the MP state is SUSPENDED."""
        return self.power_state.suspended

    @property
    def initialized(self) -> bool:
        """Whether the vCPU was reset at least once (KVM_ARM_VCPU_INIT)."""
        return self.power_state.initialized

    @property
    def run_delay_ns(self) -> int:
        """The total virtual time in ns for which the vCPU was runnable while another vCPU had its
        PE (run_delay of Linux). A wait for the PE that has not ended is not in the result."""
        return self.sched.run_delay

    @property
    def in_wfi(self) -> bool:
        """Whether the vCPU is blocked in WFI or in CPU_SUSPEND, or has the MP state SUSPENDED."""
        return self.power_state.in_wfi

    def power_off(self) -> None:
        """Power the vCPU off, see `PowerState.power_off`."""
        self.power_state.power_off()

    def in_flight(self) -> InFlight:
        """The state of the vCPU that a migration needs, but that no ioctl of KVM saves (see
        `InFlight`). KvmError ENOEXEC before `init`."""
        self.check_initialized()
        asleep = self.in_wfi and not self.suspended
        return self.event_wait.in_flight(asleep, self.timer.wfit if asleep else None)

    def resume(self, state: InFlight) -> None:
        """Restore the result of `in_flight` in a migrated vCPU. The caller has already restored
        registers, interrupts, timers and counters. KvmError ENOEXEC before `init`, EBUSY during
        `Host.run`, EBADF after `Host.close`."""
        self.check_initialized()
        self.host.check_standing()
        self.event_wait.resume(state)
        if state.asleep:
            self.power_state.resume_wfi(state.wfit)

    # -- load and put --

    def load(self, pe: Pe) -> None:
        """Bind the vCPU to a PE, and load its registers, timers and other parts there
        (vcpu_load)."""
        self.vm.first_run()
        self.pe = pe
        pe.bind(self.context, self.uid)
        for vcpu_load in self.parts.loads:
            vcpu_load(pe)
        if self.host.bus.active:
            self.host.bus.emit(Schedule(self.uid, "load"))

    def put(self) -> None:
        """Save the vCPU's registers, timers and other parts from the PE, and unbind the vCPU
        (vcpu_put)."""
        assert self.pe is not None
        if self.host.bus.active:
            self.host.bus.emit(Schedule(self.uid, "put"))
        for vcpu_put in self.parts.puts:
            vcpu_put()
        self.pe.unbind()
        self.pe = None

    def attach(self, pe: Pe) -> None:
        """Bind the vCPU to ``pe`` after the restore of a saved state. The vCPU loads no register,
        because the registers of ``pe`` have been restored, too."""
        self.pe = pe
        pe.bind(self.context, self.uid)
        self.parts.attach(pe)

    def detach(self) -> None:
        """Unbind the vCPU from its PE before the restore of a saved state. The vCPU saves no
        register, because the restore replaces the vCPU's state."""
        if self.pe is not None:
            self.parts.detach()
            self.pe.unbind()
            self.pe = None

    def set_vgic(self, vgic: Vgic) -> None:
        """Connect the vCPU to the vGIC. The VM calls this method if it creates the vGIC after the
        vCPU."""
        self.timer.vgic = self._vgic_part.vgic = vgic
        self.timer_part.in_kernel = True

    # -- waiting --

    def wait(self, until: int | None = None) -> None:
        """Handle WFI or WFIT: block the vCPU after the exit that is handled at present. ``until``
        is the virtual count at which WFIT times out; None for WFI."""
        self.outcome.wait()
        self.timer.wfit = until

    def wait_for_event(self, until: int | None) -> int:
        """Handle WFET. The vCPU waits until an event sets its event register (as in WFE), or until
        the virtual count reaches ``until``. Return the `Action` that the PE takes next."""
        assert self.pe is not None
        self.event_wait.until = until
        return self.pe.wait_for_event()

    def runnable_interrupt(self) -> bool:
        """Whether an interrupt can be delivered, or an SError is pending (kvm_arch_vcpu_runnable).
        The mask bits in PSTATE do not count."""
        if self.traps.serror_pending:
            return True
        vgic = self.vm.vgic
        if vgic is None:
            return bool(self.traps.lines) or self.timer.is_pending()
        return vgic.pending(self.id)

    @property
    def hears(self) -> bool:
        """Whether virtual IRQs or virtual FIQs are unmasked (PSTATE.I or PSTATE.F is 0)."""
        return self.context.pstate & DAIF_IF != DAIF_IF

    def next_rise(self) -> int | None:
        """The virtual time in ns of the next rising edge of a timer line of the vCPU; None if no
        timer line will rise."""
        return self.timer.next_rise()

    def request_stop(self) -> None:
        """Request that the PE leaves the guest after the exit that is handled at present."""
        if self.pe is not None:
            self.pe.request_stop()

    def _set_phys_active(self, intid: int, active: bool) -> None:
        if self.pe is not None:
            self.pe.gic.set_active(self.pe.index, intid, active)

    # -- initialisation --

    def vcpu_init(self, init: VcpuInit) -> None:
        """KVM_ARM_VCPU_INIT: reset the vCPU. With the feature POWER_OFF, the vCPU is off
        afterwards. Without it, the vCPU is runnable.

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
        """Raise KvmError ENOEXEC if the vCPU was never reset by `init`, `vcpu_init` or `start`."""
        if not self.initialized:
            raise KvmError("ENOEXEC", f"vCPU {self.id} is not initialised")

    # -- affinity --

    def set_affinity(self, pes: Iterable[int] | None) -> None:
        """Set the PEs on which the vCPU may run (sched_setaffinity of the vCPU's thread). ``pes``
        has the numbers of the PEs; None means all PEs. If the vCPU's present PE is not in ``pes``,
        the host kernel moves the vCPU. During `Host.run`, the move is after the next exit;
        otherwise it is at once. KvmError EINVAL if ``pes`` is empty, or has a PE that the host does
        not have."""
        allowed = None if pes is None else frozenset(pes)
        if allowed is not None and not (allowed and allowed <= set(range(len(self.host.pcpus)))):
            raise KvmError(
                "EINVAL", f"PEs {sorted(allowed)}: the host has {len(self.host.pcpus)}, from 0"
            )
        self.host.check_thread()
        self.sched.affinity = allowed
        self.host.affinity_changed(self.index)

    def pin(self, pe: int) -> None:
        """Set the affinity to one PE (see `set_affinity`)."""
        self.set_affinity((pe,))

    def may_be_on(self, pe: int) -> bool:
        """Whether PE ``pe`` is in the vCPU's affinity."""
        return self.sched.may_be_on(pe)

    # -- registers --

    def get_one_reg(self, register: int) -> int:
        """KVM_GET_ONE_REG: read a register. ``register`` is its id (uapi/asm/kvm.h). KvmError
        ENOENT for an unknown id, ENOEXEC before `init`."""
        self.check_initialized()
        return onereg.get(self, register)

    def set_one_reg(self, register: int, value: int) -> None:
        """KVM_SET_ONE_REG: write a register. ``register`` is its id (uapi/asm/kvm.h). KvmError
        ENOENT for an unknown id, EINVAL for an invalid value, EBUSY for a register that cannot
        change after a vCPU has run, ENOEXEC before `init`."""
        self.check_initialized()
        onereg.set(self, register, value)

    def get_reg_list(self) -> list[int]:
        """KVM_GET_REG_LIST: the ids of all registers. KvmError ENOEXEC before `init`."""
        self.check_initialized()
        return onereg.ids(self)

    # -- attributes --

    def set_device_attr(self, group: int, attr: int, value: int | None) -> None:
        """KVM_SET_DEVICE_ATTR of a vCPU: set an attribute. ``group`` is KVM_ARM_VCPU_TIMER_CTRL
        (the timers) or KVM_ARM_VCPU_PVTIME_CTRL (the stolen time). KvmError ENXIO for an unknown
        group or attribute, and the errors of `TimerPart.set_attr` and `StolenTime.set_attr`."""
        self.parts.of_group(group).set_attr(attr, value)

    def get_device_attr(self, group: int, attr: int) -> int:
        """KVM_GET_DEVICE_ATTR of a vCPU. KvmError: the errors of `set_device_attr`."""
        return self.parts.of_group(group).get_attr(attr)

    def has_device_attr(self, group: int, attr: int) -> None:
        """KVM_HAS_DEVICE_ATTR of a vCPU. KvmError ENXIO for an unknown group or attribute."""
        self.parts.of_group(group).has_attr(attr)

    # -- power --

    def get_mp_state(self) -> MpState:
        """KVM_GET_MP_STATE: the MP state of the vCPU."""
        return self.power_state.get_mp_state()

    def set_mp_state(self, state: int) -> None:
        """KVM_SET_MP_STATE. After SUSPENDED, the vCPU sleeps until an interrupt can be delivered.
        Then the vCPU exits to the VMM with the system event wakeup. The vCPU continues when the VMM
        sets RUNNABLE. KvmError EINVAL for an unknown state."""
        self.power_state.set_mp_state(state)

    # -- events --

    def get_vcpu_events(self) -> VcpuEvents:
        """KVM_GET_VCPU_EVENTS: whether an SError is pending. KvmError ENOEXEC before `init`."""
        self.check_initialized()
        return VcpuEvents(serror_pending=self.traps.serror_pending)

    def set_vcpu_events(self, events: VcpuEvents) -> None:
        """KVM_SET_VCPU_EVENTS: make a virtual SError pending, or inject an external abort for the
        access of the last exit, or both, as ``events`` requests. The guest takes the SError when
        PSTATE.A is 0. As in KVM, the VMM cannot cancel a pending SError.

        KvmError ENOEXEC before `init`. KvmError EINVAL for an SError with a syndrome, because the
        CPU has no RAS extension. KvmError EINVAL also for an abort if the last exit was neither an
        `MmioExit` nor a `NisvExit`.
        """
        self.check_initialized()
        self.host.check_thread()
        vcpu_events.set_events(self, events)

    def set_line(self, number: int, level: bool) -> None:
        """KVM_IRQ_LINE: set the level of an interrupt input of the vCPU (vcpu_interrupt_line).
        ``number`` selects the input: input 0 is IRQ, input 1 is FIQ."""
        self.host.check_thread()
        self.traps.set_line(number, level)
        self._activate_traps()
        if level:
            self.wake()

    # -- debugging --

    def set_guest_debug(self, control: int) -> None:
        """KVM_SET_GUEST_DEBUG: with SINGLESTEP, each instruction exits with a `DebugExit`; with
        USE_SW_BP, each BRK exits with a `DebugExit`. KvmError: the errors of
        `GuestDebug.checked`."""
        self.host.check_thread()
        self.debug = GuestDebug.checked(control)
        self.single_step = GuestDebug.SINGLESTEP in self.debug
        self.traps.breakpoints = GuestDebug.USE_SW_BP in self.debug
        self._activate_traps()

    def _activate_traps(self) -> None:
        if self.pe is not None:
            self.traps.activate(self.pe)

    def translate(self, va: int) -> int | None:
        """KVM_TRANSLATE: the IPA of a virtual address at the present exception level; None if the
        address is not mapped."""
        return self.context.translate(va)

    # -- state --

    @property
    def device_irq_level(self) -> int:
        """The levels of the timer lines in a VM without a vGIC (kvm_run.s.regs.device_irq_level),
        see `TimerPart`."""
        return self.timer_part.device_irq_level

    def state(self) -> State:
        return {"version": STATE_VERSION, "parts": self.parts.state()}

    def load_state(self, state: State) -> None:
        """Restore the result of `state`. Afterwards the vCPU is not loaded on a PE. The host calls
        `attach` if the vCPU was loaded when its state was saved."""
        self.vmm.forget()
        self.parts.load(checked(state, "Vcpu", STATE_VERSION)["parts"])


def _new_context(vm: Vm, mpidr: int) -> Context:
    """Create the context of a vCPU, and map the VM's memory into its engine. The guest reads the
    MPIDR_EL1 ``mpidr`` and the CPU's MIDR_EL1."""
    context = vm.domain.create()
    vm.mmu.attach(context)
    context.watch_wfe()
    context.set_system(VMPIDR_EL2, mpidr)
    context.set_system(VPIDR_EL2, context.system(MIDR_EL1))
    return context
