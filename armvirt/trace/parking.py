"""The changes of a timer's line that are not caused by the guest: vcpu_put removes the timer from
the PE, and vcpu_load restores it.

The comparator's output then falls and rises, and the trace has both events, because the hardware
does the same. For the guest nothing has changed: its CTL and CVAL have the same values.
"""

from __future__ import annotations

from typing import Any

from armvirt.events import Stamp


class Parking:
    """Selects, from the `Schedule` events, the `TimerLine` events that are no part of an
    interrupt's life."""

    def __init__(self) -> None:
        self._put: dict[int, int] = {}  # by vCPU that is not loaded: the ns at which it was put
        self._parked: set[tuple[int, str]] = set()  # lines that were high then

    def schedule(self, stamp: Stamp, event: Any) -> list[str]:
        """The timers whose line fell while the vCPU was not loaded; this is known when the vCPU is
        loaded."""
        if event.what == "put":
            self._put[event.target] = stamp.ns
        if event.what != "load":
            return []
        self._put.pop(event.target, None)
        fallen = [line for line in self._parked if line[0] == event.target]
        self._parked.difference_update(fallen)
        return sorted(timer for _, timer in fallen)

    def hides(self, stamp: Stamp, event: Any) -> bool:
        """Whether a change of a line is caused by vcpu_put, or by the vcpu_load that follows."""
        line = stamp.vcpu, event.timer
        if event.level:
            parked = line in self._parked
            self._parked.discard(line)
            return parked
        if self._put.get(stamp.vcpu) != stamp.ns:
            return False
        self._parked.add(line)
        return True
