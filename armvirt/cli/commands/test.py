"""``armvirt test``: run guests in parallel and compare their results with the expected results."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any

from armvirt.cli import outputs, printing
from armvirt.cli.junit import report
from armvirt.cli.outputs import STANDARD_OUTPUT, write_bytes
from armvirt.cli.pool import run_all
from armvirt.errors import UserError
from armvirt.printable import printable
from armvirt.suite import collect as suite
from armvirt.suite.case import Case
from armvirt.suite.outcome import Outcome
from armvirt.units import human_time


def describe(outcome: Outcome, width: int) -> str:
    """The outcome of a guest in one line."""
    word = "ok   " if outcome.ok else "ERROR" if outcome.error else "FAIL "
    detail = f"{outcome.verdict}, {human_time(outcome.ns)}" if outcome.ok else outcome.headline
    detail += f", trace hash {outcome.trace_hash}" if outcome.ok and outcome.trace_hash else ""
    return f"{word} {printable(outcome.name):<{width}}  {outcome.seconds:6.2f} s  {detail}"


def failure(outcome: Outcome) -> list[str]:
    """Describe an outcome that is not as expected. The result is a list of lines."""
    lines = [f"--- {printable(outcome.name)}: {outcome.headline}"]
    for title, rows in outcome.details():
        lines += [f"  {title}:", *(f"    {row}" for row in rows)]
    return lines


def closing(outcomes: Sequence[Outcome], seconds: float) -> str:
    """The last line of the output: ``5 passed, 1 failed, 0 errors in 2.10 s``."""
    errors = sum(bool(outcome.error) for outcome in outcomes)
    passed = sum(outcome.ok for outcome in outcomes)
    return f"{passed} passed, {len(outcomes) - passed - errors} failed, {errors} errors in {seconds:.2f} s"


class PlainProgress:
    """Prints a line each time that a guest ends."""

    def __init__(self, cases: Sequence[Case]) -> None:
        self._width = max(len(printable(case.name)) for case in cases)

    def __enter__(self) -> PlainProgress:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        pass

    def started(self, case: Case) -> None:
        pass

    def finished(self, outcome: Outcome) -> None:
        printing.line(describe(outcome, self._width))
        printing.flush()


class RichProgress(PlainProgress):
    """Prints the lines of `PlainProgress` in colour, and below them a progress bar with the names
    of the running guests."""

    def __init__(self, cases: Sequence[Case]) -> None:
        super().__init__(cases)
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
        )

        names = TextColumn("{task.description}", markup=False)
        columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), names)
        self._bar: Any = Progress(*columns, transient=True)
        self._task = self._bar.add_task("", total=len(cases))
        self._running: list[str] = []

    def __enter__(self) -> RichProgress:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def started(self, case: Case) -> None:
        self._running.append(case.name)
        self._show()

    def finished(self, outcome: Outcome) -> None:
        from rich.text import Text

        self._running.remove(outcome.name)
        text = Text(describe(outcome, self._width), style="green" if outcome.ok else "bold red")
        printing.rich(self._bar.console, text)
        self._bar.advance(self._task)
        self._show()

    def _show(self) -> None:
        self._bar.update(self._task, description=", ".join(map(printable, self._running)))


def execute(arguments: argparse.Namespace) -> int:
    """Run the suites. Returns 0 if every result is as expected, else 1."""
    cases = suite.collect(arguments.paths)
    if arguments.junit == STANDARD_OUTPUT:
        raise UserError("--junit -: the report for people is on standard output; name a file")
    outputs.check(arguments, suite.inputs(arguments.paths, cases))
    jobs = min(arguments.j or os.cpu_count() or 1, len(cases))
    started = time.monotonic()
    kind = PlainProgress if arguments.plain or not sys.stdout.isatty() else RichProgress
    with kind(cases) as progress:
        outcomes = run_all(cases, jobs, progress.started, progress.finished)
    for outcome in outcomes:
        if not outcome.ok:
            printing.lines(["", *failure(outcome)])
    printing.lines(["", closing(outcomes, time.monotonic() - started)])
    if arguments.junit:
        write_bytes(arguments.junit, report(outcomes))
    return 0 if all(outcome.ok for outcome in outcomes) else 1
