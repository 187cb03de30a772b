"""Times, sizes, frequencies and counts as people write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from armvirt import units
from armvirt.board.virt.memmap import RAM_MAX, RAM_MIN
from armvirt.errors import UserError

MIB = 1 << 20


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", 0),
        ("1500", 1500),
        ("0x5dc", 1500),
        ("1.5k", 1500),
        ("10M", 10_000_000),
        (" 1_000 ", 1000),
        ("2T", 2 * 10**12),
    ],
)
def test_counts(text: str, value: int) -> None:
    assert units.parse_count(text) == value


@pytest.mark.parametrize(
    "text", ["", "x", "1.5", "-1", "1q", "1e3", "0x", "0xg", "1 2", "١", "9" * 60, "nan", "1M1"]
)
def test_no_counts(text: str) -> None:
    with pytest.raises(UserError):
        units.parse_count(text)


def test_a_count_out_of_bounds_says_the_bounds() -> None:
    with pytest.raises(UserError, match=r"CPU count 65 is outside 1\.\.64"):
        units.parse_count("65", 1, 64, what="CPU count")


@pytest.mark.parametrize(
    ("text", "hz"),
    [
        ("62.5MHz", 62_500_000),
        ("62500000", 62_500_000),
        ("24M", 24_000_000),
        ("1GHz", 10**9),
        ("32768 Hz", 32768),
        ("1khz", 1000),
    ],
)
def test_frequencies(text: str, hz: int) -> None:
    assert units.parse_frequency(text) == hz


@pytest.mark.parametrize("text", ["0", "5GHz", "Hz", "1.0000001Hz", "-1M", "10ms"])
def test_no_frequencies(text: str) -> None:
    with pytest.raises(UserError, match="frequency"):
        units.parse_frequency(text)


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("10ms", 10**7),
        ("2s", 2 * 10**9),
        ("2", 2 * 10**9),
        ("2.5us", 2500),
        ("7ns", 7),
        ("1m", 6 * 10**10),
        ("1h", 36 * 10**11),
    ],
)
def test_times(text: str, ns: int) -> None:
    assert units.parse_time(text) == ns


@pytest.mark.parametrize("text", ["0s", "3x", "-1s", "0.5ns", "10000000000h", ""])
def test_no_times(text: str) -> None:
    with pytest.raises(UserError, match="time"):
        units.parse_time(text)


def test_a_negative_offset_is_what_the_register_holds() -> None:
    assert units.parse_offset("-1") == (1 << 64) - 1
    assert units.parse_offset("0x10") == 16
    with pytest.raises(UserError):
        units.parse_offset("-9223372036854775809")


@pytest.mark.parametrize(
    ("ns", "text"), [(7, "7 ns"), (1500, "1.5 us"), (100_000_000, "100 ms"), (2 * 10**9, "2 s")]
)
def test_times_for_people(ns: int, text: str) -> None:
    assert units.human_time(ns) == text


# -- sizes of RAM --


@pytest.mark.parametrize(
    ("text", "size"),
    [("512M", 512 * MIB), ("512", 512 * MIB), ("1G", 1024 * MIB), ("1.5g", 1536 * MIB), ("64MiB", 64 * MIB),
     ("64 MB", 64 * MIB), (" 2G ", 2048 * MIB), ("0x200M", 512 * MIB), ("131072K", 128 * MIB),
     ("536870912B", 512 * MIB), ("255G", 255 * 1024 * MIB), ("1M", MIB)],
)  # fmt: skip
def test_sizes(text: str, size: int) -> None:
    assert units.parse_size(text, RAM_MIN, RAM_MAX) == size


@pytest.mark.parametrize(
    ("text", "message"),
    [("", "is not a size"), ("lots", "is not a size"), ("-1M", "is not a size"), ("1e9", "is not a size"),
     ("5X", "is not a size"), ("1.5.2M", "is not a size"), ("\u0665M", "is not a size"), ("9" * 400, "is not a size"),
     ("0", "outside 1M..255G"), ("4K", "outside 1M..255G"), ("256G", "outside 1M..255G"), ("99T", "outside 1M..255G"),
     ("536870912", "a number without unit counts MiB"), ("1048577B", "not a multiple of 4 KiB"),
     ("1.0001M", "not a multiple of 4 KiB")],
)  # fmt: skip
def test_no_sizes_are_one_clear_line(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        units.parse_size(text, RAM_MIN, RAM_MAX)
    assert "\n" not in str(caught.value)


@given(st.text(max_size=20))
def test_a_size_of_any_text_is_valid_or_a_user_error(text: str) -> None:
    try:
        size = units.parse_size(text, RAM_MIN, RAM_MAX)
    except UserError:
        return
    assert size % 4096 == 0


@given(st.integers(256, 255 << 18))
def test_a_size_for_people_is_understood_again(pages: int) -> None:
    text = units.human_size(pages * 4096)
    assert units.parse_size(text, RAM_MIN, RAM_MAX) == pages * 4096


def test_odd_sizes_for_people() -> None:
    assert units.human_size(0) == "0 bytes"
    assert units.human_size(1000) == "1000 bytes"
