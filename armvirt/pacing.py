"""Idle time at a terminal: as long as on the wall clock, and over as soon as somebody types.

Nothing that the guest can see depends on it but the moment at which typed input arrives.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from armvirt.machine import Machine

SLICE_S = 0.1  # how long Ctrl-C may have to wait


class Pacer:
    """Decides how far idle time may jump."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine

    def __repr__(self) -> str:
        return f"<Pacer of {self.machine!r}>"

    def idle(self, now: int, due: int | None) -> int | None:
        """Every CPU waits. ``due`` ns is the next event (None: never). Returns the ns to go on at, None to give up.

        Without pacing, time jumps to ``due``; where nothing is due, a person's typing is waited for.
        """
        machine, console = self.machine, self.machine.console
        if due is not None and not machine.pace:
            return due
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
        machine.board.uart.poll_input()
        later = now + int((time.monotonic() - begin) * 1e9)
        return later if due is None else min(later, due)
