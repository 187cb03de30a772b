"""Recognises the format of a guest image, and loads the image."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from armvirt.board.boot import elf
from armvirt.board.boot.model import Loaded, Ram
from armvirt.errors import ImageError
from armvirt.inputs import Input
from armvirt.records import NamedTuple
from armvirt.units import human_size

if TYPE_CHECKING:
    from pathlib import Path

# Files that users pass as a guest image by mistake: offset, magic, problem, remedy.
_MISTAKES: tuple[tuple[int, bytes, str, str], ...] = (
    (0, b"\xd0\x0d\xfe\xed", "it is a device tree", "pass it with --dtb"),
    (0, b"070701", "it is a cpio archive", "pass it with --initrd, and a kernel as the guest"),
    (
        0,
        b"\x27\x05\x19\x56",
        "it is a U-Boot uImage",
        "give the Image inside, or boot U-Boot with --bios",
    ),
    (0, b"\xfd7zXZ\0", "it is compressed with xz", "decompress it"),
    (0, b"\x28\xb5\x2f\xfd", "it is compressed with zstd", "decompress it"),
    (0, b"BZh", "it is compressed with bzip2", "decompress it"),
    (0, b"\x04\x22\x4d\x18", "it is compressed with lz4", "decompress it"),
    (0, b"PK\x03\x04", "it is a zip archive", "unpack it"),
    (0, b"!<arch>\n", "it is a static library or a Debian package", "give an executable"),
    (
        0,
        b"MZ",
        "it is a PE program without an arm64 Image header",
        "give an AArch64 ELF, an Image or a flat binary",
    ),
    (0, b"#!", "it is a script", "give an AArch64 ELF, an Image or a flat binary"),
)


def load(path: str | Path, ram_base: int, ram_size: int, load_addr: int | None = None) -> Loaded:
    """Load a guest image. A file that is neither an ELF file nor an arm64 Image (plain, gzip or EFI
    zboot) is loaded as a flat binary.

    ``load_addr`` replaces the default load address. ImageError for a file that cannot run, and for
    a ``load_addr`` if the file is linked at fixed addresses.
    """
    ram = Ram(ram_base, ram_size)
    with Input(path, most=ram_size) as source:
        return _format(source).load(source, ram, load_addr)


def check(path: str | Path, ram_base: int, ram_size: int, load_addr: int | None = None) -> None:
    """Check that `load` can load a guest. Only the headers of the file are read. The parameters and
    errors are those of `load`."""
    ram = Ram(ram_base, ram_size)
    with Input(path, most=ram_size) as source:
        _format(source).check(source, ram, load_addr)


class _Format(NamedTuple):
    """A format of guest images: ``load`` loads a file, and ``check`` only checks that ``load`` can
    load the file."""

    load: Callable[[Input, Ram, int | None], Loaded]
    check: Callable[[Input, Ram, int | None], object]


def _format(source: Input) -> _Format:
    head = source.head()
    if head.startswith(elf.MAGIC):
        return _Format(elf.load, elf.plan)
    from armvirt.board.boot import flat, image

    if image.recognise(head):
        return _Format(image.load, image.check)
    _refuse_mistakes(source.path, head)
    return _Format(flat.load, flat.place)


def _refuse_mistakes(path: str, head: bytes) -> None:
    for offset, magic, problem, hint in _MISTAKES:
        if head[offset:].startswith(magic):
            raise ImageError(path, problem, hint)
    if b"\n" in head and all(byte in b"\t\n\r\f" or 32 <= byte < 127 for byte in head):
        raise ImageError(
            path, "it is a text file", "give an AArch64 ELF, an Image or a flat binary"
        )


def load_initrd(path: str | Path, ram_size: int) -> bytes:
    """Read an initial RAM disk. ImageError if the file is larger than ``ram_size`` bytes."""
    with Input(path, "initrd", ram_size) as source:
        _check_initrd(source, ram_size)
        return source.read_at(0, source.size)


def check_initrd(path: str | Path, ram_size: int) -> None:
    """Check the size of an initial RAM disk, without reading the file. ImageError if the file is
    larger than ``ram_size`` bytes."""
    with Input(path, "initrd", ram_size) as source:
        _check_initrd(source, ram_size)


def _check_initrd(source: Input, ram_size: int) -> None:
    if source.size > ram_size:
        sizes = f"({human_size(source.size)}) is larger than RAM ({human_size(ram_size)})"
        raise ImageError(source.path, f"the initrd {sizes}", "give the guest more with --mem")
