"""Ends the work of the program when a limit of host time passes or a signal arrives. A `Watch` has
the limit, and the request that a signal handler has made. Every long operation checks the `Watch`.

A run stops only at a point where the stop does not change the result of the run. So during a run, a
signal handler only stores a request. The run loop and the CPU engines check for a request every 20
ms of host time (`Host.add_poll`). All other work (loading, digests, reports) is Python code that an
exception can end anywhere. During this work, the signal handler raises the exception at once.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from types import FrameType
from typing import Any

from armvirt.errors import LimitError

REPORT_S = 0.25  # seconds after the limit of host time, for the digest of a run that it ended


class Watch:
    """Decides when the work has to end. ``seconds`` is the limit of host time; None if there is no
    limit. ``spent`` seconds of the limit have passed already when this object is made.

    Signal handlers call `request` with an exception. A ``with watch:`` block is a part of the work
    that the exception must not interrupt. If a signal arrives in such a block, the request is
    stored, and `requested` becomes True. The exception is raised at the end of the block.
    """

    def __init__(self, seconds: float | None = None, spent: float = 0.0) -> None:
        self.seconds: float | None = None
        self.deadline: float | None = None
        if seconds is not None:
            self.limit(seconds, spent)
        self._held = 0
        self._request: BaseException | None = None
        self._restore: Callable[[int, FrameType | None], Any] | int | None = None

    def __repr__(self) -> str:
        return (
            f"<Watch: {'no limit' if self.seconds is None else f'{self.seconds:g} s of the host'}>"
        )

    def limit(self, seconds: float, spent: float = 0.0) -> None:
        """Set the limit of host time to ``seconds``. ``spent`` seconds of the limit have passed
        already."""
        self.seconds, self.deadline = seconds, monotonic() + seconds - spent

    @property
    def left(self) -> float | None:
        """The number of seconds until the limit of host time; None if there is no limit."""
        return None if self.deadline is None else self.deadline - monotonic()

    @property
    def held(self) -> bool:
        """True inside a ``with watch:`` block."""
        return self._held > 0

    @property
    def requested(self) -> bool:
        """True if a request is stored. The exception of the request is raised at the end of the
        ``with watch:`` block."""
        return self._request is not None

    def request(self, error: BaseException) -> None:
        """Request the end of the work. ``error`` is the exception that ends the work. Outside of a
        ``with watch:`` block, ``error`` is raised at once. In such a block, ``error`` is stored,
        and raised at the end of the block. If an exception is stored already, ``error`` is raised
        at once, also in the block."""
        if not self._held or self._request is not None:
            raise error
        self._request = error

    def __enter__(self) -> Watch:
        if not self._held:
            self._take_ctrl_c()
        self._held += 1
        return self

    def __exit__(self, *_: object) -> None:
        self._held -= 1
        if self._held:
            return
        self._give_ctrl_c_back()
        if self._request is not None:
            error, self._request = self._request, None
            raise error

    # Python's default handler of SIGINT raises KeyboardInterrupt at any instruction. In a callback
    # of the engine this exception would be printed and lost, so the block has its own handler. A
    # handler that the program has set is kept.

    def _take_ctrl_c(self) -> None:
        import signal

        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            try:
                self._restore = signal.signal(signal.SIGINT, self._ctrl_c)
            except ValueError:  # not the main thread; only the main thread gets signals
                self._restore = None

    def _give_ctrl_c_back(self) -> None:
        if self._restore is not None:
            import signal

            signal.signal(signal.SIGINT, self._restore)
            self._restore = None

    def _ctrl_c(self, _number: int, _frame: FrameType | None) -> None:
        self.request(KeyboardInterrupt())


class RunTime:
    """The host time that a run may take. Two limits apply: the limit of the `Watch`, and the limit
    of the run itself."""

    def __init__(self, watch: Watch) -> None:
        self.watch = watch
        self._deadline: float | None = None
        self.seconds: float | None = None

    def __repr__(self) -> str:
        return f"<RunTime of {self.watch!r}>"

    def start(self, timeout_s: float | None) -> None:
        """Start a run that may take ``timeout_s`` seconds of host time. If ``timeout_s`` is None,
        only the limit of the `Watch` applies."""
        own = None if timeout_s is None else monotonic() + timeout_s
        limits = [limit for limit in (self.watch.deadline, own) if limit is not None]
        self._deadline = min(limits, default=None)
        self.seconds = self.watch.seconds if timeout_s is None else timeout_s

    @property
    def expired(self) -> bool:
        """True if a limit of host time has passed."""
        return self._deadline is not None and monotonic() >= self._deadline

    @property
    def over(self) -> bool:
        """True if the run must end, because a limit of host time has passed or a request is stored
        in the `Watch`."""
        return self.watch.requested or self.expired

    def check_digest(self) -> None:
        """Raise LimitError if the computation of the digest at the end of a run has to stop. It has
        to stop if the limit of host time passed more than `REPORT_S` seconds ago, or if a request
        is stored in the `Watch`."""
        late = self._deadline is not None and monotonic() >= self._deadline + REPORT_S
        if self.watch.requested or late:
            raise LimitError("host time is over")
