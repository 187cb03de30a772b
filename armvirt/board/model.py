"""The description of a board as data. Each package of a board has a `BoardModel`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from armvirt.records import NamedTuple

if TYPE_CHECKING:
    from armvirt.board.memmap import MemoryMap
    from armvirt.board.slot import Slot
    from armvirt.board.tree.nodes import BoardTree


class BoardModel(NamedTuple):
    """The memory map, the devices and the device tree of a board.

    ``memmap`` is a module with addresses, INTIDs and limits. ``slots`` returns the list of the
    devices, ``tree`` makes the device tree; both are functions, because they import modules that
    most commands do not need.
    """

    name: str
    memmap: MemoryMap
    slots: Callable[[], Sequence[Slot]]
    tree: Callable[[BoardTree], bytes]
