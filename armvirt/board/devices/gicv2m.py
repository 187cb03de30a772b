"""GICv2m: a register frame that converts a message-signalled interrupt (MSI) to an SPI (Arm SBSA
1.0, appendix E). A device sends an MSI by a write of the INTID to the frame.

The frame behaves like QEMU's hw/intc/arm_gicv2m.c. The board has this frame if it has a GICv2. If
the board has a GICv3, an ITS receives the MSIs.
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
    """The GICv2m frame. The frame calls ``line(intid, level)`` to drive the line of an SPI.
    ``intid`` is the INTID of the SPI, and ``level`` is 0 or 1. The frame has no state."""

    name = "v2m"

    def __init__(self, line: Callable[[int, int], None]) -> None:
        self._line = line

    def __repr__(self) -> str:
        return "<GicV2m>"

    def read_word(self, offset: int) -> int:
        """Read a register. MSI_TYPER has the first SPI of the frame, and the number of SPIs.
        MSI_IIDR identifies the frame as QEMU's. All other registers read as zero, including the
        optional identification registers."""
        return {MSI_TYPER: BASE_INTID << 16 | COUNT, MSI_IIDR: IIDR}.get(offset, 0)

    def write_word(self, offset: int, value: int) -> None:
        """Write a register. A write of MSI_SETSPI_NS drives the line of the SPI to 1 and then to 0.
        After this pulse only an edge-triggered SPI stays pending."""
        intid = value & GICC_INTID
        if offset == MSI_SETSPI_NS and BASE_INTID <= intid < BASE_INTID + COUNT:
            self._line(intid, 1)
            self._line(intid, 0)

    def reset(self) -> None:
        """Do nothing, because the frame has no state."""

    def state(self) -> State:
        return {"version": 1}

    def load(self, state: State) -> None:
        """Do nothing, because the frame has no state."""


def fdt_node(base: int, size: int, phandle: int) -> Node:
    """Build the device-tree node of the frame, a child of the interrupt controller's node (Linux
    arm,gic.yaml). The node does not have the numbers of the SPIs, because the guest reads them from
    MSI_TYPER."""
    node = Node(f"v2m@{base:x}")
    node.cells("phandle", phandle)
    node.u64("reg", base, size)
    node.flag("msi-controller")
    node.text("compatible", "arm,gic-v2m-frame")
    return node
