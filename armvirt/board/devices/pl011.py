"""The UART: an Arm PrimeCell PL011 (TRM DDI 0183), as in QEMU's virt board.

Where QEMU and the TRM differ, this UART behaves like QEMU, for guests that were written for QEMU.
Transmission takes no time, and the enable bits of CR are ignored. The first byte in the FIFO sets
RIS.RX. If ``honour_ifls`` is True, the trigger level in IFLS applies instead, as in the TRM.

While the FIFO has free space, the UART fetches one character of input per 10 us of virtual time by
a call of ``receive``. It does not fetch a character during an access of the guest. The reason is
that many interrupt handlers read DR and then clear RX by ICR. If a byte arrived during the read of
DR, the write of ICR would clear the interrupt of this byte. There is one exception: if RX and RT
are masked, the guest polls and cannot lose an interrupt. Then a read of FR gets the next byte at
once, because each read of FR takes much host time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from enum import IntEnum, IntFlag

from armvirt.board.devices.device import IrqLine, RegisterDevice, Row, State, Timers, primecell_id
from armvirt.board.tree.fdt import Node
from armvirt.state import checked

FIFO_DEPTH = 16
CHARACTER_NS = 10_000
"""The time in ns of one character, with start and stop bit, at a nominal 1 Mbit/s."""
TIMEOUT_NS = 32_000
"""The time in ns from the last character to the receive timeout interrupt RT: 32 bit periods (TRM
2.8.3)."""

STATE_VERSION = 1
_PERIPHERAL_ID = b"\x11\x10\x14\x00"


class Reg(IntEnum):
    """Register offsets (TRM 3.2)."""

    DR = 0x00
    RSR = 0x04
    FR = 0x18
    ILPR = 0x20
    IBRD = 0x24
    FBRD = 0x28
    LCR_H = 0x2C
    CR = 0x30
    IFLS = 0x34
    IMSC = 0x38
    RIS = 0x3C
    MIS = 0x40
    ICR = 0x44
    DMACR = 0x48


class Irq(IntFlag):
    """Interrupt sources: bits of IMSC, RIS, MIS and ICR (TRM 3.3.10)."""

    RX = 1 << 4
    TX = 1 << 5
    RT = 1 << 6
    OE = 1 << 10


RXFE, TXFF, RXFF, TXFE = 1 << 4, 1 << 5, 1 << 6, 1 << 7
FEN = 1 << 4
LBE = 1 << 7
OVERRUN = 1 << 11
# Plain integers for code that runs per character: an IntFlag operation takes a microsecond.
RX, TX, RT, OE = int(Irq.RX), int(Irq.TX), int(Irq.RT), int(Irq.OE)
RECEIVE_IRQS = RX | RT

# Plain storage: implemented bits and reset value (TRM table 3-1). IBRD has 16 bits, FBRD 6.
_STORED: dict[int, tuple[int, int]] = {
    Reg.ILPR: (0xFF, 0),
    Reg.IBRD: (0xFFFF, 0),
    Reg.FBRD: (0x3F, 0),
    Reg.LCR_H: (0xFF, 0),
    Reg.CR: (0xFF87, 0x300),
    Reg.IFLS: (0x3F, 0x12),
    Reg.IMSC: (0x7FF, 0),
    Reg.DMACR: (0x7, 0),
}

# IFLS[5:3] to the fill level of a 16-byte FIFO: 1/8, 1/4, 1/2, 3/4, 7/8; the other encodings are
# reserved.
_LEVELS = (2, 4, 8, 12, 14, 8, 8, 8)


class Pl011(RegisterDevice):
    """One UART.

    The UART calls ``transmit`` with each byte that the guest sends. The UART calls ``receive`` to
    fetch the next byte of input when its FIFO has free space. ``receive`` returns None if there is
    no input. The board has to call `poll_input` when there may be new input. ``irq`` drives the
    interrupt line. ``name`` is the name of the UART's timers.
    """

    stable_reads = frozenset(int(each) for each in Reg if each is not Reg.DR)

    def __init__(
        self,
        irq: IrqLine,
        timers: Timers,
        transmit: Callable[[int], None] = lambda byte: None,
        receive: Callable[[], int | None] = lambda: None,
        *,
        name: str = "pl011",
        honour_ifls: bool = False,
    ) -> None:
        self.name, self.transmit, self.receive = name, transmit, receive
        self._irq, self._timers, self._honour_ifls = irq, timers, honour_ifls
        self._events = {"rx": self._character_arrives, "timeout": self._receive_timeout}
        self._reads: dict[int, Callable[[], int]] = {
            Reg.DR: self._read_dr,
            Reg.RSR: lambda: self._rsr,
            Reg.FR: self._read_fr,
            Reg.RIS: lambda: self._ris,
            Reg.MIS: lambda: self._ris & self._regs[Reg.IMSC],
        }
        self._writes: dict[int, Callable[[int], None]] = {
            Reg.DR: self._write_dr,
            Reg.RSR: self._write_ecr,
            Reg.LCR_H: self._write_lcr,
            Reg.ICR: self._write_icr,
        }
        self.level = 0
        self._clear()
        timers.register(name, lambda kind: self._events[kind]())

    def __repr__(self) -> str:
        return f"<Pl011 {self.name}: line {'high' if self.level else 'low'}>"

    def _clear(self) -> None:
        self._regs = {offset: reset for offset, (_, reset) in _STORED.items()}
        self._fifo: deque[int] = deque()
        self._ris, self._rsr = 0, 0
        self._arriving = False

    def reset(self) -> None:
        """Set the UART to its state after power-on (TRM table 3-1). The interrupt line goes to 0.
        The characters in the FIFO are lost. Input that the UART has not yet fetched is not lost.
        (The UART fetches input by a call of ``receive``.)"""
        self._timers.cancel(self.name, "rx")
        self._timers.cancel(self.name, "timeout")
        self._clear()
        self.update()
        self.poll_input()

    # --- registers ---

    def read_word(self, offset: int) -> int:
        """Read the register at ``offset``. Unknown registers read as zero."""
        read = self._reads.get(offset)
        if read is not None:
            return read()
        return self._regs[offset] if offset in self._regs else primecell_id(_PERIPHERAL_ID, offset)

    def write_word(self, offset: int, value: int) -> None:
        """Write the register at ``offset``. Writes to unknown and read-only registers are
        ignored."""
        if offset in self._writes:
            self._writes[offset](value)
        elif offset in self._regs:
            self._regs[offset] = value & _STORED[offset][0]
        self.update()

    def _read_dr(self) -> int:
        value = self._fifo.popleft() if self._fifo else 0
        self._rsr = value >> 8
        self._settle_receive()
        self.update()
        self.poll_input()
        return value

    def _write_dr(self, value: int) -> None:
        if self._regs[Reg.CR] & LBE:
            self._push(value & 0xFF)
        else:
            self.transmit(value & 0xFF)
        # The byte leaves at once, so every write passes the trigger level of the FIFO.
        self._ris |= TX

    def _write_ecr(self, value: int) -> None:
        self._rsr = 0

    def _read_fr(self) -> int:
        if not self._fifo and not self._regs[Reg.IMSC] & RECEIVE_IRQS:
            self._pull()
        if not self._fifo:
            return TXFE | RXFE
        return TXFE | (RXFF if len(self._fifo) >= self._depth else 0)

    def _write_lcr(self, value: int) -> None:
        changed = (self._regs[Reg.LCR_H] ^ value) & FEN
        self._regs[Reg.LCR_H] = value & _STORED[Reg.LCR_H][0]
        if changed:
            self._fifo.clear()
            self._settle_receive()
            self.poll_input()

    def _write_icr(self, value: int) -> None:
        self._ris &= ~value
        if value & RT and self._fifo:
            self._timers.arm(self._timers.now + TIMEOUT_NS, self.name, "timeout")

    # --- receive ---

    @property
    def _depth(self) -> int:
        return FIFO_DEPTH if self._regs[Reg.LCR_H] & FEN else 1

    @property
    def _trigger(self) -> int:
        """The number of characters in the FIFO that sets RIS.RX."""
        if not self._honour_ifls or not self._regs[Reg.LCR_H] & FEN:
            return 1
        return _LEVELS[self._regs[Reg.IFLS] >> 3 & 7]

    def poll_input(self) -> None:
        """Schedule the arrival of the next character, if the FIFO has free space and no arrival is
        scheduled. The board calls this method when there may be new input."""
        if not self._arriving and len(self._fifo) < self._depth:
            self._arriving = True
            self._timers.arm(self._timers.now + CHARACTER_NS, self.name, "rx")

    def _character_arrives(self) -> None:
        self._arriving = False
        if len(self._fifo) < self._depth and self._pull():
            self.poll_input()

    def _pull(self) -> bool:
        """Move one byte of input from ``receive`` to the FIFO. Return False if there is no
        input."""
        byte = self.receive()
        if byte is None:
            return False
        self._push(byte & 0xFF)
        self.update()
        return True

    def _push(self, byte: int) -> None:
        if len(self._fifo) >= self._depth:
            # The new byte is lost; the last byte of the FIFO gets the overrun flag (TRM 3.3.1).
            # Only loopback can overrun.
            self._fifo[-1] |= OVERRUN
            self._ris |= OE
            return
        self._fifo.append(byte)
        if len(self._fifo) >= self._trigger:
            self._ris |= RX
        self._timers.arm(self._timers.now + TIMEOUT_NS, self.name, "timeout")

    def _settle_receive(self) -> None:
        """Clear RIS.RX if the FIFO has fewer characters than the trigger level. Clear RIS.RT if the
        FIFO is empty."""
        if len(self._fifo) < self._trigger:
            self._ris &= ~RX
        if not self._fifo:
            self._ris &= ~RT
            self._timers.cancel(self.name, "timeout")

    def _receive_timeout(self) -> None:
        if self._fifo:
            self._ris |= RT
            self.update()

    @property
    def listens(self) -> bool:
        """True if RX or RT is unmasked, so that the arrival of a byte raises the interrupt line."""
        return bool(self._regs[Reg.IMSC] & (RX | RT))

    # --- line and state ---

    def update(self) -> None:
        """Compute the level of the interrupt line, and drive the line if the level has changed."""
        level = int(bool(self._ris & self._regs[Reg.IMSC]))
        if level != self.level:
            self.level = level
            self._irq(level)

    def state(self) -> State:
        """Return the registers by name, the contents of the FIFO, RIS, and the level of the
        interrupt line."""
        registers = {Reg(offset).name: value for offset, value in self._regs.items()}
        return {"version": STATE_VERSION, "registers": registers, "fifo": list(self._fifo), "ris": self._ris,
                "rsr": self._rsr, "arriving": self._arriving, "level": self.level}  # fmt: skip

    def load(self, state: State) -> None:
        """Restore the state that `state` returned (see `MmioDevice`)."""
        checked(state, self.name, STATE_VERSION)
        self._regs = {int(Reg[name]): value for name, value in state["registers"].items()}
        self._fifo = deque(state["fifo"])
        self._ris, self._rsr = state["ris"], state["rsr"]
        self._arriving, self.level = state["arriving"], state["level"]

    def rows(self) -> list[Row]:
        """The registers, the FIFO and the interrupt line, for display."""
        interrupts = {"RIS": self._ris, "MIS": self._ris & self._regs[Reg.IMSC]}
        rows = [Row(Reg(offset).name, value) for offset, value in self._regs.items()]
        rows += [Row(name, value, _names(value)) for name, value in interrupts.items()]
        return [
            *rows,
            Row("RX FIFO", len(self._fifo), f"of {self._depth}"),
            Row("line", self.level),
        ]


def _names(value: int) -> str:
    return "|".join(str(irq.name) for irq in Irq if value & irq)


def fdt_node(base: int, size: int, spi: int, clock: int) -> Node:
    """Build the device-tree node of the UART. ``spi`` is the INTID of the UART minus 32. ``clock``
    is the phandle of the clock's node, apb-pclk."""
    node = Node(f"pl011@{base:x}")
    node.text("compatible", "arm,pl011", "arm,primecell")
    node.u64("reg", base, size)
    node.cells("interrupts", 0, spi, 4)
    node.cells("clocks", clock, clock)
    node.text("clock-names", "uartclk", "apb_pclk")
    return node
