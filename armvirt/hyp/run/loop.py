"""The run loop of a vCPU: flush, enter, exit, sync (arch/arm64/kvm/arm.c,
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
    """Enters one vCPU. ``vmm`` is the conversation with its VMM."""

    __slots__ = ("host", "outcome", "vcpu", "vmm")

    def __init__(self, vcpu: Vcpu) -> None:
        self.vcpu, self.host, self.outcome = vcpu, vcpu.host, vcpu.outcome
        self.vmm = VmmLink(vcpu)

    def __repr__(self) -> str:
        return f"<RunLoop of vCPU {self.vcpu.id}>"

    def enter(self, until: int, alone: bool = False, yield_at: int = NEVER) -> Outcome:
        """One round: flush, run to ``until`` ns or to an exit that leaves the guest, sync; see
        `armvirt.hyp.host.runnable.Runnable.enter`."""
        vcpu, pe = self.vcpu, self.vcpu.pe
        assert pe is not None
        if vcpu.suspended:
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
            if vcpu.serror_pending or vcpu.single_step:
                until = self._one_instruction(pe, until)
            kind = pe.run(until, self._on_exit, yield_at)
        if kind is ExitKind.IRQ:
            self.host_interrupts(pe)
        if vcpu.single_step and vcpu.context.insns != before:
            self._stepped()
        return self._left(kind)

    def _left(self, kind: ExitKind) -> Outcome:
        """The PE has left the guest: tell the VMM, and set the outcome."""
        outcome = self.outcome
        if outcome.exit is not None:
            exit, outcome.exit = outcome.exit, None
            self.vmm.tell_outside(exit)
        if outcome.kind is not Request.WAIT and outcome.kind is not Request.SLEEP:
            outcome.kind = kind
        return outcome

    def _suspended(self) -> None:
        """kvm_vcpu_suspend: KVM_SYSTEM_EVENT_WAKEUP where an interrupt can be delivered, at each
        entry until the VMM sets RUNNABLE; else the vCPU blocks."""
        if self.vcpu.runnable_interrupt():
            self.outcome.exit = SystemEventExit("wakeup")
        else:
            self.vcpu.block()

    def _event_wait_ends(self, pe: Pe) -> bool:
        """Whether a vCPU in WFE goes on: look at the timers' lines and fill the list registers
        first."""
        pe.timer.update()
        self.host_interrupts(pe)
        vgic = self.vcpu.vm.vgic
        if vgic is not None:
            vgic.refresh(self.vcpu.id)
        return self.vcpu.event_wait.ends(pe)

    def _one_instruction(self, pe: Pe, until: int) -> int:
        """Take an SError that PSTATE.A lets in. Else the deadline of a single step, so that no
        instruction retires between the clear of PSTATE.A and the SError."""
        vcpu = self.vcpu
        if vcpu.serror_pending and vcpu_events.can_take_serror(vcpu.context):
            vcpu.serror_pending = False
            self._take_serror(pe)
            if not vcpu.single_step:
                return until
        return min(until, self.host.clock.now + pe.ns_per_insn)

    def _take_serror(self, pe: Pe) -> None:
        """An exception entry counts as one instruction, and is an event of the trace."""
        context = self.vcpu.context
        elr = context.pc
        vcpu_events.take_serror(context)
        if self.host.bus.active:
            entry = ExceptionEntry("serror", vcpu_events.SERROR_ESR, elr, context.pc)
            self.host.bus.deliver(pe.stamp()._replace(pc=elr), entry)
        pe.skip_to(self.host.clock.now + pe.ns_per_insn)

    def _stepped(self) -> None:
        """A single step ends in a `DebugExit`, unless the instruction led to another exit."""
        if self.outcome.exit is None and self.vmm.silent and not self.vcpu.is_off:
            self.outcome.exit = DebugExit(STEP_HSR)

    # -- the timer tick that the native engine repeats --

    def _repeat_tick(self, pe: Pe) -> None:
        """Let the engine repeat the last wake-up (WFI, the virtual timer fires, the same list
        register) where the guest gets ticks of the virtual timer and nothing else."""
        vgic, intid = self.vcpu.vm.vgic, self.vcpu.timer.wakes_for
        if vgic is not None and intid is not None and vgic.offers_only(self.vcpu.id, intid):
            pe.repeat_tick(self._repeated)

    def _repeated(self, times: int) -> None:
        """Leave the vGIC and the timer as after the last of so many wake-ups."""
        vgic = self.vcpu.vm.vgic
        assert vgic is not None
        vgic.sync(self.vcpu.id)
        self.vcpu.timer.slept(times)
        vgic.flush(self.vcpu.id)

    # -- interrupts --

    def host_interrupts(self, pe: Pe) -> None:
        """The host's interrupt handlers. The PPI of a direct timer stays active for the guest."""
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

    def _level_changed(self) -> bool:
        """kvm_timer_should_notify_user: the VMM has the interrupt controller, and does not know the
        level of a timer yet."""
        vcpu = self.vcpu
        vcpu.timer.sync_user()
        return vcpu.timer.device_irq_level != vcpu.device_irq_level

    def _notify_user(self) -> bool:
        """Tell the VMM of a level that changed. Whether the guest must not be entered now."""
        vcpu, vmm = self.vcpu, self.vmm
        if not self._level_changed():
            return False
        vcpu.device_irq_level = vcpu.timer.device_irq_level
        if not vmm.present:
            return False
        stop = vmm.tell(IntrExit()) == Action.STOP
        if stop:
            self.host.stop()
        return stop

    # -- exits --

    def _on_exit(self, exit: SyncExit) -> int:
        """One synchronous exit, from within the engine's callback."""
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
        elif self._level_changed():
            vcpu.request_stop()
        return action
