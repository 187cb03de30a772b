"""What the board expects of a device, and what it offers one.

A device is a range of registers, an interrupt line and state. It knows neither its address nor its
INTID.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

IrqLine = Callable[[int], None]
"""The output of a device: called with 1 or 0 when the level changes."""

State = dict[str, Any]
"""Plain data that JSON can hold, with a ``version``."""


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


class MmioDevice(Protocol):
    """A device on the bus. Offsets are bytes from its base; ``size`` of an access is 1, 2, 4 or 8
    bytes."""

    name: str
    size: int

    def read(self, offset: int, size: int) -> int:
        """The value that a load of ``size`` bytes gets, zero-extended."""

    def write(self, offset: int, size: int, value: int) -> None:
        """A store of ``size`` bytes."""

    def reset(self) -> None:
        """Back to the state after power-on."""

    def state(self) -> State:
        """Everything a guest could tell the difference by, as plain data."""

    def load(self, state: State) -> None:
        """Take over saved state. Lines are not driven: their level is part of the interrupt
        controller's state, and pending timers are part of the clock's."""


class Row(NamedTuple):
    """One line about a device for a person: a register or a buffer, its value, what it means."""

    name: str
    value: int
    meaning: str = ""


class Shown(Protocol):
    """A device that shows its registers."""

    def rows(self) -> list[Row]:
        """The registers, for display."""


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


class Wire(NamedTuple):
    """A device whose line is an interrupt of the board. ``name`` is also the prefix of its
    registers' names in its manual (UARTIMSC); ``part`` is what it is."""

    name: str
    part: str
    device: Shown
    intid: int


def primecell_id(part_and_revision: bytes, offset: int) -> int:
    """The identification registers at 0xFE0 of every Arm PrimeCell: one byte per word.

    ``part_and_revision`` are the four PeriphID bytes; the PCellID that follows is the same
    everywhere.
    """
    index = (offset - 0xFE0) >> 2
    identification = part_and_revision + b"\x0d\xf0\x05\xb1"
    return identification[index] if 0 <= index < len(identification) else 0
