"""Tables print as text and with rich. Text of a guest is never taken for markup."""

from __future__ import annotations

import io
import subprocess
import sys

from rich.console import Console

from armvirt.tables import Showable, Table, table_of


class Two(Showable):
    def tables(self) -> list[Table | str]:
        return [
            table_of("first", [{"a": 1, "b": True}, {"a": None, "b": False}]),
            "[red]words[/red]",
        ]


def shown(what: object, width: int = 60) -> str:
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    console.print(what)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_as_text() -> None:
    assert str(Two()).splitlines()[:3] == ["first", "  a  b", "  1  yes"]
    assert str(Two()).splitlines()[-1] == "[red]words[/red]"


def test_with_rich() -> None:
    text = shown(Two())
    assert "╭" in text and "yes" in text and "[red]words[/red]" in text


def test_columns_can_be_chosen() -> None:
    assert table_of("", [{"a": 1, "b": 2}], ["b"]) == Table("", ("b",), (("2",),))
    assert str(table_of("", [{"a": 1, "b": 2}], ["b"])) == "b\n2"
    assert table_of("none", []) == Table("none", (), ())


def test_rich_is_imported_only_to_show() -> None:
    code = "import sys, armvirt.tables, armvirt.views.explain, armvirt.views.gic; sys.exit('rich' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_where_the_terminal_is_narrow() -> None:
    """No lines between the cells; what is short stays whole, what is long is folded."""
    row = {
        "name": "a-word-of-18-chars",
        "text": "so many words that they fill several lines",
        "value": "0x12345678",
    }
    table = table_of("", [row])
    assert "╭" in shown(table, 90)
    text = shown(table, 44)
    assert "╭" not in text and max(map(len, text.splitlines())) <= 44
    first = next(line for line in text.splitlines() if "a-word-of-18-chars" in line)
    assert "0x12345678" in first and "so many" in first and "lines" in text


def test_columns_without_anything_can_be_left_out_and_have_other_names() -> None:
    rows = [{"a": 1, "b": None, "c": False}, {"a": 2, "b": None, "c": True}]
    table = table_of("", rows, optional=("b", "c"), headings={"a": "A"})
    assert table == Table("", ("A", "c"), (("1", ""), ("2", "yes")))
