"""Amounts of memory as people write them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from armvirt.board.virt.memmap import RAM_MAX, RAM_MIN
from armvirt.errors import UserError

if TYPE_CHECKING:
    from fractions import Fraction

_UNITS = {"B": 0, "K": 10, "M": 20, "G": 30, "T": 40}
_SIZE = re.compile(
    r"(?P<number>0[xX][0-9a-fA-F]+|\d+(?:\.\d+)?) ?(?P<unit>[BKMGT]?)(?:I?B)?",
    re.IGNORECASE | re.ASCII,
)
_LONGEST = 32
PAGE = 4096


def human(size: int) -> str:
    """``size`` bytes in the largest unit that is exact: 536870912 is ``512M``."""
    for unit in "TGMK":
        if size and size % (1 << _UNITS[unit]) == 0:
            return f"{size >> _UNITS[unit]}{unit}"
    return f"{size} bytes"


def parse_size(text: str) -> int:
    """The bytes of guest RAM that ``text`` asks for: ``512M``, ``1.5GiB``, ``0x20000K``.

    A number without unit counts MiB, as in QEMU's ``-m``. UserError for what is no size, is not a
    multiple of 4 KiB, or is outside 1M..255G (the board's RAM window).
    """
    match = _SIZE.fullmatch(text.strip()) if len(text) <= _LONGEST else None
    if match is None:
        raise UserError(
            f"memory size {text[:_LONGEST]!r} is not a size; write for example 512M or 2G"
        )
    size = _number(match["number"]) * (1 << _UNITS[match["unit"].upper() or "M"])
    _check(text.strip(), size, bare=not match["unit"])
    return int(size)


def _number(digits: str) -> int | Fraction:
    if "." not in digits:
        return int(digits, 16 if digits[:2] in ("0x", "0X") else 10)
    from fractions import Fraction  # with decimal behind it: not for the usual whole number

    return Fraction(digits)


def _check(text: str, size: int | Fraction, bare: bool) -> None:
    if not RAM_MIN <= size <= RAM_MAX:
        note = "; a number without unit counts MiB" if bare else ""
        raise UserError(f"memory size {text} is outside {human(RAM_MIN)}..{human(RAM_MAX)}{note}")
    if size % PAGE:
        raise UserError(
            f"memory size {text} is not a multiple of 4 KiB; round it, for example to 512M"
        )
