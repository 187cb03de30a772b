"""Chooses the addresses of the device tree and the initrd.

The preferred addresses are those of QEMU (hw/arm/boot.c). The initrd is far above the image, at RAM
base + min(half of RAM, 128 MiB). For an Image or a flat binary, the device tree is in the 2 MiB
block after the initrd. For an ELF guest or firmware, the device tree is at RAM base, where such
guests expect the device tree. If the preferred address is not free, the next higher free address is
used. If no higher address is free, the lowest free address of RAM is used.
"""

from __future__ import annotations

from collections.abc import Sequence

from armvirt.arch.translation import PAGE_SIZE
from armvirt.board.boot.model import Loaded, Ram
from armvirt.errors import UserError
from armvirt.records import NamedTuple
from armvirt.units import human_size

STACK_ROOM = 1 << 20
"""The number of bytes that stay free after a flat or ELF guest. Such a guest may have its stack and
heap there, because its file does not give the size of its stack and heap."""

_INITRD_OFFSET = 128 << 20
_BLOCK = 2 << 20

Range = tuple[int, int]


class Placement(NamedTuple):
    """The guest physical addresses of the device tree and of the initrd. ``initrd`` is None if
    there is no initrd."""

    dtb: int
    initrd: int | None


def place(
    loaded: Loaded, dtb_size: int, initrd_size: int, ram_base: int, ram_size: int
) -> Placement:
    """Choose addresses for a device tree of ``dtb_size`` bytes and an initrd of ``initrd_size``
    bytes. If ``initrd_size`` is 0, there is no initrd. The device tree and the initrd do not
    overlap the guest. UserError if RAM is too small."""
    ram = Ram(ram_base, ram_size)
    used = _image_ranges(loaded, ram)
    dtb_first = loaded.kind in ("elf", "bios")
    above = ram.base + min(ram.size // 2, _INITRD_OFFSET)
    if dtb_first:
        dtb = _free(
            dtb_size,
            [(ram.base, PAGE_SIZE), (above, _BLOCK), (above, PAGE_SIZE)],
            used,
            ram,
            "device tree",
        )
        used = [*used, (dtb, dtb + dtb_size)]
        initrd = (
            _free(initrd_size, [(above, PAGE_SIZE)], used, ram, "initrd") if initrd_size else None
        )
        return Placement(dtb, initrd)
    initrd = _free(initrd_size, [(above, PAGE_SIZE)], used, ram, "initrd") if initrd_size else None
    if initrd is not None:
        used = [*used, (initrd, initrd + initrd_size)]
        above = initrd + initrd_size
    return Placement(
        _free(dtb_size, [(above, _BLOCK), (above, PAGE_SIZE)], used, ram, "device tree"), initrd
    )


def _image_ranges(loaded: Loaded, ram: Ram) -> list[Range]:
    if loaded.kind == "bios":
        return []
    # Only an Image has its size in memory in its header.
    room = 0 if loaded.kind == "image" else STACK_ROOM
    return [(loaded.start, loaded.end + room)]


def _free(
    size: int, wishes: Sequence[tuple[int, int]], used: Sequence[Range], ram: Ram, what: str
) -> int:
    """Return an address in RAM at which ``size`` bytes overlap no range of ``used``. ``wishes`` are
    the preferred addresses, each as (address, alignment in bytes). The result is the first
    preferred address that is free, else the next free address after a preferred address, else the
    lowest free address in RAM. UserError if there is no such address; ``what`` names the data in
    the message."""
    for address, align in wishes:
        wished = _up(address, align)
        if _collision(wished, size, used) is None and ram.holds(wished, wished + size):
            return wished
    for address, align in [*wishes, (ram.base, PAGE_SIZE)]:
        if (found := _next_free(_up(address, align), size, align, used, ram)) is not None:
            return found
    raise UserError(f"RAM of {human_size(ram.size)} has no room for the {what} ({human_size(size)}) beside the guest; "
                    f"use a larger --mem")  # fmt: skip


def _next_free(address: int, size: int, align: int, used: Sequence[Range], ram: Ram) -> int | None:
    while (collision := _collision(address, size, used)) is not None:
        address = _up(collision, align)
    return address if ram.holds(address, address + size) else None


def _collision(address: int, size: int, used: Sequence[Range]) -> int | None:
    """The end of the first range in ``used`` that overlaps [address, address + size); None if no
    range overlaps."""
    return next((end for start, end in used if address < end and start < address + size), None)


def _up(address: int, align: int) -> int:
    return address + -address % align
