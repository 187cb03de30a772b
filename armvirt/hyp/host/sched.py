"""The scheduler's decisions: which vCPU runs next, and on which PE. Pure functions; the switch is
`Pcpu.switch`.

Every vCPU has a home, the physical CPU (PE) on which it ran last. A vCPU that becomes runnable
queues at its home if the home is idle, else at an idle PE, else at its home (select_task_rq). A PE
with two runnable vCPUs fewer than another PE pulls a waiting vCPU from there (load balancing). The
affinity of a vCPU restricts both. Within a PE, and among PEs, the order is round robin.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

QUANTUM_NS = 100_000
"""The turn of a PE on a host with several PEs. It is short because turns stand for PEs that run at
the same time. It is also the time that a vCPU has before a YIELD ends its turn."""

SLICE_NS = 1_000_000
"""The turn of a vCPU on a host's only PE: about the base_slice of a kernel. The end of a turn costs
about as much host time as a hundred thousand instructions, most of it for cold caches."""

MIN_QUANTUM_NS = 1_000
"""The shortest turn. The end of a turn clears the exclusive monitor, so a turn must have room for
LDXR, an exception or two, and STXR: with a shorter turn no vCPU might ever take a lock."""


def default_quantum(pcpus: int) -> int:
    """The default turn in ns."""
    return SLICE_NS if pcpus == 1 else QUANTUM_NS


def pick_next(runnable: Sequence[int], last: int) -> int | None:
    """Round robin: the first runnable index after ``last``, else the lowest; None if there is
    none."""
    if not runnable:
        return None
    after = [v for v in runnable if v > last]
    return min(after) if after else min(runnable)


def place(home: int | None, loads: Sequence[int], allowed: Collection[int] | None = None) -> int:
    """The PE at which a vCPU queues when it becomes runnable.

    ``loads`` is the number of runnable vCPUs of each PE, without this vCPU; ``home`` is None before
    the vCPU first ran; ``allowed`` are the PEs of its affinity, None for all.
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
