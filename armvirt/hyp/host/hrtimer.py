"""The high-resolution timers of the host kernel (after include/linux/hrtimer.h). They use the event
queue of the virtual clock."""

from __future__ import annotations

from collections.abc import Callable

from armvirt.hw.clock import Clock


class HrTimer:
    """A one-shot timer. The clock stores the expiry time, and the saved state of the clock contains
    it. Therefore the timer has no saved state of its own.

    ``owner`` and ``kind`` together are the name of the timer in the clock's event queue. No other
    timer of the host may have the same name. ``callback`` runs at or after the expiry, and may
    start the timer again.
    """

    __slots__ = ("_clock", "_name", "callback")

    def __init__(self, clock: Clock, owner: str, kind: str, callback: Callable[[], None]) -> None:
        self._clock, self._name, self.callback = clock, f"{owner}.{kind}", callback
        clock.register(self._name, lambda _kind: self.callback())

    def start(self, when: int) -> None:
        """Arm the timer for the virtual time ``when`` (ns). If the timer is armed already, its
        expiry changes to ``when``. If ``when`` is in the past, the timer expires at once."""
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
