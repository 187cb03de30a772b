"""Virtual time and the only event queue.

Time is in ns and advances with instructions only. Entries are (time, sequence, owner, kind): data,
never closures, so that they can be saved; owners register a handler by name.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable

from armvirt.state import State, checked

STATE_VERSION = 1

Handler = Callable[[str], None]

NEVER = (1 << 64) - 1
"""A time, or a count of instructions, that does not come."""

#: Entries of the heap that are no longer live may outnumber the live ones by this many before it is
#: rebuilt: whoever rearms a timer for ever (a guest that rewrites a comparator) must not make the
#: heap grow for ever.
STALE_LIMIT = 64


class Clock:
    """The clock of one host.

    ``progress`` is set while a vCPU runs: it gives the ns that have passed since ``base``. Reading
    ``now`` never goes backwards. ``on_earlier`` is called when an entry becomes the first of the
    queue, so that a running vCPU can be told to stop sooner.
    """

    def __init__(self) -> None:
        self.base = 0
        self.progress: Callable[[], int] | None = None
        self._queue: list[tuple[int, int, str, str]] = []
        self._live: dict[tuple[str, str], tuple[int, int]] = {}
        self._sequence = 0
        self._handlers: dict[str, Handler] = {}
        self.on_earlier: Callable[[], None] | None = None

    def __repr__(self) -> str:
        return f"<Clock at {self.now:,} ns>"

    @property
    def now(self) -> int:
        """Virtual time in ns since the host was created."""
        return self.base + self.progress() if self.progress is not None else self.base

    def register(self, owner: str, handler: Handler) -> None:
        """Name the handler of an owner's entries; it is called with the entry's kind."""
        if owner in self._handlers:
            raise ValueError(f"clock owner {owner!r} is registered twice")
        self._handlers[owner] = handler

    def arm(self, when: int, owner: str, kind: str = "") -> None:
        """(Re)arm the one entry that (owner, kind) may have, for ``when`` ns."""
        key = (owner, kind)
        self._sequence += 1
        self._live[key] = (when, self._sequence)
        heapq.heappush(self._queue, (when, self._sequence, owner, kind))
        if len(self._queue) > 2 * len(self._live) + STALE_LIMIT:
            self._rebuild()
        if self.on_earlier is not None and self._first() == (when, self._sequence):
            self.on_earlier()

    def skip(self, count: int) -> None:
        """So many entries were armed and ran, as far as anybody can tell (`armvirt.hw.shadow`)."""
        self._sequence += count

    def cancel(self, owner: str, kind: str = "") -> None:
        """Disarm; nothing happens where nothing is armed."""
        self._live.pop((owner, kind), None)

    def armed(self, owner: str, kind: str = "") -> int | None:
        """The ns for which an entry is armed, or None."""
        entry = self._live.get((owner, kind))
        return entry[0] if entry is not None else None

    def deadline(self) -> int | None:
        """The ns at which the next entry is due, or None."""
        first = self._first()
        return first[0] if first is not None else None

    def _first(self) -> tuple[int, int] | None:
        """(time, sequence) of the first live entry, after dropping dead ones before it."""
        queue = self._queue
        while queue:
            when, sequence, owner, kind = queue[0]
            if self._live.get((owner, kind)) == (when, sequence):
                return when, sequence
            heapq.heappop(queue)
        return None

    def _rebuild(self) -> None:
        self._queue = [
            (when, seq, owner, kind) for (owner, kind), (when, seq) in self._live.items()
        ]
        heapq.heapify(self._queue)

    def run_due(self) -> int:
        """Call the handlers of all entries that are due, in (time, sequence) order; how many ran.

        A handler that raises has had its entry removed; the rest stays in the queue.
        """
        count = 0
        while (first := self._first()) is not None and first[0] <= self.now:
            _, _, owner, kind = heapq.heappop(self._queue)
            del self._live[(owner, kind)]
            self._handlers[owner](kind)
            count += 1
        return count

    def advance_to(self, when: int) -> None:
        """Jump to ``when`` ns (idle time). Only while no vCPU runs; never backwards."""
        if self.progress is not None:
            raise RuntimeError("the clock cannot jump while a vCPU runs")
        self.base = max(self.base, when)

    def reset(self) -> None:
        """Back to time 0 with nothing armed; owners stay registered."""
        self.base, self._sequence = 0, 0
        self._queue.clear()
        self._live.clear()

    def state(self) -> dict[str, object]:
        """The time (ns) and what is armed, as [when, sequence, owner, kind] in the order in which
        it will run."""
        live = sorted((when, seq, owner, kind) for (owner, kind), (when, seq) in self._live.items())
        return {
            "version": STATE_VERSION,
            "now": self.now,
            "sequence": self._sequence,
            "entries": [list(e) for e in live],
        }

    def load(self, state: State) -> None:
        """Restore `state`. Only while no vCPU runs. Owners register before they are due, not before
        the load."""
        checked(state, "Clock", STATE_VERSION)
        entries = state["entries"]
        assert (
            isinstance(entries, list)
            and isinstance(state["now"], int)
            and isinstance(state["sequence"], int)
        )
        self.reset()
        self.base, self._sequence = state["now"], state["sequence"]
        for when, seq, owner, kind in entries:
            self._live[(owner, kind)] = (when, seq)
            heapq.heappush(self._queue, (when, seq, owner, kind))
