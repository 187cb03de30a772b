"""Rules for the memory map of each board."""

from __future__ import annotations

import pytest

from armvirt.board.boards import BOARDS
from armvirt.hw.engine.core import DORMANT_RANGES


@pytest.mark.parametrize("name", BOARDS)
def test_ram_is_outside_the_dormant_ranges(name: str) -> None:
    memmap = BOARDS[name].memmap
    last = memmap.RAM_BASE + memmap.RAM_MAX - 1
    assert not [
        f"RAM {memmap.RAM_BASE:#x}-{last:#x} overlaps {begin:#x}-{end:#x}: stores are slow"
        for begin, end in DORMANT_RANGES
        if begin <= last and memmap.RAM_BASE <= end
    ]
