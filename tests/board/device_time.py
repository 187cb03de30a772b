"""Virtual time for the tests of devices."""

from __future__ import annotations

from armvirt.hw.clock import Clock


def advance(clock: Clock, ns: int) -> None:
    """Advance ``clock`` by ``ns``, and call the handler of each timer at its time."""
    target = clock.now + ns
    while (deadline := clock.deadline()) is not None and deadline <= target:
        clock.advance_to(deadline)
        clock.run_due()
    clock.advance_to(target)
