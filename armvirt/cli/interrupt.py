"""Signals that end a command: Ctrl-C, SIGTERM, SIGHUP, and the alarm of ``--timeout``.

What a signal does depends on the moment. During a guest's run, the `Watch` of the command stores
the signal, and the run ends at a point where the state of the guest is complete. At any other time
(loading, digests, reports) the signal raises an exception at once. The exception ends open
contexts, so that for example the terminal leaves raw mode and the trace file is closed.

After a signal an alarm limits the remaining time. A run that does not end within `RUN_S` seconds
after the signal is abandoned. (For example, a run cannot end if it writes to a pipe that nobody
reads.) A report that is not complete `REPORT_S` seconds after the signal is abandoned, too.
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
    """The signal handlers of one command. ``error`` is the exception that ends the command. It is
    None until a signal arrives or the limit of host time is reached. ``forced`` is True if the
    process has to end at once, without writing buffered output. The reason is a second signal, or a
    run or report that was abandoned."""

    def __init__(self, watch: Watch) -> None:
        self.watch = watch
        self.forced = False
        self.error: BaseException | None = None
        self._since = 0.0

    def limit(self, seconds: float, spent: float) -> None:
        """Set the limit of host time to ``seconds`` in total. ``spent`` seconds of the limit have
        passed already."""
        self.watch.limit(seconds, spent)
        self.wind_up()

    def wind_up(self) -> None:
        """Start the alarm that fires at the limit of host time. Do nothing if there is no limit. Do
        nothing outside the main thread, because only the main thread gets signals."""
        left = self.watch.left
        if left is not None and signal.getsignal(signal.SIGALRM) == self.handle:
            signal.setitimer(signal.ITIMER_REAL, max(left, 1e-6))

    def handle(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGALRM:
            self._alarm()
            return
        error = KeyboardInterrupt() if number == signal.SIGINT else SystemExit(128 + number)
        if self.error is not None:  # a second signal
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
            # Python lost the exception, for example in a callback of the import system, and a run
            # has begun since: request the end of this run.
            signal.setitimer(signal.ITIMER_REAL, RUN_S)
            self.watch.request(self.error)
        elif self.watch.held or monotonic() - self._since >= REPORT_S:
            self.forced = True
            signal.setitimer(
                signal.ITIMER_REAL, REPORT_S
            )  # the next alarm, in case this exception is lost or its handling blocks
            raise self.error
        else:
            signal.setitimer(signal.ITIMER_REAL, max(1e-3, self._since + REPORT_S - monotonic()))

    def _limit(self) -> None:
        """Handle the alarm at the limit of host time. If no guest runs at this moment, raise
        LimitError. If a guest runs, raise nothing: the run compares the clock with the limit
        itself, and returns a result."""
        error = time_is_over(self.watch.seconds or 0.0)
        self._begin_to_end(error)
        if not self.watch.held:
            raise error


def time_is_over(seconds: float) -> LimitError:
    """The error that ends a command if its limit of host time passes while no guest runs."""
    return LimitError(f"limit reached: host time of {human_time(round(seconds * 1e9))} is over")


@contextmanager
def signals(watch: Watch | None = None) -> Iterator[Signals]:
    """A context that handles signals. SIGINT raises KeyboardInterrupt. SIGTERM and SIGHUP raise
    SystemExit. The end of the host time that ``watch`` allows raises LimitError.

    A signal that the parent process has set to be ignored (nohup, a background job of a shell)
    stays ignored. However, SIGINT is always handled if standard input is a terminal, because Ctrl-A
    x uses SIGINT.
    """
    taken = Signals(watch if watch is not None else Watch())
    before = {}
    try:
        for number in NAMES:
            if signal.getsignal(number) is not signal.SIG_IGN or (
                number == signal.SIGINT and _at_terminal()
            ):
                before[number] = signal.signal(number, taken.handle)
    except ValueError:  # not the main thread: only the main thread gets signals
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
    """Set the alarm to `REPORT_S` seconds after the limit of host time. Commands call this function
    when the guest's run has ended, so that at least `REPORT_S` seconds remain for the report."""
    if watch.left is not None:
        signal.setitimer(signal.ITIMER_REAL, max(watch.left, 0.0) + REPORT_S)
