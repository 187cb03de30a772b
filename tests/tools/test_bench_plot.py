"""The pictures of `make bench` show the figures of the JSON files."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import bench
import bench_curves
import bench_plot
import pytest
from bench_plot import Data, Scale

ROW = {
    **bench.Row("t", "a <timed> thing", "ns", 3.0, 2.0, 1.5, 0.0, 0.0, "-")._asdict(),
    "beside": False,
}
CURVE = {
    "name": "c",
    "what": "a thing",
    "axis": "things",
    "unit": "us",
    "runs": 3,
    "series": {"armvirt": [[1, 5.0, 4.0, 6.0], [100, 50.0, 40.0, 60.0]], "qemu": [[1, 0.0, -1, 1]]},
}


def tags(svg: str, tag: str) -> list[dict[str, str]]:
    """The attributes of each element of this kind."""
    root = ElementTree.fromstring(svg)
    return [each.attrib for each in root.iter(f"{{http://www.w3.org/2000/svg}}{tag}")]


def texts(svg: str) -> list[str]:
    root = ElementTree.fromstring(svg)
    return [each.text or "" for each in root.iter("{http://www.w3.org/2000/svg}text")]


def test_a_decade_has_the_same_length_everywhere() -> None:
    scale = Scale(-1, 2, 100, 400)
    assert [scale.at(value) for value in (0.1, 1, 10, 100)] == [100, 200, 300, 400]
    assert scale.ticks() == pytest.approx([0.1, 1, 10, 100])


@pytest.mark.parametrize(("value", "at"), [(0.001, 100), (0.0, 100), (-5.0, 100), (1e9, 400)])
def test_a_value_outside_the_scale_is_at_its_end(value: float, at: float) -> None:
    assert Scale(-1, 2, 100, 400).at(value) == at


@pytest.mark.parametrize(
    ("values", "low", "high"),
    [([0.5, 30], -1, 2), ([3, 4], 0, 1), ([10], 1, 2), ([-1, 0], 0, 1), ([], 0, 1)],
)
def test_a_scale_has_whole_decades(values: list[float], low: int, high: int) -> None:
    assert bench_plot.scale_of(values, 0, 1)[:2] == (low, high)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (1.0, "1"), (0.01234, "0.0123"), (12.34, "12.3"), (13476.2, "13,476")],
)
def test_a_number_has_three_digits(value: float, text: str) -> None:
    assert bench_plot.number(value) == text


def bars(rows: Data) -> list[tuple[float, float, str]]:
    """Left end, right end and colour of each bar."""
    found = [each for each in tags(bench_plot.draw_rows(rows), "rect") if "x" in each]
    return [
        (float(each["x"]), float(each["x"]) + float(each["width"]), each["fill"]) for each in found
    ]


def test_a_bar_goes_from_one_to_the_ratio() -> None:
    (slow, fast) = bars([ROW | {"ratio": 10.0}, ROW | {"ratio": 0.1}])
    assert slow[0] == fast[1] and slow[1] - slow[0] == fast[1] - fast[0] > 0
    assert (slow[2], fast[2]) == (bench_plot.SLOWER, bench_plot.FASTER)


def test_a_row_without_a_ratio_to_qemu_has_no_bar() -> None:
    others: list[dict[str, Any]] = [{"ratio": None}, {"unit": "MB"}, {"beside": True}]
    skipped = [{"ratio": 0.0, "skipped": "no guest"}]
    assert bars([ROW | other for other in (*others, *skipped)]) == []


def test_a_circle_shows_the_qemu_without_icount() -> None:
    svg = bench_plot.draw_rows([ROW, ROW | {"plain_ratio": 3.0}])
    assert len(tags(svg, "circle")) == 1


def test_a_picture_of_rows_names_each_row() -> None:
    shown = texts(bench_plot.draw_rows([ROW]))
    assert "a <timed> thing" in shown and "3 ns" in shown


def test_a_line_goes_through_the_points_of_a_series() -> None:
    svg = bench_plot.draw_curves([CURVE])
    lines = tags(svg, "polyline")
    assert [len(each["points"].split()) for each in lines] == [2, 1]
    assert len(tags(svg, "circle")) == 3
    assert {"a thing (3 runs of each)", "things", "armvirt", "qemu", "100", "10 us"} <= set(
        texts(svg)
    )


def test_panels_do_not_overlap() -> None:
    svg = bench_plot.draw_curves([CURVE] * 3)
    assert f'height="{2 * bench_plot.PANEL_HEIGHT}"' in svg
    first = [tuple(re.findall(r"[\d.]+", each["points"])[:2]) for each in tags(svg, "polyline")]
    assert len(set(first)) == 6


def test_the_pictures_show_the_figures_of_the_json_files() -> None:
    assert bench_plot.outdated(bench_plot.DOCS) == []


def test_an_old_picture_is_noticed(tmp_path: Path) -> None:
    for name in bench_plot.PICTURES:
        for suffix in ("json", "svg"):
            content = (bench_plot.DOCS / f"{name}.{suffix}").read_text(encoding="utf-8")
            (tmp_path / f"{name}.{suffix}").write_text(content, encoding="utf-8")
    (tmp_path / "bench-rows.json").write_text("[]", encoding="utf-8")
    assert bench_plot.outdated(tmp_path) == ["bench-rows.svg is not current: run this tool"]


def test_the_json_files_have_rows_and_curves_that_there_are() -> None:
    rows, curves = (bench_plot.read(bench_plot.DOCS, name) for name in bench_plot.PICTURES)
    assert {row["name"] for row in rows} <= {task.name for task in bench.TASKS}
    assert {curve["name"] for curve in curves} <= set(bench_curves.NAMES)


def test_the_number_of_runs_is_the_least() -> None:
    """Rows that were skipped have none."""
    assert bench_plot.runs_of([{"runs": 5}, {"runs": 0}, {"runs": 1}]) == "1 run of each"
    assert bench_plot.runs_of([{"runs": 5}]) == "5 runs of each"
