"""A vCPU and its run loop: load, flush, enter, exit, sync, put (arch/arm64/kvm/arm.c)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from armvirt.arch import stage2
from armvirt.arch.el1 import MIDR_EL1, PMUSERENR_EL0, PMUSERENR_EN
from armvirt.arch.el2 import (
    HCR_AMO,
    HCR_E2H,
    HCR_EL2,
    HCR_FMO,
    HCR_IMO,
    HCR_RW,
    HCR_SWIO,
    HCR_TID3,
    HCR_TSC,
    HCR_TWE,
    HCR_TWI,
    HCR_VM,
    MDCR_EL2,
    MDCR_TDE,
    MDCR_TPM,
    MDCR_TPMCR,
    VMPIDR_EL2,
    VPIDR_EL2,
    VTCR_EL2,
    VTTBR_EL2,
)
from armvirt.arch.esr import DFSC
from armvirt.arch.gic import PPI_MAINTENANCE
from armvirt.arch.pstate import PSTATE_F, PSTATE_I
from armvirt.events import ExceptionEntry, Mmio, Schedule, Stamp
from armvirt.hw.clock import NEVER
from armvirt.hw.exit import Action, ExitKind, SyncExit
from armvirt.hw.pe import Pe
from armvirt.hyp.firmware.pvtime import StolenTime
from armvirt.hyp.host.pcpu import RunDelay
from armvirt.hyp.run import exits
from armvirt.hyp.run.abort import inject_data_abort
from armvirt.hyp.run.vmm_link import ExitHandler, LeftToCallerError, VcpuExits
from armvirt.hyp.timer.arch_timer import ArchTimer
from armvirt.hyp.vcpu import events as vcpu_events
from armvirt.hyp.vcpu import idregs, reset
from armvirt.hyp.vcpu.debug import STEP_HSR, GuestDebug
from armvirt.hyp.vcpu.event_wait import EventWait
from armvirt.hyp.vcpu.events import InFlight
from armvirt.hyp.vcpu.exit_types import (
    DebugExit,
    IntrExit,
    MmioExit,
    StuckExit,
    SystemEventExit,
)
from armvirt.hyp.vcpu.ioctls import Power
from armvirt.hyp.vcpu.reset import Start

__all__ = ["ExitHandler", "Power", "Vcpu"]

if TYPE_CHECKING:
    from armvirt.hyp.kvm import Vm

DAIF_IF = PSTATE_I | PSTATE_F

HCR_GUEST_FLAGS = (
    HCR_VM
    | HCR_SWIO
    | HCR_FMO
    | HCR_IMO
    | HCR_AMO
    | HCR_TWI
    | HCR_TWE
    | HCR_TID3
    | HCR_TSC
    | HCR_RW
)

INTERNAL_FAILURE = -6 & 0xFFFF_FFFF_FFFF_FFFF


class Vcpu(VcpuExits):
    """One virtual CPU. Created by `Vm.create_vcpu`; most of what a VMM calls is in `VcpuApi`
    and `VcpuExits`.

    ``id`` is the VM's, ``uid`` is unique on the host and what trace events say (equal in a host's
    first VM), ``index`` is its place in `Host.vcpus`. ``home`` is the PE at which it queues, None
    before it first could run.
    """

    def __init__(self, vm: Vm, vcpu_id: int) -> None:
        super().__init__()
        self.vm, self.id, self.host = vm, vcpu_id, vm.host
        self.uid, self.index = vm.id_base | vcpu_id, len(vm.host.vcpus)
        self.mpidr = idregs.mpidr_of(vcpu_id)
        self.context = vm.domain.create()
        vm.mmu.attach(self.context)
        self.context.engine.watch_wfe()
        self.context.set_system(VMPIDR_EL2, self.mpidr)
        self.context.set_system(VPIDR_EL2, self.context.system(MIDR_EL1))
        self.power = Power.OFF
        self.pe: Pe | None = None
        self.home: int | None = None
        self.delay = RunDelay()
        self.timer = ArchTimer(
            vm.timer_data,
            vcpu_id,
            vm.host.clock,
            vm,
            self._set_phys_active,
            self.wake,
            vm.host.bus.view(self._stamp),
            f"vm{vm.id}-vcpu{vcpu_id}",
        )
        vm.host.clock.register(self._owner, lambda kind: self.wake())
        self.stolen_time: StolenTime = StolenTime(vm.mmu, lambda: self.run_delay_ns)
        self.sleep_at: int | None = None
        self._waiting = False
        self._monitor: tuple[int, int, int] | None = None  # of `resume`: it outlives the first load
        self.event_wait = EventWait(self)
        self.context.on_event = self.event_wait.event
        self.faults_until = 0
        self.device_irq_level = 0

    def __repr__(self) -> str:
        return f"<Vcpu {self.id}: {self.power.value}>"

    def _stamp(self) -> Stamp:
        """Now, on this vCPU if it is loaded; else wherever that happens which concerns it."""
        return self.pe.stamp() if self.pe is not None else self.host.bus.stamp()

    @property
    def _owner(self) -> str:
        return f"vm{self.vm.id}-vcpu{self.id}-wfe"

    # -- power --

    def init(self, *, power_off: bool = False) -> None:
        """KVM_ARM_VCPU_INIT: reset to EL1h at 0; ``power_off`` leaves it to PSCI CPU_ON."""
        self.start(Start(0, 0), run=not power_off)

    def start(self, start: Start, *, run: bool = True) -> None:
        """Reset to ``start``; the reset is done before the power state changes
        (kvm_psci_vcpu_on)."""
        self.initialized, self.suspended, self.serror_pending = True, False, False
        self.spsr32 = [0] * len(self.spsr32)
        self.faults_until = 0
        self.event_wait.entered()
        self._forget_exit()
        reset.reset(self.context, start)
        self.timer.vcpu_reset()
        self._set_power(Power.RUNNABLE if run else Power.OFF)

    def _forget_exit(self) -> None:
        """What the VMM has answered, or may, is of a state that is no more."""
        self._answers.clear()
        self.abortable = self._left = self._monitor = None

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
    def is_off(self) -> bool:
        return self.power is Power.OFF

    @property
    def run_delay_ns(self) -> int:
        """How long it has been runnable while another vCPU had its PE, up to the last time it got
        one (run_delay)."""
        return self.delay.total

    @property
    def in_wfi(self) -> bool:
        """Whether it is blocked until an interrupt can be delivered: in WFI or CPU_SUSPEND, or
        suspended."""
        asleep = (
            self.power is Power.BLOCKED and self.timer.hw is None and not self.event_wait.active
        )
        return asleep and self.host.clock.armed(self._owner) is None  # else it waits for input

    def power_off(self) -> None:
        """CPU_OFF, or a system event: it never runs again until started."""
        self._set_power(Power.OFF)
        self.timer.unblocking()
        self.host.clock.cancel(self._owner)
        self.event_wait.forget()
        self._waiting = self.suspended = False
        self.request_stop()

    def make_runnable(self) -> None:
        """From off or suspended, where it stands."""
        self.suspended = False
        self.event_wait.forget()
        self.timer.unblocking()
        self._set_power(Power.RUNNABLE)

    def suspend(self) -> None:
        """KVM_MP_STATE_SUSPENDED: as in WFI, but what wakes it is the VMM's to know
        (kvm_vcpu_suspend)."""
        self.suspended, self._waiting = True, False
        self.event_wait.forget()
        if self.host.driving and self.power is Power.RUNNABLE:
            self.request_stop()  # it may be in the guest: KVM_REQ_SUSPEND, at the next entry
            return
        if self.pe is not None:
            self.put()
        self._set_power(Power.BLOCKED)
        if self.runnable_interrupt():
            self.wake()
        else:
            self.timer.blocking()

    def in_flight(self) -> InFlight:
        """What no call of KVM saves of a vCPU that moves, see `InFlight`. KvmError ENOEXEC before
        `init`."""
        self.check_initialized()
        asleep = self.in_wfi and not self.suspended
        monitor = self._monitor or self.context.engine.exclusive
        wait, age = self.event_wait, self.host.clock.now - self.context.event_cleared
        return InFlight(asleep, self.timer.wfit if asleep else None, monitor, self.context.event_register, age,
                        wait.active, wait.until)  # fmt: skip

    def resume(self, state: InFlight) -> None:
        """Take over `in_flight` of a vCPU elsewhere; registers, interrupts, timers and counters are
        in place before. KvmError ENOEXEC before `init`, EBUSY while the host runs."""
        self.check_initialized()
        self.host.check_standing()
        self._monitor = state.monitor
        self.event_wait.resume(state)
        if not state.asleep:
            return
        self._waiting = False
        if self.pe is not None:
            self.put()
        self.timer.wfit = state.wfit
        if self.runnable_interrupt():
            self.make_runnable()
            return
        self._set_power(Power.BLOCKED)
        self.timer.blocking()

    def wake(self) -> None:
        """kvm_vcpu_wake_up: a blocked vCPU looks again; a running one is kicked out to look at its
        interrupts."""
        if self.power is Power.BLOCKED:
            self._set_power(Power.RUNNABLE)

    # -- load and put --

    def load(self, pe: Pe) -> None:
        """Bind to a physical CPU (vcpu_load): exclusive monitor, timers, vGIC."""
        self.vm.first_run()
        self.pe = pe
        if not self.event_wait.active:
            self.context.clear_exclusive()
        if self._monitor is not None:
            self.context.engine.exclusive, self._monitor = self._monitor, None
        pe.bind(self.context, self.uid)
        vm = self.vm
        pe.write_el2(VTCR_EL2, stage2.vtcr(vm.mmu.stage2.shape))
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
        """MDCR_EL2 and HCR_EL2 of the CPU that it is on: what debugging and the CPU's own interrupt
        inputs ask for."""
        if self.pe is not None:
            breakpoints = MDCR_TDE if GuestDebug.USE_SW_BP in self.debug else 0
            self.pe.write_el2(MDCR_EL2, MDCR_TPM | MDCR_TPMCR | breakpoints)
            # EL1's trap of EL0 comes before MDCR_EL2.TPM: it is opened, so that EL2 answers at EL0
            # too (__activate_traps_common). The guest cannot reach this register.
            self.pe.write_el2(PMUSERENR_EL0, PMUSERENR_EN)
            vhe = HCR_E2H if self.vm.timer_data.vhe else 0
            self.pe.write_el2(HCR_EL2, HCR_GUEST_FLAGS | vhe | self.lines)

    def attach(self, pe: Pe) -> None:
        """Be on ``pe`` as saved state says: as `load`, but everything on the CPU is in place
        already."""
        self.pe = pe
        pe.bind(self.context, self.uid)
        if self.vm.vgic is not None:
            self.vm.vgic.attach(self.id, pe.vif)
        self.timer.attach(pe.timer)

    def detach(self) -> None:
        """Leave the CPU without saving anything from it."""
        if self.pe is not None:
            self.timer.detach()
            if self.vm.vgic is not None:
                self.vm.vgic.detach(self.id)
            self.pe.unbind()
            self.pe = None

    def put(self) -> None:
        """vcpu_put."""
        assert self.pe is not None
        if self.host.bus.active:
            self.host.bus.emit(Schedule(self.uid, "put"))
        self.timer.vcpu_put()
        if self.vm.vgic is not None:
            self.vm.vgic.put(self.id)
        self.pe.unbind()
        self.pe = None

    # -- the run loop --

    def enter(self, until: int, alone: bool = False, yield_at: int = NEVER) -> ExitKind:
        """One round: flush, run to ``until`` ns or an exit that leaves the engine, sync. ``alone``:
        no other vCPU can run, and nobody wants to know when this one sleeps. From ``yield_at`` ns
        on, YIELD is such an exit."""
        pe = self.pe
        assert pe is not None
        if self.suspended:
            return self._suspended()
        self.flush()
        if self._notify_user():
            return ExitKind.STOPPED
        if self.event_wait.active and not self.event_wait.ends(pe):
            self.sleep(self.event_wait.next_event)
            return ExitKind.STOPPED
        before = self.context.insns
        if self._answers:
            kind = self._complete(pe)
        else:
            self.abortable = None
            if alone:
                self._post(pe)
            one_at_a_time = self.serror_pending or GuestDebug.SINGLESTEP in self.debug
            kind = pe.run(
                self._one_instruction(until) if one_at_a_time else until, self._on_exit, yield_at
            )
        if kind is ExitKind.IRQ:
            self.host_interrupts()
        if (
            GuestDebug.SINGLESTEP in self.debug
            and self.context.insns != before
            and self._nothing_to_tell
        ):
            self._leaving = DebugExit(STEP_HSR)
        if self._leaving is not None:
            self._tell_vmm()
        return kind

    def _complete(self, pe: Pe) -> ExitKind:
        """The access that the VMM has answered, before anything else (kvm_handle_mmio_return comes
        before the guest is entered): interrupts wait for it. A VMM that has moved the PC meanwhile
        wants something else."""
        if self.context.pc != self._answers_pc:
            self._answers.clear()
            return ExitKind.STOPPED
        before, self._answered = self.context.insns, 0
        pe.hold_interrupts(True)
        try:
            kind = pe.run(self.host.clock.now + pe.ns_per_insn, self._on_exit)
        finally:
            pe.hold_interrupts(False)
        if self.context.insns != before or (self._answered and self._left is None):
            self._answers.clear()
            if self.immediate_exit:
                self.host.stop()
        return kind

    def _suspended(self) -> ExitKind:
        """kvm_vcpu_suspend: KVM_SYSTEM_EVENT_WAKEUP where an interrupt can be delivered, each time
        until the VMM says RUNNABLE; else it sleeps (again)."""
        if not self.runnable_interrupt():
            self.block()
            return ExitKind.STOPPED
        self._leaving = SystemEventExit("wakeup")
        self._tell_vmm()
        return ExitKind.STOPPED

    def _one_instruction(self, until: int) -> int:
        """Take an SError that can be taken; else go on by single instructions, so that none too
        many goes before it."""
        assert self.pe is not None
        if self.serror_pending and vcpu_events.can_take_serror(self.context):
            self.serror_pending = False
            self._take_serror(self.pe)
            if GuestDebug.SINGLESTEP not in self.debug:
                return until
        return min(until, self.host.clock.now + self.pe.ns_per_insn)

    def _post(self, pe: Pe) -> None:
        """A guest that gets nothing but ticks of the virtual timer, and sleeps between them, need
        not come here for each: WFI, the background timer and the same entry would follow. The
        silicon may do that by itself."""
        vgic, intid = self.vm.vgic, self.timer.wakes_for
        if vgic is not None and intid is not None and vgic.offers_only(self.id, intid):
            pe.post(self._slept)

    def _slept(self, times: int) -> None:
        """The silicon did it: leave the vGIC and the timer as after the last of these wake-ups."""
        vgic = self.vm.vgic
        assert vgic is not None
        vgic.sync(self.id)
        self.timer.slept(times)
        vgic.flush(self.id)

    def _take_serror(self, pe: Pe) -> None:
        """An exception entry like any other: it counts as one instruction, and is an event."""
        elr = self.context.pc
        vcpu_events.take_serror(self.context)
        if self.host.bus.active:
            entry = ExceptionEntry("serror", vcpu_events.SERROR_ESR, elr, self.context.pc)
            self.host.bus.deliver(pe.stamp()._replace(pc=elr), entry)
        pe.skip_to(self.host.clock.now + pe.ns_per_insn)

    def flush(self) -> None:
        """Fill the list registers, if anything has changed (kvm_vgic_flush_hwstate)."""
        vgic = self.vm.vgic
        if vgic is not None:
            vgic.refresh(self.id)

    def _level_changed(self) -> bool:
        """kvm_timer_should_notify_user: the VMM has the interrupt controller, and does not know a
        timer's level yet."""
        if self.vm.vgic is not None:
            return False
        self.timer.sync_user()
        return self.timer.device_irq_level != self.device_irq_level

    def _notify_user(self) -> bool:
        """Tell the VMM of a level that changed. Whether the guest must not be entered now."""
        if not self._level_changed():
            return False
        self.device_irq_level = self.timer.device_irq_level
        if self._running:
            self._ended = IntrExit()
            self.host.stop()
            return True
        return self.exit_handler is not None and self.to_vmm(IntrExit()) == Action.STOP

    def host_interrupts(self) -> None:
        """The host's interrupt handlers: timer PPIs stay active for the guest, the rest is done
        here."""
        pe = self.pe
        assert pe is not None
        while pe.gic.deliverable(pe.index):
            intid = pe.gic.acknowledge(pe.index)
            if intid == PPI_MAINTENANCE:
                vgic = self.vm.vgic
                assert vgic is not None
                vgic.sync(self.id)
                vgic.flush(self.id)
                pe.gic.deactivate(pe.index, intid)
            else:
                self.timer.host_irq(intid)

    def _on_exit(self, exit: SyncExit) -> int:
        self._answered = 0
        try:
            action = exits.handle(self, exit)
        except LeftToCallerError:
            self.host.stop()
            return Action.STOP
        self.timer.sync()
        self.flush()
        if self._level_changed():
            self._stop = True
        return action | self.take_stop()

    def request_stop(self) -> None:
        """Leave the engine after the present exit."""
        self._stop = True
        if self.pe is not None:
            self.pe.request_stop()

    def take_stop(self) -> int:
        """STOP if somebody asked for it meanwhile."""
        stop, self._stop = self._stop, False
        return Action.STOP if stop else Action.RETRY

    # -- waiting --

    def wait(self, until: int | None = None) -> None:
        """WFI: block after this exit; WFIT: at most to the virtual count ``until``."""
        self._waiting = True
        self.timer.wfit = until

    def wait_for_event(self, until: int | None) -> int:
        """WFET: as WFE, but an event comes by itself when the virtual count is ``until``."""
        assert self.pe is not None
        self.event_wait.until = until
        return self.pe.wait_for_event()

    def runnable_interrupt(self) -> bool:
        """kvm_arch_vcpu_runnable: is there an interrupt that could be delivered?"""
        if self.serror_pending:
            return True
        vgic = self.vm.vgic
        if vgic is None:
            return bool(self.lines) or self.timer.is_pending()
        return vgic.pending(self.id)

    def take_wait(self) -> bool:
        waiting, self._waiting = self._waiting, False
        return waiting

    def block(self) -> None:
        """kvm_vcpu_block: put, and the background timer takes over."""
        self.put()
        self._set_power(Power.BLOCKED)
        self.timer.blocking()

    def sleep(self, until: int | None) -> None:
        """Sleep on the PE, as it is loaded, until ``until`` ns (None: for ever), or an earlier
        wake-up."""
        self._set_power(Power.BLOCKED)
        if until is not None:
            self.wake_at(until)

    def wake_at(self, when: int) -> None:
        """Be woken at ``when`` ns at the latest."""
        armed = self.host.clock.armed(self._owner)
        if armed is None or when < armed:
            self.host.clock.arm(when, self._owner)

    @property
    def hears(self) -> bool:
        """Whether PSTATE lets a virtual interrupt in."""
        return self.context.pstate & DAIF_IF != DAIF_IF

    # -- what it emulates --

    def mmio(self, mmio: MmioExit) -> MmioExit:
        """Emulate one device access: in-kernel frames first, then the VMM."""
        vgic = self.vm.vgic
        if vgic is not None and self.vm.gic_access(self, mmio):
            return mmio
        if not (mmio.is_write and self.vm.ioeventfds.store(mmio.phys_addr, mmio.size, mmio.data)):
            self.abortable = mmio
            if self.to_vmm(mmio):
                self._stop = True
            self.abortable = None
        if self.host.bus.active and not mmio.abort:
            self.host.bus.emit(Mmio(mmio.phys_addr, mmio.size, mmio.data, int(mmio.is_write)))
        return mmio

    def mmio_done(self, exit: SyncExit, mmio: MmioExit, action: int) -> int:
        """Finish with ``action``, or with an external abort where nobody answered."""
        return inject_data_abort(self, exit, DFSC.EXTERNAL) if mmio.abort else action

    def smccc_call(self) -> int:
        """SMCCC over HVC: x0 function, x1-x6 arguments, x0-x3 results; PC is past the HVC
        already."""
        context = self.context
        result = self.vm.smccc.call(self.id, context.x(0), tuple(context.x(n) for n in range(1, 7)))
        if result is not None:
            for n, value in enumerate(result):
                context.set_x(n, value)
        return self.take_stop()

    def translate(self, va: int) -> int | None:
        """KVM_TRANSLATE: the IPA of a virtual address at the present exception level; None if it is
        not mapped."""
        return self.context.translate(va)

    def system_suspend(self, entry: int, context_id: int) -> None:
        """SYSTEM_SUSPEND: the VMM's to do, or to deny in x0."""
        self.to_vmm(SystemEventExit("suspend", 0, entry, context_id))
        self.host.stop()

    def system_event(self, event: SystemEventExit) -> None:
        """A PSCI call ended the VM's run. x0 has INTERNAL_FAILURE, which a VMM that runs on lets
        the guest see."""
        self.context.set_x(0, INTERNAL_FAILURE)
        self.to_vmm(event)
        self.host.stop()

    def stuck(self, cause: str) -> None:
        """Tell the VMM that this guest cannot go on."""
        self.to_vmm(
            StuckExit(cause, self.context.pc, self.id if len(list(self.vm.vcpus)) > 1 else None)
        )

    def _set_phys_active(self, intid: int, active: bool) -> None:
        if self.pe is not None:
            self.pe.gic.set_active(self.pe.index, intid, active)

    # -- state --

    def state(self) -> dict[str, object]:
        return {
            "version": 2, "context": self.context.state(), "timer": self.timer.state(),
            "power": self.power.value, "waiting": self._waiting, "home": self.home, "delay": self.delay.state(),
            "device_irq_level": self.device_irq_level, "event_wait": self.event_wait.state(),
            "faults_until": self.faults_until,
            "stolen_time": self.stolen_time.state(),
            "initialized": self.initialized,
            "suspended": self.suspended, "serror_pending": self.serror_pending, "lines": self.lines,
            "spsr32": list(self.spsr32), "affinity": None if self.affinity is None else sorted(self.affinity),
        }  # fmt: skip

    def load_state(self, state: dict[str, object]) -> None:
        """Take over `state`; the vCPU is on no CPU afterwards (see `attach`)."""
        context, timer = state["context"], state["timer"]
        assert isinstance(context, dict) and isinstance(timer, dict)
        self._forget_exit()
        self.context.load(context)
        self.timer.load(timer)
        self.power = Power(state["power"])
        self.home = state["home"]  # type: ignore[assignment]
        self.delay.load(state["delay"])  # type: ignore[arg-type]
        self._waiting = bool(state["waiting"])
        self.device_irq_level, self.faults_until = state["device_irq_level"], state["faults_until"]  # type: ignore[assignment]
        self.event_wait.load(state["event_wait"])  # type: ignore[arg-type]
        self.stolen_time.load(state["stolen_time"])  # type: ignore[arg-type]
        self.initialized, self.suspended = bool(state["initialized"]), bool(state["suspended"])
        self.serror_pending, self.lines = bool(state["serror_pending"]), int(state["lines"])  # type: ignore[call-overload]
        self.spsr32 = list(state["spsr32"])  # type: ignore[call-overload]
        affinity = state["affinity"]
        self.affinity = None if affinity is None else frozenset(affinity)  # type: ignore[call-overload]
