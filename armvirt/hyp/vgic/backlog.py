"""The jobs on many LPIs, done in slices, so that the work of one guest access is bounded.

There are up to 57,344 LPIs, and one access may concern all of them: GICR_CTLR.EnableLPIs,
GICR_INVALLR, and the commands MAPC, MAPD, INVALL and MOVALL. Such an access makes a job, a list of
INTIDs. An access does `STEPS` steps of work (one LPI or one event is a step); the rest is done at
the guest's next accesses to an ITS or to the LPI registers, and every `SLICE_NS` of guest time. The
host's time has no influence, and jobs are part of the saved state.

The guest sees a job under way: GITS_CREADR stays at the command, GICR_CTLR.RWP and GICR_SYNCR.Busy
read as 1. The architecture allows LPIs to change one by one (IHI 0069 5.3.5 and 12.11).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Protocol

STEPS = 512
RELEASE = "release"
SLICE_NS = 10_000
SCAN = 64  # entries of a map that count as one step


class Job:
    """One action on many LPIs. ``action`` is a name in `lpi.ACTIONS`, ``about`` its argument (plain
    data), ``left`` the INTIDs to do, in order. An INTID whose LPI no longer exists is skipped."""

    __slots__ = ("about", "action", "left")

    def __init__(self, action: str, about: Any, left: list[int]) -> None:
        self.action, self.about, self.left = action, about, left


class Worker(Protocol):
    """Does the jobs of a `Backlog` (`lpi.LpiWorker`)."""

    def run(self, action: str, about: Any, intids: list[int]) -> None:
        """Apply an action to a batch of LPIs."""

    def take_up(self) -> None:
        """Called after the last job: start the jobs for the writes of EnableLPIs and GICR_INVALLR
        that came during that job."""


class Backlog:
    """The jobs of one vGIC in order; the first job is under way.

    ``limit`` is the number of steps of an access, ``steps`` the number of steps that are left.
    ``later`` is called when jobs are left. ``worker`` does the jobs; the first ITS sets ``worker``.
    """

    __slots__ = ("jobs", "later", "limit", "steps", "worker")

    def __init__(self, later: Callable[[], None]) -> None:
        self.jobs: list[Job] = []
        self.limit = self.steps = STEPS
        self.later = later
        self.worker: Worker | None = None

    def begin(self) -> None:
        """Begin a guest access or a slice of guest time: ``limit`` steps are available, first for
        the jobs."""
        self.steps = self.limit
        if self.jobs:
            self.work()

    def spend(self, entries: int) -> None:
        """Subtract a walk over ``entries`` entries of an ITS table from the steps that this access
        has left: one step for `SCAN` entries."""
        self.steps -= entries // SCAN

    def add(self, action: str, about: Any, intids: Iterable[int]) -> None:
        """Queue a job on LPIs, and do as much of the job as the steps of this access allow."""
        left = list(intids)
        self.spend(len(left))
        if left:
            self.jobs.append(Job(action, about, left))
            self.work()

    def work(self) -> None:
        """Do jobs until no steps are left."""
        worker = self.worker
        assert worker is not None  # an ITS or a GICR register of a GIC with an ITS made the job
        while self.jobs and self.steps > 0:
            job = self.jobs[0]
            batch = job.left[: self.steps]
            del job.left[: len(batch)]
            self.steps -= len(batch)
            worker.run(job.action, job.about, batch)
            if not job.left:
                del self.jobs[0]
        if not self.jobs:
            worker.take_up()
        if self.jobs:
            self.later()

    def state(self) -> list[list[Any]]:
        return [[job.action, job.about, list(job.left)] for job in self.jobs]

    def load(self, state: list[list[Any]]) -> None:
        """Restore `state`. The state of the host's clock has the time of the next `Vgic.go_on`."""
        self.jobs = [Job(action, about, list(left)) for action, about, left in state]
