"""The host's high-resolution timers, on top of the clock's event queue (after
include/linux/hrtimer.h)."""

from __future__ import annotations

from collections.abc import Callable

from armvirt.hw.clock import Clock


class HrTimer:
    """A one-shot timer. It keeps no state of its own: whether and when it is armed is the clock's,
    which saves it.

    ``owner`` and ``kind`` name it in the clock's queue and must be unique together within one host.
    ``callback`` may start the timer again; it sees the clock at or after the expiry.
    """

    __slots__ = ("_clock", "_name", "callback")

    def __init__(self, clock: Clock, owner: str, kind: str, callback: Callable[[], None]) -> None:
        self._clock, self._name, self.callback = clock, f"{owner}.{kind}", callback
        clock.register(self._name, lambda _kind: self.callback())

    def start(self, when: int) -> None:
        """Arm for ``when`` ns of virtual time; replaces an earlier expiry. A time in the past
        expires at once."""
        self._clock.arm(when, self._name)

    def cancel(self) -> None:
        """Disarm; nothing happens if it is not armed."""
        self._clock.cancel(self._name)

    @property
    def expires(self) -> int | None:
        """When it will expire in ns of virtual time, None while it is not armed."""
        return self._clock.armed(self._name)

    @property
    def active(self) -> bool:
        """Whether it is armed."""
        return self.expires is not None
