"""Do all vCPUs that could run wait in WFE, in loops that find nothing new? Then time may go on to the next event."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

Place = tuple[int, ...]


class Calm:
    """Where each vCPU was in WFE the last two times, and who has come round there since anything changed.

    A round is the same if it began and ended with the same registers and took as many instructions as the one before.
    Whatever happens outside of such rounds is told by `disturbed`.
    """

    def __init__(self) -> None:
        self._last: dict[int, tuple[Place, int, int]] = {}  # registers, instructions then, and since the visit before
        self._calm: set[int] = set()

    def visit(self, vcpu: int, place: Place, insns: int) -> None:
        """A vCPU (by index) has come to WFE with these registers, after ``insns`` instructions in all."""
        before = self._last.get(vcpu)
        round_length = insns - before[1] if before is not None else 0
        self._last[vcpu] = place, insns, round_length
        if before is not None and before[0] == place and before[2] == round_length:
            self._calm.add(vcpu)
        else:
            self._calm.clear()

    def disturbed(self) -> None:
        """Something happened that a vCPU which came round before might see."""
        self._calm.clear()

    def holds(self, vcpus: Iterable[int]) -> bool:
        """Whether all of these have come round since."""
        return self._calm.issuperset(vcpus)

    def state(self) -> dict[str, object]:
        last = [[vcpu, list(place), insns, length] for vcpu, (place, insns, length) in sorted(self._last.items())]
        return {"version": 1, "last": last, "calm": sorted(self._calm)}

    def load(self, state: dict[str, Any]) -> None:
        self._last = {vcpu: (tuple(place), insns, length) for vcpu, place, insns, length in state["last"]}
        self._calm = set(state["calm"])
