"""Signals that end a command: Ctrl-C, SIGTERM, SIGHUP, and the alarm of ``--timeout``.

All of them go to the command's `Watch`: while a guest runs they end the run where nothing of it
changes; elsewhere, in loading, digests and reports, they raise at once. What is around (a terminal
in raw mode, a trace file) is put in order on the way out. An alarm sees to it that nothing lasts: a
run that does not end within `RUN_S` (its output is a pipe that nobody reads) is left where it is,
and so is a report that is not complete after `REPORT_S`.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic
from types import FrameType

from armvirt.errors import LimitError
from armvirt.machine.watch import Watch
from armvirt.units import human_time

RUN_S, REPORT_S = 0.2, 0.35  # seconds after the signal or the limit
NAMES = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM)


class Signals:
    """The handlers of one command. ``error`` is what ends it, once something does. ``forced`` is
    set when something was left where it was: files may hold what cannot be written, so the process
    should end without another try."""

    def __init__(self, watch: Watch) -> None:
        self.watch = watch
        self.forced = False
        self.error: BaseException | None = None
        self._since = 0.0

    def limit(self, seconds: float, spent: float) -> None:
        """The limit is known now: ``seconds`` of host time, of which ``spent`` are over."""
        self.watch.limit(seconds, spent)
        self.wind_up()

    def wind_up(self) -> None:
        """Set the alarm to the limit, where there is one and this is the main thread, which alone
        gets signals."""
        left = self.watch.left
        if left is not None and signal.getsignal(signal.SIGALRM) == self.handle:
            signal.setitimer(signal.ITIMER_REAL, max(left, 1e-6))

    def handle(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGALRM:
            self._alarm()
            return
        error = KeyboardInterrupt() if number == signal.SIGINT else SystemExit(128 + number)
        if self.error is not None:  # asked for again
            self.forced = True
            raise error
        self._begin_to_end(error)
        self.watch.request(error)

    def _begin_to_end(self, error: BaseException) -> None:
        self.error, self._since = error, monotonic()
        signal.setitimer(signal.ITIMER_REAL, RUN_S)

    def _alarm(self) -> None:
        if self.error is None:
            self._limit()
        elif (
            self.watch.held and not self.watch.requested and not isinstance(self.error, LimitError)
        ):
            # What was raised is lost, as in a callback of the import system, and a run has begun:
            # ask it to end.
            signal.setitimer(signal.ITIMER_REAL, RUN_S)
            self.watch.request(self.error)
        elif self.watch.held or monotonic() - self._since >= REPORT_S:
            self.forced = True
            signal.setitimer(
                signal.ITIMER_REAL, REPORT_S
            )  # if this exception is lost, or leads to where it hangs
            raise self.error
        else:
            signal.setitimer(signal.ITIMER_REAL, max(1e-3, self._since + REPORT_S - monotonic()))

    def _limit(self) -> None:
        """The limit of host time has passed: a run under way looks at the clock by itself, and has
        a result to give."""
        error = time_is_over(self.watch.seconds or 0.0)
        self._begin_to_end(error)
        if not self.watch.held:
            raise error


def time_is_over(seconds: float) -> LimitError:
    """What ends a command whose limit of host time passes while no guest runs."""
    return LimitError(f"limit reached: host time of {human_time(round(seconds * 1e9))} is over")


@contextmanager
def signals(watch: Watch | None = None) -> Iterator[Signals]:
    """Within this, SIGINT ends the work by KeyboardInterrupt, SIGTERM and SIGHUP by SystemExit, the
    limit of ``watch`` by LimitError. What a parent has set to be ignored (nohup, a shell's
    background job) stays ignored, but for SIGINT at a terminal, by which Ctrl-A x leaves."""
    taken = Signals(watch if watch is not None else Watch())
    before = {}
    try:
        for number in NAMES:
            if signal.getsignal(number) is not signal.SIG_IGN or (
                number == signal.SIGINT and _at_terminal()
            ):
                before[number] = signal.signal(number, taken.handle)
    except ValueError:  # not the main thread, which alone gets signals
        yield taken
        return
    taken.wind_up()
    try:
        yield taken
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, old in before.items():
            signal.signal(number, old)


def _at_terminal() -> bool:
    return sys.stdin is not None and not sys.stdin.closed and sys.stdin.isatty()


def report_begins(watch: Watch) -> None:
    """The run is over and its result is there: what is left to be said has a moment more, even if
    the limit is near."""
    if watch.left is not None:
        signal.setitimer(signal.ITIMER_REAL, max(watch.left, 0.0) + REPORT_S)
