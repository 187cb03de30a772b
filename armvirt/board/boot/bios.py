"""Firmware in the boot ROM at address 0, such as U-Boot's or EDK II's for QEMU's virt board."""

from __future__ import annotations

from typing import TYPE_CHECKING

from armvirt.board.boot.model import Loaded, Segment
from armvirt.board.memmap import RAM_BASE, ROM
from armvirt.board.sizes import human
from armvirt.errors import ImageError
from armvirt.inputs import Input

if TYPE_CHECKING:
    from pathlib import Path


def load_bios(path: str | Path) -> Loaded:
    """Firmware for the ROM. It is a flat file, entered at 0; it finds the device tree at RAM
    base."""
    with Input(path, "firmware image", ROM.size) as source:
        _check(source)
        data = source.read_at(0, source.size)
    return Loaded(str(path), "bios", (Segment(ROM.base, data, len(data)),), ROM.base, RAM_BASE)


def check_bios(path: str | Path) -> None:
    """As `load_bios`, without reading all of it."""
    with Input(path, "firmware image", ROM.size) as source:
        _check(source)


def _check(source: Input) -> None:
    if source.size > ROM.size:
        raise ImageError(source.path, f"it ({human(source.size)}) is larger than the boot ROM ({human(ROM.size)})",
                         "give a firmware image for QEMU's virt board")  # fmt: skip
    if source.head(4) == b"\x7fELF":
        hint = "pass it as the guest, without --bios"
        raise ImageError(source.path, "it is an ELF file, and a boot ROM is raw", hint)
