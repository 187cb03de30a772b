"""The arithmetic of the table of `make bench`. No test asserts a time."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import bench
import bench_rows
import bench_run
import pytest
from bench import Row
from bench_rows import Command, Guest, Task
from bench_run import Figures, Sample

TIMED = Task("t", "a timed thing", Guest(Path("guest.elf")), 2.0)
WEIGHED = Task("w", "a weighed thing", Guest(Path("guest.elf")), 120.0, "MB")
ONE_OF_MANY = TIMED._replace(unit="ns", times=1_000_000, limit=None)
Samples = list[list[Sample]]


def samples(*programs: Sequence[float]) -> Samples:
    """The samples of each program: seconds, and ten times as many megabytes."""
    return [[Sample(n, n * 10) for n in seconds] for seconds in programs]


def test_a_row_has_the_ratio_of_the_medians_and_the_quartiles() -> None:
    row = bench.row_of(TIMED, samples([3.0, 9.0, 2.0], [2.0, 1.0, 7.0]))
    spread = {"armvirt": (2.5, 6.0), "qemu": (1.5, 4.5)}
    assert row == Row(
        "t", "a timed thing", "s", 3.0, 2.0, 1.5, wanted="<= 2x", runs=3, spread=spread
    )


@pytest.mark.parametrize(
    ("values", "expected"),
    [([7.0], (7.0, 7.0, 7.0)), ([1.0, 3.0], (2.0, 1.5, 2.5)), ([5.0, 1, 2, 4, 3], (3.0, 2.0, 4.0))],
)
def test_the_quartiles_of_a_few_runs(
    values: list[float], expected: tuple[float, float, float]
) -> None:
    assert bench_run.figures(values) == Figures(*expected)


def test_a_spread_is_half_the_distance_of_the_quartiles() -> None:
    assert Figures(4.0, 3.0, 5.0).spread == 0.25
    assert Figures(-4.0, -5.0, -3.0).spread == 0.25
    assert Figures(0.0, -1.0, 1.0).spread == 0.0


@pytest.mark.parametrize(("ours", "holds"), [(3.9, True), (4.0, True), (4.1, False)])
def test_a_ratio_holds_up_to_its_limit(ours: float, holds: bool) -> None:
    assert bench.row_of(TIMED, samples([ours], [2.0])).holds is holds


@pytest.mark.parametrize(("tens", "holds"), [(12.0, True), (12.1, False)])
def test_memory_is_judged_by_our_amount(tens: float, holds: bool) -> None:
    row = bench.row_of(WEIGHED, samples([tens], [1.0]))
    assert (row.armvirt, row.qemu, row.wanted, row.holds) == (tens * 10, 10.0, "<= 120 MB", holds)


def test_the_table_is_aligned() -> None:
    row = bench.row_of(TIMED, samples([3.0, 3.3, 2.7], [2.0] * 3))
    heavy = bench.row_of(WEIGHED, samples([13.0], [1.0], [2.0]))
    assert [bench.line(bench.HEADER), bench.table_line(row), bench.table_line(heavy)] == [
        "what                                           armvirt  spread        qemu    ratio       plain    ratio     wanted  holds",  # noqa: E501
        "a timed thing                                  3.000 s      5%     2.000 s     1.50                           <= 2x    yes",  # noqa: E501
        "a weighed thing                               130.0 MB      0%     10.0 MB    13.00     20.0 MB     6.50  <= 120 MB     NO",  # noqa: E501
    ]


def test_what_one_of_many_costs_is_without_the_start_of_the_program() -> None:
    row = bench.row_of(ONE_OF_MANY, samples([3.0], [1.5]), samples([1.0], [1.0]))
    assert (row.armvirt, row.qemu, row.ratio, row.holds) == (
        pytest.approx(2000),
        pytest.approx(500),
        4.0,
        True,
    )
    assert bench.table_line(row).split()[3:] == ["2,000", "ns", "0%", "500", "ns", "4.00", "-", "-"]


def test_microseconds_have_a_digit_after_the_point() -> None:
    row = bench.row_of(
        ONE_OF_MANY._replace(unit="us"), samples([3.0], [1.5]), samples([1.0], [1.0])
    )
    assert bench.cells(row)[1] == "2.0 us"


@pytest.mark.parametrize(
    ("ratio", "text"),
    [(0.0371, "0.037"), (0.00051, "0.00051"), (0.1, "0.10"), (264.951, "264.95"), (-0.01, "-0.01")],
)
def test_a_small_ratio_has_two_digits(ratio: float, text: str) -> None:
    assert bench.ratio_text(ratio) == text


def test_qemu_may_repeat_an_action_more_often() -> None:
    """With and without -icount."""
    task = ONE_OF_MANY._replace(qemu_times=4_000_000)
    row = bench.row_of(task, samples([3.0], [3.0], [5.0]), samples([1.0], [1.0], [1.0]))
    assert (row.armvirt, row.qemu, row.plain) == (
        pytest.approx(2000),
        pytest.approx(500),
        pytest.approx(1000),
    )
    assert row.plain_ratio == pytest.approx(2.0)


def test_a_difference_below_the_noise_has_no_ratio() -> None:
    row = bench.row_of(ONE_OF_MANY, samples([3.0], [0.9]), samples([1.0], [1.0]))
    assert bench.cells(row)[4] == "inf" and bench.as_data(row)["ratio"] is None


def test_a_guest_beside_starts_as_armvirt_does() -> None:
    """Not as QEMU, whose `hello` is no part of the comparison."""
    task = ONE_OF_MANY._replace(guest=bench_rows.LOCK)
    row = bench.row_of(task, samples([3.0], [2.0]), samples([1.0], [0.1]))
    assert (row.armvirt, row.qemu) == (pytest.approx(2000), pytest.approx(1000))
    _, other = bench_rows.commands(bench_rows.LOCK, plain=True)
    assert "--append plain" in " ".join(other.words)


def test_a_row_without_its_guest_is_skipped_with_the_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bench_rows.shutil, "which", lambda name: "/usr/bin/" + name)
    task = TIMED._replace(guest=Guest(bench_rows.FETCHED / "no such Image"))
    (row,) = bench.rows([task], 1)
    line = bench.table_line(row)
    assert (
        line.split(None, 3)[3] == "skipped: .cache/guests/no such Image is missing; run make guests"
        and row.holds
    )


def test_without_qemu_every_row_is_skipped(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(bench_rows.shutil, "which", lambda _name: None)
    assert bench.main(["--json", str(tmp_path / "rows.json")]) == 0
    assert capsys.readouterr().out.count("skipped: qemu-system-aarch64 is not installed") == len(
        bench.TASKS
    )
    rows = json.loads((tmp_path / "rows.json").read_text(encoding="utf-8"))
    assert [row["name"] for row in rows] == [task.name for task in bench.TASKS]


def test_tasks_of_one_guest_share_its_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    measured: list[tuple[list[str], int]] = []

    def measure(commands: Sequence[Command], runs: int) -> Samples:
        measured.append(([Path(command.words[0]).name for command in commands], runs))
        return samples(*[[1.0] * runs] * len(commands))

    monkeypatch.setattr(bench, "measure", measure)
    monkeypatch.setattr(bench, "missing", lambda _task: None)
    tasks = [task for task in bench.TASKS if task.guest == bench_rows.HELLO]
    assert [row.runs for row in bench.rows(tasks, 5)] == [5, 5]
    python, qemu = Path(sys.executable).name, bench_rows.QEMU
    assert measured == [([python, qemu], 1), ([python, qemu, qemu], 5)]


def test_a_run_that_fails_is_no_measurement() -> None:
    fails = [sys.executable, "-c", "import sys; print('VERDICT: PASS'); sys.exit(3)"]
    silent = [sys.executable, "-c", "print('something else')"]
    with pytest.raises(RuntimeError, match="ended with 3: VERDICT: PASS"):
        bench_run.run(Command(fails, b"VERDICT: PASS"))
    with pytest.raises(RuntimeError, match="ended with 0: something else"):
        bench_run.run(Command(silent, b"VERDICT: PASS"))


def test_a_script_is_typed_at_a_program_that_has_no_option_for_it(tmp_path: Path) -> None:
    file = tmp_path / "script"
    file.write_text('expect "> "\nsend "yes\\n"\n', encoding="utf-8")
    asks = [sys.executable, "-c", "print('you said', input('> '))"]
    assert bench_run.run(Command(asks, b"you said yes", file)).seconds > 0
    with pytest.raises(RuntimeError, match="did not end as expected: > you said yes"):
        bench_run.run(Command(asks, b"you said no", file))


def test_a_failed_run_makes_the_bench_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    def measure(_commands: Sequence[Command], _runs: int) -> Samples:
        raise RuntimeError("armvirt ended with 3: stuck")

    monkeypatch.setattr(bench, "measure", measure)
    monkeypatch.setattr(bench, "missing", lambda _task: None)
    (row,) = bench.rows([TIMED], 1)
    assert (
        bench.table_line(row)
        == "a timed thing                               FAILED: armvirt ended with 3: stuck"
    )
    assert not row.holds


def test_all_programs_get_the_same_machine() -> None:
    linux = bench_rows.LINUX
    ours, *qemus = (command.words for command in bench_rows.commands(linux, plain=True))
    assert ours[2:5] == ["armvirt", "run", str(linux.image)]
    assert "autorun" in linux.append and linux.append in ours
    for theirs in qemus:
        assert linux.append in theirs
        assert ours[ours.index("--mem") + 1] == theirs[theirs.index("-m") + 1]
        assert ours[ours.index("--cpus") + 1] == theirs[theirs.index("-smp") + 1] == "1"
    assert ["shift=0,sleep=off" in theirs for theirs in qemus] == [True, False]


def test_firmware_and_its_input_go_to_both_programs() -> None:
    ours, qemu = bench_rows.commands(bench_rows.UBOOT)
    image, script = str(bench_rows.UBOOT.image), str(bench_rows.UBOOT.script)
    assert ours.words[ours.words.index("--bios") + 1] == image
    assert qemu.words[qemu.words.index("-bios") + 1] == image
    assert ours.words[ours.words.index("--script") + 1] == script and ours.script is None
    assert qemu.script == bench_rows.UBOOT.script


def test_a_guest_beside_runs_under_armvirt(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same image with other CPUs; QEMU has no part in it."""
    task, _lock = (task for task in bench.TASKS if task.guest.beside is not None)
    assert task.guest.beside is not None and task.guest.beside.image == task.guest.image
    started: list[list[str]] = []

    def run(command: Command) -> Sample:
        started.append(command.words)
        return Sample(float(len(started)), 10.0 * len(started))

    monkeypatch.setattr(bench_run, "run", run)
    measured = bench_run.measure(bench_rows.commands(task.guest), 2)
    assert measured == samples([1.0, 3.0], [2.0, 4.0])
    assert [words[words.index("--cpus") + 1] for words in started] == ["8", "1"] * 2
    assert all("armvirt" in words for words in started)


def test_the_names_of_the_rows_differ() -> None:
    names = [task.name for task in bench.TASKS]
    assert len(set(names)) == len(names)
    assert all(len(task.what) <= bench.WIDTHS[0] for task in bench.TASKS)
