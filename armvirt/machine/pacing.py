"""Waits at a terminal: while every CPU is idle, and in polled waits, guest time passes at the speed
of the wall clock, until an event is due or the user types.

If only keyboard input can wake the guest, armvirt waits for input. Before the first of these waits,
it calls the listeners. If keyboard input cannot wake the guest either, the guest is stuck.

This module has only one effect that the guest can observe: the guest time at which typed input
arrives.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from armvirt.board.console import Console
    from armvirt.board.devices.device import Receiver
    from armvirt.machine.watch import RunTime

SLICE_S = 0.1  # the maximum delay of Ctrl-C


class Pacer:
    """Decides how far guest time advances while every CPU is idle. With ``pace``, idle time and
    polled waits pass at the speed of the wall clock.

    Each function of ``listeners`` is called once: when the guest waits for the keyboard for the
    first time.
    """

    def __init__(self, console: Console, receiver: Receiver, run_time: RunTime, pace: bool) -> None:
        self._console, self._receiver, self._run_time = console, receiver, run_time
        self.paces = pace
        self.waits = False  # True while only the keyboard can wake the guest
        self.listeners: list[Callable[[], None]] = []
        self._told = False
        self._due = 0.0  # the wall-clock time in s at which the skipped waits are over

    def __repr__(self) -> str:
        return f"<Pacer: {'waits for the keyboard' if self.waits else 'does not wait'}>"

    @property
    def wanted(self) -> bool:
        """True if the emulated host has to call `idle`: if the user can type, or if idle time
        passes at the speed of the wall clock."""
        return self._console.interactive or self.paces

    def idle(self, now: int, due: int | None) -> int | None:
        """Return the virtual time in ns at which the guest continues. The emulated host calls this
        method when every CPU is idle. ``now`` is the current virtual time in ns. ``due`` is the
        virtual time of the next event in ns; None if there is no event. Return None if the run has
        to end, or if no event can wake the guest.

        Without ``pace``, virtual time jumps to ``due``. If ``due`` is None, this method waits for
        keyboard input.
        """
        console = self._console
        if due is not None and not self.paces:
            return due
        if due is None and console.interactive and not console.fed:
            if not self._receiver.listens:
                return None
            self._wait()
        begin = time.monotonic()
        while not console.fed:
            passed = int((time.monotonic() - begin) * 1e9)
            if due is not None and now + passed >= due:
                return due
            if (due is None and not console.interactive) or self._run_time.over:
                return None
            left = SLICE_S if due is None else min(SLICE_S, (due - now - passed) / 1e9)
            console.arrived.wait(left)
            console.arrived.clear()
        self.waits = False
        self._receiver.poll_input()
        later = now + int((time.monotonic() - begin) * 1e9)
        return later if due is None else min(later, due)

    def skipped(self, ns: int) -> None:
        """Sleep until the wall clock has advanced as far as the guest time that was skipped. The
        engine has skipped ``ns`` of a polled wait. If the last skip was at most `SLICE_S` ago, the
        two are parts of one wait, so that the time for the proof of a part is no delay."""
        now = time.monotonic()
        if self._due < now - SLICE_S:
            self._due = now
        self._due += ns / 1e9
        if self._due > now and not self._run_time.over:
            time.sleep(self._due - now)

    def _wait(self) -> None:
        self.waits = True
        if not self._told:
            self._told = True
            for listener in self.listeners:
                listener()
