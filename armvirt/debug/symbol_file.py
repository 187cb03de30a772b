"""Symbols from a file beside the guest (``--symbols``): the ELF that it was made from, or a
System.map.

An arm64 Image has no symbols. Its vmlinux and its System.map give link-time addresses; the kernel
executes at physical addresses until it turns its MMU on, and with KASLR at link-time addresses plus
an offset from then on. Where `ImageSymbols` takes the offset from is said there.
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
"""Virtual addresses from here on are those of TTBR1_EL1, where arm64 kernels run."""
_MAX_MAP = 1 << 26
_LINE = re.compile(rb"^([0-9a-fA-F]{1,16}) ([a-zA-Z?]) (\S+)[^\n]*$", re.MULTILINE)
_STUB = b"The real System.map is in the "
_NO_CODE_OR_DATA = b"AaUuN"
_WHAT = "give the vmlinux or the System.map of the guest"
_STARTS = ("_text", "_head", "_start")
"""Symbols at the first byte of an Image (arch/arm64/kernel/vmlinux.lds.S, head.S)."""
_B = 0b000101
"""The unconditional branch, in bits 31 to 26 (DDI 0487 C6.2.26)."""
_KASLR_ALIGN = 1 << 16
"""An offset of KASLR is a multiple of this: 2 MiB less what the image lies off
(arch/arm64/kernel/pi/map_kernel.c)."""


class MapTable:
    """The symbols of a System.map, of /proc/kallsyms, or of ``nm``: address, type, name. Sizes are
    not known there: a symbol reaches to the next one."""

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
        """``name`` or ``name+0x10``, or None."""
        index = bisect_right(self._addresses, address) - 1
        # Nothing is known of what comes after the last one.
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
        """The first address of this name, or None."""
        return next(iter(self.addresses_of(name)), None)

    def names(self) -> Iterator[str]:
        """Every name."""
        return map(_text, self._names)


def _text(name: bytes) -> str:
    return printable(name.decode("utf-8", "replace"))


def read(path: str | Path) -> SymbolSource:
    """The symbols of an ELF file or of a System.map; ImageError for what is neither."""
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
    """The address of the link of an Image's first byte. Where no symbol has it (/proc/kallsyms
    leaves it out), it is as far before ``primary_entry`` as the header's branch to that goes."""
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
    """Names for a guest that was loaded without symbols, from those of the file ``linked``.

    ``image`` is what was loaded; a symbol at its first byte (``_text``) relates its physical
    addresses to those of the link. ``bias`` is what the guest has added to virtual addresses of the
    link, None while that is not known: it comes from `settle`, or from ``vectors()``, which gives
    VBAR_EL1 of the CPUs: that of arm64 Linux is its symbol ``vectors``.
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
        """Whether the guest may execute elsewhere than it was linked for, and nobody knows yet
        where."""
        return self.start is not None and self.start >= UPPER and self.bias is None

    def lookup(self, address: int) -> str | None:
        """``name`` or ``name+0x10`` of a virtual or physical address, or None."""
        if self.start is not None and self.physical <= address < self.physical + self.size:
            return self.linked.lookup(address - self.physical + self.start)
        if address >= UPPER and self.moves:
            self._settle_by_vectors()
        return self.linked.lookup((address - (self.bias or 0)) & MASK64)

    def addresses_of(self, name: str) -> list[int]:
        """Where a symbol executes: at its virtual address, and at the physical one before the MMU
        is on."""
        return [at for address in self.linked.addresses_of(name) for at in self.moved(address)]

    def moved(self, address: int) -> list[int]:
        """Where the instruction at an address of the link executes."""
        found = [(address + (self.bias or 0)) & MASK64]
        if self.start is not None and self.start <= address < self.start + self.size:
            found.append(address - self.start + self.physical)
        return found

    def address_of(self, name: str) -> int | None:
        """The virtual address of a symbol, or None."""
        return next(iter(self.addresses_of(name)), None)

    def names(self) -> Iterator[str]:
        """Every name that `address_of` knows."""
        return iter(self.linked.names())

    def settle(self, virtual: int, physical: int) -> bool:
        """Learn the offset from an address of the guest's and the physical one that it is mapped
        to; whether that is in the image."""
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
