"""Functions that parse and format numbers: ``1M``, ``0x1000``, ``62.5MHz``, ``10ms``, ``512MiB``.
The functions that parse numbers return exact results, without floats."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from armvirt.arch.bits import MASK64
from armvirt.arch.translation import PAGE_SIZE
from armvirt.errors import UserError

if TYPE_CHECKING:
    from fractions import Fraction

_NUMBER = re.compile(
    r"(?P<sign>-?)(?P<digits>0[xX][0-9a-fA-F]+|\d+(?:\.\d+)?)\s*(?P<unit>[a-zA-Z]*)", re.ASCII
)
_LONGEST = 40
_SI = {"": 1, "k": 10**3, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_TIME = {
    "ns": 1,
    "us": 10**3,
    "ms": 10**6,
    "s": 10**9,
    "": 10**9,
    "m": 60 * 10**9,
    "min": 60 * 10**9,
    "h": 3600 * 10**9,
}
_SIZE = {"": 1 << 20, "B": 1} | {
    unit + rest: 1 << shift
    for unit, shift in (("K", 10), ("M", 20), ("G", 30), ("T", 40))
    for rest in ("", "B", "IB")
}
LONGEST_TIME = 1 << 62  # ns; longer than any run, and small enough to add to the clock


def parse_count(text: str, low: int = 0, high: int = MASK64, *, what: str = "number") -> int:
    """Parse a whole number from ``low`` to ``high``: ``1500``, ``0x5dc``, ``1.5k``, ``10M``. The
    units k, M, G and T are powers of 1000. ``what`` names the number in error messages."""
    return _bounded(text, _parse(text, _SI, what, "for example 1000, 0x3e8 or 1k"), low, high, what)


def parse_offset(text: str) -> int:
    """Parse a value of CNTVOFF_EL2 in ticks. For a negative number, the result is its 64-bit two's
    complement."""
    return parse_count(text, -(1 << 63), MASK64, what="offset") & MASK64


def parse_frequency(text: str) -> int:
    """Parse a frequency, and return it in Hz: ``62500000``, ``62.5MHz``, ``24M``, ``1GHz``. The
    maximum is that of CNTFRQ_EL0, which has 32 bits."""
    bare = text.strip()
    bare = bare[:-2] if bare[-2:].lower() == "hz" else bare
    value = _parse(bare, _SI, "frequency", "for example 62.5MHz")
    return _bounded(text, value, 1, (1 << 32) - 1, "frequency", " Hz")


def parse_time(text: str) -> int:
    """Parse a span of time, and return it in ns: ``100ns``, ``10us``, ``2.5ms``, ``2s``, ``1m``
    (one minute), ``1h``. A number without a unit is in seconds."""
    value = _parse(text, _TIME, "time", "for example 10ms or 2s")
    return _bounded(text, value, 1, LONGEST_TIME, "time", " ns")


def parse_address(text: str) -> int:
    """Parse a physical address below 2^48."""
    return parse_count(text, 0, (1 << 48) - 1, what="address")


def parse_date(text: str) -> int:
    """Parse a date: ``2024-02-29``, ``2024-02-29T12:30:00`` (UTC), or seconds since 1970. The
    result is in seconds since 1970. It has at most 32 bits, because the counter of a PL031 has 32
    bits."""
    from datetime import datetime, timezone

    bare = text.strip()
    if bare.isascii() and bare.isdecimal():
        return parse_count(bare, 0, (1 << 32) - 1, what="date")
    try:
        date = datetime.fromisoformat(bare.removesuffix("Z"))
    except ValueError:
        raise UserError(
            f"{text[:_LONGEST]!r} is not a date; write for example 2024-02-29T12:30:00"
        ) from None
    if date.tzinfo is None:
        date = date.replace(tzinfo=timezone.utc)
    return parse_count(str(int(date.timestamp())), 0, (1 << 32) - 1, what="date")


def parse_size(text: str, least: int, most: int) -> int:
    """Parse a size of guest RAM: ``512M``, ``1.5GiB``, ``0x20000K``. The result is in bytes.

    A number without a unit is in MiB, as in QEMU's ``-m``. UserError for a text that is not a size,
    for a size that is not a multiple of 4 KiB, and for a size below ``least`` or above ``most``
    bytes.
    """
    match = _match(text)
    if match is None or match["sign"] or match["unit"].upper() not in _SIZE:
        raise UserError(
            f"memory size {text[:_LONGEST]!r} is not a size; write for example 512M or 2G"
        )
    size = _number(match["digits"]) * _SIZE[match["unit"].upper()]
    if not least <= size <= most:
        note = "" if match["unit"] else "; a number without unit counts MiB"
        bounds = f"{human_size(least)}..{human_size(most)}"
        raise UserError(f"memory size {text.strip()} is outside {bounds}{note}")
    if size % PAGE_SIZE:
        raise UserError(
            f"memory size {text.strip()} is not a multiple of 4 KiB; round it, for example to 512M"
        )
    return int(size)


def _match(text: str) -> re.Match[str] | None:
    """Match a number with its sign, digits and unit. None if the text is not a number."""
    compact = text.strip().replace("_", "")
    return _NUMBER.fullmatch(compact) if len(compact) <= _LONGEST else None


def _number(digits: str) -> int | Fraction:
    if "." not in digits:
        return int(digits, 16 if digits[:2] in ("0x", "0X") else 10)
    from fractions import Fraction  # imported here, because a whole number does not need it

    return Fraction(digits)


def _parse(text: str, units: dict[str, int], what: str, example: str) -> int | Fraction:
    match = _match(text)
    if match is None or match["unit"] not in units:
        article = "an" if what[0].lower() in "aeio" else "a"
        raise UserError(f"{text[:_LONGEST]!r} is not {article} {what}; write {example}")
    return _number(match["digits"]) * units[match["unit"]] * (-1 if match["sign"] else 1)


def _bounded(
    text: str, value: int | Fraction, low: int, high: int, what: str, unit: str = ""
) -> int:
    if value.denominator != 1:
        raise UserError(
            f"{what} {text.strip()} is not a whole number{' of' + unit if unit else ''}"
        )
    if not low <= value <= high:
        raise UserError(f"{what} {text.strip()} is outside {low}..{high}{unit}")
    return int(value)


def human_size(size: int) -> str:
    """Convert a size in bytes to text, in the largest unit that gives a whole number: 536870912
    becomes ``512M``."""
    for unit in "TGMK":
        if size and size % _SIZE[unit] == 0:
            return f"{size // _SIZE[unit]}{unit}"
    return f"{size} bytes"


def human_time(ns: int) -> str:
    """Convert a time in ns to text with at most four digits: ``1.5 ms``, ``100 ms``, ``20 ns``."""
    for unit, scale in (("s", 10**9), ("ms", 10**6), ("us", 10**3)):
        if abs(ns) >= scale * 0.99995:  # otherwise 999.99 us would become 1000 us
            return f"{ns / scale:.4g} {unit}"
    return f"{ns} ns"
