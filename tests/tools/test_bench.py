"""The arithmetic of the table of `make bench`. No test asserts a time."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import bench
import pytest
from bench import Guest, Row, Sample, Task

TIMED = Task("t", "a timed thing", Guest(Path("guest.elf")), 2.0)
WEIGHED = Task("w", "a weighed thing", Guest(Path("guest.elf")), 120.0, "MB")


def pairs(ours: list[float], theirs: list[float]) -> list[tuple[Sample, Sample]]:
    return [(Sample(a, a * 10), Sample(b, b * 10)) for a, b in zip(ours, theirs, strict=True)]


def test_a_row_has_the_ratio_of_the_medians() -> None:
    row = bench.row_of(TIMED, pairs([3.0, 9.0, 2.0], [2.0, 1.0, 7.0]))
    assert row == Row("t", "a timed thing", "s", 3.0, 2.0, 1.5, "<= 2x", True, 3)


@pytest.mark.parametrize(("ours", "holds"), [(3.9, True), (4.0, True), (4.1, False)])
def test_a_ratio_holds_up_to_its_limit(ours: float, holds: bool) -> None:
    assert bench.row_of(TIMED, pairs([ours], [2.0])).holds is holds


@pytest.mark.parametrize(("tens", "holds"), [(12.0, True), (12.1, False)])
def test_memory_is_judged_by_our_amount(tens: float, holds: bool) -> None:
    row = bench.row_of(WEIGHED, pairs([tens], [1.0]))
    assert (row.armvirt, row.qemu, row.wanted, row.holds) == (tens * 10, 10.0, "<= 120 MB", holds)


def test_the_table_is_aligned() -> None:
    row = bench.row_of(TIMED, pairs([3.0], [2.0]))
    heavy = bench.row_of(WEIGHED, pairs([13.0], [1.0]))
    assert [bench.line(bench.HEADER), bench.table_line(row), bench.table_line(heavy)] == [
        "what                                           armvirt        qemu    ratio      wanted  holds",
        "a timed thing                                  3.000 s     2.000 s     1.50       <= 2x    yes",
        "a weighed thing                               130.0 MB     10.0 MB    13.00   <= 120 MB     NO",
    ]


def test_what_one_of_many_costs_is_without_the_start_of_the_program() -> None:
    task = TIMED._replace(unit="ns", times=1_000_000, limit=None)
    row = bench.row_of(task, pairs([3.0], [1.5]), pairs([1.0], [1.0]))
    assert (row.armvirt, row.qemu, row.ratio, row.holds) == (
        pytest.approx(2000),
        pytest.approx(500),
        4.0,
        True,
    )
    assert bench.table_line(row).split()[3:] == ["2,000", "ns", "500", "ns", "4.00", "-", "-"]


def test_a_guest_beside_starts_as_armvirt_does() -> None:
    """Not as QEMU, whose `hello` is no part of the comparison."""
    task = TIMED._replace(unit="ns", times=1_000_000, guest=bench.LOCK)
    row = bench.row_of(task, pairs([3.0], [2.0]), pairs([1.0], [0.1]))
    assert (row.armvirt, row.qemu) == (pytest.approx(2000), pytest.approx(1000))
    assert "--append plain" in " ".join(bench.other_command(bench.LOCK))


def test_a_row_without_its_guest_is_skipped_with_the_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bench.shutil, "which", lambda name: "/usr/bin/" + name)
    task = TIMED._replace(guest=Guest(bench.FETCHED / "no such Image"))
    (row,) = bench.rows([task], 1)
    line = bench.table_line(row)
    assert (
        line.split(None, 3)[3] == "skipped: .cache/guests/no such Image is missing; run make guests"
        and row.holds
    )


def test_without_qemu_every_row_is_skipped(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(bench.shutil, "which", lambda _name: None)
    assert bench.main(["--json", str(tmp_path / "rows.json")]) == 0
    assert capsys.readouterr().out.count("skipped: qemu-system-aarch64 is not installed") == len(
        bench.TASKS
    )
    rows = json.loads((tmp_path / "rows.json").read_text(encoding="utf-8"))
    assert [row["name"] for row in rows] == [task.name for task in bench.TASKS]


def test_tasks_of_one_guest_share_its_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    measured: list[tuple[str, int]] = []

    def measure(guest: Guest, runs: int) -> list[tuple[Sample, Sample]]:
        measured.append((guest.image.name, runs))
        return pairs([1.0] * runs, [1.0] * runs)

    monkeypatch.setattr(bench, "measure", measure)
    monkeypatch.setattr(bench, "missing", lambda _task: None)
    assert [
        row.runs for row in bench.rows([t for t in bench.TASKS if t.guest == bench.HELLO], 5)
    ] == [5, 5]
    assert measured == [("hello.elf", 1), ("hello.elf", 5)]


def test_a_run_that_fails_is_no_measurement() -> None:
    fails = [sys.executable, "-c", "import sys; print('VERDICT: PASS'); sys.exit(3)"]
    silent = [sys.executable, "-c", "print('something else')"]
    with pytest.raises(RuntimeError, match="ended with 3: VERDICT: PASS"):
        bench.run(fails, b"VERDICT: PASS")
    with pytest.raises(RuntimeError, match="ended with 0: something else"):
        bench.run(silent, b"VERDICT: PASS")


def test_a_failed_run_makes_the_bench_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    def measure(_guest: Guest, _runs: int) -> list[tuple[Sample, Sample]]:
        raise RuntimeError("armvirt ended with 3: stuck")

    monkeypatch.setattr(bench, "measure", measure)
    monkeypatch.setattr(bench, "missing", lambda _task: None)
    (row,) = bench.rows([TIMED], 1)
    assert (
        bench.table_line(row)
        == "a timed thing                               FAILED: armvirt ended with 3: stuck"
    )
    assert not row.holds


def test_both_programs_get_the_same_machine() -> None:
    ours, theirs = bench.our_command(bench.LINUX), bench.qemu_command(bench.LINUX)
    assert ours[2:5] == ["armvirt", "run", str(bench.LINUX.image)]
    assert (
        "autorun" in bench.LINUX.append
        and bench.LINUX.append in ours
        and bench.LINUX.append in theirs
    )
    assert ours[ours.index("--mem") + 1] == theirs[theirs.index("-m") + 1]
    assert "shift=0,sleep=off" in theirs
    assert ours[ours.index("--cpus") + 1] == theirs[theirs.index("-smp") + 1] == "1"


def test_a_guest_beside_runs_under_armvirt(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same image with other CPUs; QEMU has no part in it."""
    task, _lock = (task for task in bench.TASKS if task.guest.beside is not None)
    assert task.guest.beside is not None and task.guest.beside.image == task.guest.image
    started: list[list[str]] = []

    def run(command: list[str], _says: bytes) -> Sample:
        started.append(command)
        return Sample(float(len(started)), 10.0 * len(started))

    monkeypatch.setattr(bench, "run", run)
    assert bench.measure(task.guest, 2) == pairs([1.0, 3.0], [2.0, 4.0])
    assert [command[command.index("--cpus") + 1] for command in started] == ["8", "1"] * 2
    assert all("armvirt" in command for command in started)
