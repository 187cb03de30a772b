"""The interfaces between a board and its devices.

A device has registers, state, and at most one interrupt line. The address and the INTID of a device
are not in the device, but in the board's list of devices (`armvirt.board.slot`) and in the memory
map.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Container
from typing import Protocol, runtime_checkable

from armvirt.records import NamedTuple
from armvirt.state import State, Stateful

__all__ = ["IrqLine", "MmioDevice", "Receiver", "RegisterDevice", "Row", "Shown", "State", "Timers",
           "Wired", "primecell_id"]  # fmt: skip

IrqLine = Callable[[int], None]
"""The interrupt line of a device: a function that the device calls with 1 or 0 when the level
changes."""


class Timers(Protocol):
    """Virtual time and timers for a device (``armvirt.hw.clock.Clock`` implements this interface).

    The pair (owner, kind) names a timer. ``owner`` is the name of the device. ``kind`` is a text
    that distinguishes the timers of one device.
    """

    @property
    def now(self) -> int:
        """Virtual time in ns."""

    def register(self, owner: str, handler: Callable[[str], None]) -> None:
        """Set ``handler``, which is called when a timer of ``owner`` expires. The argument of the
        call is the kind of the timer."""

    def arm(self, when: int, owner: str, kind: str = "") -> None:
        """Arm the timer (owner, kind) for the virtual time ``when`` in ns. If the timer is armed
        already, ``when`` replaces its expiry."""

    def cancel(self, owner: str, kind: str = "") -> None:
        """Disarm the timer (owner, kind)."""

    def armed(self, owner: str, kind: str = "") -> int | None:
        """The virtual time in ns at which the timer (owner, kind) expires; None if the timer is not
        armed."""


class MmioDevice(Stateful, Protocol):
    """A device on the bus. ``size`` is the size of its register region in bytes. The offset of an
    access is in bytes from the base of the device. The size of an access is 1, 2, 4 or 8 bytes.

    The state of a device does not include its timers, because the state of the clock includes them.
    `load` does not drive the interrupt line, because the state of the interrupt controller includes
    the level of the line.
    """

    name: str
    size: int

    @property
    def stable_reads(self) -> Container[int]:
        """The offsets at which a load has no effect, and returns the same value until other code of
        the board or the hypervisor runs (`MmioExit.stable`)."""

    def read(self, offset: int, size: int) -> int:
        """Load ``size`` bytes at ``offset``, and return the value, zero-extended."""

    def write(self, offset: int, size: int, value: int) -> None:
        """Store ``value``, which has ``size`` bytes, at ``offset``."""

    def reset(self) -> None:
        """Set the device to its state after power-on."""


@runtime_checkable
class Receiver(Protocol):
    """A device that receives console input."""

    @property
    def listens(self) -> bool:
        """True if the device raises its interrupt line when a byte of input arrives."""

    def poll_input(self) -> None:
        """Check for input. The board calls this method when there may be new input."""


class Row(NamedTuple):
    """One row of a table that displays a device: the name of a register or buffer, its value, and
    the meaning of the value."""

    name: str
    value: int
    meaning: str = ""


class Shown(Protocol):
    """A device whose registers can be displayed."""

    def rows(self) -> list[Row]:
        """The registers of the device, for display."""


@runtime_checkable
class Wired(Shown, Protocol):
    """A device with an interrupt line."""

    @property
    def level(self) -> int:
        """The level of the line, 0 or 1."""


class RegisterDevice(ABC):
    """A device whose registers are 32-bit words (an APB peripheral).

    A load of 8 or 16 bits returns these bits of the register. A store of 8 or 16 bits at the start
    of a word writes the whole register, as in QEMU; guests that use STRB on a UART need this. A
    store of 8 or 16 bits at another offset in the word is ignored. An access of 64 bits is two
    accesses of 32 bits, first at the lower address.
    """

    name: str
    size = 0x1000
    stable_reads: Container[int] = ()

    @abstractmethod
    def read_word(self, offset: int) -> int:
        """Read the register at ``offset`` (a multiple of 4)."""

    @abstractmethod
    def write_word(self, offset: int, value: int) -> None:
        """Write the register at ``offset`` (a multiple of 4)."""

    def read(self, offset: int, size: int) -> int:
        """Load ``size`` bytes at ``offset`` as `RegisterDevice` describes, and return the value."""
        if size == 4 and not offset & 3:
            return self.read_word(offset)
        if size == 8:
            return self.read(offset, 4) | self.read(offset + 4, 4) << 32
        word = self.read_word(offset & ~3)
        return word >> 8 * (offset & 3) & (1 << 8 * size) - 1

    def write(self, offset: int, size: int, value: int) -> None:
        """Store ``size`` bytes at ``offset`` as `RegisterDevice` describes."""
        if size == 8:
            self.write(offset, 4, value & 0xFFFF_FFFF)
            self.write(offset + 4, 4, value >> 32)
        elif not offset & 3:
            self.write_word(offset, value & (1 << 8 * size) - 1)


def primecell_id(part_and_revision: bytes, offset: int) -> int:
    """Return the value of an identification register of an Arm PrimeCell, or 0 if ``offset`` is not
    an identification register. The registers start at offset 0xFE0, and each register has one byte
    in a 32-bit word.

    ``part_and_revision`` are the four bytes of PeriphID. The four bytes of PCellID follow, which
    are the same for all PrimeCells.
    """
    index = (offset - 0xFE0) >> 2
    identification = part_and_revision + b"\x0d\xf0\x05\xb1"
    return identification[index] if 0 <= index < len(identification) else 0
