"""The list of the board's devices. Each row has the address of a device, and the function that
makes the device.

To add a device, add a module to `armvirt.board.devices`, a row to this list, and the interrupt of
the device to `armvirt.board.virt.memmap.INTIDS`. The board does the rest: it makes the device, puts
the device on the bus, resets, saves, restores and migrates the device, and adds its node to the
device tree.
"""

from __future__ import annotations

from armvirt.arch.gic import FIRST_SPI
from armvirt.board.devices import gicv2m, pl011, pl031
from armvirt.board.devices.rom import Rom
from armvirt.board.slot import Slot
from armvirt.board.tree.fdt import Node
from armvirt.board.tree.nodes import CLOCK_PHANDLE, MSI_PHANDLE
from armvirt.board.virt import memmap


def _pl011_node(slot: Slot) -> Node:
    return pl011.fdt_node(*slot.region, _spi(slot), CLOCK_PHANDLE)


def _pl031_node(slot: Slot) -> Node:
    return pl031.fdt_node(*slot.region, _spi(slot), CLOCK_PHANDLE)


def _gicv2m_node(slot: Slot) -> Node:
    return gicv2m.fdt_node(*slot.region, MSI_PHANDLE)


def _spi(slot: Slot) -> int:
    """The number of the device's SPI in a device tree: the INTID of the device minus
    `FIRST_SPI`."""
    return memmap.INTIDS[slot.name] - FIRST_SPI


SLOTS = (
    Slot(
        "uart", "PL011", memmap.UART,
        lambda by: pl011.Pl011(by.line, by.timers, by.console.transmit, by.console.receive),
        _pl011_node,
    ),
    Slot(
        "rtc", "PL031", memmap.RTC, lambda by: pl031.Pl031(by.line, by.timers, epoch=by.date_at_start),
        _pl031_node,
    ),
    Slot(
        "v2m", "GICv2m", memmap.GICV2M, lambda by: gicv2m.GicV2m(by.spi),
        _gicv2m_node, in_gic=True, present=lambda config: config.gic == 2,
    ),
    Slot(
        "rom", "ROM", memmap.FLASH, lambda by: Rom(memmap.FLASH.size),
        present=lambda config: config.bios is not None,
    ),
)  # fmt: skip
