"""Flat binaries: files without a header, whose first byte is the entry point."""

from __future__ import annotations

from armvirt.board.boot.model import Loaded, Ram, Segment
from armvirt.errors import ImageError
from armvirt.inputs import Input

LOAD_OFFSET = 0x80000
"""The default load address as an offset in bytes from the RAM base: 512 KiB, as for a raw kernel in
QEMU (hw/arm/boot.c)."""


def place(source: Input, ram: Ram, load_addr: int | None = None) -> int:
    """Return the load address of a flat binary: ``load_addr``, or RAM base + 512 KiB if
    ``load_addr`` is None. ImageError if the binary cannot be loaded at this address."""
    address = ram.base + LOAD_OFFSET if load_addr is None else load_addr
    if source.size < 4:
        raise ImageError(
            source.path,
            "it is too short to hold an instruction",
            "give an ELF, an Image or a binary",
        )
    if address % 4:
        raise ImageError(
            source.path, f"load address {address:#x} is not a multiple of 4", "change --load-addr"
        )
    if not ram.holds(address, address + source.size):
        raise ImageError(source.path, f"its {source.size} bytes at {address:#x} do not fit into {ram}",
                         "use a larger --mem or another --load-addr")  # fmt: skip
    return address


def load(source: Input, ram: Ram, load_addr: int | None = None) -> Loaded:
    """Load a flat binary."""
    address = place(source, ram, load_addr)
    segment = Segment(address, source.read_at(0, source.size), source.size)
    return Loaded(source.path, "flat", (segment,), address, segment.end)
