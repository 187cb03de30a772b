"""Plain tables that show themselves: as text anywhere, with rich on a console that knows it.

The floors below offer ``rows()``, plain data; here these become cells. rich is imported only when it is asked to show
something.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table as RichTable

GAP = "  "


class Table(NamedTuple):
    """``rows`` are cells as text, as many as ``columns``. ``marks`` gives a row a style of rich's, by its number."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    marks: Mapping[int, str] = MappingProxyType({})

    def __str__(self) -> str:
        lines = [self.columns, *self.rows]
        widths = [max(len(line[n]) for line in lines) for n in range(len(self.columns))]
        text = [GAP.join(map(str.ljust, line, widths)).rstrip() for line in lines]
        return "\n".join([self.title, *(GAP + line for line in text)]) if self.title else "\n".join(text)

    def __rich__(self) -> RichTable:
        from rich import box
        from rich.table import Table as RichTable
        from rich.text import Text

        table = RichTable(title=self.title or None, title_justify="left", title_style="bold", box=box.ROUNDED)
        for n, name in enumerate(self.columns):
            table.add_column(name, style="bold" if n == 0 else "", overflow="fold")
        for n, row in enumerate(self.rows):
            table.add_row(*map(Text, row), style=self.marks.get(n))
        return table


class Showable:
    """An object that is shown as `tables`: ``str`` gives text, rich shows it on any of its consoles."""

    def tables(self) -> Sequence[Table | str]:
        """Tables, and lines of text between them."""
        raise NotImplementedError

    def __str__(self) -> str:
        return "\n\n".join(str(table) for table in self.tables())

    def __rich__(self) -> Group:
        from rich.console import Group
        from rich.text import Text

        return Group(*(Text(part, "bold") if isinstance(part, str) else part for part in self.tables()))


def table_of(title: str, rows: Iterable[Mapping[str, object]], columns: Sequence[str] = ()) -> Table:
    """A table of what a ``rows()`` gives: the columns named, or all that the first row has."""
    rows = list(rows)
    names = tuple(columns) or tuple(rows[0] if rows else ())
    return Table(title, names, tuple(tuple(cell(row.get(name)) for name in names) for row in rows))


def cell(value: object) -> str:
    """A value for people: yes and nothing for truth, nothing for None."""
    if value is None or value is False:
        return ""
    return "yes" if value is True else str(value)
