"""Builds ELF files whose every field a test can set wrong."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

RAM, TEXT = 0x4000_0000, 0x4020_0000
PT_LOAD, PT_DYNAMIC = 1, 2
ET_EXEC, ET_DYN = 2, 3


@dataclass
class Load:
    """One program header and its bytes."""

    address: int = TEXT
    data: bytes = b"\x1f\x20\x03\xd5" * 4
    memsz: int | None = None
    vaddr: int | None = None
    type: int = PT_LOAD
    filesz: int | None = None
    offset: int | None = None


def elf(
    loads: Sequence[Load] = (Load(),),
    entry: int = TEXT,
    kind: int = ET_EXEC,
    machine: int = 183,
    ident: bytes = b"\x7fELF\x02\x01\x01",
    phentsize: int = 56,
    symbols: Sequence[tuple[str, int, int, int]] = (),
) -> bytes:
    """An ELF file; ``symbols`` are (name, st_info, value, size)."""
    headers, body = b"", b""
    data_at = 64 + 56 * len(loads)
    for load in loads:
        filesz = len(load.data) if load.filesz is None else load.filesz
        memsz = len(load.data) if load.memsz is None else load.memsz
        vaddr = load.address if load.vaddr is None else load.vaddr
        offset = data_at + len(body) if load.offset is None else load.offset
        headers += struct.pack(
            "<IIQQQQQQ", load.type, 7, offset, vaddr, load.address, filesz, memsz, 4096
        )
        body += load.data
    sections_at = data_at + len(body) if symbols else 0
    tail = _symbol_sections(sections_at, symbols) if symbols else b""
    head = ident.ljust(16, b"\0") + struct.pack("<HHIQQQIHHHHHH", kind, machine, 1, entry, 64, sections_at, 0, 64,
                                                phentsize, len(loads), 64, 3 if symbols else 0, 2)  # fmt: skip
    return head + headers + body + tail


def _symbol_sections(at: int, symbols: Sequence[tuple[str, int, int, int]]) -> bytes:
    names, table = b"\0", bytes(24)
    for name, info, value, size in symbols:
        table += struct.pack("<IBBHQQ", len(names), info, 0, 1, value, size)
        names += name.encode() + b"\0"
    table_at = at + 3 * 64
    sections = bytes(64)
    sections += struct.pack("<IIQQQQIIQQ", 0, 2, 0, 0, table_at, len(table), 2, 0, 8, 24)
    sections += struct.pack(
        "<IIQQQQIIQQ", 0, 3, 0, 0, table_at + len(table), len(names), 0, 0, 1, 0
    )
    return sections + table + names


def image(
    size: int = 256, text_offset: int = 0, image_size: int = 0x10000, flags: int = 0xA
) -> bytes:
    """An arm64 Image of ``size`` bytes."""
    header = struct.pack(
        "<IIQQQQQQ4sI", 0x14000000, 0, text_offset, image_size, flags, 0, 0, 0, b"ARM\x64", 0
    )
    return header.ljust(size, b"\0")
