"""The run loop of a vCPU: flush the vGIC state to the list registers, enter the guest, handle
exits, sync the vGIC state (arch/arm64/kvm/arm.c, kvm_arch_vcpu_ioctl_run)."""

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
    """The run loop of one vCPU. ``vmm`` is the interface to the VMM of the vCPU."""

    __slots__ = ("host", "outcome", "power", "timers", "traps", "vcpu", "vmm")

    def __init__(self, vcpu: Vcpu) -> None:
        self.vcpu, self.host, self.outcome = vcpu, vcpu.host, vcpu.outcome
        self.power, self.traps, self.timers = vcpu.power_state, vcpu.traps, vcpu.timer_part
        self.vmm = VmmLink(vcpu)

    def __repr__(self) -> str:
        return f"<RunLoop of vCPU {self.vcpu.id}>"

    def enter(self, until: int, alone: bool = False, yield_at: int = NEVER) -> Outcome:
        """Enter the guest once: update the list registers, and run the guest until the virtual time
        ``until`` (ns), or until an exit that EL2 does not complete itself. The parameters are those
        of `armvirt.hyp.host.runnable.Runnable.enter`."""
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
        """Complete a guest entry after the PE has left the guest: deliver the exit to the VMM, and
        return the outcome. ``kind`` is the reason why the PE left the guest."""
        outcome = self.outcome
        if outcome.exit is not None:
            exit, outcome.exit = outcome.exit, None
            self.vmm.tell_outside(exit)
        if outcome.kind is not Request.WAIT and outcome.kind is not Request.SLEEP:
            outcome.kind = kind
        return outcome

    def _suspended(self) -> None:
        """Handle a guest entry of a SUSPENDED vCPU (kvm_vcpu_suspend). If an interrupt can be
        delivered, exit with KVM_SYSTEM_EVENT_WAKEUP; otherwise block the vCPU. This repeats at each
        guest entry until the VMM sets the MP state RUNNABLE."""
        if self.vcpu.runnable_interrupt():
            self.outcome.exit = SystemEventExit("wakeup")
        else:
            self.vcpu.block()

    def _event_wait_ends(self, pe: Pe) -> bool:
        """Update the timer lines and the list registers. Then return whether the vCPU's wait in WFE
        ends."""
        pe.timer.update()
        self.host_interrupts(pe)
        vgic = self.vcpu.vm.vgic
        if vgic is not None:
            vgic.refresh(self.vcpu.id)
        return self.vcpu.event_wait.ends(pe)

    def _one_instruction(self, pe: Pe, until: int) -> int:
        """Take a pending SError if PSTATE.A does not mask it. Return the deadline of the guest
        entry (virtual time in ns).

        In a single step, the deadline is the end of the next instruction. If PSTATE.A masks the
        SError, the deadline is also the end of the next instruction. Then the guest takes the
        SError directly after the instruction that clears PSTATE.A. Otherwise the deadline is
        ``until``.
        """
        vcpu = self.vcpu
        if self.traps.serror_pending and vcpu_events.can_take_serror(vcpu.context):
            self.traps.serror_pending = False
            self._take_serror(pe)
            if not vcpu.single_step:
                return until
        return min(until, self.host.clock.now + pe.ns_per_insn)

    def _take_serror(self, pe: Pe) -> None:
        """Take the SError. The exception entry counts as one instruction. The trace gets an event
        for it."""
        context = self.vcpu.context
        elr = context.pc
        vcpu_events.take_serror(context)
        if self.host.bus.active:
            entry = ExceptionEntry("serror", vcpu_events.SERROR_ESR, elr, context.pc)
            self.host.bus.deliver(pe.stamp()._replace(pc=elr), entry)
        pe.skip_to(self.host.clock.now + pe.ns_per_insn)

    def _stepped(self) -> None:
        """End a single step with a `DebugExit`, unless the instruction caused another exit."""
        if self.outcome.exit is None and self.vmm.silent and not self.vcpu.is_off:
            self.outcome.exit = DebugExit(STEP_HSR)

    # -- WFI wake-ups by the virtual timer that the native engine handles --

    def _repeat_tick(self, pe: Pe) -> None:
        """Allow the engine to handle the next WFIs itself, if the virtual timer's interrupt is the
        only interrupt that the guest can get. Then the virtual timer wakes the vCPU without an exit
        to EL2. The interrupt uses the same list register at each wake-up."""
        vgic, intid = self.vcpu.vm.vgic, self.vcpu.timer.wakes_for
        if vgic is not None and intid is not None and vgic.offers_only(self.vcpu.id, intid):
            pe.repeat_tick(self._repeated)

    def _repeated(self, times: int) -> None:
        """Update the state of the vGIC and the timer after the engine has handled ``times``
        wake-ups."""
        vgic = self.vcpu.vm.vgic
        assert vgic is not None
        vgic.sync(self.vcpu.id)
        self.vcpu.timer.repeat_wakeups(times)
        vgic.flush(self.vcpu.id)

    # -- interrupts --

    def host_interrupts(self, pe: Pe) -> None:
        """Handle the pending physical interrupts of the PE, as the interrupt handlers of a host
        kernel do. A direct timer is a timer of the vCPU that uses a timer of the PE. The PPI of a
        direct timer stays active until the guest deactivates the timer's virtual interrupt."""
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
        """If the level of a timer line has changed, exit to the VMM with an `IntrExit`. Return True
        if the VMM stops the run, so that the caller does not enter the guest."""
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
        """Handle one synchronous exit, and return the `Action` for the PE. The engine calls this
        method."""
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
                action &= ~Action.KEEP
        vgic = vcpu.vm.vgic
        if vgic is not None:
            vgic.refresh(vcpu.id)
        elif self.timers.should_notify_user():
            vcpu.request_stop()
        return action
