"""The data that a loader returns to the board: a loaded guest with its segments and symbols."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from armvirt.records import NamedTuple


class SymbolSource(Protocol):
    """The symbols of a guest. A symbol is a name for an address."""

    def lookup(self, address: int) -> str | None:
        """The symbol that contains an address, as ``name`` or ``name+0x10``; None if no symbol
        contains the address."""

    def names(self) -> Iterable[str]:
        """Every name for which `address_of` returns an address."""

    def address_of(self, name: str) -> int | None:
        """The address of a symbol; None if no symbol has this name."""

    def addresses_of(self, name: str) -> list[int]:
        """The addresses of all symbols that have this name. There can be more than one, because
        static functions of several files can have the same name."""


class Ram(NamedTuple):
    """The guest's RAM: ``size`` bytes from ``base``."""

    base: int
    size: int

    @property
    def end(self) -> int:
        """The first address after RAM."""
        return self.base + self.size

    def holds(self, start: int, end: int) -> bool:
        """Return True if the range [start, end) is inside RAM."""
        return self.base <= start <= end <= self.end

    def __str__(self) -> str:
        return f"RAM {self.base:#x}..{self.end:#x}"


class Segment(NamedTuple):
    """A segment of a guest: ``size`` bytes at the guest physical ``address``. The first bytes are
    ``data``, the rest is zero."""

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
    """A guest that the loader has read from its file. The board writes the segments to memory.

    ``path`` is the path of the file. ``kind`` is elf, image, flat or bios. ``entry`` is the address
    of the first instruction. ``end`` is the first address after all memory that the guest uses,
    including its bss. For firmware in the ROM, ``end`` is the RAM base. ``symbols`` has the guest's
    symbols; None if the file has no symbols.
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
        """The lowest guest physical address of all segments."""
        return min(segment.address for segment in self.segments)
