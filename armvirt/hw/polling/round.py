"""One iteration (a round) of a polling loop: its state, and the inputs that the round reads in
addition to the general registers."""

from __future__ import annotations

from typing import Protocol

from armvirt.hw.polling import flags as fl
from armvirt.hw.polling import interval as iv
from armvirt.hw.polling.interval import Interval
from armvirt.records import NamedTuple


class RefusedError(Exception):
    """The loop cannot be skipped: it has an effect, or one that is not known."""


class Cell(NamedTuple):
    """``size`` bytes of RAM at the physical address ``address``."""

    address: int
    size: int

    def overlaps(self, other: Cell) -> bool:
        return (
            self.address < other.address + other.size and other.address < self.address + self.size
        )


class Surroundings(Protocol):
    """What a round reads beside its registers. None or False: not possible without an exit."""

    def word(self, pc: int) -> tuple[int, int] | None:
        """The instruction at virtual address ``pc`` and its physical address."""

    def cell(self, address: int, size: int, *, write: bool) -> Cell | None:
        """The RAM behind a virtual address."""

    def value(self, cell: Cell) -> int:
        """What the RAM holds."""

    def readable(self, register: int) -> bool:
        """Whether MRS reads the counter or the timer control register (packed encoding)."""

    def ticks(self, register: int, count: int) -> int:
        """The value of the counter, or the count that the timer of a control register compares,
        at an instruction count. Not reduced modulo 2**64."""

    def comparator(self, register: int) -> tuple[int, int]:
        """CTL (ENABLE and IMASK) and CVAL of the timer of a control register."""


class Start(NamedTuple):
    """The start of a round: ``retired`` instructions have retired, ``registers`` are X0 to X30 and
    SP, ``nzcv`` is N, Z, C, V as the bits 3 to 0."""

    pc: int
    retired: int
    registers: tuple[int, ...]
    nzcv: int


class Round:
    """The state of a round: registers, flags and the memory that it has read and written."""

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
        """`RefusedError` if a later round would load another value than this one."""
        for cell, value in self.stored.items():
            for other, before in self.loaded.items():
                if cell == other:
                    if value != (before, before):
                        raise RefusedError("the loop changes what it loads")
                elif cell.overlaps(other):
                    raise RefusedError("a store overlaps a load")
