"""The state of one iteration (a *round*) of a polling loop, and the inputs that the iteration reads
in addition to the general registers."""

from __future__ import annotations

from typing import Protocol

from armvirt.hw.polling import flags as fl
from armvirt.hw.polling import interval as iv
from armvirt.hw.polling.interval import Interval
from armvirt.records import NamedTuple


class RefusedError(Exception):
    """The loop cannot be skipped, because it has an effect or because its effect is not known."""


class Cell(NamedTuple):
    """A range of RAM that one load or store accesses. ``address`` is its physical address, and
    ``size`` is its length in bytes."""

    address: int
    size: int

    def overlaps(self, other: Cell) -> bool:
        return (
            self.address < other.address + other.size and other.address < self.address + self.size
        )


class Surroundings(Protocol):
    """The inputs of a loop other than its registers: instructions, RAM, counters and timers.

    A method returns None or False if the guest's access would not complete without an exception or
    exit.
    """

    def word(self, pc: int) -> tuple[int, int] | None:
        """Return the instruction at ``pc``, a virtual address, as (instruction word, its physical
        address). Returns None if the guest cannot execute code at ``pc``."""

    def cell(self, address: int, size: int, *, write: bool) -> Cell | None:
        """Return the `Cell` (the physical address and the size) of a load or store. ``address`` is
        the virtual address, and ``size`` is the number of bytes. Returns None if the guest cannot
        read this RAM, or if ``write`` is True and the guest cannot write it."""

    def value(self, cell: Cell) -> int:
        """Return the present content of the RAM that ``cell`` describes, as a little-endian
        integer."""

    def readable(self, register: int) -> bool:
        """Return whether MRS can read a counter or a timer control register without a trap.
        ``register`` is its packed encoding."""

    def ticks(self, register: int, count: int) -> int:
        """Return a count in ticks at the time when the instruction count is ``count``. If
        ``register`` is a counter, the result is the value of the counter. If ``register`` is a
        timer control register, the result is the value that the timer compares with CVAL. The
        result is not reduced modulo 2**64."""

    def comparator(self, register: int) -> tuple[int, int]:
        """Return (CTL, CVAL) of the timer whose control register is ``register``. CTL has the bits
        ENABLE and IMASK."""


class Start(NamedTuple):
    """The start of an iteration. ``retired`` is the instruction count. ``registers`` are X0 to X30
    and SP. N, Z, C, V are the bits 3 to 0 of ``nzcv``."""

    pc: int
    retired: int
    registers: tuple[int, ...]
    nzcv: int


class Round:
    """The state of one iteration (a *round*) of a loop: registers, flags, and the RAM that the
    iteration has read and written."""

    __slots__ = ("around", "base", "flags", "loaded", "start", "stored", "x")

    def __init__(self, start: Start, around: Surroundings) -> None:
        self.start, self.around = start, around
        registers = start.registers
        self.x: list[Interval] = [(value, value) for value in registers[:31]]
        self.x += [iv.ZERO, (registers[31], registers[31]), iv.ZERO]
        self.flags = fl.known(start.nzcv)
        self.base = 0
        self.loaded: dict[Cell, int] = {}
        self.stored: dict[Cell, Interval] = {}

    def load(self, address: int, size: int) -> Interval:
        cell = self._cell(address, size, write=False)
        if cell in self.stored:
            return self.stored[cell]
        if any(cell.overlaps(other) for other in self.stored):
            raise RefusedError("a load overlaps a store")
        value = self.loaded.get(cell)
        if value is None:
            self.loaded[cell] = value = self.around.value(cell)
        return value, value

    def store(self, address: int, size: int, value: Interval) -> None:
        cell = self._cell(address, size, write=True)
        if cell not in self.stored and any(cell.overlaps(other) for other in self.stored):
            raise RefusedError("two stores overlap")
        self.stored[cell] = value

    def _cell(self, address: int, size: int, *, write: bool) -> Cell:
        cell = None if address & size - 1 else self.around.cell(address, size, write=write)
        if cell is None:
            raise RefusedError("an access is not one to RAM")
        return cell

    def check_memory(self) -> None:
        """Raise `RefusedError` if the next iteration would load another value from RAM than this
        iteration."""
        for cell, value in self.stored.items():
            for other, before in self.loaded.items():
                if cell == other:
                    if value != (before, before):
                        raise RefusedError("the loop changes what it loads")
                elif cell.overlaps(other):
                    raise RefusedError("a store overlaps a load")
