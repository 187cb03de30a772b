"""How a vCPU comes to its VMM and back: exit handlers, KVM_RUN, the answers to what it asked.

An exit goes to the vCPU's ``exit_handler``; while somebody is in `VcpuExits.run`, to that caller,
who answers in the exit object and calls again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NoReturn, cast

from armvirt.errors import KvmError
from armvirt.hw.clock import NEVER
from armvirt.hw.exit import Action
from armvirt.hyp.vcpu.exit_types import Exit, MmioExit, NisvExit, SemihostingExit, StuckExit
from armvirt.hyp.vcpu.ioctls import Power, VcpuApi

if TYPE_CHECKING:
    from armvirt.hyp.host.host import Stop
    from armvirt.hyp.vcpu.vcpu import Vcpu

ExitHandler = Callable[["Vcpu", Exit], bool | None]
"""Gets what EL2 does not finish, completes it in place; a true answer stops the host's run."""


class LeftToCallerError(Exception):
    """The exit goes to the caller of `VcpuExits.run`: leave, with nothing of the instruction
    done."""


class VcpuExits(VcpuApi):
    """The part of `armvirt.hyp.vcpu.vcpu.Vcpu` between its run loop and its VMM."""

    def __init__(self) -> None:
        super().__init__()
        self.exit_handler: ExitHandler | None = None
        self._stop = False
        self._running = False
        self._answers: list[MmioExit | SemihostingExit] = []
        self._answered = self._answers_pc = 0
        self._left: MmioExit | SemihostingExit | None = None
        self._ended: Exit | None = None
        self._leaving: Exit | None = None
        self._owed = False  # an exit that `run` could not return, for it had to raise

    def leave_with(self, exit: Exit) -> int:
        """Leave the engine, and then hand ``exit`` to the VMM, who may change any register."""
        self._leaving = exit
        return Action.STOP

    def _tell_vmm(self) -> None:
        exit, self._leaving = self._leaving, None
        assert exit is not None
        self.abortable = exit if isinstance(exit, NisvExit) else None
        self.to_vmm(exit)
        if self._running:
            self.host.stop()

    @property
    def has_vmm(self) -> bool:
        """Whether there is anybody to take its exits."""
        return self._running or self.exit_handler is not None

    @property
    def _nothing_to_tell(self) -> bool:
        return self._leaving is None and self._ended is None and self.power is not Power.OFF

    def to_vmm(self, exit: Exit) -> int:
        """Hand an exit to the VMM's handler; under `run`, to its caller, who answers before the
        next `run`."""
        if isinstance(exit, (MmioExit, SemihostingExit)):
            if self._answered < len(self._answers):
                return self._take_answer(exit)  # whoever drives the host now
            if self._running:
                self._leave_to_caller(exit)
        if self._running:
            self._ended = exit
            return Action.STOP
        if self.exit_handler is None:
            raise KvmError(
                "ENOSYS", f"vCPU {self.id} has no exit handler for {type(exit).__name__}"
            )
        if not self.exit_handler(cast("Vcpu", self), exit):
            return Action.RETRY
        self.host.stop()
        return Action.STOP

    def _take_answer(self, exit: Exit) -> int:
        """The instruction has trapped again: go on with what its VMM has answered."""
        answer = self._answers[self._answered]
        self._answered += 1
        for name in answer.__slots__:
            setattr(exit, name, getattr(answer, name))
        return Action.RETRY

    def _leave_to_caller(self, exit: MmioExit | SemihostingExit) -> NoReturn:
        """Leave; the instruction will trap again, and find the answer.

        KVM completes the access at the next KVM_RUN. Trapping again is the same to the guest (an
        access that is retried counts nothing), and serves accesses of several transfers too.
        """
        self._answers_pc = self.context.engine.state.pc
        self._answers.append(exit)
        self._left = exit
        raise LeftToCallerError

    def run(self, until: int = NEVER) -> Exit | None:
        """KVM_RUN: drive the host until this vCPU exits to the VMM, at most to ``until`` ns (then
        None).

        The caller answers in the exit object (data of a read, result) and calls again. Other vCPUs
        need an ``exit_handler``. A state in which nothing can ever run again is a `StuckExit`.

        KvmError ENOEXEC before `init`; at the VM's first run ENXIO, EINVAL, EBUSY as
        `Vm.first_run`; EBUSY while the host runs (in an exit handler); EINTR while
        ``immediate_exit`` is set: then only the access that was answered is completed, unless that
        leads to an exit of its own.
        """
        self.check_initialized()
        self.host.check_standing()
        self.vm.first_run()
        if self.immediate_exit:
            exit = self._drive(NEVER) if self._answers and self.runnable else None
            if exit is None:
                raise KvmError("EINTR", "immediate_exit is set")
            return exit
        return self._drive(until)

    def _drive(self, until: int) -> Exit | None:
        stop = None if self._owed else self._run_host(until)
        self._owed = False
        if self._ended is not None:
            ended, self._ended = self._ended, None
            return ended
        if self._left is not None:
            self.abortable = self._left if isinstance(self._left, MmioExit) else None
            return self._left
        return (
            StuckExit("waits for ever", self.context.pc)
            if stop is not None and stop.value == "idle"
            else None
        )

    def _run_host(self, until: int) -> Stop:
        """An exception of a sink comes after the exit in which it happened: the next `run` gives
        that exit."""
        self._running, self._left = True, None
        try:
            return self.host.run(until)
        except BaseException:
            self._owed = self._ended is not None or self._left is not None
            raise
        finally:
            self._running = False

    @property
    def runnable(self) -> bool:
        return self.power is Power.RUNNABLE
