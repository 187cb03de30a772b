"""Symbols from a separate file (``--symbols``): the ELF file of the guest, or a System.map.

An arm64 Image has no symbols. Its vmlinux and its System.map have link-time addresses. The kernel
executes at physical addresses until the MMU is on. Then the kernel executes at link-time addresses,
or, with KASLR, at link-time addresses plus an offset, which `ImageSymbols` finds.
"""

from __future__ import annotations

import re
from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from armvirt.arch.bits import MASK64
from armvirt.board.boot import elf
from armvirt.board.boot.symbols import SymbolTable
from armvirt.errors import ImageError
from armvirt.inputs import Input
from armvirt.printable import printable

if TYPE_CHECKING:
    from pathlib import Path

    from armvirt.board.boot import Loaded, SymbolSource

UPPER = 1 << 63
"""The first virtual address that TTBR1_EL1 translates; arm64 kernels execute above it."""
_MAX_MAP = 1 << 26
_LINE = re.compile(rb"^([0-9a-fA-F]{1,16}) ([a-zA-Z?]) (\S+)[^\n]*$", re.MULTILINE)
_STUB = b"The real System.map is in the "
_NO_CODE_OR_DATA = b"AaUuN"
_WHAT = "give the vmlinux or the System.map of the guest"
_STARTS = ("_text", "_head", "_start")
"""The symbols at the first byte of an Image (arch/arm64/kernel/vmlinux.lds.S, head.S)."""
_B = 0b000101
"""Bits 31 to 26 of the instruction B, an unconditional branch (DDI 0487 C6.2.26)."""
_KASLR_ALIGN = 1 << 16
"""The KASLR offset is a multiple of this number of bytes. (In Linux the offset is a multiple of 2
MiB, plus the offset of the image in its block of 2 MiB; arch/arm64/kernel/pi/map_kernel.c.)"""


class MapTable:
    """The symbols of a System.map, of /proc/kallsyms, or of the output of ``nm``: each line has an
    address, a type and a name. These files have no sizes, so a symbol ends where the next symbol
    begins."""

    def __init__(self, path: str, text: bytes) -> None:
        rows = [
            (int(row[1], 16), row[3])
            for row in _LINE.finditer(text)
            if row[2] not in _NO_CODE_OR_DATA and not row[3].startswith((b"$", b".L"))
        ]
        if not rows:
            raise ImageError(path, "it has no symbols of code or data", _WHAT)
        if not any(address for address, _ in rows):
            raise ImageError(
                path, "all its addresses are 0", "read /proc/kallsyms as root, with kptr_restrict 0"
            )
        rows.sort()
        self._path = path
        self._addresses = array("Q", [address for address, _ in rows])
        self._names = [name for _, name in rows]

    def __repr__(self) -> str:
        return f"<MapTable of {printable(self._path)}: {len(self._names):,} symbols>"

    def lookup(self, address: int) -> str | None:
        """The symbol at an address as text: ``name`` or ``name+0x10``. None if there is no
        symbol."""
        index = bisect_right(self._addresses, address) - 1
        # The size of the last symbol is unknown.
        if index < 0 or (index == len(self._names) - 1 and address != self._addresses[index]):
            return None
        offset = address - self._addresses[index]
        name = _text(self._names[index])
        return f"{name}+{offset:#x}" if offset else name

    def addresses_of(self, name: str) -> list[int]:
        """The addresses of all symbols of this name."""
        wanted = name.encode("utf-8", "surrogateescape")
        return [
            address
            for address, found in zip(self._addresses, self._names, strict=True)
            if found == wanted
        ]

    def address_of(self, name: str) -> int | None:
        """The lowest address of a symbol of this name. None if there is no such symbol."""
        return next(iter(self.addresses_of(name)), None)

    def names(self) -> Iterator[str]:
        """The names of all symbols."""
        return map(_text, self._names)


def _text(name: bytes) -> str:
    return printable(name.decode("utf-8", "replace"))


def read(path: str | Path) -> SymbolSource:
    """Read the symbols of an ELF file or of a System.map. Raises ImageError for any other file."""
    with Input(path, "symbol file") as source:
        if source.head(4) != elf.MAGIC:
            return MapTable(str(path), _map_text(source))
        elf.read_header(source)
        table = SymbolTable(str(path), 0, (), source)
    if next(iter(table.names()), None) is None:
        raise ImageError(path, "it has no symbols (it is stripped)", _WHAT)
    return table


def _map_text(source: Input) -> bytes:
    if source.size > _MAX_MAP:
        raise ImageError(source.path, "it is neither an ELF nor a System.map", _WHAT)
    text = source.read_at(0, source.size)
    if _STUB in text[:256]:
        raise ImageError(
            source.path, "its symbols are not in it", "Debian's real one is in the package ...-dbg"
        )
    if not _LINE.search(text[:65536]):
        raise ImageError(
            source.path, "it is neither an ELF nor a System.map (address, type, name)", _WHAT
        )
    return text


def _link_start(linked: SymbolSource, image: Loaded) -> int | None:
    """The link-time address of the first byte of an Image. This is the address of a symbol in
    `_STARTS`, if the file has such a symbol (a copy of /proc/kallsyms has none).

    Otherwise the address is computed from the symbol ``primary_entry``: the header of the Image
    contains a branch to this symbol, and the offset of the branch is subtracted. None if the file
    has no ``primary_entry``, or if the header contains no branch.
    """
    for name in _STARTS:
        if (address := linked.address_of(name)) is not None:
            return address
    entry = linked.address_of("primary_entry")
    header = image.segments[0].data[:8]
    for offset in (0, 4) if entry is not None and len(header) == 8 else ():
        word = int.from_bytes(header[offset : offset + 4], "little")
        if word >> 26 == _B:
            return (entry or 0) - offset - 4 * (word & 0x3FF_FFFF)
    return None


class ImageSymbols:
    """The symbols of a guest that was loaded without symbols. ``linked`` are the symbols of the
    separate file, at link-time addresses. ``image`` is the loaded guest.

    The link-time address of the first byte of the image (symbol ``_text``) gives the physical
    address of each symbol. ``bias`` is the offset from link-time addresses to the virtual addresses
    at which the guest executes; None while this offset is unknown. There are two ways to compute
    the offset: `settle`, or the VBAR_EL1 values of the CPUs, which ``vectors()`` returns. In arm64
    Linux, VBAR_EL1 is the address of the symbol ``vectors``.
    """

    def __init__(
        self, linked: SymbolSource, image: Loaded, vectors: Callable[[], list[int]]
    ) -> None:
        self.linked, self._vectors = linked, vectors
        self.physical, self.size = (
            image.start,
            max(segment.end for segment in image.segments) - image.start,
        )
        self.start = _link_start(linked, image) if image.kind == "image" else None
        self._vectors_link = linked.address_of("vectors")
        self.bias: int | None = None

    def __repr__(self) -> str:
        bias = "not known yet" if self.bias is None else f"{self.bias:#x}"
        return f"<ImageSymbols: {self.linked!r}, offset {bias}>"

    @property
    def moves(self) -> bool:
        """True if the guest may execute at an offset from the link-time addresses, and this offset
        is still unknown."""
        return self.start is not None and self.start >= UPPER and self.bias is None

    def lookup(self, address: int) -> str | None:
        """The symbol at a virtual or physical address as text: ``name`` or ``name+0x10``. None if
        there is no symbol."""
        if self.start is not None and self.physical <= address < self.physical + self.size:
            return self.linked.lookup(address - self.physical + self.start)
        if address >= UPPER and self.moves:
            self._settle_by_vectors()
        return self.linked.lookup((address - (self.bias or 0)) & MASK64)

    def addresses_of(self, name: str) -> list[int]:
        """The virtual and the physical address of each symbol of this name. The guest executes at
        physical addresses while the MMU is off, and later at virtual addresses."""
        return [at for address in self.linked.addresses_of(name) for at in self.moved(address)]

    def moved(self, address: int) -> list[int]:
        """The virtual and the physical address of the instruction with the link-time address
        ``address``. The guest executes the instruction at the physical address while the MMU is
        off, and later at the virtual address. Outside of the image only the virtual address is
        known."""
        found = [(address + (self.bias or 0)) & MASK64]
        if self.start is not None and self.start <= address < self.start + self.size:
            found.append(address - self.start + self.physical)
        return found

    def address_of(self, name: str) -> int | None:
        """The virtual address of a symbol. None if there is no such symbol."""
        return next(iter(self.addresses_of(name)), None)

    def names(self) -> Iterator[str]:
        """The names of all symbols that `address_of` finds."""
        return iter(self.linked.names())

    def settle(self, virtual: int, physical: int) -> bool:
        """Compute the offset from link-time addresses to virtual addresses, and store the offset in
        ``bias``. The parameters are the virtual and the physical address of one byte of the image.
        Returns False, and changes nothing, if the physical address is outside the image."""
        if self.start is None or not self.physical <= physical < self.physical + self.size:
            return False
        self.bias = (virtual - (physical - self.physical + self.start)) & MASK64
        return True

    def _settle_by_vectors(self) -> None:
        for base in self._vectors():
            if (
                self._vectors_link is not None
                and base >= UPPER
                and not (base - self._vectors_link) % _KASLR_ALIGN
            ):
                self.bias = (base - self._vectors_link) & MASK64
                return
