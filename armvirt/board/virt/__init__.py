"""The board ``virt`` of QEMU: memory map, devices, device tree."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from armvirt.board.model import BoardModel
from armvirt.board.virt import memmap

if TYPE_CHECKING:
    from armvirt.board.slot import Slot
    from armvirt.board.tree.nodes import BoardTree


def _slots() -> Sequence[Slot]:
    from armvirt.board.virt.devices import SLOTS

    return SLOTS


def _tree(board: BoardTree) -> bytes:
    from armvirt.board.virt.tree import build

    return build(board)


VIRT = BoardModel("virt", memmap, _slots, _tree)
