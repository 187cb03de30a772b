"""The pytest plugin: a ``machine`` fixture, and guests collected as tests.

* ``machine("hello", cpus=2)`` makes a `Machine` with these arguments. The report of a failed test
  has the last console output of each machine that the test has made.
* Files named ``test_*.elf`` are tests: the guest has to pass.
* Folders listed in the ini option ``armvirt_guests`` are suites. The ``armvirt.toml`` of a folder
  has the expected results; without armvirt.toml every guest has to pass (`armvirt.suite.collect`).

pytest loads this plugin in every test run, also in projects that do not use armvirt. To keep these
test runs fast, the plugin imports no other module of armvirt until it collects the first guest or
makes the first machine.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from armvirt.machine import Machine
    from armvirt.suite.case import Case
    from armvirt.suite.outcome import Outcome, Tail

INI = "armvirt_guests"
MACHINES = pytest.StashKey[list[tuple["Machine", "Tail"]]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addini(INI, "folders whose guests armvirt runs as tests", type="paths", default=[])


# Guests as tests


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """Collect ``test_*.elf`` in any folder. In a folder that the ini option ``armvirt_guests``
    lists, collect only armvirt.toml, or each guest if there is no armvirt.toml."""
    in_suite = file_path.parent.resolve() in {
        Path(path).resolve() for path in parent.config.getini(INI)
    }
    if in_suite:
        described = (file_path.parent / "armvirt.toml").exists()
        wanted = file_path.name == "armvirt.toml" if described else _is_guest(file_path)
    else:
        wanted = file_path.name.startswith("test_") and file_path.suffix == ".elf"
    return GuestFile.from_parent(parent, path=file_path) if wanted else None


def _is_guest(path: Path) -> bool:
    from armvirt.suite.collect import GUEST_NAMES, GUEST_SUFFIXES

    return path.suffix in GUEST_SUFFIXES or path.name in GUEST_NAMES


class GuestFile(pytest.File):
    """A file that pytest collects: one guest, or an armvirt.toml with several guests."""

    def collect(self) -> Iterator[GuestItem]:
        from armvirt.errors import UserError
        from armvirt.suite.case import Case
        from armvirt.suite.toml import toml_cases

        try:
            described = self.path.suffix == ".toml"
            cases = toml_cases(self.path) if described else [Case(self.path.stem, str(self.path))]
        except UserError as error:
            raise self.CollectError(str(error)) from None
        for case in cases:
            yield GuestItem.from_parent(self, name=case.name, case=case)


class GuestItem(pytest.Item):
    """A test that runs one guest."""

    def __init__(self, *, case: Case, **more: Any) -> None:
        super().__init__(**more)
        self.case = case

    def runtest(self) -> None:
        from armvirt.suite.outcome import Tail, outcome_of

        started = time.monotonic()
        tail = Tail()
        machine = tail.attach(self.case.machine(sinks=[tail]))
        result = self.case.run(machine)
        outcome = outcome_of(self.case, machine, result, tail, time.monotonic() - started)
        if not outcome.ok:
            raise GuestFailure(outcome)

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        from armvirt.errors import UserError

        if isinstance(excinfo.value, (GuestFailure, UserError)):
            return str(excinfo.value)
        return super().repr_failure(excinfo)

    def reportinfo(self) -> tuple[Path, int | None, str]:
        return self.path, None, f"guest: {self.name}"


class GuestFailure(Exception):
    """Raised if a guest did not end as expected."""

    def __init__(self, outcome: Outcome) -> None:
        self.outcome = outcome
        super().__init__(outcome)

    def __str__(self) -> str:
        from armvirt.printable import escaped

        outcome = self.outcome
        lines = [escaped(f"{outcome.name}: {outcome.headline}")]
        for title, rows in outcome.details():
            lines += [f"{title}:", *(f"    {row}" for row in rows)]
        return "\n".join(lines)


# The fixture


@pytest.fixture
def machine(request: pytest.FixtureRequest) -> Callable[..., Machine]:
    """A fixture that makes machines. ``machine(image, **settings)`` has the arguments of
    `armvirt.machine.Machine`. The machine records its last events for the report."""
    made: list[tuple[Machine, Tail]] = []
    request.node.stash[MACHINES] = made

    def make(
        image: str | Path | None = None, *, sinks: Iterable[Any] = (), **settings: Any
    ) -> Machine:
        from armvirt.machine import Machine
        from armvirt.suite.outcome import Tail

        tail = Tail()
        machine = tail.attach(Machine(image, sinks=[*sinks, tail], **settings))
        made.append((machine, tail))
        return machine

    return make


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """If a test has failed, add to its report the last console output and the current state of the
    machines that the test made."""
    result: Any = yield
    report = result.get_result()
    if report.when != "call" or not report.failed:
        return
    made: list[tuple[Machine, Tail]] = item.stash.get(MACHINES, [])
    for number, (machine, tail) in enumerate(made, start=1):
        report.sections.append((f"armvirt machine {number}", _machine_text(machine, tail)))


def _machine_text(machine: Machine, tail: Tail) -> str:
    from armvirt.suite.outcome import machine_details

    lines = []
    for title, rows in machine_details(machine, tail):
        lines += [f"{title}:", *(f"    {row}" for row in rows)]
    return "\n".join(lines)
