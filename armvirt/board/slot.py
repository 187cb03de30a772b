"""The slots of a board: a `Slot` is one row of the list of devices."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from armvirt.board.config import BoardConfig, Region
    from armvirt.board.console import Console
    from armvirt.board.devices.device import IrqLine, MmioDevice, Timers, Wired
    from armvirt.board.tree.fdt import Node


class Surroundings(NamedTuple):
    """The parts of the board that a new device can use: the line of its slot, virtual time, the
    console, ``spi(intid, level)``, the settings of the board, and the date at virtual time 0 in
    seconds since 1970."""

    line: IrqLine
    timers: Timers
    console: Console
    spi: Callable[[int, int], None]
    config: BoardConfig
    date_at_start: int


class Slot(NamedTuple):
    """One row of a board's list of devices: the address of the device and the function that makes
    it.

    ``name`` is the name of its state and of its interrupt in the memory map, ``part`` the part name
    (PL011). A board
    with a ``config`` for which ``present`` is False has no such device. ``node`` makes its node of
    the device tree, a child of the node of the interrupt controller if ``in_gic``.
    """

    name: str
    part: str
    region: Region
    make: Callable[[Surroundings], MmioDevice]
    node: Callable[[Slot], Node] | None = None
    in_gic: bool = False
    present: Callable[[BoardConfig], bool] = lambda config: True


class Wire(NamedTuple):
    """A device whose line is an interrupt of the board, with the name and the part of its
    `Slot`."""

    slot: str
    part: str
    device: Wired
    intid: int

    @property
    def name(self) -> str:
        """The prefix of the register names of the device in its manual: UART in UARTIMSC."""
        return self.slot.upper()
