"""The growth curves of `make bench`: how a cost grows with the number of CPUs, of interrupts that
are pending at once, and of traced events.

A curve has several series (armvirt and QEMU, or armvirt with several trace sinks). The value at a
point is the time of one action: the time of a run minus the time of a run that only starts, divided
by the number of actions. The runs of all series at a point alternate.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import bench_wide
from bench_rows import ACTIONS, OUR_ARGUMENTS, QEMU, ROOT, Command, our_command, qemu_command
from bench_run import Figures, Sample, figures, measure

from armvirt.events import Event, Stamp
from armvirt.machine import Machine

CPUS = (1, 2, 4, 8, 16)
SPIS = (1, 4, 16, 64, 224, 512, 988)
QEMU_SPIS = 224  # that GICD_TYPER of QEMU's board names
SHOTS = (1_000, 4_000, 16_000)
PER_SECOND = {"ms": 1e3, "us": 1e6}


class Job(NamedTuple):
    """The measurement of a series at one point: the value of the axis, the command, the command
    that only starts, and the number of actions."""

    x: int
    command: Command
    start: Command
    times: int


class Series(NamedTuple):
    """A line of a curve. ``job`` makes the measurement for a point; None: the series has no such
    point."""

    name: str
    job: Callable[[int], Job | None]


class Curve(NamedTuple):
    """A curve before the measurement: the cost ``what`` in ``unit``, for the ``points`` of
    ``axis``."""

    name: str
    what: str
    axis: str
    unit: str
    points: Sequence[int]
    series: Sequence[Series]


class Point(NamedTuple):
    """A measured value: the median and the quartiles of its runs."""

    x: int
    median: float
    low: float
    high: float


# -- the curves --


def on_cpus(name: str, times: int, qemu_times: int, whole: bool = False) -> list[Series]:
    """An action on a number of CPUs, under armvirt and QEMU. If ``whole`` is true, the value is the
    time of all actions together."""

    def job(program: Callable[..., Command], times: int, cpus: int) -> Job:
        guest = ACTIONS._replace(append=f"{name} {times}", cpus=cpus)
        start = program(guest._replace(append="nothing"))
        return Job(cpus, program(guest), start, 1 if whole else times)

    return [
        Series("armvirt", lambda cpus: job(our_command, times, cpus)),
        Series("qemu", lambda cpus: job(qemu_command, qemu_times, cpus)),
    ]


def wide_command(append: str) -> Command:
    """armvirt on the board with the most SPIs."""
    tool = str(ROOT / "tools" / "bench_wide.py")
    machine = [*OUR_ARGUMENTS, "--board", bench_wide.NAME, "--cpus", "1"]
    words = [sys.executable, tool, "run", str(ACTIONS.image), *machine, "--append", append]
    return Command(words, ACTIONS.says)


def our_pending(spis: int) -> Job:
    times = 5_000
    return Job(spis, wide_command(f"pending {times} {spis}"), wide_command("nothing"), times)


def qemu_pending(spis: int) -> Job | None:
    if spis > QEMU_SPIS:
        return None
    times = 200_000
    guest = ACTIONS._replace(append=f"pending {times} {spis}")
    return Job(spis, qemu_command(guest), qemu_command(guest._replace(append="nothing")), times)


@cache
def events(append: str) -> int:
    """The number of trace events of a run of `bench-actions`."""
    count = 0

    def sink(_stamp: Stamp, _event: Event) -> None:
        nonlocal count
        count += 1

    with Machine(ACTIONS.image, append=append, cpus=1, trace_hash=False, sinks=[sink]) as machine:
        machine.run()
    return count


def traced(options: Sequence[str]) -> Callable[[int], Job]:
    """A number of timer interrupts, with the options of a trace sink."""

    def command(append: str) -> Command:
        words, says, _ = our_command(ACTIONS._replace(append=append))
        return Command([*words, *options], says)

    def job(shots: int) -> Job:
        append = f"shot-asleep {shots}"
        count = events(append) - events("nothing")
        return Job(count, command(append), command("nothing"), count)

    return job


def curves(folder: Path) -> list[Curve]:
    """All curves; trace files are written to ``folder``."""
    return [
        Curve(
            "shared",
            "200 million instructions, shared out to the CPUs",
            "CPUs",
            "ms",
            CPUS,
            on_cpus("share", 40_000_000, 40_000_000, whole=True),
        ),
        Curve(
            "sleepers",
            "a timer of 20 us on one CPU, the others asleep",
            "CPUs",
            "us",
            CPUS,
            on_cpus("sleepers", 20_000, 3_000),
        ),
        Curve(
            "pending",
            "acknowledge and end one of the SPIs that are pending",
            "SPIs pending at once",
            "us",
            SPIS,
            [Series("armvirt", our_pending), Series("qemu", qemu_pending)],
        ),
        Curve(
            "events",
            "a run with a trace sink, for each event",
            "events",
            "us",
            SHOTS,
            [
                Series("none", traced([])),
                Series("hash", traced(["--trace-hash"])),
                Series("jsonl", traced(["--trace", str(folder / "events.jsonl")])),
            ],
        ),
    ]


NAMES = tuple(curve.name for curve in curves(Path()))


# -- the measurement --


def available(curve: Curve) -> list[Series]:
    """The series that this host can measure."""
    return [each for each in curve.series if each.name != "qemu" or shutil.which(QEMU)]


def point(job: Job, starts: Sequence[Sample], samples: Sequence[Sample], unit: str) -> Point:
    """The cost of one action."""
    start = figures([each.seconds for each in starts]).median
    scale = PER_SECOND[unit] / job.times
    found: Figures = figures([(each.seconds - start) * scale for each in samples])
    return Point(job.x, *found)


def measure_point(curve: Curve, at: int, runs: int) -> dict[str, Point]:
    """The values of all series at one point."""
    jobs = {each.name: job for each in available(curve) if (job := each.job(at))}
    both = [command for job in jobs.values() for command in (job.start, job.command)]
    samples = measure(both, runs)
    return {
        name: point(job, samples[2 * n], samples[2 * n + 1], curve.unit)
        for n, (name, job) in enumerate(jobs.items())
    }


def rows(curve: Curve, runs: int) -> Iterator[dict[str, Point]]:
    """Measure a curve, point by point. RuntimeError if a run fails."""
    for at in curve.points:
        yield measure_point(curve, at, runs)


# -- the table --


def heading(curve: Curve) -> str:
    names = "".join(f"{each.name:>14}" for each in curve.series)
    return f"{curve.what}\n{curve.axis:>22}{names}"


def table_line(curve: Curve, found: dict[str, Point]) -> str:
    """A line of the table: the value of the axis, and the median of each series."""
    texts = (
        f"{found[each.name].median:,.2f} {curve.unit}" if each.name in found else "-"
        for each in curve.series
    )
    x = next(iter(found.values())).x if found else 0
    return f"{x:>22,}" + "".join(f"{text:>14}" for text in texts)


def as_data(curve: Curve, found: Sequence[dict[str, Point]], runs: int) -> dict[str, object]:
    """A measured curve for the JSON file: each point is a list of x, median and quartiles."""
    series = {
        each.name: [list(at[each.name]) for at in found if each.name in at] for each in curve.series
    }
    head = {"name": curve.name, "what": curve.what, "axis": curve.axis, "unit": curve.unit}
    return {**head, "runs": runs, "series": series}


def measure_all(names: Sequence[str] | None, runs: int) -> Iterator[dict[str, object]]:
    """Measure the curves with these names (None: all), print their tables, and give their data.
    RuntimeError if a run fails."""
    with tempfile.TemporaryDirectory() as folder:
        for curve in curves(Path(folder)):
            if names and curve.name not in names:
                continue
            print(heading(curve), flush=True)
            found = []
            for row in rows(curve, runs):
                print(table_line(curve, row), flush=True)
                found.append(row)
            yield as_data(curve, found, runs)
