"""`BoardModel`, the description of a board as data. The package of each board has a
`BoardModel`."""

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

    ``memmap`` is the module with the addresses, INTIDs and limits. ``slots`` is a function that
    returns the list of the devices. ``tree`` is a function that builds the device tree. ``slots``
    and ``tree`` are functions because they import modules that most commands do not need.
    """

    name: str
    memmap: MemoryMap
    slots: Callable[[], Sequence[Slot]]
    tree: Callable[[BoardTree], bytes]
