"""The device tree of the board. QEMU's board ``virt`` has the same device tree if it has the same
devices."""

from __future__ import annotations

from armvirt.board.tree import nodes
from armvirt.board.tree.nodes import BoardTree


def build(board: BoardTree) -> bytes:
    """Build the device tree, and return its blob."""
    root = nodes.root_node("linux,dummy-virt")
    root.children = [
        nodes.chosen(board),
        nodes.ram(board),
        nodes.cpus(board.cpu, board.mpidrs),
        nodes.psci(),
        nodes.timer(board.gic, len(board.mpidrs)),
        nodes.gic(board),
        nodes.apb_clock(),
        *board.devices,
    ]
    return nodes.write(board, root)
