"""Tables that display themselves: as plain text, or with styles on a console of the library rich.

Other packages return rows as plain data (``rows()``). This module makes tables from the rows. rich
is imported only when it displays a table.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING

from armvirt.printable import escaped
from armvirt.records import NamedTuple

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, Group, JustifyMethod, RenderResult
    from rich.table import Table as RichTable

GAP = "  "
EDGES = 2  # characters that rich adds around a table without lines


class Table(NamedTuple):
    """A table whose cells are texts. Each row has one cell per column in ``columns``. ``marks`` has
    the rich style of some rows, by the index of the row. ``styles`` has a rich style for each
    column. If ``numbers`` is True, all columns except the first are aligned to the right."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    marks: Mapping[int, str] = MappingProxyType({})
    styles: tuple[str, ...] = ()
    numbers: bool = False

    def __repr__(self) -> str:
        return f"<Table {self.title!r}: {len(self.rows)} rows of {len(self.columns)} columns>"

    def __str__(self) -> str:
        return "\n".join(self.lines())

    def lines(self) -> list[str]:
        """The table as lines of text. Each row is one line, because line feeds in cells are
        escaped."""
        rows = [tuple(map(escaped, row)) for row in (self.columns, *self.rows)]
        widths = [max(len(row[n]) for row in rows) for n in range(len(self.columns))]
        text = [
            GAP.join(self._aligned(n, cell, widths[n]) for n, cell in enumerate(row)).rstrip()
            for row in rows
        ]
        return [escaped(self.title), *(GAP + line for line in text)] if self.title else text

    def _aligned(self, column: int, cell: str, width: int) -> str:
        return cell.rjust(width) if self.numbers and column else cell.ljust(width)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Display the table with rich. If the terminal is wide enough, the table has lines around
        its cells. Otherwise there are no lines, and long texts are folded between words. If the
        table is still too wide, it is split into several tables."""
        room = options.max_width
        widths = self._widths(len)
        if sum(widths) + 3 * len(widths) + 1 <= room and not self.numbers:
            yield self._framed()
            return
        for part in self.parts(room - EDGES):
            yield part._narrow(part._fitted(room - EDGES))

    def parts(self, room: int) -> list[Table]:
        """Split the columns of the table into several tables of at most ``room`` characters. Each
        of these tables has the first column. Words in cells are not broken, so a table can be wider
        than ``room`` if its words are long.

        In the second and the later tables, a row is left out if all its cells except the first are
        empty.
        """
        least = self._widths(_longest_word)
        groups = [[0]]
        for n in range(1, len(self.columns)):
            if sum(least[m] + 1 for m in groups[-1]) + least[n] > room and len(groups[-1]) > 1:
                groups.append([0])
            groups[-1].append(n)
        return (
            [self._part(group, number) for number, group in enumerate(groups)]
            if self.columns
            else []
        )

    def _part(self, group: Sequence[int], number: int) -> Table:
        kept = [
            n for n, row in enumerate(self.rows) if not number or any(row[m] for m in group[1:])
        ]
        marks = {at: self.marks[n] for at, n in enumerate(kept) if n in self.marks}
        return Table(
            "" if number else self.title,
            tuple(self.columns[n] for n in group),
            tuple(tuple(self.rows[n][m] for m in group) for n in kept),
            marks,
            tuple(self.styles[n] for n in group) if self.styles else (),
            self.numbers,
        )

    def _widths(self, measure: Callable[[str], int]) -> list[int]:
        return [
            max(measure(line[n]) for line in (self.columns, *self.rows))
            for n in range(len(self.columns))
        ]

    def _fitted(self, room: int) -> list[int]:
        """The widths of the columns for a table of ``room`` characters. The widest columns become
        narrower first. No column becomes narrower than its longest word."""
        widths, least = self._widths(len), self._widths(_longest_word)
        while sum(widths) + len(widths) - 1 > room:
            wide = [n for n in range(len(widths)) if widths[n] > least[n]]
            if not wide:
                break
            widths[max(wide, key=widths.__getitem__)] -= 1
        return widths

    def _framed(self) -> RichTable:
        from rich import box
        from rich.table import Table as RichTable

        table = RichTable(
            title=self.title or None, title_justify="left", title_style="bold", box=box.ROUNDED
        )
        return self._filled(table, [None] * len(self.columns))

    def _narrow(self, widths: Sequence[int]) -> RichTable:
        from rich import box
        from rich.table import Table as RichTable

        table = RichTable(
            title=self.title or None, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, padding=0,
            pad_edge=False,
        )  # fmt: skip
        return self._filled(table, widths)

    def _filled(self, table: RichTable, widths: Sequence[int | None]) -> RichTable:
        from rich.text import Text

        for n, (name, width) in enumerate(zip(self.columns, widths, strict=True)):
            style = self.styles[n] if self.styles else "bold" if n == 0 else ""
            side: JustifyMethod = "right" if self.numbers and n else "left"
            table.add_column(name, style=style, overflow="fold", width=width, justify=side)
        for n, row in enumerate(self.rows):
            table.add_row(*(Text(escaped(cell)) for cell in row), style=self.marks.get(n))
        return table


def _longest_word(text: str) -> int:
    return max(map(len, text.split()), default=0)


class Showable(ABC):
    """An object that is displayed as tables. ``str`` returns plain text; on a console of the
    library rich, the tables have styles."""

    @abstractmethod
    def tables(self) -> Sequence[Table | str]:
        """The tables, and lines of text between the tables."""

    def __str__(self) -> str:
        return "\n".join(self.lines())

    def lines(self) -> list[str]:
        """The tables as lines of text, with an empty line between the tables."""
        blocks = [
            part.split("\n") if isinstance(part, str) else part.lines() for part in self.tables()
        ]
        return [line for block in blocks for line in ("", *block)][1:]

    def __rich__(self) -> Group:
        from rich.console import Group
        from rich.text import Text

        return Group(
            *(Text(part, "bold") if isinstance(part, str) else part for part in self.tables())
        )


def table_of(
    title: str, rows: Iterable[Mapping[str, object]], columns: Sequence[str] = (), optional: Iterable[str] = (),
    headings: Mapping[str, str] = MappingProxyType({}),
) -> Table:  # fmt: skip
    """Make a table from rows of plain data. ``columns`` are the keys of the columns to show; if
    ``columns`` is empty, all keys of the first row are shown. A column in ``optional`` is left out
    if all its cells are empty. ``headings`` has shorter names of columns for display."""
    rows = list(rows)
    names = tuple(columns) or tuple(rows[0] if rows else ())
    empty = {name for name in optional if not any(cell(row.get(name)) for row in rows)}
    names = tuple(name for name in names if name not in empty)
    heads = tuple(headings.get(name, name) for name in names)
    return Table(title, heads, tuple(tuple(cell(row.get(name)) for name in names) for row in rows))


def cell(value: object) -> str:
    """Convert a value to a text for display: True becomes "yes", False and None become ""."""
    if value is None or value is False:
        return ""
    return "yes" if value is True else str(value)
