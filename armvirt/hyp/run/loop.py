"""The run loop of a vCPU: flush, enter the guest, handle exits, sync (arch/arm64/kvm/arm.c,
kvm_arch_vcpu_ioctl_run)."""

from __future__ import annotations

from armvirt.arch.esr import EC_SHIFT
from armvirt.arch.gic import PPI_MAINTENANCE
from armvirt.events import ExceptionEntry
from armvirt.hw.clock import NEVER
from armvirt.hw.exit import Action, ExitKind, SyncExit
from armvirt.hw.pe import Pe
from armvirt.hyp.host.runnable import Request
from armvirt.hyp.run.exits import HANDLERS, unknown
from armvirt.hyp.run.vmm_link import LeftToCallerError, VmmLink
from armvirt.hyp.vcpu import events as vcpu_events
from armvirt.hyp.vcpu.events import STEP_HSR
from armvirt.hyp.vcpu.exit_types import DebugExit, IntrExit, Outcome, SystemEventExit
from armvirt.hyp.vcpu.vcpu import Vcpu


class RunLoop:
    """The run loop of one vCPU. ``vmm`` is the link to its VMM."""

    __slots__ = ("host", "outcome", "power", "timers", "traps", "vcpu", "vmm")

    def __init__(self, vcpu: Vcpu) -> None:
        self.vcpu, self.host, self.outcome = vcpu, vcpu.host, vcpu.outcome
        self.power, self.traps, self.timers = vcpu.power_state, vcpu.traps, vcpu.timer_part
        self.vmm = VmmLink(vcpu)

    def __repr__(self) -> str:
        return f"<RunLoop of vCPU {self.vcpu.id}>"

    def enter(self, until: int, alone: bool = False, yield_at: int = NEVER) -> Outcome:
        """Run one round: flush, run the guest up to ``until`` ns or up to an exit that EL2 does not
        finish at once, sync; see `armvirt.hyp.host.runnable.Runnable.enter`."""
        vcpu, pe = self.vcpu, self.vcpu.pe
        assert pe is not None
        if self.power.suspended:
            self._suspended()
            return self._left(ExitKind.STOPPED)
        vgic = vcpu.vm.vgic
        if vgic is not None:
            vgic.refresh(vcpu.id)
        elif self._notify_user():
            return self._left(ExitKind.STOPPED)
        if vcpu.event_wait.active and not self._event_wait_ends(pe):
            vcpu.sleep(vcpu.event_wait.next_event)
            return self._left(ExitKind.STOPPED)
        before = vcpu.context.insns
        if self.vmm.answers:
            kind = self.vmm.complete(pe, self._on_exit)
        else:
            self.vmm.abortable = None
            if alone:
                self._repeat_tick(pe)
            if self.traps.serror_pending or vcpu.single_step:
                until = self._one_instruction(pe, until)
            kind = pe.run(until, self._on_exit, yield_at)
        if kind is ExitKind.IRQ:
            self.host_interrupts(pe)
        if vcpu.single_step and vcpu.context.insns != before:
            self._stepped()
        return self._left(kind)

    def _left(self, kind: ExitKind) -> Outcome:
        """After the PE has left the guest: deliver the exit to the VMM, and set the outcome."""
        outcome = self.outcome
        if outcome.exit is not None:
            exit, outcome.exit = outcome.exit, None
            self.vmm.tell_outside(exit)
        if outcome.kind is not Request.WAIT and outcome.kind is not Request.SLEEP:
            outcome.kind = kind
        return outcome

    def _suspended(self) -> None:
        """kvm_vcpu_suspend: exit with KVM_SYSTEM_EVENT_WAKEUP if an interrupt can be delivered, at
        each entry until the VMM sets RUNNABLE; else block the vCPU."""
        if self.vcpu.runnable_interrupt():
            self.outcome.exit = SystemEventExit("wakeup")
        else:
            self.vcpu.block()

    def _event_wait_ends(self, pe: Pe) -> bool:
        """Whether the wait of the vCPU in WFE ends. Updates the timers' lines and the list
        registers first."""
        pe.timer.update()
        self.host_interrupts(pe)
        vgic = self.vcpu.vm.vgic
        if vgic is not None:
            vgic.refresh(self.vcpu.id)
        return self.vcpu.event_wait.ends(pe)

    def _one_instruction(self, pe: Pe, until: int) -> int:
        """Take a pending SError if PSTATE.A does not mask it. Returns the deadline: one instruction
        in a single step, and while an SError stays pending, so that no other instruction retires
        after PSTATE.A is cleared and before the SError."""
        vcpu = self.vcpu
        if self.traps.serror_pending and vcpu_events.can_take_serror(vcpu.context):
            self.traps.serror_pending = False
            self._take_serror(pe)
            if not vcpu.single_step:
                return until
        return min(until, self.host.clock.now + pe.ns_per_insn)

    def _take_serror(self, pe: Pe) -> None:
        """Take the SError. The exception entry counts as one instruction, and is emitted as a trace
        event."""
        context = self.vcpu.context
        elr = context.pc
        vcpu_events.take_serror(context)
        if self.host.bus.active:
            entry = ExceptionEntry("serror", vcpu_events.SERROR_ESR, elr, context.pc)
            self.host.bus.deliver(pe.stamp()._replace(pc=elr), entry)
        pe.skip_to(self.host.clock.now + pe.ns_per_insn)

    def _stepped(self) -> None:
        """A single step ends with a `DebugExit`, unless the instruction caused another exit."""
        if self.outcome.exit is None and self.vmm.silent and not self.vcpu.is_off:
            self.outcome.exit = DebugExit(STEP_HSR)

    # -- WFI wake-ups by the virtual timer that the native engine handles --

    def _repeat_tick(self, pe: Pe) -> None:
        """Allow the engine to handle the next WFI wake-ups by the virtual timer without entering
        EL2 (the interrupt stays in the same list register), if the virtual timer's interrupt is the
        only interrupt that the guest can get."""
        vgic, intid = self.vcpu.vm.vgic, self.vcpu.timer.wakes_for
        if vgic is not None and intid is not None and vgic.offers_only(self.vcpu.id, intid):
            pe.repeat_tick(self._repeated)

    def _repeated(self, times: int) -> None:
        """Set the state of the vGIC and the timer after ``times`` wake-ups that the engine has
        handled."""
        vgic = self.vcpu.vm.vgic
        assert vgic is not None
        vgic.sync(self.vcpu.id)
        self.vcpu.timer.slept(times)
        vgic.flush(self.vcpu.id)

    # -- interrupts --

    def host_interrupts(self, pe: Pe) -> None:
        """The host's interrupt handlers. The PPI of a direct timer stays active until the guest
        deactivates its interrupt."""
        vcpu, gic = self.vcpu, pe.gic
        while gic.deliverable(pe.index):
            intid = gic.acknowledge(pe.index)
            if intid == PPI_MAINTENANCE:
                vgic = vcpu.vm.vgic
                assert vgic is not None
                vgic.sync(vcpu.id)
                vgic.flush(vcpu.id)
                gic.deactivate(pe.index, intid)
            else:
                vcpu.timer.host_irq(intid)

    def _notify_user(self) -> bool:
        """Exit to the VMM with an `IntrExit` if the level of a timer has changed. Whether the guest
        must not be entered now."""
        if not self.timers.should_notify_user():
            return False
        self.timers.notify_user()
        if not self.vmm.present:
            return False
        stop = self.vmm.tell(IntrExit()) == Action.STOP
        if stop:
            self.host.stop()
        return stop

    # -- exits --

    def _on_exit(self, exit: SyncExit) -> int:
        """Handle one synchronous exit, in the engine's callback."""
        vcpu = self.vcpu
        self.vmm.taken = 0
        try:
            action = HANDLERS.get(exit.esr >> EC_SHIFT, unknown)(vcpu, exit)
        except LeftToCallerError:
            self.host.stop()
            return Action.STOP
        for context in vcpu.timer.emulated:
            if context.irq_level:
                vcpu.timer.sync()
        vgic = vcpu.vm.vgic
        if vgic is not None:
            vgic.refresh(vcpu.id)
        elif self.timers.should_notify_user():
            vcpu.request_stop()
        return action
