"""Loading of Linux Images and flat binaries, compressed or not."""

from __future__ import annotations

import gzip
import os
import struct
from pathlib import Path

import pytest
from elf_builder import RAM, elf, image

from armvirt.board.boot import Loaded, load, load_bios, load_initrd
from armvirt.board.virt.memmap import RAM_BASE, ROM
from armvirt.errors import ImageError

MIB = 1 << 20


def load_bytes(
    tmp_path: Path, content: bytes, load_addr: int | None = None, ram_size: int = 64 * MIB
) -> Loaded:
    path = tmp_path / "guest"
    path.write_bytes(content)
    return load(path, RAM, ram_size, load_addr)


def zboot(payload: bytes, method: bytes = b"gzip") -> bytes:
    header = b"MZ\0\0zimg" + struct.pack("<IIQ", 64, len(payload), 0) + method
    return header.ljust(56, b"\0") + b"\xcd\x23\x82\x81".ljust(8, b"\0") + payload


@pytest.mark.parametrize(
    ("text_offset", "image_size", "address"),
    [(0, 0x10000, RAM + 2 * MIB), (0x80000, 0x10000, RAM + 0x80000), (0x1000, 0, RAM + 0x80000)],
)
def test_an_image_goes_where_its_header_says(
    tmp_path: Path, text_offset: int, image_size: int, address: int
) -> None:
    content = image(text_offset=text_offset, image_size=image_size)
    loaded = load_bytes(tmp_path, content)
    assert (loaded.kind, loaded.entry, loaded.start) == ("image", address, address)
    assert loaded.segments[0].data == content
    assert loaded.end == address + max(image_size, len(content))


@pytest.mark.parametrize(
    "wrap", [gzip.compress, lambda data: zboot(gzip.compress(data))], ids=["gzip", "zboot"]
)
def test_compressed_images(tmp_path: Path, wrap: object) -> None:
    assert callable(wrap)
    content = image(3 * MIB, image_size=4 * MIB)
    loaded = load_bytes(tmp_path, wrap(content))
    assert (loaded.segments[0].data, loaded.segments[0].size) == (content, 4 * MIB)


def test_load_address_of_an_image(tmp_path: Path) -> None:
    assert load_bytes(tmp_path, image(), RAM + 4 * MIB).entry == RAM + 4 * MIB
    with pytest.raises(ImageError, match="--load-addr must be a multiple of 2 MiB, plus 0x80000"):
        load_bytes(tmp_path, image(text_offset=0x80000), RAM + 4 * MIB)


BOMB = gzip.compress(image(80 * MIB), 1)
REFUSED: dict[str, tuple[bytes, str]] = {
    "image larger than RAM": (
        image(image_size=1 << 40),
        "do not fit into RAM 0x40000000..0x44000000; use a larger",
    ),
    "huge size": (image(image_size=(1 << 64) - 1), "do not fit into RAM"),
    "huge offset": (image(text_offset=1 << 62), "do not fit into RAM"),
    "big-endian": (image(flags=1), "big-endian kernel"),
    "gzip cut": (gzip.compress(image(100_000))[:-9], "gzip data is truncated"),
    "gzip magic only": (b"\x1f\x8b", "gzip data is truncated"),
    "gzip checksum": (gzip.compress(image())[:-8] + bytes(8), "gzip data is corrupt"),
    "gzip garbage": (b"\x1f\x8b\x08\0\0\0\0\0\0\0\xff\xff\xff\xff", "gzip data is corrupt"),
    "gzip of an ELF": (gzip.compress(elf()), "holds no arm64 Image"),
    "gzip of a little": (gzip.compress(b"tiny"), "holds no arm64 Image"),
    "gzip of nothing": (gzip.compress(b""), "holds no arm64 Image"),
    "bomb": (BOMB, r"unpacks to more than RAM \(64M\)"),
    "bomb of zeros": (gzip.compress(bytes(80 * MIB), 1), "holds no arm64 Image"),
    "zboot cut": (zboot(gzip.compress(image()))[:-5], "lies beyond its end"),
    "zboot zstd": (zboot(b"x" * 50, b"zstd"), "compressed with 'zstd'"),
    "zboot header": (zboot(b"")[:20], "within its EFI zboot header"),
    "dtb": (b"\xd0\x0d\xfe\xed" + bytes(60), "it is a device tree; pass it with --dtb"),
    "cpio": (b"070701" + bytes(60), "pass it with --initrd"),
    "xz": (b"\xfd7zXZ\0" + bytes(60), "compressed with xz"),
    "PE": (b"MZ" + bytes(100), "PE program"),
    "script": (b"#!/bin/sh\n", "it is a script"),
    "text": (b"int main(void) { return 0; }\n", "it is a text file"),
    "too short": (b"\x00\x01", "too short to hold an instruction"),
    "empty": (b"", "it is empty"),
}


@pytest.mark.parametrize(("content", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_what_cannot_run_is_one_clear_line(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(ImageError, match=message) as caught:
        load_bytes(tmp_path, content)
    text = str(caught.value)
    assert text.startswith(f"{tmp_path / 'guest'}: ")
    assert "\n" not in text
    assert "; " in text, "it says what to do"


def test_a_plain_image_larger_than_ram_is_not_even_read(tmp_path: Path) -> None:
    path = tmp_path / "Image"
    path.write_bytes(image())
    os.truncate(path, 1 << 40)
    with pytest.raises(ImageError, match=r"it \(1T\) is larger than RAM \(64M\)"):
        load(path, RAM, 64 * MIB)


def test_flat_binaries(tmp_path: Path) -> None:
    code = bytes(range(128, 188))
    loaded = load_bytes(tmp_path, code)
    assert (loaded.kind, loaded.entry, loaded.start, loaded.end) == (
        "flat",
        0x40080000,
        0x40080000,
        0x4008003C,
    )
    assert load_bytes(tmp_path, code, RAM + 0x100).entry == RAM + 0x100
    with pytest.raises(ImageError, match="not a multiple of 4"):
        load_bytes(tmp_path, code, RAM + 2)
    with pytest.raises(ImageError, match="do not fit into RAM"):
        load_bytes(tmp_path, code, 0)
    with pytest.raises(ImageError, match="do not fit into RAM"):
        load_bytes(tmp_path, code, -4)
    with pytest.raises(ImageError, match="use a larger --mem"):
        load_bytes(tmp_path, code * 100_000, ram_size=MIB)


def test_files_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ImageError, match="no such file; check the path"):
        load(tmp_path / "none", RAM, MIB)
    with pytest.raises(ImageError, match="it is a directory"):
        load(tmp_path, RAM, MIB)
    with pytest.raises(ImageError, match="not a regular file"):
        load("/dev/zero", RAM, MIB)
    with pytest.raises(ImageError, match="cannot be opened"):
        load(tmp_path / ("x" * 300), RAM, MIB)
    with pytest.raises(ImageError, match="cannot be opened"):
        load("with\0nul", RAM, MIB)
    monkeypatch.setattr(os, "open", _denied)
    with pytest.raises(ImageError, match="may not be read; check its permissions"):
        load(tmp_path / "x", RAM, MIB)


def _denied(*args: object) -> int:
    raise PermissionError(13, "Permission denied")


def test_initrd(tmp_path: Path) -> None:
    path = tmp_path / "initrd"
    path.write_bytes(b"070701")
    assert load_initrd(path, MIB) == b"070701"
    os.truncate(path, 2 * MIB)
    with pytest.raises(
        ImageError, match=r"initrd \(2M\) is larger than RAM \(1M\); give the guest more with --mem"
    ):
        load_initrd(path, MIB)
    with pytest.raises(ImageError, match="no such file; check the path of the initrd"):
        load_initrd(tmp_path / "none", MIB)


def test_bios(tmp_path: Path) -> None:
    path = tmp_path / "u-boot.bin"
    path.write_bytes(b"\x0a\0\0\x14rest")
    loaded = load_bios(path, ROM, RAM_BASE)
    assert (loaded.kind, loaded.entry, loaded.segments[0].address, loaded.end) == (
        "bios",
        0,
        0,
        RAM,
    )
    os.truncate(path, 65 * MIB)
    with pytest.raises(ImageError, match=r"it \(65M\) is larger than the boot ROM \(64M\)"):
        load_bios(path, ROM, RAM_BASE)
    path.write_bytes(elf())
    with pytest.raises(ImageError, match="a boot ROM is raw"):
        load_bios(path, ROM, RAM_BASE)
