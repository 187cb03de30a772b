"""Idle time at a terminal: as long as on the wall clock, and over as soon as somebody types.

A guest that nothing but the keyboard could wake is waited for, and it is said so once; one that a
key would not wake either is at a dead end.

Nothing that the guest can see depends on it but the moment at which typed input arrives.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from armvirt.machine import Machine

SLICE_S = 0.1  # how long Ctrl-C may have to wait


class Pacer:
    """Decides how far idle time may jump."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.waits = False  # for the keyboard, which alone could wake the guest
        self.on_wait: Callable[[], None] = lambda: None
        """Called when it waits for the keyboard for the first time."""
        self._said = False

    def __repr__(self) -> str:
        return f"<Pacer of {self.machine!r}>"

    def idle(self, now: int, due: int | None) -> int | None:
        """Every CPU waits. ``due`` ns is the next event (None: never). Returns the ns to go on at,
        None to give up: where the run has to end, and where nothing could wake the guest.

        Without pacing, time jumps to ``due``; where nothing is due, a person's typing is waited
        for.
        """
        machine, console = self.machine, self.machine.console
        if due is not None and not machine.pace:
            return due
        if due is None and console.interactive and not console.fed:
            if not machine.board.uart.listens:
                return None
            self._wait()
        begin = time.monotonic()
        while not console.fed:
            passed = int((time.monotonic() - begin) * 1e9)
            if due is not None and now + passed >= due:
                return due
            if (due is None and not console.interactive) or machine.over:
                return None
            left = SLICE_S if due is None else min(SLICE_S, (due - now - passed) / 1e9)
            console.arrived.wait(left)
            console.arrived.clear()
        self.waits = False
        machine.board.uart.poll_input()
        later = now + int((time.monotonic() - begin) * 1e9)
        return later if due is None else min(later, due)

    def _wait(self) -> None:
        self.waits = True
        if not self._said:
            self._said = True
            self.on_wait()
