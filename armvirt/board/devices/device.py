"""What a board expects of a device, and what a board offers a device.

A device is a range of registers, an interrupt line and state. The device knows neither its address
nor its INTID: a `Slot` of the board has them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, Protocol, runtime_checkable

from armvirt.state import State, Stateful

if TYPE_CHECKING:
    from armvirt.board.config import BoardConfig, Region
    from armvirt.board.console import Console
    from armvirt.board.tree.fdt import Node

__all__ = ["IrqLine", "MmioDevice", "RegisterDevice", "Row", "Shown", "Slot", "State",
           "Surroundings", "Timers", "Wire", "Wired", "primecell_id"]  # fmt: skip

IrqLine = Callable[[int], None]
"""The output of a device: called with 1 or 0 when the level changes."""


class Timers(Protocol):
    """Virtual time, as far as a device sees it (``armvirt.hw.clock.Clock`` fits)."""

    @property
    def now(self) -> int:
        """Virtual time in ns."""

    def register(self, owner: str, handler: Callable[[str], None]) -> None:
        """Name the handler of ``owner``'s entries; it is called with the entry's kind."""

    def arm(self, when: int, owner: str, kind: str = "") -> None:
        """(Re)arm the one entry of (owner, kind) for ``when`` ns."""

    def cancel(self, owner: str, kind: str = "") -> None:
        """Disarm."""

    def armed(self, owner: str, kind: str = "") -> int | None:
        """The ns for which it is armed, or None."""


class MmioDevice(Stateful, Protocol):
    """A device on the bus. Offsets are bytes from its base; ``size`` of an access is 1, 2, 4 or 8
    bytes.

    Its state has no timers, which are part of the clock's state, and `load` drives no line: the
    level is part of the interrupt controller's state.
    """

    name: str
    size: int

    def read(self, offset: int, size: int) -> int:
        """The value that a load of ``size`` bytes gets, zero-extended."""

    def write(self, offset: int, size: int, value: int) -> None:
        """A store of ``size`` bytes."""

    def reset(self) -> None:
        """Back to the state after power-on."""


class Row(NamedTuple):
    """One line about a device for a person: a register or a buffer, its value, what it means."""

    name: str
    value: int
    meaning: str = ""


class Shown(Protocol):
    """A device that shows its registers."""

    def rows(self) -> list[Row]:
        """The registers, for display."""


@runtime_checkable
class Wired(Shown, Protocol):
    """A device with an interrupt line."""

    @property
    def level(self) -> int:
        """The level of the line, 0 or 1."""


class RegisterDevice(ABC):
    """A device whose registers are 32-bit words (an APB peripheral).

    Narrow loads get their byte lanes. A narrow store counts as a store of the whole register if it
    starts at the word, which is what QEMU does and what guests that use STRB on a UART need;
    elsewhere it is ignored. A 64-bit access is two words, lower address first.
    """

    name: str
    size = 0x1000

    @abstractmethod
    def read_word(self, offset: int) -> int:
        """The register at ``offset`` (a multiple of 4)."""

    @abstractmethod
    def write_word(self, offset: int, value: int) -> None:
        """Write the register at ``offset`` (a multiple of 4)."""

    def read(self, offset: int, size: int) -> int:
        """See ``MmioDevice.read``."""
        if size == 8:
            return self.read(offset, 4) | self.read(offset + 4, 4) << 32
        word = self.read_word(offset & ~3)
        return word >> 8 * (offset & 3) & (1 << 8 * size) - 1

    def write(self, offset: int, size: int, value: int) -> None:
        """See ``MmioDevice.write``."""
        if size == 8:
            self.write(offset, 4, value & 0xFFFF_FFFF)
            self.write(offset + 4, 4, value >> 32)
        elif not offset & 3:
            self.write_word(offset, value & (1 << 8 * size) - 1)


class Surroundings(NamedTuple):
    """What a board offers a device that it makes: the line of its slot, virtual time, the console,
    ``spi(intid, level)``, the settings of the board, and the date at virtual time 0 in seconds since
    1970."""

    line: IrqLine
    timers: Timers
    console: Console
    spi: Callable[[int, int], None]
    config: BoardConfig
    date_at_start: int


class Slot(NamedTuple):
    """One row of a board's list of devices: where the device is and how it is made.

    ``name`` names its state and its interrupt, ``part`` is what it is (PL011). A board with a ``config`` for which
    ``present`` is False has no such device. ``node`` makes its node of the device tree, a child of
    the node of the interrupt controller if ``in_gic``.
    """

    name: str
    part: str
    region: Region
    make: Callable[[Surroundings], MmioDevice]
    intid: int | None = None
    node: Callable[[Slot], Node] | None = None
    in_gic: bool = False
    present: Callable[[BoardConfig], bool] = lambda config: True


class Wire(NamedTuple):
    """A device whose line is an interrupt of the board: the name and the part of its `Slot`."""

    slot: str
    part: str
    device: Wired
    intid: int

    @property
    def name(self) -> str:
        """The prefix of the names of its registers in its manual: UART, of UARTIMSC."""
        return self.slot.upper()


def primecell_id(part_and_revision: bytes, offset: int) -> int:
    """The identification registers at 0xFE0 of every Arm PrimeCell: one byte per word.

    ``part_and_revision`` are the four PeriphID bytes; the PCellID that follows is the same
    everywhere.
    """
    index = (offset - 0xFE0) >> 2
    identification = part_and_revision + b"\x0d\xf0\x05\xb1"
    return identification[index] if 0 <= index < len(identification) else 0
