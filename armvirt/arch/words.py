"""Widths of integers: masks of 32 and 64 bits, sign extension."""

from __future__ import annotations

MASK32 = (1 << 32) - 1
MASK64 = (1 << 64) - 1


def sign_extend(value: int, bits: int) -> int:
    """The low ``bits`` bits of ``value`` as a signed number."""
    low = value & (1 << bits) - 1
    return low - (1 << bits) if low >> bits - 1 else low
