"""A device tree that the user provides, and the properties that a boot loader adds to it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from armvirt.board.tree import fdt
from armvirt.board.tree.fdt import Node, Tree
from armvirt.board.tree.nodes import memory, set_initrd
from armvirt.errors import ImageError, UserError
from armvirt.inputs import Input

if TYPE_CHECKING:
    from pathlib import Path

    from armvirt.board.config import Region


def checked(blob: bytes) -> bytes:
    """Return ``blob``. UserError if the blob is larger than the boot protocol allows, for example
    because of a long ``--append``."""
    if len(blob) > fdt.MAX_SIZE:
        raise UserError(
            f"the device tree would have {len(blob)} bytes, and 2 MiB are allowed; shorten --append"
        )
    return blob


def load_user_tree(path: str | Path) -> Tree:
    """Read the device tree in a .dtb file. ImageError if the file is not a device tree, or is
    larger than the boot protocol allows."""
    with Input(path, "device tree", fdt.MAX_SIZE) as source:
        if source.size > fdt.MAX_SIZE:
            raise ImageError(
                path, "it is larger than the 2 MiB that the boot protocol allows a device tree"
            )
        blob = source.read_at(0, source.size)
    try:
        return fdt.parse(blob)
    except fdt.FdtError as error:
        raise ImageError(path, str(error), "give a blob compiled by dtc") from None


def patch(tree: Tree, bootargs: str, initrd: tuple[int, int] | None, ram: Region) -> bytes:
    """Add to a user's tree the properties that a boot loader writes, and return the blob.

    If ``bootargs`` is not empty, ``bootargs`` replaces the bootargs of the tree. ``initrd`` is the
    address range of the initrd, and replaces such a range in the tree. If ``initrd`` is None, the
    tree gets no address of an initrd. If the tree has no memory node, a memory node for ``ram`` is
    added. All other nodes and properties stay unchanged.
    """
    root = tree.root
    node = root.child("chosen") or root.add(Node("chosen"))
    if bootargs:
        node.text("bootargs", bootargs)
    for name in ("linux,initrd-start", "linux,initrd-end"):
        node.properties.pop(name, None)
    if initrd:
        set_initrd(node, initrd)
    if not any(child.properties.get("device_type") == b"memory\0" for child in root.children):
        root.add(_memory_for(root, ram))
    return fdt.write(tree)


def _memory_for(root: Node, ram: Region) -> Node:
    """Build a memory node for ``ram`` with the cell counts of ``root``. If ``root`` has no cell
    counts, the defaults of the specification apply: 2 and 1. If the cell counts are not 1 or 2, or
    the size of RAM does not fit, the cell counts of ``root`` are set to 2 and 2."""
    address_cells, size_cells = root.get_cell("#address-cells", 2), root.get_cell("#size-cells", 1)
    if address_cells not in (1, 2) or size_cells not in (1, 2) or ram.size >> 32 * size_cells:
        root.cells("#address-cells", address_cells := 2)
        root.cells("#size-cells", size_cells := 2)
    return memory(ram.base, ram.size, address_cells, size_cells)
