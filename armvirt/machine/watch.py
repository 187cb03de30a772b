"""Requests to end work. A limit of host time and a signal are requests to the same object, a
`Watch`, which every long operation checks.

A guest's run stops only at a point where the result of the run does not change. So during a run a
signal only leaves a request. The loop of the host and the engines check for a request every 20 ms
of host time (`Host.add_poll`). All other work (loading, digests, reports) is Python code that an
exception can end anywhere, so there a signal raises at once.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from types import FrameType
from typing import Any

from armvirt.errors import LimitError

REPORT_S = 0.25  # seconds after the limit of host time, for the digest of a run that it ended


class Watch:
    """Decides whether work has to end. ``seconds`` is the limit of host time (None: no limit), of
    which ``spent`` seconds have passed already.

    Signal handlers call `request`. No exception may interrupt a ``with watch:`` block. So a request
    in this block is kept: `requested` is True, and the exception is raised at the end of the block.
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
        """Set the limit of host time: ``seconds`` in all, of which ``spent`` seconds have
        passed."""
        self.seconds, self.deadline = seconds, monotonic() + seconds - spent

    @property
    def left(self) -> float | None:
        """Seconds until the limit; None if there is no limit."""
        return None if self.deadline is None else self.deadline - monotonic()

    @property
    def held(self) -> bool:
        """Whether the program is inside a ``with`` block."""
        return self._held > 0

    @property
    def requested(self) -> bool:
        """Whether a request is kept until the end of the ``with`` block."""
        return self._request is not None

    def request(self, error: BaseException) -> None:
        """End the work with ``error``: now, or at the end of the ``with`` block that is under way.

        A second request raises at once, even in a ``with`` block.
        """
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
    """The host time that a run may take: the limit of its `Watch`, and the limit of the run."""

    def __init__(self, watch: Watch) -> None:
        self.watch = watch
        self._deadline: float | None = None
        self.seconds: float | None = None

    def __repr__(self) -> str:
        return f"<RunTime of {self.watch!r}>"

    def start(self, timeout_s: float | None) -> None:
        """Start a run that may take ``timeout_s`` seconds (None: only the limit of the `Watch`)."""
        own = None if timeout_s is None else monotonic() + timeout_s
        limits = [limit for limit in (self.watch.deadline, own) if limit is not None]
        self._deadline = min(limits, default=None)
        self.seconds = self.watch.seconds if timeout_s is None else timeout_s

    @property
    def expired(self) -> bool:
        """Whether a limit of host time has passed."""
        return self._deadline is not None and monotonic() >= self._deadline

    @property
    def over(self) -> bool:
        """Whether the run must end: its limit of host time has passed, or a signal has requested
        the end (`Watch.requested`)."""
        return self.watch.requested or self.expired

    def check_digest(self) -> None:
        """Raise LimitError if no host time is left for the digest at the end of the run."""
        late = self._deadline is not None and monotonic() >= self._deadline + REPORT_S
        if self.watch.requested or late:
            raise LimitError("host time is over")
