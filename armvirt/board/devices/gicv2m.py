"""GICv2m: a frame in which a device's message, a write of an INTID, becomes an SPI (Arm SBSA 1.0,
appendix E).

After QEMU's hw/intc/arm_gicv2m.c, which the board has beside a GICv2 (a GICv3 has an ITS for that).
"""

from __future__ import annotations

from collections.abc import Callable

from armvirt.board.devices.device import RegisterDevice, State
from armvirt.board.tree.fdt import Node

MSI_TYPER, MSI_SETSPI_NS, MSI_IIDR = 0x008, 0x040, 0xFCC
BASE_INTID, COUNT = 80, 64  # QEMU's SPIs 48 to 111
IIDR = 0x51 << 20  # QEMU's product; there is no architecture revision to tell, nor an implementer
_INTID = 0x3FF


class GicV2m(RegisterDevice):
    """The frame. ``line(intid, level)`` drives an SPI of the interrupt controller. It has no state
    of its own."""

    name = "v2m"

    def __init__(self, line: Callable[[int, int], None]) -> None:
        self._line = line

    def __repr__(self) -> str:
        return "<GicV2m>"

    def read_word(self, offset: int) -> int:
        """MSI_TYPER says which SPIs it has; the identification registers are optional, and read as
        zero."""
        return {MSI_TYPER: BASE_INTID << 16 | COUNT, MSI_IIDR: IIDR}.get(offset, 0)

    def write_word(self, offset: int, value: int) -> None:
        """MSI_SETSPI_NS: a pulse, which only an SPI that is configured as edge-triggered
        remembers."""
        intid = value & _INTID
        if offset == MSI_SETSPI_NS and BASE_INTID <= intid < BASE_INTID + COUNT:
            self._line(intid, 1)
            self._line(intid, 0)

    def reset(self) -> None:
        """Nothing to do."""

    def state(self) -> State:
        return {"version": 1}

    def load(self, state: State) -> None:
        """Nothing to do."""


def fdt_node(base: int, size: int, phandle: int) -> Node:
    """The node, a child of the interrupt controller's (Linux arm,gic.yaml). MSI_TYPER says which
    SPIs it may use."""
    node = Node(f"v2m@{base:x}")
    node.cells("phandle", phandle)
    node.u64("reg", base, size)
    node.flag("msi-controller")
    node.text("compatible", "arm,gic-v2m-frame")
    return node
