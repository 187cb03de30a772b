"""The symbol table of an ELF file: names of addresses."""

from __future__ import annotations

from pathlib import Path

import pytest
from elf_builder import ET_DYN, RAM, TEXT, Load, elf

from armvirt.board.boot import load
from armvirt.board.boot.symbols import SymbolTable

MIB = 1 << 20
FUNC, GLOBAL_FUNC, OBJECT, NOTYPE, FILE = 2, 0x12, 1, 0, 4
SYMBOLS = [
    ("start", NOTYPE, TEXT, 0),
    ("$x", NOTYPE, TEXT, 0),
    ("alias", GLOBAL_FUNC, TEXT + 0x10, 8),
    ("main", FUNC, TEXT + 0x10, 8),
    ("data", OBJECT, TEXT + 0x20, 4),
    ("file.c", FILE, TEXT + 0x28, 0),
    ("tail", NOTYPE, TEXT + 0x30, 0),
]


def table(tmp_path: Path, content: bytes) -> SymbolTable:
    path = tmp_path / "guest.elf"
    path.write_bytes(content)
    symbols = load(path, RAM, 64 * MIB).symbols
    assert isinstance(symbols, SymbolTable)
    return symbols


def test_lookup(tmp_path: Path) -> None:
    symbols = table(tmp_path, elf([Load(data=bytes(64))], symbols=SYMBOLS))
    expected = {TEXT - 1: None, TEXT: "start", TEXT + 0xC: "start+0xc", TEXT + 0x14: "alias+0x4", TEXT + 0x18: None,
                TEXT + 0x23: "data+0x3", TEXT + 0x28: None, TEXT + 0x3C: "tail+0xc", TEXT + 0x40: None}  # fmt: skip
    assert {address: symbols.lookup(address) for address in expected} == expected
    assert symbols.address_of("data") == TEXT + 0x20
    assert symbols.address_of("nobody") is None


def test_physical_and_virtual_addresses_have_the_same_names(tmp_path: Path) -> None:
    high = 0xFFFF_8000_0000_0000
    content = elf(
        [Load(TEXT, bytes(64), vaddr=high)], entry=high, symbols=[("f", FUNC, high + 8, 8)]
    )
    symbols = table(tmp_path, content)
    assert symbols.lookup(high + 12) == symbols.lookup(TEXT + 12) == "f+0x4"


def test_a_pie_is_found_where_it_was_loaded(tmp_path: Path) -> None:
    content = elf([Load(0, bytes(64))], entry=0, kind=ET_DYN, symbols=[("f", FUNC, 8, 8)])
    assert table(tmp_path, content).lookup(RAM + 2 * MIB + 8) == "f"


@pytest.mark.parametrize(
    "damage", [lambda raw: raw[:-30], lambda raw: raw[:40] + b"\xff" * 8 + raw[48:]]
)
def test_damaged_tables_are_no_names(tmp_path: Path, damage: object) -> None:
    assert callable(damage)
    symbols = table(tmp_path, damage(elf(symbols=SYMBOLS)))
    assert symbols.lookup(TEXT) is None


def test_no_table_is_no_names_and_reading_is_lazy(tmp_path: Path) -> None:
    symbols = table(tmp_path, elf())
    (tmp_path / "guest.elf").unlink()
    assert symbols.lookup(TEXT) is None
