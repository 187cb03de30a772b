"""The decisions of the scheduler, as pure functions: which vCPU runs next, and on which PE. Also
the scheduler's state of a vCPU.

Every vCPU has a home, the physical CPU (PE) at which it queues. A vCPU that becomes runnable queues
at its home if the home is idle. If the home is busy, the vCPU queues at an idle PE, which becomes
its home. If no PE is idle, the vCPU stays at its home (select_task_rq). A PE with two runnable
vCPUs fewer than another PE pulls a waiting vCPU from that PE (load balancing). The affinity of a
vCPU limits the choice of its PE in all these cases. Within a PE, and among PEs, the order is round
robin.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from armvirt.state import State, checked

STATE_VERSION = 1

QUANTUM_NS = 100_000
"""The time slice of a PE on a host with several PEs, in ns of virtual time. The time slice is
short, because time slices model PEs that run at the same time. A YIELD in the first `QUANTUM_NS` of
a time slice does not end the time slice."""

SLICE_NS = 1_000_000
"""The time slice of a vCPU on a host with one PE, in ns of virtual time. It is about as long as
base_slice of a Linux kernel. A much shorter slice would make armvirt slow: the end of a time slice
takes about as much real time as a hundred thousand instructions, mainly because of cold caches."""

MIN_QUANTUM_NS = 1_000
"""The shortest time slice in ns of virtual time. The end of a time slice clears the exclusive
monitor. Therefore a time slice must be long enough for LDXR, an exception or two, and STXR. With a
shorter time slice a vCPU might never acquire a lock."""


def default_quantum(pcpus: int) -> int:
    """The default time slice in ns of a host with ``pcpus`` PEs."""
    return SLICE_NS if pcpus == 1 else QUANTUM_NS


def pick_next(runnable: Sequence[int], last: int) -> int | None:
    """Choose a vCPU in round-robin order. ``runnable`` has the indices of the runnable vCPUs, and
    ``last`` is the index of the vCPU that was chosen last. The result is the lowest index above
    ``last``. If there is no such index, the result is the lowest index; None if ``runnable`` is
    empty."""
    if not runnable:
        return None
    after = [v for v in runnable if v > last]
    return min(after) if after else min(runnable)


def place(home: int | None, loads: Sequence[int], allowed: Collection[int] | None = None) -> int:
    """Choose the PE at which a vCPU queues when it becomes runnable.

    ``home`` is the home of the vCPU, which is the PE at which the vCPU queued last; None before the
    vCPU was first runnable. The result is the new home. ``loads`` has the number of runnable vCPUs
    of each PE, without this vCPU. ``allowed`` are the PEs of its affinity; None means all PEs.
    """
    choice = range(len(loads)) if allowed is None else sorted(allowed)
    if home not in choice:
        home = None
    if home is not None and not loads[home]:
        return home
    best = min(choice, key=loads.__getitem__)
    return home if home is not None and loads[best] else best


def donor(pe: int, loads: Sequence[int]) -> int | None:
    """Choose the PE from which ``pe`` pulls a waiting vCPU. ``loads`` has the number of runnable
    vCPUs of each PE. The result is the busiest PE if it has at least two runnable vCPUs more than
    ``pe``, otherwise None."""
    busiest = max(loads)
    return loads.index(busiest) if busiest - loads[pe] >= 2 else None


class SchedEntity:
    """The scheduler's state of one vCPU (struct sched_entity, struct sched_info).

    ``home`` is the PE at which the vCPU queues; None before the vCPU was first runnable.
    ``affinity`` has the PEs on which the vCPU may run; None means all PEs. Until the virtual time
    ``faults_until`` (ns) the vCPU does not execute, because its exception vectors fault again and
    again.

    ``run_delay`` is the virtual time in ns for which the vCPU was runnable while another vCPU had
    its PE. A run delay is added when the vCPU gets the PE. The guest sees ``run_delay`` as stolen
    time. The time in which the PE waits for its time slice does not count, because time slices
    model PEs that run at the same time.
    """

    __slots__ = ("_queued_at", "affinity", "faults_until", "home", "run_delay")

    def __init__(self) -> None:
        self.home: int | None = None
        self.affinity: frozenset[int] | None = None
        self.faults_until = 0
        self.run_delay = 0
        self._queued_at: int | None = None

    def may_be_on(self, pe: int) -> bool:
        """Whether PE ``pe`` is in the vCPU's affinity."""
        return self.affinity is None or pe in self.affinity

    def reset(self) -> None:
        """Clear ``faults_until``, because the vCPU starts with other exception vectors."""
        self.faults_until = 0

    def queue(self, now: int) -> None:
        """Start to measure a run delay at ``now`` (ns), because the vCPU is runnable, but another
        vCPU has its PE."""
        if self._queued_at is None:
            self._queued_at = now

    def arrive(self, now: int) -> None:
        """End the present run delay at ``now`` (ns), because the vCPU gets the PE. Add the run
        delay to ``run_delay``."""
        if self._queued_at is not None:
            self.run_delay += now - self._queued_at
            self._queued_at = None

    def leave(self) -> None:
        """Discard the present run delay, because the vCPU is not runnable any more."""
        self._queued_at = None

    def state(self) -> State:
        return {
            "version": STATE_VERSION,
            "home": self.home,
            "affinity": None if self.affinity is None else sorted(self.affinity),
            "faults_until": self.faults_until,
            "run_delay": self.run_delay,
            "queued_at": self._queued_at,
        }

    def load(self, state: State) -> None:
        checked(state, "SchedEntity", STATE_VERSION)
        affinity = state["affinity"]
        self.home, self.faults_until = state["home"], state["faults_until"]
        self.affinity = None if affinity is None else frozenset(affinity)
        self.run_delay, self._queued_at = state["run_delay"], state["queued_at"]
