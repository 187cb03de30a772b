"""Text of guests and users is printed without control characters."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from armvirt.printable import MOST, escaped, printable, printable_lines
from armvirt.tables import Table


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("main+0x4", "main+0x4"),
        ("naïve λ 語", "naïve λ 語"),
        ("a\nVERDICT: PASS", "a\\nVERDICT: PASS"),
        ("\x1b[2J", "\\x1b[2J"),
        ("\r\t\0\x7f\x9b", "\\r\\t\\x00\\x7f\\x9b"),
        ("\u202e\u2066", "\\u202e\\u2066"),  # overrides of the writing direction
        ("a\u2028b\u0085c", "a\\u2028b\\x85c"),  # line separators that str.splitlines knows
        ("\udcff.elf", "\\xff.elf"),  # a file name that is not UTF-8
        ("\U000e0001", "\\U000e0001"),
    ],
)
def test_what_is_shown(text: str, shown: str) -> None:
    assert printable(text) == shown


@given(st.text(alphabet=st.characters(), max_size=2000), st.integers(8, 400))
def test_one_line_of_bounded_length(text: str, most: int) -> None:
    shown = printable(text, most)
    assert shown.isprintable()
    assert len(shown) <= most
    assert len(text) > most or len(escaped(text)) > most or shown == escaped(text)


def test_a_long_name_keeps_its_ends() -> None:
    shown = printable("first" + "x" * 10**7 + "last")
    assert shown.startswith("first") and shown.endswith("last") and len(shown) == MOST


def test_lines_of_a_console() -> None:
    assert printable_lines("a\r\n\tb\x1b[m\n") == ["a", "        b\\x1b[m", ""]


def test_no_cell_of_a_table_begins_a_line() -> None:
    table = Table("t\nVERDICT: PASS", ("a", "b"), (("x\nVERDICT: PASS", "\x1b[A"),))
    assert [line for line in str(table).splitlines() if line.startswith("VERDICT")] == []
    assert len(str(table).splitlines()) == 3
    assert "\x1b" not in str(table)
