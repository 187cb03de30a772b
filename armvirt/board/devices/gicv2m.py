"""GICv2m: a register frame that converts a message to an SPI (Arm SBSA 1.0, appendix E). The
message of a device is a write of the INTID to the frame.

The frame behaves like QEMU's hw/intc/arm_gicv2m.c. The board has this frame with a GICv2; a GICv3
has an ITS for messages.
"""

from __future__ import annotations

from collections.abc import Callable

from armvirt.arch.gic import GICC_INTID
from armvirt.board.devices.device import RegisterDevice, State
from armvirt.board.tree.fdt import Node

MSI_TYPER, MSI_SETSPI_NS, MSI_IIDR = 0x008, 0x040, 0xFCC
BASE_INTID, COUNT = 80, 64  # QEMU's SPIs 48 to 111
IIDR = 0x51 << 20  # the product of QEMU; architecture revision and implementer are 0


class GicV2m(RegisterDevice):
    """The frame. ``line(intid, level)`` drives an SPI of the interrupt controller. The frame has no
    state."""

    name = "v2m"

    def __init__(self, line: Callable[[int, int], None]) -> None:
        self._line = line

    def __repr__(self) -> str:
        return "<GicV2m>"

    def read_word(self, offset: int) -> int:
        """Read a register. MSI_TYPER has the first SPI and the number of SPIs. The identification
        registers are optional, and read as zero."""
        return {MSI_TYPER: BASE_INTID << 16 | COUNT, MSI_IIDR: IIDR}.get(offset, 0)

    def write_word(self, offset: int, value: int) -> None:
        """Write a register. A write of MSI_SETSPI_NS sends a pulse to an SPI; only an SPI that is
        configured as edge-triggered stays pending."""
        intid = value & GICC_INTID
        if offset == MSI_SETSPI_NS and BASE_INTID <= intid < BASE_INTID + COUNT:
            self._line(intid, 1)
            self._line(intid, 0)

    def reset(self) -> None:
        """No effect, because the frame has no state."""

    def state(self) -> State:
        return {"version": 1}

    def load(self, state: State) -> None:
        """No effect, because the frame has no state."""


def fdt_node(base: int, size: int, phandle: int) -> Node:
    """The device-tree node, a child of the interrupt controller's node (Linux arm,gic.yaml). The
    SPIs are not in the node, because MSI_TYPER has them."""
    node = Node(f"v2m@{base:x}")
    node.cells("phandle", phandle)
    node.u64("reg", base, size)
    node.flag("msi-controller")
    node.text("compatible", "arm,gic-v2m-frame")
    return node
