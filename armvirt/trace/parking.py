"""Which changes of a timer's line are not the guest's: vcpu_put takes its timer off the PE,
vcpu_load puts it back.

The comparator's output falls and rises with that, and the trace has both, for they are what the
hardware does. For the guest nothing has happened: its CTL and CVAL are what they were.
"""

from __future__ import annotations

from typing import Any

from armvirt.events import Stamp


class Parking:
    """Told of every `Schedule` event, it knows which `TimerLine` events to leave out of the life of
    an interrupt."""

    def __init__(self) -> None:
        self._put: dict[int, int] = {}  # vCPU: the ns at which it was put, until it is loaded
        self._parked: set[tuple[int, str]] = set()  # lines that were high then

    def schedule(self, stamp: Stamp, event: Any) -> list[str]:
        """The timers whose line has fallen while the vCPU was on no PE, as is found when it is
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
        """Whether a change of a line is that of a vcpu_put, or of the vcpu_load that takes it
        back."""
        line = stamp.vcpu, event.timer
        if event.level:
            parked = line in self._parked
            self._parked.discard(line)
            return parked
        if self._put.get(stamp.vcpu) != stamp.ns:
            return False
        self._parked.add(line)
        return True
