"""Ctrl-C while a guest runs.

Python runs a signal handler at the first instruction of the callback through which the engine's C code comes back, and
an exception raised there, before the callback's own ``try``, would be printed and lost. So inside a callback
the handler only asks for the exception at the next poll, where the engine keeps it and raises it after its stop.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from armvirt.machine import Machine


@contextmanager
def interruptible(machine: Machine) -> Iterator[None]:
    """Within this, SIGINT makes ``machine.run`` raise KeyboardInterrupt, wherever the guest is."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set handlers, and only it gets the signal
        return

    def handler(_number: int, frame: FrameType | None) -> None:
        if not _in_callback(frame):
            raise KeyboardInterrupt
        machine.host.on_poll(_interrupt)

    before = signal.signal(signal.SIGINT, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _interrupt() -> bool:
    raise KeyboardInterrupt


def _in_callback(frame: FrameType | None) -> bool:
    """Whether the engine's C code is below ``frame`` on the stack."""
    from armvirt.hw.engine import Engine

    while frame is not None:
        if frame.f_code is Engine.dispatch.__code__:
            return True
        frame = frame.f_back
    return False
