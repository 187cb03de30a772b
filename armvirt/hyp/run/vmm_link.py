"""The interface of a vCPU to its VMM: exit handlers, KVM_RUN, and the VMM's answers to accesses.

While a caller is in `VmmLink.run`, an exit goes to the caller. The caller writes the answer into
the exit object and calls `run` again. While no caller is in `run`, an exit goes to the vCPU's exit
handler.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn

from armvirt.errors import KvmError
from armvirt.hw.clock import NEVER
from armvirt.hw.exit import Action, ExitKind, SyncExit
from armvirt.hw.pe import Pe
from armvirt.hyp.host.host import Stop
from armvirt.hyp.vcpu.exit_types import (
    Exit,
    MmioExit,
    NisvExit,
    SemihostingExit,
    StuckExit,
)
from armvirt.hyp.vcpu.vcpu import Vcpu


class LeftToCallerError(Exception):
    """Raised in an exit handler of EL2 if the exit must go to the caller of `VmmLink.run`. The PE
    leaves the guest, and the trapped instruction has no effect yet."""


class VmmLink:
    """The interface of one vCPU to its VMM (`armvirt.hyp.vcpu.protocols.Vmm`).

    An instruction can make several accesses. After each answer of the VMM, the instruction traps
    again and repeats its accesses. ``answers`` has the exits of one instruction that the caller of
    `run` answers, in the order of the accesses. The PC of this instruction is ``_answers_pc``.
    ``taken`` is the number of answers that the instruction has used since its last trap.
    """

    __slots__ = (
        "_answers_pc",
        "_exit",
        "_owed",
        "_vcpu",
        "abortable",
        "answers",
        "in_run",
        "taken",
    )

    def __init__(self, vcpu: Vcpu) -> None:
        self._vcpu = vcpu
        self.in_run = False
        self.abortable: MmioExit | NisvExit | None = None
        self.answers: list[MmioExit | SemihostingExit] = []
        self.taken = self._answers_pc = 0
        self._exit: Exit | None = None  # the exit that `run` returns
        self._owed = False  # `run` raised an exception instead of returning `_exit`

    def __repr__(self) -> str:
        return f"<VmmLink of vCPU {self._vcpu.id}: {len(self.answers)} answers>"

    @property
    def present(self) -> bool:
        return self.in_run or self._vcpu.exit_handler is not None

    @property
    def _asks(self) -> bool:
        """Whether the caller of `run` must answer its exit: the exit is an access or a semihosting
        call."""
        return isinstance(self._exit, (MmioExit, SemihostingExit))

    @property
    def silent(self) -> bool:
        """Whether a `DebugExit` can be delivered: `run` has no exit for its caller, or only an
        access that the caller must answer."""
        return self._exit is None or self._asks

    def forget(self) -> None:
        self.answers.clear()
        self.abortable = None
        if self._asks:
            self._exit = None

    # -- exits --

    def tell(self, exit: Exit) -> int:
        """Deliver an exit to the caller of `run`, or to the exit handler if no caller is in `run`.
        Return an `Action`. KvmError ENOSYS if there is neither a caller nor an exit handler."""
        if (self.answers or self.in_run) and isinstance(exit, (MmioExit, SemihostingExit)):
            if self.taken < len(self.answers):
                return self._take_answer(exit)  # also during `run` of another vCPU
            if self.in_run:
                self._leave_to_caller(exit)
        if self.in_run:
            self._exit = exit
            return Action.STOP
        handler = self._vcpu.exit_handler
        if handler is None:
            raise KvmError(
                "ENOSYS", f"vCPU {self._vcpu.id} has no exit handler for {type(exit).__name__}"
            )
        if not handler(self._vcpu, exit):
            return Action.RETRY
        self._vcpu.host.stop()
        return Action.STOP

    def tell_outside(self, exit: Exit) -> None:
        """Deliver an exit after the PE has left the guest."""
        self.abortable = exit if isinstance(exit, NisvExit) else None
        self.tell(exit)
        if self.in_run:
            self._vcpu.host.stop()

    def _take_answer(self, exit: MmioExit | SemihostingExit) -> int:
        """Copy the VMM's answer into the exit. The exit is not delivered, because the VMM has
        already answered it, and the instruction has only trapped a second time."""
        answer = self.answers[self.taken]
        self.taken += 1
        if isinstance(exit, MmioExit) and isinstance(answer, MmioExit):
            exit.take(answer)
        elif isinstance(exit, SemihostingExit) and isinstance(answer, SemihostingExit):
            exit.take(answer)
        return Action.RETRY

    def _leave_to_caller(self, exit: MmioExit | SemihostingExit) -> NoReturn:
        """Leave the guest before the access completes. After the caller has written the answer, the
        instruction traps a second time and uses the answer.

        In KVM the instruction does not trap a second time: KVM completes the access at the next
        KVM_RUN. The guest cannot see the difference, because the two traps count as one
        instruction. A second trap also works for an instruction with several bus transfers.
        """
        self._answers_pc = self._vcpu.context.exit_pc
        self.answers.append(exit)
        self._exit = exit
        raise LeftToCallerError

    def complete(self, pe: Pe, on_exit: Callable[[SyncExit], int]) -> ExitKind:
        """Complete the access that the VMM has answered. No interrupt is delivered before the
        access is complete. KVM, too, completes the access before the guest entry
        (kvm_handle_mmio_return). If the VMM has changed the PC, discard the answer instead. Return
        the reason why the PE left the guest."""
        vcpu, context = self._vcpu, self._vcpu.context
        if context.pc != self._answers_pc:
            self.answers.clear()
            return ExitKind.STOPPED
        before, self.taken = context.insns, 0
        pe.hold_interrupts(True)
        try:
            kind = pe.run(vcpu.host.clock.now + pe.ns_per_insn, on_exit)
        finally:
            pe.hold_interrupts(False)
        if context.insns != before or (self.taken and not self._asks):
            self.answers.clear()
            if vcpu.immediate_exit:
                vcpu.host.stop()
        return kind

    # -- KVM_RUN --

    def run(self, until: int = NEVER) -> Exit | None:
        """Run the vCPU (KVM_RUN), see `Vcpu.run`."""
        vcpu = self._vcpu
        vcpu.check_initialized()
        vcpu.host.check_standing()
        vcpu.vm.first_run()
        if vcpu.immediate_exit:
            exit = self._drive(NEVER) if self.answers and vcpu.runnable else None
            if exit is None:
                raise KvmError("EINTR", "immediate_exit is set")
            return exit
        return self._drive(until)

    def _drive(self, until: int) -> Exit | None:
        stop = None if self._owed else self._run_host(until)
        self._owed = False
        exit = self._exit
        if self._asks:
            self.abortable = exit if isinstance(exit, MmioExit) else None
            return exit
        self._exit = None
        if exit is None and stop is Stop.IDLE and (stuck := self._vcpu.host.stuck) is not None:
            return StuckExit(stuck.cause, self._vcpu.context.pc)
        return exit

    def _run_host(self, until: int) -> Stop:
        """Run the host until the virtual time ``until`` (ns) or until a stop. If a trace sink (a
        receiver of trace events) raises an exception during an exit, this method raises the
        exception after the exit. Then the next `run` returns the exit."""
        self.in_run = True
        if self._asks:
            self._exit = None
        try:
            return self._vcpu.host.run(until)
        except BaseException:
            self._owed = self._exit is not None
            raise
        finally:
            self.in_run = False
