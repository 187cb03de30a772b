"""The rows of a board's list of devices, and the parts of the board that a new device can use."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from armvirt.records import NamedTuple

if TYPE_CHECKING:
    from armvirt.board.config import BoardConfig, Region
    from armvirt.board.console import Console
    from armvirt.board.devices.device import IrqLine, MmioDevice, Timers, Wired
    from armvirt.board.tree.fdt import Node


class Surroundings(NamedTuple):
    """The parts of the board that a new device can use. ``line`` drives the interrupt line of the
    device, ``timers`` has virtual time, and ``spi(intid, level)`` drives any SPI. ``date_at_start``
    is the date at virtual time 0, in seconds since 1970."""

    line: IrqLine
    timers: Timers
    console: Console
    spi: Callable[[int, int], None]
    config: BoardConfig
    date_at_start: int


class Slot(NamedTuple):
    """One row of a board's list of devices: the address of the device and the function that makes
    it.

    ``name`` is the name of the device's state, and of its interrupt in the memory map. ``part`` is
    the part name, for example PL011. ``present`` returns False for a configuration of the board
    that has no such device. ``node`` makes the device-tree node of the device; if ``in_gic`` is
    true, the node is a child of the interrupt controller's node.
    """

    name: str
    part: str
    region: Region
    make: Callable[[Surroundings], MmioDevice]
    node: Callable[[Slot], Node] | None = None
    in_gic: bool = False
    present: Callable[[BoardConfig], bool] = lambda config: True


class Wire(NamedTuple):
    """The interrupt line of a device. ``device`` drives the line, and the line is the SPI
    ``intid``. ``slot`` is the name of the device on the board, such as uart, and ``part`` is its
    part name, such as PL011."""

    slot: str
    part: str
    device: Wired
    intid: int

    @property
    def name(self) -> str:
        """The prefix of the register names of the device in its manual: UART in UARTIMSC."""
        return self.slot.upper()
