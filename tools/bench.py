"""Measures how fast armvirt is, as a ratio to QEMU measured in the same minutes (never as seconds
alone).

    python tools/bench.py                      every row, 5 runs of each program
    python tools/bench.py --only hello         one row
    python tools/bench.py --runs 15 --json FILE
    python tools/bench.py --curves             how costs grow: tools/bench_curves.py

Runs of the programs alternate, so that a busy host slows all of them. A time is wall-clock time
from the start of the process to its end. A row shows the medians, and the spread of armvirt's
times: half the distance of their quartiles, in percent of the median; the JSON file has the
quartiles of each program. For a guest that repeats one action, the row shows the time of one
action in ns or us: the time of the guest minus the time of a guest that only starts (`hello`, or
`bench-actions` with the action `nothing`), divided by the number of actions. The row `smp8`
compares armvirt with itself: the same work on eight CPUs and on one. The row `lock` does, too: a
free lock that is taken with SEVL and WFE, and without them; the guest times are 99 and 97 ns, the
numbers of instructions.

QEMU runs with ``-icount shift=0,sleep=off``, so that its guest time is that of armvirt: 1 ns per
instruction. The column `plain` is QEMU without -icount: its guest time is the host's, and each of
its CPUs has a thread. This column is empty for guests that mostly wait for a time. All programs get
the same CPU model, GIC and memory. The exit status is 1 if a ratio to the first QEMU is above its
limit.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import bench_curves
from bench_rows import HELLO, TASKS, Guest, Task, commands, missing
from bench_run import Figures, Sample, figures, measure

RUNS = 5
PROGRAMS = ("armvirt", "qemu", "plain")
PER_SECOND = {"s": 1.0, "us": 1e6, "ns": 1e9}


class Row(NamedTuple):
    """One row of the table: medians in ``unit``, the ratios of armvirt to both ways of QEMU (0 if
    there is none), the limit as text, and whether the row is within the limit.

    If ``beside`` is true, ``qemu`` is the time of armvirt with the other guest.
    ``spread`` has the quartiles of each program. ``skipped`` is the reason for a row without values
    (its values are 0).
    """

    name: str
    what: str
    unit: str = "s"
    armvirt: float = 0.0
    qemu: float = 0.0
    ratio: float = 0.0
    plain: float = 0.0
    plain_ratio: float = 0.0
    wanted: str = ""
    holds: bool = True
    runs: int = 0
    beside: bool = False
    spread: dict[str, tuple[float, float]] = {}  # noqa: RUF012  # never changed
    skipped: str = ""


def values(task: Task, program: int, samples: Sequence[Sample], start: float) -> list[float]:
    """The samples of one program in the unit of the row; ``start`` is in seconds."""
    if task.unit == "MB":
        return [sample.megabytes for sample in samples]
    is_qemu = program > 0 and task.guest.beside is None
    times = (task.qemu_times if is_qemu else 0) or task.times
    scale = PER_SECOND[task.unit] / times
    return [(sample.seconds - start) * scale for sample in samples]


def starts(task: Task, samples: Sequence[Sequence[Sample]]) -> list[float]:
    """The seconds that each program needs to start; a guest beside starts as armvirt does."""
    medians = [figures([sample.seconds for sample in each]).median for each in samples]
    return medians if task.guest.beside is None else medians[:1] * 2


def row_of(
    task: Task, measured: Sequence[Sequence[Sample]], start: Sequence[Sequence[Sample]] = ()
) -> Row:
    """The row for the samples of each program. A row of one action also needs the samples of the
    guest that only starts."""
    begin = starts(task, start) if task.is_of_one else [0.0] * len(measured)
    found = [figures(values(task, n, each, begin[n])) for n, each in enumerate(measured)]
    beside = task.guest.beside is not None
    row = Row(task.name, task.what, task.unit, runs=len(measured[0]), beside=beside)
    row = row._replace(spread=spreads(found))
    ours, theirs = found[0].median, found[1].median
    row = row._replace(armvirt=ours, qemu=theirs, ratio=ratio(ours, theirs))
    if len(found) > 2:
        row = row._replace(plain=found[2].median, plain_ratio=ratio(ours, found[2].median))
    return judged(row, task.limit)


def spreads(found: Sequence[Figures]) -> dict[str, tuple[float, float]]:
    """The quartiles by program."""
    return {name: (each.low, each.high) for name, each in zip(PROGRAMS, found, strict=False)}


def ratio(ours: float, theirs: float) -> float:
    """``ours / theirs``; infinite if nothing was measurable, as a difference may be 0 or less."""
    return ours / theirs if theirs > 0 else float("inf")


def judged(row: Row, limit: float | None) -> Row:
    """``row`` with its limit."""
    if limit is None:
        return row._replace(wanted="-")
    value, mark = (row.armvirt, " MB") if row.unit == "MB" else (row.ratio, "x")
    return row._replace(wanted=f"<= {limit:g}{mark}", holds=value <= limit)


def skipped(task: Task, reason: str) -> Row:
    return Row(task.name, task.what, task.unit, skipped=reason)


def rows(tasks: Iterable[Task], runs: int) -> Iterator[Row]:
    """Measure each row that can be measured; tasks with the same guest share its runs."""
    measured: dict[tuple[Guest, bool], list[list[Sample]]] = {}
    for task in tasks:
        if reason := missing(task):
            yield skipped(task, reason)
            continue
        try:
            if not measured:
                measure(commands(HELLO), 1)  # not counted: compiles the bytecode
            for guest in task.guests():
                if (guest, task.plain) not in measured:
                    measured[guest, task.plain] = measure(commands(guest, task.plain), runs)
        except RuntimeError as error:
            yield skipped(task, str(error))._replace(holds=False)
        else:
            yield row_of(task, *(measured[guest, task.plain] for guest in task.guests()))


# -- the table --

HEADER = ("what", "armvirt", "spread", "qemu", "ratio", "plain", "ratio", "wanted", "holds")
WIDTHS = (42, 10, 6, 10, 7, 10, 7, 9, 5)
DIGITS = {"s": 3, "MB": 1, "us": 1, "ns": 0}


def line(cells: Sequence[str]) -> str:
    """A line of the table: the first column is left-aligned, the others are right-aligned."""
    first, *others = (f"{cell:{'<' if n == 0 else '>'}{WIDTHS[n]}}" for n, cell in enumerate(cells))
    return "  ".join([first, *others]).rstrip()


def cells(row: Row) -> tuple[str, ...]:
    """The texts of a row: seconds with three digits after the point, megabytes and microseconds
    with one, nanoseconds with none."""
    ours, theirs, plain = (
        f"{n:,.{DIGITS[row.unit]}f} {row.unit}" for n in (row.armvirt, row.qemu, row.plain)
    )
    spread = f"{Figures(row.armvirt, *row.spread['armvirt']).spread:.0%}"
    beside = (plain, ratio_text(row.plain_ratio)) if "plain" in row.spread else ("", "")
    holds = "-" if row.wanted == "-" else "yes" if row.holds else "NO"
    return row.what, ours, spread, theirs, ratio_text(row.ratio), *beside, row.wanted, holds


def ratio_text(ratio: float) -> str:
    """A ratio with two digits after the point; below 0.1, with two digits that are not 0."""
    return f"{ratio:.2g}" if 0.0001 <= ratio < 0.1 else f"{ratio:.2f}"


def table_line(row: Row) -> str:
    if row.skipped:
        return f"{row.what:{WIDTHS[0]}}  {'skipped' if row.holds else 'FAILED'}: {row.skipped}"
    return line(cells(row))


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Compare armvirt's speed with QEMU's.")
    parser.add_argument(
        "--runs", type=int, default=RUNS, metavar="N", help=f"runs of each program (default {RUNS})"
    )
    parser.add_argument(
        "--curves",
        action="store_true",
        help="measure how costs grow with CPUs, pending interrupts and events, instead of the rows",
    )
    names = ", ".join(task.name for task in TASKS)
    parser.add_argument(
        "--only",
        metavar="NAME",
        action="append",
        help=f"measure only this row ({names}) or this curve ({', '.join(bench_curves.NAMES)})",
    )
    parser.add_argument("--json", metavar="FILE", help="also write the rows or curves to FILE")
    options = parser.parse_args(argv)
    if options.runs < 1:
        parser.error("--runs must be at least 1")
    known = bench_curves.NAMES if options.curves else [task.name for task in TASKS]
    for name in options.only or ():
        if name not in known:
            parser.error(f"argument --only: there is no {name!r}; choose from {', '.join(known)}")
    return options


def as_data(row: Row) -> dict[str, object]:
    """A row for the JSON file; JSON has no infinity, so a ratio without a value is null."""
    return {name: None if value == float("inf") else value for name, value in row._asdict().items()}


def write_json(file: str | None, data: Sequence[dict[str, object]]) -> None:
    if file:
        Path(file).write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")


def measure_rows(only: Sequence[str] | None, runs: int) -> list[Row]:
    """Measure the rows with these names (None: all), and print them."""
    print(line(HEADER), flush=True)
    done = []
    for row in rows([task for task in TASKS if not only or task.name in only], runs):
        print(table_line(row), flush=True)
        done.append(row)
    return done


def main(argv: Sequence[str] | None = None) -> int:
    options = parse(argv)
    if options.curves:
        try:
            write_json(options.json, list(bench_curves.measure_all(options.only, options.runs)))
        except RuntimeError as error:
            print(error, file=sys.stderr)
            return 1
        return 0
    done = measure_rows(options.only, options.runs)
    write_json(options.json, [as_data(row) for row in done])
    return 0 if all(row.holds for row in done) else 1


if __name__ == "__main__":
    sys.exit(main())
