"""Ctrl-C, and other signals that end us, while a guest runs.

Python runs a signal handler at the first instruction of the callback through which the engine's C code comes back, and
an exception raised there, before the callback's own ``try``, would be printed and lost. So inside the engine the
handler only asks for the exception at the next poll, where the engine keeps it and raises it after its stop.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from armvirt.machine import Machine

ENGINE = "armvirt.hw.engine."
RETRY_S = 0.05
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM)


@contextmanager
def interruptible(machine: Machine) -> Iterator[None]:
    """Within this, SIGINT makes ``machine.run`` raise KeyboardInterrupt, and SIGTERM and SIGHUP SystemExit.

    So what is around it (a terminal in raw mode, a trace file) is put in order whatever ends the run.
    """
    received: list[int] = []

    def handler(number: int, frame: FrameType | None) -> None:
        if number != signal.SIGALRM:
            received.append(number)
        if not _in_engine(frame):
            _end(received[0])
        machine.host.on_poll(lambda: _end(received[0]))
        # The engine may be left without another poll, to wait for an event: try again then.
        signal.setitimer(signal.ITIMER_REAL, RETRY_S)

    try:
        before = {number: signal.signal(number, handler) for number in SIGNALS}
    except ValueError:  # not the main thread, which alone gets signals
        yield
        return
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, old in before.items():
            signal.signal(number, old)


def _end(number: int) -> NoReturn:
    raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(128 + number)


def _in_engine(frame: FrameType | None) -> bool:
    """Whether ``frame`` is, or was called from, a function of the engine."""
    while frame is not None:
        if frame.f_globals.get("__name__", "").startswith(ENGINE):
            return True
        frame = frame.f_back
    return False
