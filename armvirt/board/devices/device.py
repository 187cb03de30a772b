"""The interfaces between a board and its devices.

A device is a range of registers, an interrupt line and state. The device knows neither its address
nor its INTID: a slot of the board has them (`armvirt.board.slot`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Protocol, runtime_checkable

from armvirt.records import NamedTuple
from armvirt.state import State, Stateful

__all__ = ["IrqLine", "MmioDevice", "Receiver", "RegisterDevice", "Row", "Shown", "State", "Timers",
           "Wired", "primecell_id"]  # fmt: skip

IrqLine = Callable[[int], None]
"""The output of a device: called with 1 or 0 when the level changes."""


class Timers(Protocol):
    """Virtual time for a device, and timers (``armvirt.hw.clock.Clock`` implements this interface).

    A timer is named by (owner, kind). The owner is the name of the device, the kind is a text that
    distinguishes the timers of one device.
    """

    @property
    def now(self) -> int:
        """Virtual time in ns."""

    def register(self, owner: str, handler: Callable[[str], None]) -> None:
        """Set the function that is called when a timer of ``owner`` expires. The argument of the
        function is the kind of the timer."""

    def arm(self, when: int, owner: str, kind: str = "") -> None:
        """Arm the timer (owner, kind) for ``when`` ns. A timer that is armed already gets the new
        time."""

    def cancel(self, owner: str, kind: str = "") -> None:
        """Disarm the timer (owner, kind)."""

    def armed(self, owner: str, kind: str = "") -> int | None:
        """The time in ns for which the timer (owner, kind) is armed; None if the timer is not
        armed."""


class MmioDevice(Stateful, Protocol):
    """A device on the bus. Offsets are bytes from the base of the device; ``size`` of an access is
    1, 2, 4 or 8 bytes.

    The state of a device does not include its timers, which are part of the clock's state. `load`
    drives no line, because the level is part of the interrupt controller's state.
    """

    name: str
    size: int

    def read(self, offset: int, size: int) -> int:
        """The value of a load of ``size`` bytes, zero-extended."""

    def write(self, offset: int, size: int, value: int) -> None:
        """Store ``size`` bytes."""

    def reset(self) -> None:
        """Return to the state after power-on."""


@runtime_checkable
class Receiver(Protocol):
    """A device that receives console input."""

    @property
    def listens(self) -> bool:
        """Whether the arrival of a byte would raise the interrupt line."""

    def poll_input(self) -> None:
        """Check for input."""


class Row(NamedTuple):
    """One line of a table about a device: a register or a buffer, its value and its meaning."""

    name: str
    value: int
    meaning: str = ""


class Shown(Protocol):
    """A device whose registers can be displayed."""

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

    A narrow load returns its bytes of the register. A narrow store at the start of a word is a
    store of the whole register, as in QEMU; guests that use STRB on a UART need this. A narrow
    store at another offset is ignored. A 64-bit access is two accesses of a word, lower address
    first.
    """

    name: str
    size = 0x1000

    @abstractmethod
    def read_word(self, offset: int) -> int:
        """Read the register at ``offset`` (a multiple of 4)."""

    @abstractmethod
    def write_word(self, offset: int, value: int) -> None:
        """Write the register at ``offset`` (a multiple of 4)."""

    def read(self, offset: int, size: int) -> int:
        """The value of a load of ``size`` bytes, see ``MmioDevice.read``."""
        if size == 8:
            return self.read(offset, 4) | self.read(offset + 4, 4) << 32
        word = self.read_word(offset & ~3)
        return word >> 8 * (offset & 3) & (1 << 8 * size) - 1

    def write(self, offset: int, size: int, value: int) -> None:
        """Store ``size`` bytes, see ``MmioDevice.write``."""
        if size == 8:
            self.write(offset, 4, value & 0xFFFF_FFFF)
            self.write(offset + 4, 4, value >> 32)
        elif not offset & 3:
            self.write_word(offset, value & (1 << 8 * size) - 1)


def primecell_id(part_and_revision: bytes, offset: int) -> int:
    """The value of an identification register (from 0xFE0 on) of an Arm PrimeCell: one byte per
    word.

    ``part_and_revision`` are the four PeriphID bytes; the PCellID that follows is the same for all
    PrimeCells.
    """
    index = (offset - 0xFE0) >> 2
    identification = part_and_revision + b"\x0d\xf0\x05\xb1"
    return identification[index] if 0 <= index < len(identification) else 0
