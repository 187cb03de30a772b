"""The symbol table of an ELF file. The file is read when the first symbol is looked up.

In memory a table is a few arrays and the string table of the file, so the size of the file limits
the memory of the table. The names are not stored separately, because that could take much more
memory: each of the n tails of a string of n characters can be the name of a symbol. A name is
converted to text when the name is displayed. This text is printable and has a limited length.
"""

from __future__ import annotations

import struct
from array import array
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from functools import cached_property

from armvirt.arch.bits import MASK64
from armvirt.errors import ImageError
from armvirt.inputs import Input
from armvirt.printable import MOST, printable

_SHDR = struct.Struct("<IIQQQQIIQQ")
_SYM_SIZE = 24
_SHT_SYMTAB = 2
_FUNC = 2
_SHN_UNDEF, _SHN_RESERVED = 0, 0xFF00
_MAX_SYMBOLS = 1 << 20  # several times the number in a kernel with all options
_MAX_NAMES = 1 << 28


class SymbolTable:
    """The symbols of one ELF file.

    ``bias`` is the number of bytes that is added to the addresses in the file. ``ranges`` are the
    loaded ranges, as (physical address, virtual address, size in bytes). With the ranges a PC has a
    name both before and after the guest enables its MMU. For a kernel that was booted from its
    Image, ``ranges`` can be empty. ``file`` is the file from which the guest was loaded: if this
    file has changed since then, the table is empty. The table is also empty for a file without
    symbols or with a damaged symbol table. A guest runs with an empty table, too.
    """

    def __init__(
        self,
        path: str,
        bias: int,
        ranges: Sequence[tuple[int, int, int]],
        file: Input | None = None,
    ) -> None:
        self._path, self._bias = path, bias
        self._data = None if file is None else file.data
        self._identity = None if file is None else file.identity
        self._by_physical = sorted(ranges)
        self._by_virtual = sorted((virtual, physical, size) for physical, virtual, size in ranges)

    def __repr__(self) -> str:
        return f"<SymbolTable of {self._path}>"

    def lookup(self, address: int) -> str | None:
        """The symbol that contains a virtual or physical address, as printable text ``name`` or
        ``name+0x10``; None if no symbol contains the address."""
        index = self._find(address)
        if index is None and (virtual := _moved(self._by_physical, address)) is not None:
            address, index = virtual, self._find(virtual)
        if index is None:
            return None
        offset, name = address - self._table.addresses[index], self._table.name(index)
        return f"{name}+{offset:#x}" if offset else name

    def address_of(self, name: str) -> int | None:
        """The virtual address of a symbol; None if no symbol has this name. ``name`` is the name in
        the file, which can differ from the displayed name."""
        return self._table.address_of(name)

    def addresses_of(self, name: str) -> list[int]:
        """The virtual addresses of all symbols that have this name."""
        return self._table.addresses_of(name)

    @property
    def origin(self) -> tuple[str, int] | None:
        """The path of the ELF file, and the number of bytes that is added to the addresses in the
        file. None if the file was a pipe, because a pipe cannot be read again."""
        return None if self._data is not None else (self._path, self._bias)

    def names(self) -> Iterator[str]:
        """The displayed names of all symbols, in the order of their addresses."""
        return map(self._table.name, range(len(self._table.addresses)))

    def _find(self, address: int) -> int | None:
        """The index of the symbol that contains an address; None if no symbol contains the address.
        A symbol of unknown size ends at the next symbol, or at the end of its loaded range."""
        table = self._table
        index = bisect_right(table.addresses, address) - 1
        if index < 0:
            return None
        start = table.addresses[index]
        size = table.sizes[index] or self._open_size(index)
        return index if address - start < size else None

    def _open_size(self, index: int) -> int:
        addresses = self._table.addresses
        start = addresses[index]
        ends = [addresses[index + 1]] if index + 1 < len(addresses) else []
        at = bisect_right(self._by_virtual, (start, MASK64, 0)) - 1
        if at >= 0:
            virtual, _, size = self._by_virtual[at]
            ends += [virtual + size] if start < virtual + size else []
        return min(ends, default=start + 1) - start

    @cached_property
    def _table(self) -> _Table:
        try:
            if self._data is not None:
                return _read(_Piped(self._data), self._bias)
            with Input(self._path) as source:
                if self._identity is None or source.identity == self._identity:
                    return _read(source, self._bias)
        except ImageError:
            pass
        return _Table([], b"", b"", 0)


def _moved(ranges: Sequence[tuple[int, int, int]], address: int) -> int | None:
    """Convert a physical address to a virtual address, or a virtual address to a physical address.
    ``ranges`` is a sorted list of (start, start of the converted range, size in bytes). Return None
    if no range contains the address."""
    at = bisect_right(ranges, (address, MASK64, 0)) - 1
    if at < 0:
        return None
    start, other, size = ranges[at]
    return address - start + other if address < start + size else None


class _Piped:
    """Data that was read from a pipe. `read_at` has the same parameters and result as
    `Input.read_at`."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def read_at(self, offset: int, size: int) -> bytes:
        if offset + size > len(self.data):
            raise ImageError("pipe", "it is truncated")
        return self.data[offset : offset + size]


class _Table:
    """The symbols in the order of their addresses. If several symbols have the same address, the
    table keeps only one: a function rather than an object, and an object rather than a label. Among
    symbols of the same type, the table keeps a global symbol rather than a local or weak symbol,
    and otherwise the first symbol in the file. ``keys`` have the format that `_ranked`
    describes."""

    def __init__(self, keys: list[int], raw: bytes, names: bytes, bias: int) -> None:
        keys.sort()
        words = memoryview(raw).cast("Q")
        # The first key of an address has the best rank.
        firsts = (
            key for key, before in zip(keys, [-1, *keys], strict=False) if key >> 40 != before >> 40
        )
        at = [3 * (key & 0xFFFF_FFFF) for key in firsts]
        self.addresses = array("Q", [words[n + 1] + bias & MASK64 for n in at])
        self.sizes = array("Q", [words[n + 2] for n in at])
        self._offsets = array("I", [words[n] & 0xFFFF_FFFF for n in at])
        self._names = names

    def name(self, index: int) -> str:
        """The displayed name of the symbol with this index."""
        start = self._offsets[index]
        # A character takes up to four bytes; the search for the end of the name stops there.
        end = self._names.find(b"\0", start, start + 4 * MOST)
        raw = self._names[start : end if end >= 0 else start + 4 * MOST]
        return printable(raw.decode("utf-8", "replace"))

    def address_of(self, name: str) -> int | None:
        """The address of the first symbol that has this name; None if no symbol has this name. A
        linear search is sufficient, because a run looks up only one or two names."""
        index = next(self._named(name), None)
        return None if index is None else self.addresses[index]

    def addresses_of(self, name: str) -> list[int]:
        """The addresses of all symbols that have this name."""
        return [self.addresses[index] for index in self._named(name)]

    def _named(self, name: str) -> Iterator[int]:
        wanted = name.encode("utf-8", "surrogateescape") + b"\0"
        starts = self._names.startswith
        return (n for n, offset in enumerate(self._offsets) if starts(wanted, offset))


def _read(source: Input | _Piped, bias: int) -> _Table:
    for kind, offset, size, link in (sections := _sections(source)):
        if (
            kind == _SHT_SYMTAB
            and link < len(sections)
            and size <= _MAX_SYMBOLS * _SYM_SIZE
            and not size % _SYM_SIZE
        ):
            _, names_offset, names_size, _ = sections[link]
            names = source.read_at(names_offset, min(names_size, _MAX_NAMES))
            raw = source.read_at(offset, size)
            return _Table(_ranked(raw, names, bias), raw, names, bias)
    return _Table([], b"", b"", 0)


def _sections(source: Input | _Piped) -> list[tuple[int, int, int, int]]:
    """The sections of an ELF file, each as (type, offset, size, link)."""
    header = source.read_at(0, 64)
    (shoff,) = struct.unpack_from("<Q", header, 40)
    entry_size, count = struct.unpack_from("<HH", header, 58)
    if entry_size != _SHDR.size:
        return []
    table = source.read_at(shoff, count * _SHDR.size)
    return [(fields[1], fields[4], fields[5], fields[6]) for fields in _SHDR.iter_unpack(table)]


def _ranked(raw: bytes, names: bytes, bias: int) -> list[int]:
    """Return one number for each symbol that names code or data. From the top bits down, the number
    contains the address (64 bits), the rank (8 bits; the symbol of rank 0 has the highest priority)
    and the index in the symbol table (32 bits)."""
    words = memoryview(raw).cast(
        "Q"
    )  # st_name, st_info, st_other and st_shndx in one, st_value, st_size
    last = len(names) - 1
    return [
        (address + bias & MASK64) << 40 | _RANKS[first >> 32 & 0xFF] << 32 | index
        for index, (first, address) in enumerate(zip(words[0::3], words[1::3], strict=True))
        if first >> 32 & 0xFF in _RANKS
        and _SHN_UNDEF < first >> 48 < _SHN_RESERVED
        and (at := first & 0xFFFF_FFFF) < last
        and names[at] not in _NO_NAMES
    ]


#: By st_info: a function before an object before a label, global before local.
_RANKS = {
    bind << 4 | kind: 7 - 2 * kind - (bind & 1) for bind in range(16) for kind in range(_FUNC + 1)
}
_NO_NAMES = b"\0$"  # $x and $d are the mapping symbols of the AArch64 ELF ABI
