"""Has every vCPU that could run gone quiet? The dead end of several CPUs that wait for each other in WFE."""

from __future__ import annotations

from typing import Any

VISITS = 64
"""A vCPU is quiet when it came back to the same place with the same registers in so many turns. Once would do if
nothing but registers told its rounds apart; a loop may count in memory, though."""


class Quiet:
    """Where each vCPU was seen last in WFE, or in a branch to itself, and in how many turns since.

    A turn counts once, wherever the host's run was stopped within it: a stop changes nothing.
    """

    def __init__(self) -> None:
        self._seen: dict[int, tuple[tuple[int, ...], int, int]] = {}

    def visit(self, vcpu: int, place: tuple[int, ...], turn_end: int) -> None:
        """A vCPU (by index) waits at ``place``, in the turn that ends at ``turn_end`` ns."""
        before = self._seen.get(vcpu)
        if before is None or before[0] != place:
            self._seen[vcpu] = place, 1, turn_end
        elif before[2] != turn_end:
            self._seen[vcpu] = place, before[1] + 1, turn_end

    def moved(self, vcpu: int) -> None:
        """A vCPU went on in another way."""
        self._seen.pop(vcpu, None)

    def is_quiet(self, vcpu: int) -> bool:
        seen = self._seen.get(vcpu)
        return seen is not None and seen[1] >= VISITS

    def state(self) -> dict[str, object]:
        return {"version": 1, "seen": [[v, list(place), n, end] for v, (place, n, end) in self._seen.items()]}

    def load(self, state: dict[str, Any]) -> None:
        self._seen = {v: (tuple(place), n, end) for v, place, n, end in state["seen"]}
