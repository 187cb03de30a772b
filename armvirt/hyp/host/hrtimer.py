"""The host's high-resolution timers, which use the clock's event queue (after
include/linux/hrtimer.h)."""

from __future__ import annotations

from collections.abc import Callable

from armvirt.hw.clock import Clock


class HrTimer:
    """A one-shot timer. The clock has the expiry time and saves it, so the timer has no saved state
    of its own.

    ``owner`` and ``kind`` name the timer in the clock's queue. Both names together must be unique
    within a host. ``callback`` runs at or after the expiry, and may start the timer again.
    """

    __slots__ = ("_clock", "_name", "callback")

    def __init__(self, clock: Clock, owner: str, kind: str, callback: Callable[[], None]) -> None:
        self._clock, self._name, self.callback = clock, f"{owner}.{kind}", callback
        clock.register(self._name, lambda _kind: self.callback())

    def start(self, when: int) -> None:
        """Arm the timer for ``when`` ns of virtual time, in place of an earlier expiry. If ``when``
        is in the past, the timer expires at once."""
        self._clock.arm(when, self._name)

    def cancel(self) -> None:
        """Disarm the timer. The call has no effect if the timer is not armed."""
        self._clock.cancel(self._name)

    @property
    def expires(self) -> int | None:
        """The expiry time in ns of virtual time, None if the timer is not armed."""
        return self._clock.armed(self._name)

    @property
    def active(self) -> bool:
        """Whether the timer is armed."""
        return self.expires is not None
