"""Times, sizes, frequencies and counts as people write them."""

from __future__ import annotations

import pytest

from armvirt import units
from armvirt.errors import UserError


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
