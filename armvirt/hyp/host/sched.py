"""Who runs next, and where: pure decisions, apart from the switch.

Every vCPU has a home, the physical CPU (PE) on which it was last. One that becomes runnable queues
at its home if that is idle, else at an idle PE, else at its home again (kernel select_task_rq); a
PE with two fewer than another pulls one that waits there (load balancing). A vCPU's affinity comes
before all that. Within a PE, and among PEs, it is round robin.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

QUANTUM_NS = 100_000
"""The turn of a PE where several take turns: it stands for what they do at the same time, so it is
short. And what a vCPU has at least before a YIELD ends its turn: it waits for somebody, maybe for
one that has no turn meanwhile."""

SLICE_NS = 1_000_000
"""The turn of a vCPU on a host's only PE: what a kernel gives a task while others wait (its
base_slice is of this size). Each end of one costs about as much as a hundred thousand instructions,
most of it caches that are cold."""

MIN_QUANTUM_NS = 1_000
"""Exclusive monitors are cleared when a turn ends, so a turn must have room for LDXR to STXR with
an exception or two between them: anything shorter could keep a lock from ever being taken."""


def default_quantum(pcpus: int) -> int:
    """The turn, in ns, where nobody asks for another."""
    return SLICE_NS if pcpus == 1 else QUANTUM_NS


def pick_next(runnable: Sequence[int], last: int) -> int | None:
    """Round robin: the first runnable id after ``last``, else the lowest; None if nobody can
    run."""
    if not runnable:
        return None
    after = [v for v in runnable if v > last]
    return min(after) if after else min(runnable)


def place(home: int | None, loads: Sequence[int], allowed: Collection[int] | None = None) -> int:
    """The PE at which a vCPU queues that becomes runnable.

    ``loads`` are the runnable vCPUs of each PE, without this one; ``home`` is None for one that has
    never run; ``allowed`` are the PEs that it may be on, None for all.
    """
    choice = range(len(loads)) if allowed is None else sorted(allowed)
    if home not in choice:
        home = None
    if home is not None and not loads[home]:
        return home
    best = min(choice, key=loads.__getitem__)
    return home if home is not None and loads[best] else best


def donor(pe: int, loads: Sequence[int]) -> int | None:
    """The PE from which ``pe`` takes a waiting vCPU: the busiest one, if that leaves it no less
    loaded than ``pe``."""
    busiest = max(loads)
    return loads.index(busiest) if busiest - loads[pe] >= 2 else None
