"""Work on LPIs that is too long for one access of the guest.

There are up to 57,344 LPIs, and an access may ask for something to be done to all of them:
GICR_CTLR.EnableLPIs, GICR_INVALLR, and the commands MAPC, MAPD, INVALL and MOVALL. So such an
access leaves a job, a list of INTIDs to go through. An access does `STEPS` of it (an LPI, or an
event, is a step); what is left is done at the guest's next accesses to the ITS or to the registers
of LPIs, and every `SLICE_NS` of guest time. Nothing depends on the host's clock, and jobs are part
of the state.

The guest sees that work goes on: GITS_CREADR stays at the command, GICR_CTLR.RWP and
GICR_SYNCR.Busy read as 1. That LPIs change one by one is what the architecture lets an ITS and a
redistributor do (IHI 0069 5.3.5 and 12.11).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from armvirt.hyp.vgic.its.lpi import Lpi
    from armvirt.hyp.vgic.vgic import Vgic

STEPS = 512
RELEASE = "release"
SLICE_NS = 10_000
SCAN = 64  # entries of a map that are looked through count as a step

Action = Callable[["Vgic", Any, "list[Lpi]"], None]


class Job:
    """``action`` is a name in `its.lpi.ACTIONS`, ``about`` its argument (plain data), ``left`` the
    INTIDs to be done, in order; one that is no LPI any more is passed over."""

    __slots__ = ("about", "action", "left")

    def __init__(self, action: str, about: Any, left: list[int]) -> None:
        self.action, self.about, self.left = action, about, left


class Backlog:
    """The jobs of one vGIC, the first of them under way. ``later`` is called when something is
    left. ``limit`` is how many steps an access has, ``steps`` how many are left of them."""

    __slots__ = ("_vgic", "jobs", "later", "limit", "steps")

    def __init__(self, vgic: Vgic) -> None:
        self._vgic = vgic
        self.jobs: list[Job] = []
        self.limit = self.steps = STEPS
        self.later: Callable[[], None] = lambda: None

    def begin(self) -> None:
        """An access of the guest, or a slice of guest time, begins: it has ``limit`` steps, for
        what is left first."""
        self.steps = self.limit
        if self.jobs:
            self.work()

    def spend(self, entries: int) -> None:
        """So many entries of a map were looked through."""
        self.steps -= entries // SCAN

    def add(self, action: str, about: Any, intids: Iterable[int]) -> None:
        """Do something to LPIs: now, as far as the steps of this access go, and in order."""
        left = list(intids)
        self.spend(len(left))
        if left:
            self.jobs.append(Job(action, about, left))
            self.work()

    def work(self) -> None:
        """Do what the steps allow."""
        from armvirt.hyp.vgic.its import lpi

        vgic = self._vgic
        while self.jobs and self.steps > 0:
            job = self.jobs[0]
            batch = job.left[: self.steps]
            del job.left[: len(batch)]
            self.steps -= len(batch)
            lpi.ACTIONS[job.action](
                vgic, job.about, [vgic.lpis[intid] for intid in batch if intid in vgic.lpis]
            )
            if not job.left:
                del self.jobs[0]
        if not self.jobs:
            lpi.take_up(vgic)
        if self.jobs:
            self.later()

    def state(self) -> list[list[Any]]:
        return [[job.action, job.about, list(job.left)] for job in self.jobs]

    def load(self, state: list[list[Any]]) -> None:
        """Take over `state`; the LPIs are there, with the references of the maps. When `Vgic.go_on`
        is called is saved elsewhere, as an entry of the host's clock."""
        self.jobs = [Job(action, about, list(left)) for action, about, left in state]
        for job in self.jobs:
            if job.action == RELEASE:  # events that are in no map any more still hold their LPIs
                for intid in job.left:
                    self._vgic.lpis[intid].references += 1
