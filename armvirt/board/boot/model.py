"""What a loader hands to the board."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, Protocol


class SymbolSource(Protocol):
    """Names for addresses."""

    def lookup(self, address: int) -> str | None:
        """``name`` or ``name+0x10``, or None."""

    def names(self) -> Iterable[str]:
        """Every name that `address_of` knows."""

    def address_of(self, name: str) -> int | None:
        """The address of a symbol, or None."""

    def addresses_of(self, name: str) -> list[int]:
        """The addresses of all symbols of a name: static functions of several files can share
        one."""


class Ram(NamedTuple):
    """The guest's RAM: ``size`` bytes from ``base``."""

    base: int
    size: int

    @property
    def end(self) -> int:
        """The first address after RAM."""
        return self.base + self.size

    def holds(self, start: int, end: int) -> bool:
        """Whether [start, end) is inside."""
        return self.base <= start <= end <= self.end

    def __str__(self) -> str:
        return f"RAM {self.base:#x}..{self.end:#x}"


class Segment(NamedTuple):
    """``data`` at guest physical ``address``; the rest of ``size`` bytes is zero."""

    address: int
    data: bytes
    size: int

    def __repr__(self) -> str:
        return f"Segment(address={self.address:#x}, size={self.size:#x}, {len(self.data)} bytes of data)"

    @property
    def end(self) -> int:
        """The first address after the segment."""
        return self.address + self.size


class Loaded(NamedTuple):
    """A guest, ready to be put into memory.

    ``kind`` is elf, image, flat or bios. ``end`` is the first address after everything that the
    guest claims, its bss included (the RAM base if it claims nothing there).
    """

    path: str
    kind: str
    segments: tuple[Segment, ...]
    entry: int
    end: int
    symbols: SymbolSource | None = None

    def __repr__(self) -> str:
        return f"<Loaded {self.kind} {self.path}: {len(self.segments)} segments, entry {self.entry:#x}>"

    @property
    def start(self) -> int:
        """The lowest address of the guest."""
        return min(segment.address for segment in self.segments)
