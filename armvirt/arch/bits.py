"""Bit operations on integers: 32-bit and 64-bit masks, sign extension, the fields of a register."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

from armvirt.records import NamedTuple

MASK32 = (1 << 32) - 1
MASK64 = (1 << 64) - 1


def sign_extend(value: int, bits: int) -> int:
    """Return the lowest ``bits`` bits of ``value`` as a two's complement number."""
    low = value & (1 << bits) - 1
    return low - (1 << bits) if low >> bits - 1 else low


def shift_of(mask: int) -> int:
    """Return the number of the lowest bit that is set in ``mask``. This is the shift of a field
    whose bits are ``mask``."""
    return (mask & -mask).bit_length() - 1


class Field(NamedTuple):
    """Bits ``high`` to ``low`` of a register, both included."""

    name: str
    high: int
    low: int

    @property
    def mask(self) -> int:
        """The mask of the field at its position in the register."""
        return (1 << self.high + 1) - (1 << self.low)

    def get(self, value: int) -> int:
        """Extract the field from ``value``, the value of the whole register."""
        return (value & self.mask) >> self.low

    def put(self, value: int, field: int) -> int:
        """Return ``value`` with this field set to ``field``. Bits of ``field`` that do not fit are
        dropped."""
        return value & ~self.mask | field << self.low & self.mask


def parse_fields(layout: str) -> Iterator[Field]:
    """Parse the layout of a register. Each word of ``layout`` is "NAME:bit" or "NAME:high:low"."""
    for word in layout.split():
        name, high, *low = word.split(":")
        yield Field(name, int(high), int(low[0]) if low else int(high))


@lru_cache
def masks(layout: str) -> dict[str, int]:
    """Return the mask of each field of a register, by field name. ``layout`` is the text that
    `parse_fields` parses."""
    return {field.name: field.mask for field in parse_fields(layout)}
