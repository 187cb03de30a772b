"""Draws docs/bench-rows.svg and docs/bench-curves.svg from the JSON files of `make bench`.

    python tools/bench.py --json docs/bench-rows.json
    python tools/bench.py --curves --json docs/bench-curves.json
    python tools/bench_plot.py                 draw both pictures
    python tools/bench_plot.py --check         tell whether both pictures are up to date

All scales are logarithmic.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from xml.sax.saxutils import escape

DOCS = Path(__file__).resolve().parent.parent / "docs"
WIDTH = 960
INK, DIM, GRID = "#22201c", "#5d574c", "#d8d2c4"
FASTER, SLOWER = "#3b7d4f", "#b5543c"
COLOURS = ("#2f5d8a", "#b5543c", "#3b7d4f")
Data = list[dict[str, Any]]


class Scale(NamedTuple):
    """A logarithmic scale of whole decades: the values 10**``low`` to 10**``high`` are at the
    coordinates ``begin`` to ``end``."""

    low: int
    high: int
    begin: float
    end: float

    def at(self, value: float) -> float:
        """The coordinate of ``value``. A value outside the scale is at its nearer end; so is a
        value that is not positive, which a difference of two times can be."""
        log = math.log10(value) if value > 0 else self.low
        part = (min(max(log, self.low), self.high) - self.low) / (self.high - self.low)
        return round(self.begin + part * (self.end - self.begin), 1)

    def ticks(self) -> list[float]:
        return [10.0**n for n in range(self.low, self.high + 1)]


def scale_of(values: Iterable[float], begin: float, end: float) -> Scale:
    """The smallest scale that contains the positive ones of ``values``, and at least a decade."""
    logs = [math.log10(value) for value in values if value > 0] or [0.0]
    low = math.floor(min(logs))
    return Scale(low, max(math.ceil(max(logs)), low + 1), begin, end)


# -- parts of a picture --


def words(
    x: float, y: float, text: str, colour: str = INK, anchor: str = "start", size: int = 12
) -> str:
    return (
        f'<text x="{x:g}" y="{y:g}" font-size="{size}" fill="{colour}" '
        f'text-anchor="{anchor}">{escape(text)}</text>'
    )


def stroke(x1: float, y1: float, x2: float, y2: float, colour: str = GRID) -> str:
    return f'<line x1="{x1:g}" y1="{y1:g}" x2="{x2:g}" y2="{y2:g}" stroke="{colour}"/>'


def dot(x: float, y: float, colour: str, fill: str) -> str:
    return f'<circle cx="{x:g}" cy="{y:g}" r="3.5" stroke="{colour}" fill="{fill}"/>'


def picture(height: float, title: str, parts: Sequence[str]) -> str:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height:g}" '
        f'viewBox="0 0 {WIDTH} {height:g}" font-family="sans-serif">'
    )
    ground = f'<rect width="{WIDTH}" height="{height:g}" fill="#ffffff"/>'
    return "\n".join([head, f"<title>{escape(title)}</title>", ground, *parts, "</svg>"]) + "\n"


def number(value: float) -> str:
    """``value`` with three digits, without an exponent."""
    digits = max(0, 2 - math.floor(math.log10(abs(value)))) if value else 0
    text = f"{value:,.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


# -- the rows: a bar for each ratio --

ROW_HEIGHT, TOP, BAR_LEFT, BAR_RIGHT = 20, 76, 300, 760


def drawn(rows: Data) -> Data:
    """The rows of time that have a ratio to QEMU; rows of armvirt beside armvirt and memory have
    none."""
    return [row for row in rows if row["ratio"] and row["unit"] != "MB" and not row["beside"]]


def runs_of(measured: Data) -> str:
    """The least number of runs behind a figure, as text."""
    runs = min((each["runs"] for each in measured if each["runs"]), default=0)
    return f"{runs} run{'' if runs == 1 else 's'} of each"


def draw_rows(rows: Data) -> str:
    """The ratio of armvirt's time to QEMU's, for each row."""
    shown = drawn(rows)
    ratios = [r for row in shown for r in (row["ratio"], row["plain_ratio"] or 0.0)]
    scale = scale_of([*ratios, 1.0], BAR_LEFT, BAR_RIGHT)
    bottom = TOP + ROW_HEIGHT * len(shown)
    parts = [
        words(12, 22, "Time of armvirt, divided by the time of QEMU", size=15),
        words(12, 42, f"bar: QEMU with -icount; circle: QEMU without; {runs_of(rows)}", DIM),
        words(WIDTH - 12, 42, "armvirt", DIM, "end"),
    ]
    for tick in scale.ticks():
        x = scale.at(tick)
        parts += [stroke(x, TOP - 6, x, bottom, INK if tick == 1 else GRID)]
        parts += [words(x, TOP - 10, f"{tick:g}", DIM, "middle")]
    for n, row in enumerate(shown):
        parts += bar(row, scale, TOP + ROW_HEIGHT * n)
    return picture(bottom + 12, "armvirt beside QEMU", parts)


def bar(row: dict[str, Any], scale: Scale, top: float) -> list[str]:
    """A row: its name, the bar from 1 to the ratio, the circle, and the time."""
    one, x = scale.at(1), scale.at(row["ratio"])
    colour = FASTER if row["ratio"] <= 1 else SLOWER
    middle = top + ROW_HEIGHT / 2
    parts = [
        words(12, middle + 4, row["what"]),
        f'<rect x="{min(one, x):g}" y="{top + 4:g}" width="{abs(x - one):g}" '
        f'height="{ROW_HEIGHT - 8}" fill="{colour}"/>',
        words(WIDTH - 12, middle + 4, f"{number(row['armvirt'])} {row['unit']}", DIM, "end"),
    ]
    if row["plain_ratio"]:
        parts.append(dot(scale.at(row["plain_ratio"]), middle, INK, "#ffffff"))
    return parts


# -- the curves: four panels --

PANEL_WIDTH, PANEL_HEIGHT = 480, 290
LEFT, RIGHT, UPPER, LOWER = 70, 20, 56, 44


def draw_curves(curves: Data) -> str:
    """A panel for each curve."""
    parts = []
    for n, curve in enumerate(curves):
        row, column = divmod(n, 2)
        parts += panel(curve, column * PANEL_WIDTH, row * PANEL_HEIGHT)
    height = PANEL_HEIGHT * math.ceil(len(curves) / 2)
    return picture(height, "How costs grow", parts)


def panel(curve: dict[str, Any], left: float, top: float) -> list[str]:
    """The title, the axes, and a line for each series with its quartiles."""
    points = [at for series in curve["series"].values() for at in series]
    x = scale_of([at[0] for at in points], left + LEFT, left + PANEL_WIDTH - RIGHT)
    y = scale_of([at[1] for at in points], top + PANEL_HEIGHT - LOWER, top + UPPER)
    title = f"{curve['what']} ({runs_of([curve])})"
    parts = [words(left + 12, top + 22, title, size=13), *axes(curve, x, y)]
    for n, (name, series) in enumerate(curve["series"].items()):
        colour = COLOURS[n % len(COLOURS)]
        parts.append(words(left + LEFT + 90 * n, top + 42, name, colour))
        parts += curve_line(series, x, y, colour)
    return parts


def axes(curve: dict[str, Any], x: Scale, y: Scale) -> list[str]:
    parts = []
    for tick in x.ticks():
        parts.append(stroke(x.at(tick), y.begin, x.at(tick), y.end))
        parts.append(words(x.at(tick), y.begin + 16, f"{tick:,.0f}", DIM, "middle"))
    for tick in y.ticks():
        parts.append(stroke(x.begin, y.at(tick), x.end, y.at(tick)))
        parts.append(words(x.begin - 6, y.at(tick) + 4, f"{tick:g} {curve['unit']}", DIM, "end"))
    parts.append(words((x.begin + x.end) / 2, y.begin + 34, curve["axis"], DIM, "middle"))
    return parts


def curve_line(series: Sequence[Sequence[float]], x: Scale, y: Scale, colour: str) -> list[str]:
    """A line through the medians; a vertical line at each point joins the quartiles."""
    path = " ".join(f"{x.at(at[0]):g},{y.at(at[1]):g}" for at in series)
    parts = [f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.5"/>']
    for value, median, low, high in series:
        parts.append(stroke(x.at(value), y.at(low), x.at(value), y.at(high), colour))
        parts.append(dot(x.at(value), y.at(median), colour, colour))
    return parts


# -- the files --

PICTURES: dict[str, Callable[[Data], str]] = {
    "bench-rows": draw_rows,
    "bench-curves": draw_curves,
}


def outdated(folder: Path) -> list[str]:
    """The pictures in ``folder`` that are not drawn from the JSON file beside them."""
    return [
        f"{name}.svg is not current: run this tool"
        for name, draw in PICTURES.items()
        if (folder / f"{name}.svg").read_text(encoding="utf-8") != draw(read(folder, name))
    ]


def read(folder: Path, name: str) -> Data:
    data: Data = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
    return data


def main(argv: Sequence[str] = sys.argv[1:]) -> int:
    if "--check" in argv:
        found = outdated(DOCS)
        print("\n".join(found) or "the pictures are current")
        return int(bool(found))
    for name, draw in PICTURES.items():
        (DOCS / f"{name}.svg").write_text(draw(read(DOCS, name)), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
