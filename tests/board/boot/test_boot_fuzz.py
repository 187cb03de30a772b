"""A file of any content is loaded into RAM or refused in one line."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from conftest import ROOT
from elf_builder import ET_DYN, PT_DYNAMIC, RAM, TEXT, Load, elf, image
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from armvirt.board.boot import load
from armvirt.errors import ImageError

RAM_SIZE = 16 << 20
SEEDS: dict[str, bytes] = {
    "elf": elf(
        [Load(), Load(TEXT + 0x1000, b"data", memsz=0x2000)],
        symbols=[("f", 2, TEXT, 8), ("g", 1, TEXT + 8, 0)],
    ),
    "pie": elf([Load(0x1000), Load(0x2000, bytes(32), type=PT_DYNAMIC)], entry=0x1000, kind=ET_DYN),
    "image": image(512, text_offset=0x80000),
    "gzip": gzip.compress(image(512)),
}
BUNDLED = sorted(ROOT.glob("armvirt/guests/*.elf"))[:2]


def check(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    try:
        loaded = load(path, RAM, RAM_SIZE)
    except ImageError as error:
        assert "\n" not in str(error)
        return
    for segment in loaded.segments:
        assert len(segment.data) <= segment.size
        assert RAM <= segment.address <= segment.end <= min(loaded.end, RAM + RAM_SIZE)
    assert any(segment.address <= loaded.entry < segment.end for segment in loaded.segments)
    if loaded.symbols is not None:
        loaded.symbols.lookup(loaded.entry)


def damaged(content: bytes, data: st.DataObject) -> bytes:
    """A few bytes overwritten, mostly in the headers, then perhaps cut."""
    raw = bytearray(content)
    near, anywhere = st.integers(0, min(len(raw), 192) - 1), st.integers(0, len(raw) - 1)
    for at in data.draw(st.lists(st.one_of(near, anywhere), max_size=5)):
        raw[at] = data.draw(
            st.one_of(st.sampled_from([0, 1, 0x7F, 0x80, 0xFF]), st.integers(0, 255))
        )
    return bytes(raw[: data.draw(st.one_of(st.just(len(raw)), st.integers(0, len(raw))))])


FUZZ = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.mark.parametrize("name", SEEDS)
@FUZZ
@given(data=st.data())
def test_damaged_files(tmp_path: Path, name: str, data: st.DataObject) -> None:
    check(tmp_path / "guest", damaged(SEEDS[name], data))


@pytest.mark.parametrize("path", BUNDLED, ids=lambda path: path.stem)
@settings(FUZZ, max_examples=40)
@given(data=st.data())
def test_damaged_real_guests(tmp_path: Path, path: Path, data: st.DataObject) -> None:
    check(tmp_path / "guest", damaged(path.read_bytes(), data))


@FUZZ
@given(content=st.binary(max_size=300))
def test_random_files(tmp_path: Path, content: bytes) -> None:
    check(tmp_path / "guest", content)
