"""The guest `bench-actions`: every action that a row of `make bench` names does what it counts."""

from __future__ import annotations

import re

import bench_rows
import pytest
from conftest import require_native
from guest_runs import guest

from armvirt.machine import Machine, Result

NAME = "bench-actions"
ROWS = {
    task.name: task for task in bench_rows.TASKS if task.guest.image == bench_rows.ACTIONS.image
}
NOTED = re.compile(r"^  (\S+): (\d+) times, (\d+) ns of guest time each\r?$", re.MULTILINE)
LIMIT_NS, TIMEOUT_S = 1_000_000_000, 60
COUNT = 12


def run(append: str = "", **options: object) -> Result:
    with Machine(NAME, append=append, **options) as machine:
        return machine.run(max_time_ns=LIMIT_NS, timeout_s=TIMEOUT_S)


def test_each_row_names_an_action_of_the_guest() -> None:
    """A guest without a name repeats each action a few times."""
    result = run()
    assert result.verdict == "pass", result.console
    assert {name for name, _, _ in NOTED.findall(result.console)} >= {*ROWS, "nothing"}
    assert result.console.count("ok - ") == len(NOTED.findall(result.console))


def test_engines_agree_on_every_action() -> None:
    require_native()
    assert run(engine="native") == run(engine="portable")


@pytest.mark.parametrize("name", [*ROWS, "share", "sleepers"])
def test_an_action_is_repeated_as_often_as_asked(name: str) -> None:
    """On as many CPUs as its row has, and the row says how often the action is repeated."""
    task = ROWS.get(name)
    result = run(f"{name} {COUNT}", cpus=task.guest.cpus if task else guest(NAME).cpus)
    assert result.verdict == "pass", result.console
    ((noted, times, _ns),) = NOTED.findall(result.console)
    assert (noted, int(times)) == (name, COUNT)
    if task is not None:
        assert task.guest.append == f"{name} {task.times}"
        qemu = f"{name} {task.qemu_times}" if task.qemu_times else None
        assert task.guest.qemu_append == qemu


@pytest.mark.parametrize("cpus", [1, 3, 16])
def test_the_cpus_share_the_work(cpus: int) -> None:
    result = run("hand-over 40", cpus=cpus)
    assert result.verdict == "pass", result.console
    assert run("share 10001", cpus=cpus).verdict == "pass"


@pytest.mark.parametrize("gic", [2, 3])
@pytest.mark.parametrize("spis", [1, 33, 256])
def test_as_many_spis_are_pending_at_once_as_asked(spis: int, gic: int) -> None:
    """The last round has fewer, if the count is no multiple."""
    result = run(f"pending 300 {spis}", cpus=1, gic=gic)
    assert result.verdict == "pass", result.console


@pytest.mark.parametrize(
    ("append", "sentence"),
    [
        ("nonsense", "the command line names an action"),
        ("mmio few", "a count is a decimal number"),
        ("pending 1000 257", "the GIC has 256 SPIs"),
    ],
)
def test_a_mistake_in_the_command_line_fails_the_guest(append: str, sentence: str) -> None:
    result = run(append)
    assert result.verdict == "fail" and f"FAIL - {sentence}" in result.console
