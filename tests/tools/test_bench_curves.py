"""The curves of `make bench`: what is run at each point, and the arithmetic. No test asserts a
time."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import bench
import bench_curves
import bench_wide
import pytest
from bench_curves import Curve, Job, Point, Series
from bench_rows import ROOT, Command
from bench_run import Sample

START, WORK = Command(["start"], b""), Command(["work"], b"")
SIMPLE = Curve(
    "simple",
    "a thing",
    "things",
    "us",
    (1, 2),
    [
        Series("armvirt", lambda n: Job(n, WORK, START, 1000)),
        Series("other", lambda n: Job(n, WORK, START, 500) if n < 2 else None),
    ],
)


def fake_measure(commands: Sequence[Command], runs: int) -> list[list[Sample]]:
    """A start takes a second, and the work three seconds, or a little more or less."""
    seconds = {"start": [1.0] * runs, "work": [3.0 + n / 10 for n in range(runs)]}
    return [[Sample(each, 0.0) for each in seconds[command.words[0]]] for command in commands]


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Point]]:
    monkeypatch.setattr(bench_curves, "measure", fake_measure)
    return list(bench_curves.rows(SIMPLE, 3))


def test_a_point_is_the_cost_of_one_action(measured: list[dict[str, Point]]) -> None:
    """Without the start: 2.1 s for 1000 actions, with the quartiles of the runs."""
    ours = measured[0]["armvirt"]
    assert ours == Point(1, *(pytest.approx(n) for n in (2100.0, 2050.0, 2150.0)))
    assert measured[0]["other"].median == pytest.approx(4200.0)
    assert list(measured[1]) == ["armvirt"]


def test_the_table_has_a_dash_where_a_series_has_no_point(
    measured: list[dict[str, Point]],
) -> None:
    assert [bench_curves.heading(SIMPLE), *(bench_curves.table_line(SIMPLE, m) for m in measured)] == [
        "a thing\n                things       armvirt         other",
        "                     1   2,100.00 us   4,200.00 us",
        "                     2   2,100.00 us             -",
    ]  # fmt: skip


def test_the_data_has_a_list_of_points_for_each_series(measured: list[dict[str, Point]]) -> None:
    data = bench_curves.as_data(SIMPLE, measured, 3)
    assert (data["name"], data["unit"], data["axis"], data["runs"]) == ("simple", "us", "things", 3)
    series = data["series"]
    assert isinstance(series, dict)
    assert [[at[0] for at in points] for points in series.values()] == [[1, 2], [1]]
    assert all(len(at) == 4 for points in series.values() for at in points)


@pytest.mark.parametrize("curve", bench_curves.curves(Path("traces")), ids=lambda curve: curve.name)
def test_the_start_of_a_curve_is_the_same_program_without_the_action(curve: Curve) -> None:
    if curve.name == "events":
        curve = curve._replace(points=(20,))
    for at in curve.points:
        for series in curve.series:
            job = series.job(at)
            if job is None:
                continue
            differ = [
                pair
                for pair in zip(job.start.words, job.command.words, strict=True)
                if len(set(pair)) > 1
            ]
            assert [start for start, _ in differ] == ["nothing"]
            assert job.times >= 1 and job.x >= 1


def test_only_armvirt_has_more_spis_than_the_board() -> None:
    (pending,) = (each for each in bench_curves.curves(Path()) if each.name == "pending")
    ours, qemu = pending.series
    assert max(pending.points) == 988 and ours.job(988) is not None
    assert qemu.job(224) is not None and qemu.job(512) is None


def test_the_wide_board_has_all_spis_of_a_gic() -> None:
    """In a process of its own, for the command line reads the names of the boards once."""
    words = list(bench_curves.wide_command("pending 1000 988").words)
    assert words[1] == str(ROOT / "tools" / "bench_wide.py") and bench_wide.NAME in words
    done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT)
    assert "VERDICT: PASS" in done.stdout, done.stdout + done.stderr


def test_the_cost_of_an_event_counts_the_events_of_the_action_only() -> None:
    job = bench_curves.traced(["--trace-hash"])(30)
    more = bench_curves.traced(["--trace-hash"])(40)
    assert job.x == job.times and "--trace-hash" in job.command.words
    assert (more.times - job.times) % 10 == 0 and more.times > job.times >= 30 * 5


def test_the_option_measures_curves_only(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(bench_curves, "measure", fake_measure)
    monkeypatch.setattr(bench_curves, "curves", lambda _folder: [SIMPLE])
    monkeypatch.setattr(bench_curves, "NAMES", (SIMPLE.name,))
    file = tmp_path / "curves.json"
    assert bench.main(["--curves", "--runs", "1", "--only", "simple", "--json", str(file)]) == 0
    assert capsys.readouterr().out.startswith("a thing\n")
    assert [curve["name"] for curve in json.loads(file.read_text())] == ["simple"]


def test_a_curve_is_no_row(capsys: pytest.CaptureFixture[str]) -> None:
    for argv in (["--only", "events"], ["--curves", "--only", "hello"]):
        with pytest.raises(SystemExit):
            bench.main(argv)
        assert "there is no" in capsys.readouterr().err


def test_a_run_that_fails_ends_the_curves(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def measure(_commands: Sequence[Command], _runs: int) -> list[list[Sample]]:
        raise RuntimeError(f"{Path(sys.executable).name} ended with 3: stuck")

    monkeypatch.setattr(bench_curves, "measure", measure)
    assert bench.main(["--curves", "--runs", "1", "--only", "shared"]) == 1
    assert "ended with 3: stuck" in capsys.readouterr().err
