"""The MMIO bus: which device an address belongs to, and ranges that overlap."""

from __future__ import annotations

import itertools

import pytest

from armvirt.board.bus import MmioBus
from armvirt.board.config import Region
from armvirt.board.devices.device import RegisterDevice, State
from armvirt.board.virt import memmap


class Scratch(RegisterDevice):
    """Remembers the words written to it."""

    name = "scratch"

    def __init__(self) -> None:
        self.words: dict[int, int] = {}

    def read_word(self, offset: int) -> int:
        return self.words.get(offset, 0x4433_2211)

    def write_word(self, offset: int, value: int) -> None:
        self.words[offset] = value

    def reset(self) -> None:
        self.words.clear()

    def state(self) -> State:
        return {"version": 1}

    def load(self, state: State) -> None:
        pass


def test_lookup_gives_device_and_offset() -> None:
    bus, low, high = MmioBus(), Scratch(), Scratch()
    bus.add(0x2000, 0x1000, high)
    bus.add(0x1000, 0x800, low)
    assert bus.lookup(0x1000) == (low, 0)
    assert bus.lookup(0x17FF) == (low, 0x7FF)
    assert bus.lookup(0x2004, 4) == (high, 4)
    assert [device for _, _, device in bus.devices()] == [low, high]


@pytest.mark.parametrize(
    ("address", "size"), [(0, 4), (0xFFF, 1), (0x1800, 4), (0x17FE, 4), (0x3000, 1)]
)
def test_nobody_answers_outside(address: int, size: int) -> None:
    bus = MmioBus()
    bus.add(0x1000, 0x800, Scratch())
    bus.add(0x2000, 0x1000, Scratch())
    assert bus.lookup(address, size) is None
    assert bus.read(address, size) is None
    assert bus.write(address, size, 0) is False


@pytest.mark.parametrize(
    ("base", "size"), [(0x1000, 0x10), (0x17FF, 1), (0x0800, 0x801), (0x3000, 0)]
)
def test_overlap_is_refused(base: int, size: int) -> None:
    bus = MmioBus()
    bus.add(0x1000, 0x800, Scratch())
    with pytest.raises(ValueError, match=r"scratch at .* overlaps"):
        bus.add(base, size, Scratch())


def test_reads_and_writes_reach_the_device() -> None:
    bus, device = MmioBus(), Scratch()
    bus.add(0x1000, 0x1000, device)
    assert bus.write(0x1010, 4, 7) is True
    assert device.words == {0x10: 7}
    assert bus.read(0x1010, 4) == 7


def test_narrow_loads_get_their_lanes_and_wide_ones_two_words() -> None:
    device = Scratch()
    assert [device.read(offset, 1) for offset in range(4)] == [0x11, 0x22, 0x33, 0x44]
    assert [device.read(0, 2), device.read(2, 2)] == [0x2211, 0x4433]
    assert device.read(8, 8) == 0x44332211_44332211


def test_narrow_stores_count_as_the_register_and_wide_ones_as_two() -> None:
    device = Scratch()
    device.write(0, 1, 0xABCD)
    device.write(5, 1, 0xFF)
    device.write(8, 8, 0x2_0000_0001)
    assert device.words == {0: 0xCD, 8: 1, 12: 2}


def test_memory_map_has_no_overlaps() -> None:
    regions = sorted([memmap.ROM, memmap.GICD, memmap.GICC, memmap.GICV2M, memmap.ITS, memmap.GICR, memmap.UART,
                      memmap.RTC, Region(memmap.RAM_BASE, memmap.RAM_MAX)])  # fmt: skip
    assert all(one.end <= other.base for one, other in itertools.pairwise(regions))
    assert memmap.MAX_CPUS == 123
