"""Sizes of RAM as people write them, and their limits."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from armvirt.board.virt.memmap import RAM_MAX, RAM_MIN
from armvirt.errors import UserError
from armvirt.units import human_size, parse_size

MIB = 1 << 20


@pytest.mark.parametrize(
    ("text", "size"),
    [("512M", 512 * MIB), ("512", 512 * MIB), ("1G", 1024 * MIB), ("1.5g", 1536 * MIB), ("64MiB", 64 * MIB),
     ("64 MB", 64 * MIB), (" 2G ", 2048 * MIB), ("0x200M", 512 * MIB), ("131072K", 128 * MIB),
     ("536870912B", 512 * MIB), ("255G", 255 * 1024 * MIB), ("1M", MIB)],
)  # fmt: skip
def test_sizes_that_are_accepted(text: str, size: int) -> None:
    assert parse_size(text, RAM_MIN, RAM_MAX) == size


@pytest.mark.parametrize(
    ("text", "message"),
    [("", "is not a size"), ("lots", "is not a size"), ("-1M", "is not a size"), ("1e9", "is not a size"),
     ("5X", "is not a size"), ("1.5.2M", "is not a size"), ("\u0665M", "is not a size"), ("9" * 400, "is not a size"),
     ("0", "outside 1M..255G"), ("4K", "outside 1M..255G"), ("256G", "outside 1M..255G"), ("99T", "outside 1M..255G"),
     ("536870912", "a number without unit counts MiB"), ("1048577B", "not a multiple of 4 KiB"),
     ("1.0001M", "not a multiple of 4 KiB")],
)  # fmt: skip
def test_nonsense_is_one_clear_line(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        parse_size(text, RAM_MIN, RAM_MAX)
    assert "\n" not in str(caught.value)


@given(st.text(max_size=20))
def test_nothing_but_user_error(text: str) -> None:
    try:
        size = parse_size(text, RAM_MIN, RAM_MAX)
    except UserError:
        return
    assert size % 4096 == 0


@given(st.integers(256, 255 << 18))
def test_human_is_understood_again(pages: int) -> None:
    text = human_size(pages * 4096)
    assert parse_size(text, RAM_MIN, RAM_MAX) == pages * 4096


def test_human_of_odd_sizes() -> None:
    assert human_size(0) == "0 bytes"
    assert human_size(1000) == "1000 bytes"
