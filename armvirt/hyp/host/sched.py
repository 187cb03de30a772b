"""The scheduler: the physical CPUs, and the decisions which vCPU runs next on which PE (struct rq).

The decisions are pure functions; `Pcpu.switch` is the context switch.

Every vCPU has a home, the physical CPU (PE) on which it ran last. A vCPU that becomes runnable
queues at its home if the home is idle, else at an idle PE, else at its home (select_task_rq). A PE
with two runnable vCPUs fewer than another PE pulls a waiting vCPU from that PE (load balancing).
The affinity of a vCPU limits the choice of its PE in both cases. Within a PE, and among PEs, the
order is round robin.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from armvirt.hw.pe import Pe
from armvirt.state import State, checked

if TYPE_CHECKING:
    from armvirt.hyp.host.runnable import Runnable

STATE_VERSION = 1

QUANTUM_NS = 100_000
"""The time slice of a PE on a host with several PEs. It is short because time slices stand for PEs
that run at the same time. It is also the time that a vCPU has before a YIELD ends its time
slice."""

SLICE_NS = 1_000_000
"""The time slice of a vCPU on a host with one PE: about base_slice of a Linux kernel. The end of a
time slice costs about as much host time as a hundred thousand instructions, most of it for cold
caches."""

MIN_QUANTUM_NS = 1_000
"""The shortest time slice. The end of a time slice clears the exclusive monitor, so a time slice
must be long enough for LDXR, an exception or two, and STXR: with a shorter time slice a vCPU might
never acquire a lock."""


def default_quantum(pcpus: int) -> int:
    """The default time slice in ns."""
    return SLICE_NS if pcpus == 1 else QUANTUM_NS


def pick_next(runnable: Sequence[int], last: int) -> int | None:
    """Round robin: the first runnable index after ``last``, else the lowest; None if ``runnable``
    is empty."""
    if not runnable:
        return None
    after = [v for v in runnable if v > last]
    return min(after) if after else min(runnable)


def place(home: int | None, loads: Sequence[int], allowed: Collection[int] | None = None) -> int:
    """The PE at which a vCPU queues when it becomes runnable.

    ``loads`` is the number of runnable vCPUs of each PE, not counting this vCPU; ``home`` is None
    before the vCPU was first runnable; ``allowed`` are the PEs of its affinity, None for all.
    """
    choice = range(len(loads)) if allowed is None else sorted(allowed)
    if home not in choice:
        home = None
    if home is not None and not loads[home]:
        return home
    best = min(choice, key=loads.__getitem__)
    return home if home is not None and loads[best] else best


def donor(pe: int, loads: Sequence[int]) -> int | None:
    """The PE from which ``pe`` pulls a waiting vCPU: the busiest PE, if it has at least two
    runnable vCPUs more than ``pe``; else None."""
    busiest = max(loads)
    return loads.index(busiest) if busiest - loads[pe] >= 2 else None


class Pcpu:
    """One physical CPU. ``vcpu`` is loaded on the PE, or was loaded until it blocked; ``last`` is
    the index of the vCPU that was chosen last.

    A vCPU stays loaded during the time slices of other PEs, which stand for PEs that run at the
    same time.
    """

    __slots__ = ("last", "pe", "vcpu")

    def __init__(self, pe: Pe) -> None:
        self.pe = pe
        self.vcpu: Runnable | None = None
        self.last = -1

    def __repr__(self) -> str:
        loaded = "idle" if self.vcpu is None else f"loaded with {self.vcpu!r}"
        return f"<Pcpu {self.pe.index}: {loaded}>"

    @property
    def index(self) -> int:
        return self.pe.index

    @property
    def loaded(self) -> bool:
        """Whether the registers of ``vcpu`` are on this PE."""
        return self.vcpu is not None and self.vcpu.pe is self.pe

    def switch(self, vcpu: Runnable, now: int) -> None:
        """Context switch: put the loaded vCPU, if any, and load ``vcpu``."""
        if self.vcpu is not None and self.loaded:
            self.vcpu.put()
        self.vcpu = vcpu
        vcpu.delay.arrive(now)
        vcpu.load(self.pe)

    def leave(self, vcpu: Runnable) -> None:
        """Forget ``vcpu``, which queues at another PE from now on."""
        if self.vcpu is vcpu:
            self.vcpu = None

    def unload(self) -> None:
        """Detach the loaded vCPU without saving it: the caller restores a state next."""
        if self.vcpu is not None and self.loaded:
            self.vcpu.detach()
        self.vcpu = None

    def state(self) -> dict[str, object]:
        vcpu = self.vcpu
        return {
            "version": STATE_VERSION, "pe": self.pe.state(), "last": self.last, "loaded": self.loaded,
            "vcpu": None if vcpu is None else vcpu.index,
        }  # fmt: skip

    def load(self, state: State, vcpus: Sequence[Runnable]) -> None:
        """Restore `state`, after the state of the vCPUs was restored."""
        checked(state, "Pcpu", STATE_VERSION)
        self.pe.load(state["pe"])
        self.last = state["last"]
        self.vcpu = None if state["vcpu"] is None else vcpus[state["vcpu"]]
        if self.vcpu is not None and state["loaded"]:
            self.vcpu.attach(self.pe)


class RunDelay:
    """The time in ns for which a vCPU was runnable while another vCPU had its PE
    (sched_info.run_delay).

    The guest sees this time as stolen time. The time in which the PE waits for its time slice does
    not count: time slices stand for PEs that run at the same time.
    """

    __slots__ = ("since", "total")

    def __init__(self) -> None:
        self.total = 0
        self.since: int | None = None

    def queue(self, now: int) -> None:
        """The vCPU is runnable, and another vCPU has its PE."""
        if self.since is None:
            self.since = now

    def arrive(self, now: int) -> None:
        """The vCPU gets the PE."""
        if self.since is not None:
            self.total += now - self.since
            self.since = None

    def leave(self) -> None:
        """The vCPU is not runnable any more."""
        self.since = None

    def state(self) -> dict[str, object]:
        return {"version": STATE_VERSION, "total": self.total, "since": self.since}

    def load(self, state: State) -> None:
        checked(state, "RunDelay", STATE_VERSION)
        self.total, self.since = state["total"], state["since"]
