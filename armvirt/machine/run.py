"""The run loop: runs a board until the guest ends, or until a `Goal` is reached."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from armvirt.hw.clock import NEVER
from armvirt.hyp.kvm import Stop, SystemEventExit
from armvirt.records import NamedTuple

if TYPE_CHECKING:
    from armvirt.board.board import Board
    from armvirt.board.console import Console
    from armvirt.machine.pacing import Pacer
    from armvirt.machine.result import Judge, Result
    from armvirt.machine.watch import RunTime


class Arrival(Protocol):
    """A report: a vCPU is at an address at which the run stops. If ``moved`` is True, the guest
    executes at virtual addresses that were not known before, for example because its kernel has
    enabled the MMU. Then the caller has to compute the addresses of the stops again."""

    @property
    def text(self) -> str: ...

    @property
    def moved(self) -> bool: ...


class Reached(NamedTuple):
    """The condition of a `Goal` that stopped a run, as text. ``moved`` has the same meaning as in
    `Arrival`."""

    text: str
    moved: bool = False


class Goal(NamedTuple):
    """The conditions that stop a run before the guest ends. A condition that is None does not
    apply. The run stops when all CPUs together have retired at least ``insns`` instructions,
    counted from the start of the machine. It stops when guest time is at least ``ns``, counted from
    virtual time 0. It stops ``timeout_s`` seconds of host time after the start of this run. It
    stops when the guest prints ``text`` during this run. It stops when a vCPU is at an address for
    which ``at()`` returns an `Arrival`."""

    insns: int | None = None
    ns: int | None = None
    timeout_s: float | None = None
    text: bytes | None = None
    at: Callable[[], Arrival | None] = lambda: None


class Runner:
    """Runs one board. ``result`` is the result of the guest; None while the guest has not ended.
    ``restarted`` is a function that is called after a reset by the guest. If ``restarted`` is None,
    a reset ends the run."""

    def __init__(
        self,
        board: Board,
        judge: Judge,
        run_time: RunTime,
        pacer: Pacer,
        restarted: Callable[[], None] | None,
    ) -> None:
        self._board, self._judge, self._run_time, self._pacer = board, judge, run_time, pacer
        self._host, self._console = board.kvm.host, board.console
        self._restarted = restarted
        self.result: Result | None = None

    def __repr__(self) -> str:
        return f"<Runner of {self._board!r}>"

    def drive(self, goal: Goal) -> Result | Reached:
        """Run until the guest ends, or until the goal is reached."""
        if self.result is not None:
            return self.result
        self._host.check_standing()
        run_time = self._run_time
        run_time.start(goal.timeout_s)
        removes = [self._host.add_poll(lambda: run_time.over or self._console.fed)]
        if self._pacer.wanted:
            removes.append(self._host.add_idle(self._pacer.idle))
        if self._pacer.paces:
            removes.append(self._host.add_skip(self._pacer.skipped))
        try:
            with _watched(self._console, goal.text, self._host.stop) as appeared, run_time.watch:
                while True:
                    if (reached := self._reached(goal, appeared)) is not None:
                        return reached
                    if (result := self._step(goal)) is not None:
                        return result
        finally:
            for remove in removes:
                remove()

    def _reached(self, goal: Goal, appeared: Callable[[], bool]) -> Reached | None:
        """The condition of the goal that is true now; None if no condition is true."""
        if appeared():
            return Reached(f"{goal.text!r} appeared")
        if (arrival := goal.at()) is not None:
            return Reached(arrival.text, arrival.moved)
        if goal.insns is not None and self._board.insns >= goal.insns:
            return Reached(f"after {goal.insns} instructions")
        if goal.ns is not None and self._board.vm.timers.now >= goal.ns:
            return Reached(f"after {goal.ns} ns of guest time")
        if self._run_time.over:
            return Reached(f"host time of {self._run_time.seconds} s is over")
        return None

    def _step(self, goal: Goal) -> Result | None:
        """Run the board until it stops, and handle the event that stopped the board. Return the
        result if the guest has ended, else None."""
        stop = self._board.run(
            NEVER if goal.ns is None else goal.ns, NEVER if goal.insns is None else goal.insns
        )
        event = self._board.take_event()
        if isinstance(event, SystemEventExit) and event.kind == "reset" and self._restarted:
            self._board.reset()
            self._restarted()
        elif event is not None:
            self.result = self._judge.of_event(event)
        elif self._console.expired:
            self.result = self._judge.of_script()
        elif stop is Stop.IDLE and not self._run_time.over:
            self.result = self._judge.of_idleness()
        return self.result


@contextmanager
def _watched(
    console: Console, text: bytes | None, stop: Callable[[], None]
) -> Iterator[Callable[[], bool]]:
    """A context manager that calls ``stop`` when the guest prints ``text`` on the console. Text
    that was printed before the context does not count. The value of the context is a function that
    returns True if ``text`` was printed."""
    if text is None:
        yield lambda: False
        return
    appeared = not text
    first_end = console.printed + len(text)

    def listen(_data: bytes) -> None:
        nonlocal appeared
        if not appeared and console.printed >= first_end and console.output.endswith(text):
            appeared = True
            stop()

    console.listeners.append(listen)
    try:
        yield lambda: appeared
    finally:
        console.listeners.remove(listen)
