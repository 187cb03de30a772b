"""Names for addresses, from the symbol table of an ELF file, read when first asked for."""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import NamedTuple

from armvirt.board.boot.source import ImageFile
from armvirt.errors import ImageError

_SHDR = struct.Struct("<IIQQQQIIQQ")
_SYM = struct.Struct("<IBBHQQ")
_SHT_SYMTAB = 2
_NOTYPE, _OBJECT, _FUNC = 0, 1, 2
_SHN_UNDEF, _SHN_RESERVED = 0, 0xFF00
_MAX_TABLE = 1 << 28


class Symbol(NamedTuple):
    """A named range of link-time addresses; ``size`` 0 is unknown."""

    address: int
    size: int
    name: str


class SymbolTable:
    """The symbols of one ELF file.

    ``bias`` is added to the file's addresses. ``ranges`` are the loaded (physical, virtual, size), so that a PC
    has its name before the guest turns its MMU on as well as after; none are needed for the symbols of a kernel
    whose Image was booted. A file without symbols, or whose symbol
    table is damaged, has no names: that is no reason to refuse the guest.
    """

    def __init__(self, path: str, bias: int, ranges: Sequence[tuple[int, int, int]]) -> None:
        self._path, self._bias, self._ranges = path, bias, tuple(ranges)

    def __repr__(self) -> str:
        return f"<SymbolTable of {self._path}>"

    def lookup(self, address: int) -> str | None:
        """``name`` or ``name+0x10`` of a virtual or physical address, or None."""
        symbol = self._find(address)
        if symbol is None and (virtual := self._virtual(address)) is not None:
            address, symbol = virtual, self._find(virtual)
        if symbol is None:
            return None
        offset = address - symbol.address
        return f"{symbol.name}+{offset:#x}" if offset else symbol.name

    def address_of(self, name: str) -> int | None:
        """The (virtual) address of a symbol, or None."""
        return self._names.get(name)

    def names(self) -> Iterable[str]:
        """Every name that `address_of` knows."""
        return self._names.keys()

    def _virtual(self, address: int) -> int | None:
        for physical, virtual, size in self._ranges:
            if physical <= address < physical + size:
                return address - physical + virtual
        return None

    def _find(self, address: int) -> Symbol | None:
        index = bisect_right(self._addresses, address) - 1
        if index < 0:
            return None
        symbol = self.symbols[index]
        end = symbol.address + symbol.size if symbol.size else self._open_end(index)
        return symbol if address < end else None

    def _open_end(self, index: int) -> int:
        """A label of unknown size reaches to the next symbol, but not beyond what was loaded."""
        start = self.symbols[index].address
        bounds = [virtual + size for _, virtual, size in self._ranges if virtual <= start < virtual + size]
        bounds += [symbol.address for symbol in self.symbols[index + 1 : index + 2]]
        return min(bounds, default=start + 1)

    @cached_property
    def symbols(self) -> list[Symbol]:
        """All symbols by address; of several at one address, the best."""
        try:
            with ImageFile(self._path) as source:
                found = _read(source)
        except ImageError:
            return []
        best: dict[int, tuple[int, Symbol]] = {}
        for rank, symbol in found:
            moved = symbol._replace(address=symbol.address + self._bias)
            if moved.address not in best or rank > best[moved.address][0]:
                best[moved.address] = rank, moved
        return [best[address][1] for address in sorted(best)]

    @cached_property
    def _addresses(self) -> list[int]:
        return [symbol.address for symbol in self.symbols]

    @cached_property
    def _names(self) -> dict[str, int]:
        return {symbol.name: symbol.address for symbol in self.symbols}


def _read(source: ImageFile) -> list[tuple[int, Symbol]]:
    """(rank, symbol) of every symbol that names code or data; a function outranks a bare label."""
    sections = _sections(source)
    for kind, offset, size, link in sections:
        if kind == _SHT_SYMTAB and link < len(sections) and size <= _MAX_TABLE and not size % _SYM.size:
            _, names_offset, names_size, _ = sections[link]
            names = source.read_at(names_offset, min(names_size, _MAX_TABLE))
            return _symbols(source.read_at(offset, size), names)
    return []


def _sections(source: ImageFile) -> list[tuple[int, int, int, int]]:
    """(type, offset, size, link) of each section."""
    header = source.read_at(0, 64)
    (shoff,) = struct.unpack_from("<Q", header, 40)
    entry_size, count = struct.unpack_from("<HH", header, 58)
    if entry_size != _SHDR.size:
        return []
    table = source.read_at(shoff, count * _SHDR.size)
    return [(fields[1], fields[4], fields[5], fields[6]) for fields in _SHDR.iter_unpack(table)]


def _symbols(table: bytes, names: bytes) -> list[tuple[int, Symbol]]:
    found = []
    for name, info, _, section, address, size in _SYM.iter_unpack(table):
        kind = info & 15
        if kind > _FUNC or section == _SHN_UNDEF or section >= _SHN_RESERVED:
            continue
        text = names[name : max(names.find(b"\0", name), name)].decode("utf-8", "replace")
        # $x and $d are the mapping symbols of the AArch64 ELF ABI, not names.
        if text and not text.startswith("$"):
            found.append((kind * 2 + (info >> 4 & 1), Symbol(address, size, text)))
    return found
