"""Plain tables that show themselves: as text anywhere, with rich on a console that knows it.

The floors below offer ``rows()``, plain data; here these become cells. rich is imported only when it is asked to show
something.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from armvirt.printable import escaped

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, Group, RenderResult
    from rich.table import Table as RichTable

GAP = "  "
SHORT = 18  # a column of at most so many characters is not folded


class Table(NamedTuple):
    """``rows`` are cells as text, as many as ``columns``. ``marks`` gives a row a style of rich's, by its number."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    marks: Mapping[int, str] = MappingProxyType({})

    def __repr__(self) -> str:
        return f"<Table {self.title!r}: {len(self.rows)} rows of {len(self.columns)} columns>"

    def __str__(self) -> str:
        return "\n".join(self.lines())

    def lines(self) -> list[str]:
        """The table as lines of text; no cell begins another line."""
        rows = [tuple(map(escaped, row)) for row in (self.columns, *self.rows)]
        widths = [max(len(row[n]) for row in rows) for n in range(len(self.columns))]
        text = [GAP.join(map(str.ljust, row, widths)).rstrip() for row in rows]
        return [escaped(self.title), *(GAP + line for line in text)] if self.title else text

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """With lines around the cells where the terminal has room for them; else without, and long texts folded."""
        widths = [max(len(line[n]) for line in (self.columns, *self.rows)) for n in range(len(self.columns))]
        yield self._framed() if sum(widths) + 3 * len(widths) + 1 <= options.max_width else self._narrow(widths)

    def _framed(self) -> RichTable:
        from rich import box
        from rich.table import Table as RichTable

        table = RichTable(title=self.title or None, title_justify="left", title_style="bold", box=box.ROUNDED)
        for n, name in enumerate(self.columns):
            table.add_column(name, style="bold" if n == 0 else "", overflow="fold")
        return self._filled(table)

    def _narrow(self, widths: Sequence[int]) -> RichTable:
        from rich import box
        from rich.table import Table as RichTable

        table = RichTable(
            title=self.title or None, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, padding=0,
            pad_edge=False,
        )  # fmt: skip
        for n, (name, width) in enumerate(zip(self.columns, widths, strict=True)):
            table.add_column(name, style="bold" if n == 0 else "", overflow="fold", no_wrap=width <= SHORT)
        return self._filled(table)

    def _filled(self, table: RichTable) -> RichTable:
        from rich.text import Text

        for n, row in enumerate(self.rows):
            table.add_row(*(Text(escaped(cell)) for cell in row), style=self.marks.get(n))
        return table


class Showable:
    """An object that is shown as `tables`: ``str`` gives text, rich shows it on any of its consoles."""

    def tables(self) -> Sequence[Table | str]:
        """Tables, and lines of text between them."""
        raise NotImplementedError

    def __str__(self) -> str:
        return "\n".join(self.lines())

    def lines(self) -> list[str]:
        """The tables as lines of text, with an empty one between them."""
        blocks = [part.split("\n") if isinstance(part, str) else part.lines() for part in self.tables()]
        return [line for block in blocks for line in ("", *block)][1:]

    def __rich__(self) -> Group:
        from rich.console import Group
        from rich.text import Text

        return Group(*(Text(part, "bold") if isinstance(part, str) else part for part in self.tables()))


def table_of(
    title: str, rows: Iterable[Mapping[str, object]], columns: Sequence[str] = (), optional: Iterable[str] = (),
    headings: Mapping[str, str] = MappingProxyType({}),
) -> Table:  # fmt: skip
    """A table of what a ``rows()`` gives: the columns named, or all that the first row has. ``optional`` columns are
    left out if nothing is in them, ``headings`` are shorter names for a screen."""
    rows = list(rows)
    names = tuple(columns) or tuple(rows[0] if rows else ())
    empty = {name for name in optional if not any(cell(row.get(name)) for row in rows)}
    names = tuple(name for name in names if name not in empty)
    heads = tuple(headings.get(name, name) for name in names)
    return Table(title, heads, tuple(tuple(cell(row.get(name)) for name in names) for row in rows))


def cell(value: object) -> str:
    """A value for people: yes and nothing for truth, nothing for None."""
    if value is None or value is False:
        return ""
    return "yes" if value is True else str(value)
