"""`Slot`, a row of a board's list of devices, and the objects of the board that a new device can
use."""

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
    """The objects of the board that a new device can use. ``line(level)`` drives the interrupt line
    of the device. ``timers`` has virtual time, and timers for the device. ``spi(intid, level)``
    drives the line of any SPI. ``date_at_start`` is the date at virtual time 0, in seconds since
    1970."""

    line: IrqLine
    timers: Timers
    console: Console
    spi: Callable[[int, int], None]
    config: BoardConfig
    date_at_start: int


class Slot(NamedTuple):
    """One row of a board's list of devices. ``region`` has the addresses of the device, and
    ``make`` makes the device.

    ``name`` is the name of the device in the saved state and in ``INTIDS`` of the memory map.
    ``part`` is the part name, for example PL011. ``present`` returns False if a board with the
    given configuration does not have the device. ``node`` makes the device-tree node of the device;
    None if there is no node. If ``in_gic`` is True, the node is a child of the interrupt
    controller's node.
    """

    name: str
    part: str
    region: Region
    make: Callable[[Surroundings], MmioDevice]
    node: Callable[[Slot], Node] | None = None
    in_gic: bool = False
    present: Callable[[BoardConfig], bool] = lambda config: True


class Wire(NamedTuple):
    """The interrupt line of a device. ``device`` drives the line. ``intid`` is the INTID of the SPI
    that is connected to the line. ``slot`` is the name of the device on the board, such as uart,
    and ``part`` is its part name, such as PL011."""

    slot: str
    part: str
    device: Wired
    intid: int

    @property
    def name(self) -> str:
        """The displayed name of the device, such as UART. It is also the prefix of the displayed
        names of the device's registers, such as UARTIMSC."""
        return self.slot.upper()
