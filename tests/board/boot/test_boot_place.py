"""Where the loader places kernel, initramfs and device tree."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from armvirt.board.boot import Loaded, Segment, place
from armvirt.board.boot.place import STACK_ROOM
from armvirt.errors import UserError

RAM, MIB = 0x4000_0000, 1 << 20


def guest(kind: str, start: int, size: int) -> Loaded:
    return Loaded("guest", kind, (Segment(start, b"", size),), start, start + size)


def test_as_qemu_places_a_kernel() -> None:
    kernel = guest("image", RAM + 2 * MIB, 40 * MIB)
    assert place(kernel, 5000, 3 * MIB, RAM, 512 * MIB) == (RAM + 132 * MIB, RAM + 128 * MIB)
    assert place(kernel, 5000, 0, RAM, 512 * MIB) == (RAM + 128 * MIB, None)
    assert place(kernel, 5000, 100, RAM, 128 * MIB) == (RAM + 66 * MIB, RAM + 64 * MIB)


def test_the_tree_of_an_elf_or_firmware_is_at_ram_base() -> None:
    assert place(guest("elf", RAM + 2 * MIB, MIB), 5000, 0, RAM, 64 * MIB) == (RAM, None)
    bios = Loaded("u-boot", "bios", (Segment(0, b"", MIB),), 0, RAM)
    assert place(bios, 5000, 4096, RAM, 64 * MIB) == (RAM, RAM + 32 * MIB)


def test_an_elf_at_ram_base_has_its_tree_above() -> None:
    assert place(guest("elf", RAM, MIB), 5000, 0, RAM, 64 * MIB) == (RAM + 32 * MIB, None)
    assert place(guest("elf", RAM + 4096, MIB), 5000, 0, RAM, 64 * MIB).dtb == RAM + 32 * MIB


def test_a_large_image_moves_them_up() -> None:
    placed = place(guest("flat", RAM + 0x80000, 200 * MIB), 5000, MIB, RAM, 512 * MIB)
    assert placed.initrd == RAM + 0x80000 + 200 * MIB + STACK_ROOM
    assert placed.dtb % (2 * MIB) == 0


def test_an_image_at_the_end_of_ram_moves_them_down() -> None:
    placed = place(guest("image", RAM + 30 * MIB, 34 * MIB), 5000, 8 * MIB, RAM, 64 * MIB)
    assert placed == (RAM + 8 * MIB, RAM)


@pytest.mark.parametrize(
    ("dtb", "initrd", "what"), [(5000, 60 * MIB, "initrd"), (60 * MIB, 0, "device tree")]
)
def test_no_room_is_one_clear_line(dtb: int, initrd: int, what: str) -> None:
    with pytest.raises(
        UserError,
        match=f"RAM of 64M has no room for the {what} .60M. beside the guest; use a larger",
    ):
        place(guest("image", RAM + 2 * MIB, 20 * MIB), dtb, initrd, RAM, 64 * MIB)


SIZES = st.integers(1, 24 * MIB)


@given(st.sampled_from(["elf", "image", "flat"]), st.integers(0, 64 * MIB), SIZES, st.integers(1, 2 * MIB),
       st.one_of(st.just(0), SIZES))  # fmt: skip
def test_nothing_ever_overlaps(
    kind: str, offset: int, size: int, dtb_size: int, initrd_size: int
) -> None:
    offset = min(offset, 64 * MIB - size)
    loaded = guest(kind, RAM + offset, size)
    try:
        placed = place(loaded, dtb_size, initrd_size, RAM, 64 * MIB)
    except UserError:
        # Only if the free space really is scarce.
        largest = max(offset, 64 * MIB - offset - size)
        assert (
            dtb_size + initrd_size + 4 * MIB > largest - STACK_ROOM - 4 * MIB
            or initrd_size > 20 * MIB
        )
        return
    taken = [(loaded.start, loaded.end), (placed.dtb, placed.dtb + dtb_size)]
    if placed.initrd is not None:
        taken.append((placed.initrd, placed.initrd + initrd_size))
    taken.sort()
    assert taken[0][0] >= RAM
    assert taken[-1][1] <= RAM + 64 * MIB
    assert all(one[1] <= other[0] for one, other in itertools.pairwise(taken))
    assert placed.dtb % 8 == 0, "the boot protocol wants 8-byte alignment"
    assert (placed.initrd is None) == (initrd_size == 0)
