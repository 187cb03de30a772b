"""The real-time clock: an Arm PrimeCell PL031 (TRM DDI 0224).

The clock starts at a fixed date and counts seconds of virtual time. It does not use the clock of
the real machine, so a run does not depend on today's date.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum

from armvirt.arch.bits import MASK32
from armvirt.arch.timer import NS_PER_SECOND
from armvirt.board.devices.device import IrqLine, RegisterDevice, Row, State, Timers, primecell_id
from armvirt.board.tree.fdt import Node
from armvirt.hyp.kvm import WALL_CLOCK_START
from armvirt.state import checked

EPOCH = WALL_CLOCK_START // NS_PER_SECOND
"""The date at virtual time 0: 2024-01-01T00:00:00Z, in seconds since 1970."""

STATE_VERSION = 2
_PERIPHERAL_ID = b"\x31\x10\x14\x00"


class Reg(IntEnum):
    """Register offsets (TRM 3.2)."""

    DR = 0x00
    MR = 0x04
    LR = 0x08
    CR = 0x0C
    IMSC = 0x10
    RIS = 0x14
    MIS = 0x18
    ICR = 0x1C


def seconds_until(match: int, count: int) -> int:
    """Return the number of seconds until a 32-bit counter of seconds goes from ``count`` to
    ``match``; 0 if ``count`` and ``match`` are equal."""
    return (match - count) & MASK32


class Pl031(RegisterDevice):
    """One real-time clock. ``epoch`` is the date at virtual time 0, in seconds since 1970."""

    def __init__(
        self, irq: IrqLine, timers: Timers, *, epoch: int = EPOCH, name: str = "pl031"
    ) -> None:
        self.name = name
        self._irq, self._timers, self._epoch = irq, timers, epoch
        self.level = 0
        self._reads: dict[int, Callable[[], int]] = {
            Reg.DR: self._count,
            Reg.MR: lambda: self._match,
            Reg.LR: lambda: self._loaded,
            Reg.CR: lambda: 1,
            Reg.IMSC: lambda: self._imsc,
            Reg.RIS: lambda: self._ris,
            Reg.MIS: lambda: self._ris & self._imsc,
        }
        self._writes: dict[int, Callable[[int], None]] = {
            Reg.MR: self._write_mr,
            Reg.LR: self._write_lr,
            Reg.IMSC: self._write_imsc,
            Reg.ICR: self._write_icr,
        }
        self._clear()
        timers.register(name, self._alarm)

    def __repr__(self) -> str:
        return f"<Pl031 {self.name}: line {'high' if self.level else 'low'}>"

    def _clear(self) -> None:
        self._match = self._loaded = self._imsc = self._ris = 0
        self._base = self._epoch * NS_PER_SECOND  # ns that the clock is ahead of virtual time

    def reset(self) -> None:
        """Set the registers to zero, and the date to ``epoch`` plus the virtual time."""
        self._timers.cancel(self.name, "alarm")
        self._clear()
        self.update()

    def read_word(self, offset: int) -> int:
        """Read the register at ``offset``. Unknown registers read as zero."""
        return (
            self._reads[offset]() if offset in self._reads else primecell_id(_PERIPHERAL_ID, offset)
        )

    def write_word(self, offset: int, value: int) -> None:
        """Write the register at ``offset``. Writes to unknown and read-only registers are ignored.
        Writes to CR are ignored, too, so a guest cannot stop the clock."""
        if offset in self._writes:
            self._writes[offset](value)
            self.update()

    def _count(self) -> int:
        return self._time // NS_PER_SECOND & MASK32

    @property
    def _time(self) -> int:
        return self._timers.now + self._base

    def _write_mr(self, value: int) -> None:
        self._match = value
        self._set_alarm()

    def _write_lr(self, value: int) -> None:
        self._loaded = value
        self._base += (value - self._count()) * NS_PER_SECOND
        self._set_alarm()

    def _write_imsc(self, value: int) -> None:
        self._imsc = value & 1

    def _write_icr(self, value: int) -> None:
        self._ris &= ~(value & 1)

    def _set_alarm(self) -> None:
        """Arm the alarm for the first ns at which the count equals MR. If the count equals MR now,
        set RIS at once and cancel the alarm."""
        seconds = seconds_until(self._match, self._count())
        if seconds == 0:
            self._timers.cancel(self.name, "alarm")
            self._ris = 1
        else:
            self._timers.arm(
                self._timers.now + seconds * NS_PER_SECOND - self._time % NS_PER_SECOND,
                self.name,
                "alarm",
            )

    def _alarm(self, kind: str) -> None:
        self._ris = 1
        self.update()

    def update(self) -> None:
        """Compute the level of the interrupt line, and drive the line if the level has changed."""
        level = self._ris & self._imsc
        if level != self.level:
            self.level = level
            self._irq(level)

    def state(self) -> State:
        """Return the registers, the level of the interrupt line, the date, and the date of the
        alarm (None if the alarm is not armed). Both dates are in ns since 1970. The dates do not
        depend on virtual time, so this state can be loaded on an emulated host with another virtual
        time."""
        armed = self._timers.armed(self.name, "alarm")
        alarm = None if armed is None else armed + self._base
        return {"version": STATE_VERSION, "match": self._match, "load": self._loaded, "imsc": self._imsc,
                "ris": self._ris, "time": self._time, "alarm": alarm, "level": self.level}  # fmt: skip

    def load(self, state: State) -> None:
        """Restore the state that `state` returned (see `MmioDevice`), and arm the alarm for its
        saved date. If the clock of the emulated host already has the alarm for this date, the alarm
        stays as it is."""
        checked(state, self.name, STATE_VERSION)
        self._match, self._loaded = state["match"], state["load"]
        self._imsc, self._ris = state["imsc"], state["ris"]
        self._base, self.level = state["time"] - self._timers.now, state["level"]
        when = None if state["alarm"] is None else state["alarm"] - self._base
        if when is None:
            self._timers.cancel(self.name, "alarm")
        elif when != self._timers.armed(self.name, "alarm"):
            self._timers.arm(when, self.name, "alarm")

    def rows(self) -> list[Row]:
        """The registers and the interrupt line, for display."""
        rows = [Row(Reg(offset).name, read()) for offset, read in self._reads.items()]
        return [*rows, Row("line", self.level)]


def fdt_node(base: int, size: int, spi: int, clock: int) -> Node:
    """Build the device-tree node of the real-time clock. ``spi`` is its INTID minus 32. ``clock``
    is the phandle of the node apb-pclk, the clock signal of the device."""
    node = Node(f"pl031@{base:x}")
    node.text("compatible", "arm,pl031", "arm,primecell")
    node.u64("reg", base, size)
    node.cells("interrupts", 0, spi, 4)
    node.cells("clocks", clock)
    node.text("clock-names", "apb_pclk")
    return node
