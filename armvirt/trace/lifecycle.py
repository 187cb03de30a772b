"""The stages of an interrupt, from the rising line to the end of interrupt. This module has the
data; `armvirt.trace.render` displays it.

Stages, in the order in which KVM, the virtual CPU interface and the guest perform them:

    fire      the timer's output rises, or a line or message reaches the vGIC
    list      the hypervisor puts the interrupt into a list register
    deliver   EL1 takes the IRQ or FIQ exception
    ack       the guest reads IAR and gets this INTID
    eoi       the guest writes EOIR

A timer's line also falls when vcpu_put removes the timer from the PE, and rises when vcpu_load
restores the timer. The trace has both events, because the line of real hardware changes, too. These
two events are not stages of an interrupt, because CTL and CVAL of the guest's timer have not
changed. `Parking` finds these events.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

from armvirt.events import Schedule, Stamp, TimerLine
from armvirt.records import NamedTuple

STAGES = ("fire", "list", "deliver", "ack", "eoi")
STEPS = (("fire", "deliver"), ("deliver", "ack"), ("ack", "eoi"), ("fire", "eoi"))


@dataclass(slots=True)
class Life:
    """One occurrence of an interrupt on a vCPU, with the time of each stage (`STAGES`). A stage
    that has not happened yet is None. ``deliver`` is also None if the vCPU took the exception for
    another interrupt."""

    intid: int
    vcpu: int
    fire: Stamp | None = None
    list: Stamp | None = None
    deliver: Stamp | None = None
    ack: Stamp | None = None
    eoi: Stamp | None = None

    def latency(self, start: str, end: str) -> Latency | None:
        """The time from one stage to a later stage. ``start`` and ``end`` are the names of the two
        stages. None if one of the two stages has not happened."""
        first: Stamp | None = getattr(self, start)
        last: Stamp | None = getattr(self, end)
        if first is None or last is None:
            return None
        # Each vCPU counts its own instructions, so only two counts of the same vCPU can be
        # compared.
        return Latency(
            last.ns - first.ns, last.insns - first.insns if first.vcpu == last.vcpu else None
        )


class Latency(NamedTuple):
    """The time between two stages of an interrupt: virtual time in ns, and instructions of the
    vCPU. ``insns`` is None if the stages happened on different vCPUs."""

    ns: int
    insns: int | None


class Statistics(NamedTuple):
    """The minimum, median and maximum of a set of values. ``total`` is the number of values."""

    total: int
    least: int
    middle: int
    greatest: int


def statistics(values: Sequence[int]) -> Statistics | None:
    """The statistics of ``values``. None if there are no values."""
    return (
        Statistics(len(values), min(values), int(median(values)), max(values)) if values else None
    )


class Summary(NamedTuple):
    """Statistics of all occurrences of one interrupt. ``fired``, ``acknowledged`` and ``ended`` are
    counts of occurrences. ``period_ns`` has statistics of the time between two successive fire
    stages. The keys of ``steps`` are pairs of stages (from, to). The values are statistics of the
    time between the two stages, in ns and in instructions. Statistics are None if there are no
    values."""

    intid: int
    fired: int
    acknowledged: int
    ended: int
    period_ns: Statistics | None
    steps: dict[tuple[str, str], tuple[Statistics | None, Statistics | None]]


def summarize(lives: Iterable[Life]) -> list[Summary]:
    """A summary for each INTID, sorted by INTID."""
    groups: dict[int, list[Life]] = {}
    for life in lives:
        groups.setdefault(life.intid, []).append(life)
    return [_summary(intid, groups[intid]) for intid in sorted(groups)]


def _summary(intid: int, lives: list[Life]) -> Summary:
    return Summary(
        intid,
        fired=_count(lives, lambda life: life.fire),
        acknowledged=_count(lives, lambda life: life.ack),
        ended=_count(lives, lambda life: life.eoi),
        period_ns=statistics(_periods(lives)),
        steps={step: _step(lives, *step) for step in STEPS},
    )


def _count(lives: list[Life], stage: Callable[[Life], Stamp | None]) -> int:
    return sum(stage(life) is not None for life in lives)


def _periods(lives: list[Life]) -> list[int]:
    """The times, in ns, between two consecutive fire stages on the same vCPU."""
    fired: dict[int, list[int]] = {}
    for life in lives:
        if life.fire is not None:
            fired.setdefault(life.vcpu, []).append(life.fire.ns)
    return [after - before for times in fired.values() for before, after in pairwise(times)]


def _step(lives: list[Life], start: str, end: str) -> tuple[Statistics | None, Statistics | None]:
    latencies = [latency for life in lives if (latency := life.latency(start, end))]
    insns = [latency.insns for latency in latencies if latency.insns is not None]
    return statistics([latency.ns for latency in latencies]), statistics(insns)


class Parking:
    """Finds the `TimerLine` events that vcpu_put and vcpu_load cause. These events are not stages
    of an interrupt, because the guest's timer has not changed. `Schedule` events show when a vCPU
    is put and loaded."""

    def __init__(self) -> None:
        self._put: dict[int, int] = {}  # by vCPU that is not loaded: time of its vcpu_put in ns
        self._parked: set[tuple[int, str]] = set()  # lines that were high at vcpu_put

    def schedule(self, stamp: Stamp, event: Schedule) -> list[str]:
        """Record a `Schedule` event. If the event is the vcpu_load of a vCPU, return the names of
        the timers whose line was high at the previous vcpu_put and did not rise at this vcpu_load.
        For any other event, return an empty list."""
        if event.what == "put":
            self._put[event.target] = stamp.ns
        if event.what != "load":
            return []
        self._put.pop(event.target, None)
        fallen = [line for line in self._parked if line[0] == event.target]
        self._parked.difference_update(fallen)
        return sorted(timer for _, timer in fallen)

    def hides(self, stamp: Stamp, event: TimerLine) -> bool:
        """True if vcpu_put or vcpu_load caused this change of a timer's line. Such a change is not
        a stage of an interrupt."""
        line = stamp.vcpu, event.timer
        if event.level:
            parked = line in self._parked
            self._parked.discard(line)
            return parked
        if self._put.get(stamp.vcpu) != stamp.ns:
            return False
        self._parked.add(line)
        return True
