"""Firmware in the boot ROM at address 0, such as U-Boot or EDK II for QEMU's virt board."""

from __future__ import annotations

from typing import TYPE_CHECKING

from armvirt.board.boot.model import Loaded, Segment
from armvirt.errors import ImageError
from armvirt.inputs import Input
from armvirt.units import human_size

if TYPE_CHECKING:
    from pathlib import Path

    from armvirt.board.config import Region


def load_bios(path: str | Path, rom: Region, ram_base: int) -> Loaded:
    """Load firmware into the ROM. The firmware is a flat file, and the entry point is its first
    byte. Firmware expects the device tree at the base of RAM. ImageError if the file is an ELF file
    or larger than the ROM."""
    with Input(path, "firmware image", rom.size) as source:
        _check(source, rom)
        data = source.read_at(0, source.size)
    return Loaded(str(path), "bios", (Segment(rom.base, data, len(data)),), rom.base, ram_base)


def check_bios(path: str | Path, rom: Region) -> None:
    """Check that `load_bios` can load the firmware, without reading the whole file. ImageError if
    the file is an ELF file or larger than the ROM."""
    with Input(path, "firmware image", rom.size) as source:
        _check(source, rom)


def _check(source: Input, rom: Region) -> None:
    if source.size > rom.size:
        sizes = f"({human_size(source.size)}) is larger than the boot ROM ({human_size(rom.size)})"
        hint = "give a firmware image for QEMU's virt board"
        raise ImageError(source.path, f"it {sizes}", hint)
    if source.head(4) == b"\x7fELF":
        hint = "pass it as the guest, without --bios"
        raise ImageError(source.path, "it is an ELF file, and a boot ROM is raw", hint)
