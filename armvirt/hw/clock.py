"""Virtual time, and the only queue of timed events.

Time is in ns. Time advances while instructions execute. `Clock.advance_to` skips idle time.

An entry of the queue is (time, sequence, owner, kind). The sequence number orders entries with the
same time. The owner is the name of the object that put the entry into the queue, for example a
device. The kind is a text that distinguishes the entries of one owner. An entry is plain data, so
the queue can be saved. `Clock.register` sets the handler of an owner. The handler is the function
that is called when an entry of this owner is due.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable

from armvirt.arch.bits import MASK64
from armvirt.state import State, checked

STATE_VERSION = 1

Handler = Callable[[str], None]

NEVER = MASK64
"""A time, or a count of instructions, that is never reached."""

#: The heap is rebuilt when it has this many more cancelled entries than live entries. Otherwise a
#: guest that rewrites a comparator again and again would make the heap grow without limit.
STALE_LIMIT = 64


class Clock:
    """The virtual clock of one emulated host.

    While a vCPU runs, the time is ``base + progress()`` ns. While no vCPU runs, the time is
    ``base`` ns, and ``progress`` is None. The time decreases only at `reset` and at `load`.
    ``on_earlier`` is called when a new entry becomes the first of the queue. The PE of a running
    vCPU then recomputes its deadline.
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
        """Virtual time in ns since the emulated host was created."""
        return self.base + self.progress() if self.progress is not None else self.base

    def register(self, owner: str, handler: Handler) -> None:
        """Set the function that the clock calls when an entry of its queue is due, if the entry
        was put there by `arm` for ``owner``. The argument of the function is the kind of the entry
        (``kind`` of `arm`). Raises ValueError if a function was already set for
        ``owner``."""
        if owner in self._handlers:
            raise ValueError(f"clock owner {owner!r} is registered twice")
        self._handlers[owner] = handler

    def arm(self, when: int, owner: str, kind: str = "") -> None:
        """Put the entry (owner, kind) into the queue, due at ``when`` ns of virtual time. If the
        queue already has an entry (owner, kind), the new entry replaces it."""
        key = (owner, kind)
        self._sequence += 1
        self._live[key] = (when, self._sequence)
        heapq.heappush(self._queue, (when, self._sequence, owner, kind))
        if len(self._queue) > 2 * len(self._live) + STALE_LIMIT:
            self._rebuild()
        if self.on_earlier is not None and self._first() == (when, self._sequence):
            self.on_earlier()

    def skip(self, count: int) -> None:
        """Add ``count`` to the sequence number of the queue. No handler is called.

        The engine can repeat a timer wake-up of the guest without an entry to EL2
        (`armvirt.hw.shadow`). At the next entry EL2 calls this method with the number of
        repetitions. The sequence number is then the same as if EL2 had put one entry into the queue
        for each repetition.
        """
        self._sequence += count

    def cancel(self, owner: str, kind: str = "") -> None:
        """Remove the entry (owner, kind) from the queue. This has no effect if the queue does not
        have the entry."""
        self._live.pop((owner, kind), None)

    def armed(self, owner: str, kind: str = "") -> int | None:
        """The virtual time in ns at which the entry (owner, kind) is due, or None if the queue does
        not have the entry."""
        entry = self._live.get((owner, kind))
        return entry[0] if entry is not None else None

    def deadline(self) -> int | None:
        """The virtual time in ns at which the next entry is due, or None if the queue is empty."""
        first = self._first()
        return first[0] if first is not None else None

    def _first(self) -> tuple[int, int] | None:
        """Return (time, sequence) of the first entry that has not been cancelled, or None if the
        queue is empty. Cancelled entries before this entry are removed."""
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
        """Call the handler of each entry that is due, in the order of (time, sequence). An entry
        that a handler adds is also handled if it is due. Returns the number of handled entries.

        If a handler raises an exception, the entry of this handler has already been removed. The
        entries after it stay in the queue.
        """
        count = 0
        while (first := self._first()) is not None and first[0] <= self.now:
            _, _, owner, kind = heapq.heappop(self._queue)
            del self._live[(owner, kind)]
            self._handlers[owner](kind)
            count += 1
        return count

    def advance_to(self, when: int) -> None:
        """Skip idle time: set the time to ``when`` ns. This has no effect if ``when`` is in the
        past. Raises RuntimeError while a vCPU runs."""
        if self.progress is not None:
            raise RuntimeError("the clock cannot jump while a vCPU runs")
        self.base = max(self.base, when)

    def reset(self) -> None:
        """Set the time to 0 and remove all entries. The functions that were set with `register`
        stay."""
        self.base, self._sequence = 0, 0
        self._queue.clear()
        self._live.clear()

    def state(self) -> dict[str, object]:
        """Return the time in ns and the entries of the queue. The entries are [when, sequence,
        owner, kind], in the order in which they are due."""
        live = sorted((when, seq, owner, kind) for (owner, kind), (when, seq) in self._live.items())
        return {
            "version": STATE_VERSION,
            "now": self.now,
            "sequence": self._sequence,
            "entries": [list(e) for e in live],
        }

    def load(self, state: State) -> None:
        """Restore the time and the queue from a dict that `state` returned. Call this only while no
        vCPU runs.

        The dict has no handlers. Therefore each owner must call `register`, either before or after
        `load`, but before the first entry of this owner is due.
        """
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
