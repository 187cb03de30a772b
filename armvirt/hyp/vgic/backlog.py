"""The work on many LPIs that a vGIC still has to do. In this package, a job is one action on many
LPIs. A job is done in slices, so that one guest access does a limited amount of work.

There are up to 57,344 LPIs. Some guest accesses can concern all LPIs: a write of
GICR_CTLR.EnableLPIs, a write of GICR_INVALLR, and the ITS commands MAPC, MAPD, INVALL and MOVALL.
Such an access makes a job, which has a list of INTIDs. The work on one INTID of this list counts as
one step. One guest access does at most `STEPS` steps. If a job is left, the next guest accesses to
an ITS or to a frame RD_base continue the job. A timer also continues the job, `SLICE_NS` ns of
virtual time later. The speed of the real machine has no influence. Jobs are part of the saved
state.

The guest can see that a job is left. GITS_CREADR does not advance past the ITS command that made
the job. GICR_SYNCR.Busy is 1. GICR_CTLR.RWP is 1 on a redistributor with EnableLPIs = 0. The
architecture allows LPIs to change one by one (IHI 0069 5.3.5 and 12.11).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Protocol

STEPS = 512
RELEASE = "release"
SLICE_NS = 10_000
SCAN = 64  # LPIs, events or devices that a walk passes and that count as one step


class Job:
    """One action on many LPIs. ``action`` is a key of `lpi.ACTIONS`. ``about`` is the argument of
    the action (plain data, for example a vCPU id). ``left`` has the INTIDs of the LPIs to which the
    action has not been applied yet, in order. An INTID is skipped if its LPI no longer exists."""

    __slots__ = ("about", "action", "left")

    def __init__(self, action: str, about: Any, left: list[int]) -> None:
        self.action, self.about, self.left = action, about, left


class Worker(Protocol):
    """The interface to `lpi.LpiWorker`, which applies the actions of jobs to LPIs. A job is one
    action on many LPIs."""

    def run(self, action: str, about: Any, intids: list[int]) -> None:
        """Apply an action to the LPIs with these INTIDs. ``action`` is a key of `lpi.ACTIONS`.
        ``about`` is the argument of the action, for example a vCPU id."""

    def take_up(self) -> None:
        """Start the jobs for the writes of GICR_CTLR.EnableLPIs and GICR_INVALLR that the guest
        made while another job was under way. A job is one action on many LPIs. The backlog calls
        this function when all its jobs are done."""


class Backlog:
    """The jobs of one vGIC. A job is one action on many LPIs. The jobs are done in the order of
    ``jobs``; the first job is under way.

    A step is the work on one LPI. ``limit`` is the number of steps that one guest access may do.
    ``steps`` is the number of steps that the present guest access may still do. If these steps are
    used up and jobs are left, the backlog calls ``later()``, which arms a timer that continues the
    jobs. ``worker`` applies the actions of the jobs to LPIs; it is None before the first ITS is
    added.
    """

    __slots__ = ("jobs", "later", "limit", "steps", "worker")

    def __init__(self, later: Callable[[], None]) -> None:
        self.jobs: list[Job] = []
        self.limit = self.steps = STEPS
        self.later = later
        self.worker: Worker | None = None

    def begin(self) -> None:
        """Set ``steps`` to ``limit``, and use these steps first for the jobs that earlier accesses
        left. This method is called at the start of a guest access, and when the timer that
        continues the jobs expires. A step is the work on one LPI."""
        self.steps = self.limit
        if self.jobs:
            self.work()

    def spend(self, entries: int) -> None:
        """Count a walk over ``entries`` objects (LPIs, events or devices) as work of the present
        guest access. `SCAN` objects count as one step. A step is the work on one LPI."""
        self.steps -= entries // SCAN

    def add(self, action: str, about: Any, intids: Iterable[int]) -> None:
        """Queue a job, which applies an action to the LPIs with these INTIDs. The present guest
        access does the job at once, up to its limit of work. Later accesses and a timer do the
        rest."""
        left = list(intids)
        self.spend(len(left))
        if left:
            self.jobs.append(Job(action, about, left))
            self.work()

    def work(self) -> None:
        """Do the jobs in order, until the present guest access has reached its limit of work. A job
        is one action on many LPIs."""
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
        """Restore the jobs from the result of `state`. The timer that continues the jobs is not in
        this result, because the clock of the emulated host saves its timers."""
        self.jobs = [Job(action, about, list(left)) for action, about, left in state]
