"""Integers as bit fields: words of 32 and 64 bits, sign extension, the fields of a register."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

MASK32 = (1 << 32) - 1
MASK64 = (1 << 64) - 1


def sign_extend(value: int, bits: int) -> int:
    """The low ``bits`` bits of ``value`` as a signed number."""
    low = value & (1 << bits) - 1
    return low - (1 << bits) if low >> bits - 1 else low


def shift_of(mask: int) -> int:
    """The number of the lowest bit of a field, by which the value of the field is shifted."""
    return (mask & -mask).bit_length() - 1


class Field(NamedTuple):
    """Bits ``high`` to ``low`` of a register, both included."""

    name: str
    high: int
    low: int

    @property
    def mask(self) -> int:
        """The mask of the field, in place."""
        return (1 << self.high + 1) - (1 << self.low)

    def get(self, value: int) -> int:
        """The field of ``value``, shifted right to bit 0."""
        return (value & self.mask) >> self.low

    def put(self, value: int, field: int) -> int:
        """``value`` with this field replaced; bits of ``field`` beyond its width are dropped."""
        return value & ~self.mask | field << self.low & self.mask


def parse_fields(layout: str) -> Iterator[Field]:
    """The fields of a layout in text form: words "NAME:bit" or "NAME:high:low"."""
    for word in layout.split():
        name, high, *low = word.split(":")
        yield Field(name, int(high), int(low[0]) if low else int(high))


@lru_cache
def masks(layout: str) -> dict[str, int]:
    """The mask of each field of a layout, by name."""
    return {field.name: field.mask for field in parse_fields(layout)}
