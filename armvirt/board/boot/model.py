"""The data that a loader returns to the board: a loaded guest, its segments and symbols."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from armvirt.records import NamedTuple


class SymbolSource(Protocol):
    """The symbols of a guest: names for addresses."""

    def lookup(self, address: int) -> str | None:
        """The symbol at an address, as ``name`` or ``name+0x10``; None if there is no symbol."""

    def names(self) -> Iterable[str]:
        """Every name for which `address_of` has an address."""

    def address_of(self, name: str) -> int | None:
        """The address of a symbol; None if there is no symbol of this name."""

    def addresses_of(self, name: str) -> list[int]:
        """The addresses of all symbols of a name: static functions of several files can have the
        same name."""


class Ram(NamedTuple):
    """The guest's RAM: ``size`` bytes from ``base``."""

    base: int
    size: int

    @property
    def end(self) -> int:
        """The first address after RAM."""
        return self.base + self.size

    def holds(self, start: int, end: int) -> bool:
        """Whether [start, end) is inside RAM."""
        return self.base <= start <= end <= self.end

    def __str__(self) -> str:
        return f"RAM {self.base:#x}..{self.end:#x}"


class Segment(NamedTuple):
    """``size`` bytes at guest physical ``address``: ``data``, then zeros."""

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
    """A guest that was read from its file, and that can be written to memory.

    ``kind`` is elf, image, flat or bios. ``end`` is the first address after all memory that the
    guest uses, with its bss (the RAM base for a ROM).
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
