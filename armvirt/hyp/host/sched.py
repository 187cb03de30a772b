"""Which vCPU runs next: a pure decision, apart from the switch."""

from __future__ import annotations

from collections.abc import Sequence

QUANTUM_NS = 100_000
"""A vCPU's turn, when others wait."""


def pick_next(runnable: Sequence[int], last: int) -> int | None:
    """Round robin: the first runnable id after ``last``, else the lowest; None if nobody can run."""
    if not runnable:
        return None
    after = [v for v in runnable if v > last]
    return min(after) if after else min(runnable)
