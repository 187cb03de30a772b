"""The jobs of a vGIC. A job applies one action to many LPIs. A job is done in slices, so that one
guest access does a limited amount of work.

There are up to 57,344 LPIs, and one access may concern all LPIs: GICR_CTLR.EnableLPIs,
GICR_INVALLR, and the commands MAPC, MAPD, INVALL and MOVALL. The access makes a job, which has a
list of INTIDs. One LPI or one event is one step of work, and the access does at most `STEPS` steps.
The guest's next accesses to an ITS or to the LPI registers do the other steps, and so does a timer
every `SLICE_NS` of guest time. The host's time has no influence. Jobs are part of the saved state.

The guest can see that a job is under way: GITS_CREADR stays at the command, and GICR_CTLR.RWP and
GICR_SYNCR.Busy are 1. The architecture allows LPIs to change one by one (IHI 0069 5.3.5 and 12.11).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Protocol

STEPS = 512
RELEASE = "release"
SLICE_NS = 10_000
SCAN = 64  # table entries that count as one step


class Job:
    """One action on many LPIs. ``action`` is a name in `lpi.ACTIONS`. ``about`` is the argument of
    the action (plain data). ``left`` has the INTIDs that are not done, in order; an INTID whose LPI
    no longer exists is skipped."""

    __slots__ = ("about", "action", "left")

    def __init__(self, action: str, about: Any, left: list[int]) -> None:
        self.action, self.about, self.left = action, about, left


class Worker(Protocol):
    """The interface to the object that applies the actions of jobs to LPIs (`lpi.LpiWorker`)."""

    def run(self, action: str, about: Any, intids: list[int]) -> None:
        """Apply an action to a batch of LPIs."""

    def take_up(self) -> None:
        """Start the jobs for writes of EnableLPIs and GICR_INVALLR that the guest made while
        another job was under way. The backlog calls this function when it has no jobs left."""


class Backlog:
    """The jobs of one vGIC, in order. The first job is under way.

    A step is the work on one LPI. ``limit`` is the number of steps that one guest access may do;
    ``steps`` is the number of steps that the present access has left. The backlog calls ``later()``
    when the steps are used up and jobs are left. ``worker`` does the jobs, and is set with the
    first ITS.
    """

    __slots__ = ("jobs", "later", "limit", "steps", "worker")

    def __init__(self, later: Callable[[], None]) -> None:
        self.jobs: list[Job] = []
        self.limit = self.steps = STEPS
        self.later = later
        self.worker: Worker | None = None

    def begin(self) -> None:
        """Start the work of a guest access, or of the timer that continues jobs: allow ``limit``
        steps (a step is the work on one LPI). First use these steps for the jobs that earlier
        accesses left."""
        self.steps = self.limit
        if self.jobs:
            self.work()

    def spend(self, entries: int) -> None:
        """Count a walk over ``entries`` table entries as work of the present guest access: `SCAN`
        entries count as one step, the work on one LPI."""
        self.steps -= entries // SCAN

    def add(self, action: str, about: Any, intids: Iterable[int]) -> None:
        """Queue a job that applies an action to LPIs. Do the job at once up to the limit of work of
        the present guest access; later accesses do the rest."""
        left = list(intids)
        self.spend(len(left))
        if left:
            self.jobs.append(Job(action, about, left))
            self.work()

    def work(self) -> None:
        """Do the jobs in order, until the present guest access has reached its limit of work."""
        worker = self.worker
        assert worker is not None  # without an ITS there are no jobs
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
        """Restore the result of `state`. The timer that continues the jobs is not part of this
        result, because the state of the host's clock contains this timer."""
        self.jobs = [Job(action, about, list(left)) for action, about, left in state]
