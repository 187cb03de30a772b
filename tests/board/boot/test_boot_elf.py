"""Loading of ELF files: segments, entry, symbols, and files that are refused."""

from __future__ import annotations

import struct
import subprocess
from pathlib import Path

import pytest
from conftest import require_tool
from elf_builder import ET_DYN, PT_DYNAMIC, RAM, TEXT, Load, elf

from armvirt.board.boot import Loaded, load
from armvirt.errors import ImageError

MIB = 1 << 20
NOP = b"\x1f\x20\x03\xd5"


def load_bytes(
    tmp_path: Path, content: bytes, load_addr: int | None = None, ram_size: int = 64 * MIB
) -> Loaded:
    path = tmp_path / "guest.elf"
    path.write_bytes(content)
    return load(path, RAM, ram_size, load_addr)


def test_a_static_executable(tmp_path: Path) -> None:
    loads = [Load(TEXT, NOP * 4), Load(TEXT + 0x1000, b"data", memsz=0x2000)]
    loaded = load_bytes(tmp_path, elf(loads, entry=TEXT + 4))
    assert (loaded.kind, loaded.entry, loaded.start, loaded.end) == (
        "elf",
        TEXT + 4,
        TEXT,
        TEXT + 0x3000,
    )
    assert [(s.address, s.data, s.size) for s in loaded.segments] == [
        (TEXT, NOP * 4, 16), (TEXT + 0x1000, b"data", 0x2000)]  # fmt: skip


def test_physical_addresses_count_and_the_entry_follows(tmp_path: Path) -> None:
    high = 0xFFFF_8000_0000_0000
    loaded = load_bytes(tmp_path, elf([Load(TEXT, NOP * 4, vaddr=high)], entry=high + 8))
    assert (loaded.start, loaded.entry) == (TEXT, TEXT + 8)
    physical = load_bytes(tmp_path, elf([Load(TEXT, NOP * 4, vaddr=high)], entry=TEXT + 4))
    assert physical.entry == TEXT + 4


def test_a_pie_goes_to_ram_base_plus_2m_or_where_asked(tmp_path: Path) -> None:
    pie = elf([Load(0x1000), Load(0x2000, memsz=0x100)], entry=0x1008, kind=ET_DYN)
    loaded = load_bytes(tmp_path, pie)
    assert (loaded.start, loaded.entry) == (RAM + 2 * MIB + 0x1000, RAM + 2 * MIB + 0x1008)
    moved = load_bytes(tmp_path, pie, load_addr=RAM + 8 * MIB)
    assert (moved.start, moved.entry) == (RAM + 8 * MIB + 0x1000, RAM + 8 * MIB + 0x1008)
    inside = load_bytes(tmp_path, elf([Load(TEXT)], entry=TEXT, kind=ET_DYN))
    assert inside.start == TEXT
    with pytest.raises(ImageError, match="not a multiple of 4 KiB"):
        load_bytes(tmp_path, pie, load_addr=RAM + 4)


def test_empty_segments_do_not_count(tmp_path: Path) -> None:
    loaded = load_bytes(
        tmp_path, elf([Load(0, b"", memsz=0), Load(), Load(0, b"stack?", type=0x6474E551)])
    )
    assert len(loaded.segments) == 1


GOOD = elf()
NEEDED = struct.pack("<qQqQ", 1, 1, 0, 0)
REFUSED: dict[str, tuple[bytes, str]] = {
    "only the magic": (GOOD[:4], "truncated within the ELF header"),
    "half a header": (GOOD[:40], "truncated within the ELF header"),
    "no program headers": (GOOD[:64], "truncated: its program headers lie beyond its end"),
    "half a segment": (
        GOOD[:-3],
        "truncated: segment 0x40200000..0x40200010 lies beyond the file's end",
    ),
    "x86-64": (elf(machine=62), "for x86-64, not AArch64"),
    "arm": (elf(machine=40, ident=b"\x7fELF\x01\x01\x01"), "for 32-bit Arm, not AArch64"),
    "unknown machine": (elf(machine=9999), "for machine 9999"),
    "ilp32": (elf(ident=b"\x7fELF\x01\x01\x01"), "32-bit ELF"),
    "big-endian": (elf(machine=183 << 8, ident=b"\x7fELF\x02\x02\x01"), "big-endian"),
    "ident": (elf(ident=b"\x7fELF\x02\x07\x01"), "identification is corrupt"),
    "object": (elf(kind=1), r"object file \(ET_REL\); link it"),
    "core": (elf(kind=4), "core dump"),
    "odd type": (elf(kind=77), "type 0x4d is unknown"),
    "phentsize": (elf(phentsize=32), "32 bytes each"),
    "nothing loadable": (elf([Load(type=4)]), "no loadable segments"),
    "no headers at all": (elf([]), "no loadable segments"),
    "outside": (
        elf([Load(0x80000)], entry=0x80000),
        "segment 0x80000..0x80010 is outside RAM 0x40000000..0x44000000",
    ),
    "beyond the end": (elf([Load(memsz=64 * MIB)]), "is outside RAM"),
    "wraps": (elf([Load((1 << 64) - 8)]), "is outside RAM"),
    "overlap": (
        elf([Load(TEXT), Load(TEXT + 8)]),
        "segment 0x40200008..0x40200018 overlaps another",
    ),
    "memsz < filesz": (elf([Load(memsz=4)]), "more bytes in the file than in memory"),
    "entry": (elf(entry=0), "entry point 0x0 is in none of its segments"),
    "odd entry": (elf(entry=TEXT + 2), "is not a multiple of 4"),
    "shared libraries": (
        elf([Load(), Load(TEXT + 0x1000, NEEDED, type=PT_DYNAMIC)]),
        "needs shared libraries",
    ),
}


@pytest.mark.parametrize(("content", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_what_cannot_run_is_one_clear_line(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(ImageError, match=message) as caught:
        load_bytes(tmp_path, content)
    text = str(caught.value)
    assert text.startswith(f"{tmp_path / 'guest.elf'}: ")
    assert "\n" not in text
    assert "; " in text, "it says what to do"


def test_a_fixed_address_cannot_be_moved(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="leave out --load-addr"):
        load_bytes(tmp_path, GOOD, load_addr=RAM)


SOURCE = """
    .globl _start
_start: bl work
1:      b 1b
    .type work, %function
work:   ret
    .size work, . - work
    .data
    .type cell, %object
    .size cell, 8
cell:   .quad 7
    .bss
    .space 64
"""


@pytest.mark.parametrize("pie", [False, True])
def test_what_the_compiler_makes(tmp_path: Path, pie: bool) -> None:
    gcc = require_tool("aarch64-linux-gnu-gcc")
    (tmp_path / "guest.S").write_text(SOURCE)
    form = ["-static-pie"] if pie else ["-static", f"-Wl,-Ttext={TEXT:#x}"]
    subprocess.run([gcc, "-nostdlib", "-Wl,--build-id=none", *form, "guest.S", "-o", "guest.elf"],
                   cwd=tmp_path, check=True)  # fmt: skip
    loaded = load(tmp_path / "guest.elf", RAM, 64 * MIB)
    assert loaded.symbols is not None
    assert loaded.symbols.lookup(loaded.entry) == "_start"
    assert loaded.symbols.lookup(loaded.entry + 4) == "_start+0x4"
    assert loaded.symbols.lookup(loaded.entry + 8) == "work"
    cell = loaded.symbols.address_of("cell")
    assert cell is not None
    holder = next(s for s in loaded.segments if s.address <= cell < s.end)
    assert holder.data[cell - holder.address :][:8] == (7).to_bytes(8, "little")
