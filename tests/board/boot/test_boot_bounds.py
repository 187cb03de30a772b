"""The size of a file bounds the memory and the time that loading it takes, whatever the file's
fields say."""

from __future__ import annotations

import struct
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import sampled
from elf_builder import RAM, TEXT, Load, elf

from armvirt.board.boot import load
from armvirt.board.tree import fdt
from armvirt.errors import ImageError
from armvirt.printable import MOST

RAM_SIZE = 512 << 20
BRANCH = b"\x00\x00\x00\x14"


def with_symbols(count: int, names: bytes, every: int = 1) -> bytes:
    """An ELF with ``count`` symbols, whose names begin at each ``every`` bytes of ``names``."""
    base = elf([Load(data=BRANCH * 4)])
    table = bytes(24) + b"".join(
        struct.pack("<IBBHQQ", 1 + n * every, 2, 0, 1, TEXT + 4 * n, 4) for n in range(count)
    )
    at = len(base) + 3 * 64
    sections = bytes(64) + struct.pack("<IIQQQQIIQQ", 0, 2, 0, 0, at, len(table), 2, 0, 8, 24)
    sections += struct.pack("<IIQQQQIIQQ", 0, 3, 0, 0, at + len(table), len(names) + 2, 0, 0, 1, 0)
    content = bytearray(base + sections + table + b"\0" + names + b"\0")
    struct.pack_into("<Q", content, 40, len(base))
    struct.pack_into("<HHH", content, 58, 64, 3, 2)
    return bytes(content)


def with_headers(headers: list[tuple[int, int, int, int, int]]) -> bytes:
    """An ELF with these program headers: (type, offset, address, filesz, memsz)."""
    table = b"".join(
        struct.pack("<IIQQQQQQ", kind, 7, offset, at, at, filesz, memsz, 16)
        for kind, offset, at, filesz, memsz in headers
    )
    head = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    head += struct.pack("<HHIQQQIHHHHHH", 2, 183, 1, TEXT, 64, 0, 0, 64, 56, len(headers), 64, 0, 0)
    return head + table + BRANCH * 4


def sections(count: int) -> bytes:
    base = elf([Load(data=BRANCH * 4)])
    content = bytearray(
        base + struct.pack("<IIQQQQIIQQ", 0, 2, 0, 0, 64, 4080, 1, 0, 8, 24) * count
    )
    struct.pack_into("<Q", content, 40, len(base))
    struct.pack_into("<HHH", content, 58, 64, count, 1)
    return bytes(content)


LOAD, DYNAMIC = 1, 2
HOSTILE: dict[str, Callable[[], bytes]] = {
    "overlapping names": lambda: with_symbols(20_000, b"a" * 200_000),
    "names without an end": lambda: with_symbols(100_000, b"ab" * 100, every=1),
    "many symbols": lambda: with_symbols(300_000, b"name", every=0),
    "many segments": lambda: with_headers(
        [(LOAD, 64, TEXT + 16 * n, 16, 16) for n in range(65_535)]
    ),
    "shared bytes": lambda: with_headers(
        [(LOAD, 0, TEXT + 4096 * n, 4096, 4096) for n in range(60_000)]
    ),
    "dynamic segments": lambda: with_headers(
        [(LOAD, 64, TEXT, 16, 16)] + [(DYNAMIC, 0, 0, 65_536, 65_536)] * 60_000
    ),
    "huge bss": lambda: with_headers([(LOAD, 120, TEXT, 16, 400 << 20)]),
    "many sections": lambda: sections(65_000),
}


@pytest.mark.parametrize("name", sampled(HOSTILE))
def test_memory_and_time(tmp_path: Path, name: str) -> None:
    path = tmp_path / "guest.elf"
    path.write_bytes(HOSTILE[name]())
    size = path.stat().st_size
    began = time.process_time()
    tracemalloc.start()
    try:
        loaded = load(path, RAM, RAM_SIZE)
        assert loaded.symbols is not None
        for n in range(1000):
            shown = loaded.symbols.lookup(TEXT + 4 * n)
            assert shown is None or len(shown) <= MOST + 20
    except ImageError as error:
        assert "\n" not in str(error)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak <= (20 << 20) + 4 * size
    assert time.process_time() - began < 10  # tracemalloc itself takes most of it


def test_a_file_that_has_been_changed_gives_no_wrong_names(tmp_path: Path) -> None:
    path = tmp_path / "guest.elf"
    path.write_bytes(elf(symbols=[("old", 2, TEXT, 8)]))
    first, second = load(path, RAM, RAM_SIZE), load(path, RAM, RAM_SIZE)
    assert first.symbols is not None and second.symbols is not None
    assert first.symbols.lookup(TEXT) == "old"
    path.write_bytes(elf(symbols=[("another", 2, TEXT, 8)]))
    assert second.symbols.lookup(TEXT) is None


def test_a_name_with_escapes_is_shown_with_them_and_found_without(tmp_path: Path) -> None:
    path = tmp_path / "guest.elf"
    path.write_bytes(elf(symbols=[("f\nVERDICT: PASS\x1b[2J", 2, TEXT, 8)]))
    symbols = load(path, RAM, RAM_SIZE).symbols
    assert symbols is not None
    assert symbols.lookup(TEXT + 4) == "f\\nVERDICT: PASS\\x1b[2J+0x4"
    assert symbols.address_of("f\nVERDICT: PASS\x1b[2J") == TEXT


def tree(structure: bytes, strings: bytes) -> bytes:
    at = 56
    header = struct.pack(">10I", fdt.MAGIC, at + len(structure) + len(strings), at, at + len(structure), 40, 17, 16, 0,
                         len(strings), len(structure))  # fmt: skip
    return header + bytes(16) + structure + strings


BEGIN, END, FIN = struct.pack(">I", 1), struct.pack(">I", 2), struct.pack(">I", 9)
TREES = {
    "overlapping names": lambda: (
        b"".join(struct.pack(">3I", 3, 0, n) for n in range(80_000)),
        b"a" * 200_000 + b"\0",
    ),
    "many names": lambda: (
        b"".join(struct.pack(">3I", 3, 0, n) for n in range(80_000)),
        (b"a" * 250 + b"\0") * 400,
    ),
    "many nodes": lambda: ((BEGIN + b"n\0\0\0" + END) * 170_000, b"\0"),
}


@pytest.mark.parametrize("name", TREES)
def test_trees_are_bounded(name: str) -> None:
    inside, strings = TREES[name]()
    blob = tree(BEGIN + bytes(4) + inside + END + FIN, strings)
    tracemalloc.start()
    try:
        fdt.parse(blob)
    except fdt.FdtError:
        pass
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak <= (30 << 20) + 4 * len(blob)
