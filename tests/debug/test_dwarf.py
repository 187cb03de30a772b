"""Damaged debug information is refused, and reading it costs bounded time and memory."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from debug.programs import build, needs_gcc

from armvirt.debug import dwarf
from armvirt.debug.dwarf import DebugInfo, LineError, TooManyError

ASKED = ("init", "put", "helper", "nothing")


def ask_everything(path: Path) -> list[object]:
    """Every question; only `LineError` may be the answer of a damaged file."""
    info = DebugInfo(str(path))
    answers: list[object] = [
        info.present,
        *(info.inlined(name) for name in ASKED),
        *map(info.functions, ASKED),
    ]
    answers += [info.names(), info.files()]
    for file, line in (("a.c", 9), ("b.c", 4), ("h.h", 3), ("", 1), ("/", 1)):
        try:
            answers.append(info.line(file, line))
        except LineError as error:
            answers.append(str(error))
    return answers


@needs_gcc
@pytest.mark.parametrize("version", [4, 5])
def test_a_damaged_file_gives_what_it_can(tmp_path: Path, version: int) -> None:
    whole = build(tmp_path, f"-gdwarf-{version}").read_bytes()
    damaged = tmp_path / "damaged.elf"
    chance = random.Random(version)
    for _ in range(150):
        data = bytearray(whole)
        for _ in range(chance.choice([1, 4, 40])):
            data[chance.randrange(64, len(data))] = chance.randrange(256)
        damaged.write_bytes(data[: chance.choice([len(data), chance.randrange(64, len(data))])])
        ask_everything(damaged)


@needs_gcc
def test_a_large_file_is_searched_by_its_strings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the bound below the size of this one, the answers are the same: no unit that has one is
    left out. With this name of the folder, a number in a.c's unit looks like the offset of the
    string "sub/b.c"; the offsets depend on the length of the name."""
    path = build(tmp_path, "-gdwarf-5", f"-fdebug-prefix-map={tmp_path}=/src")
    small = ask_everything(path)
    info = DebugInfo(str(path))
    monkeypatch.setattr(dwarf, "SMALL", len(info._raw("debug_info_sec")) - 1)
    assert len(info._units_with(b"put")) < len(info._units)
    large = ask_everything(path)
    assert large[:9] == small[:9] and large[11:14] == small[11:14]
    monkeypatch.setattr(dwarf, "SMALL", 10)
    monkeypatch.setattr(dwarf, "MAX_READ", 10)
    info = DebugInfo(str(path))
    with pytest.raises(
        TooManyError, match="init: 2 files of the debug information mention this name"
    ):
        info.functions("init")
    assert [site.file for site in info.functions("init", "b.c")] == ["sub/b.c"]
    assert info.inlined("put"), "one unit is always read"


@pytest.mark.parametrize("data", [b"", b"\x7fELF", b"\x7fELF\2\1\1" + bytes(57), b"text\n" * 100])
def test_no_elf(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "f"
    path.write_bytes(data)
    assert ask_everything(path)[0] is False
    assert not DebugInfo(str(tmp_path / "none")).present
