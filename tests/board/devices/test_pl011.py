"""The PL011 UART: registers, FIFOs, interrupts, timing."""

from __future__ import annotations

import json
from collections import deque

import device_time
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from armvirt.board.devices.pl011 import (
    CHARACTER_NS,
    FEN,
    FIFO_DEPTH,
    LBE,
    OVERRUN,
    RXFE,
    RXFF,
    TIMEOUT_NS,
    TXFE,
    TXFF,
    Irq,
    Pl011,
    Reg,
)
from armvirt.hw.clock import Clock


class Bench:
    """A UART with a clock, a sender and ears."""

    def __init__(self, *, honour_ifls: bool = False) -> None:
        self.clock, self.wire = Clock(), deque[int]()
        self.sent, self.levels = bytearray(), list[int]()
        self.uart = Pl011(
            self.levels.append, self.clock, self.sent.append, self._receive, honour_ifls=honour_ifls
        )

    def _receive(self) -> int | None:
        return self.wire.popleft() if self.wire else None

    def type(self, data: bytes) -> None:
        self.wire.extend(data)
        self.uart.poll_input()

    def advance(self, ns: int) -> None:
        device_time.advance(self.clock, ns)

    def read(self, reg: Reg) -> int:
        return self.uart.read(reg, 4)

    def write(self, reg: Reg, value: int) -> None:
        self.uart.write(reg, 4, value)


def test_reset_values() -> None:
    bench = Bench()
    assert bench.read(Reg.CR) == 0x300
    assert bench.read(Reg.IFLS) == 0x12
    assert bench.read(Reg.FR) == TXFE | RXFE
    assert all(
        bench.read(reg) == 0
        for reg in (Reg.RSR, Reg.IBRD, Reg.FBRD, Reg.LCR_H, Reg.IMSC, Reg.RIS, Reg.MIS)
    )


def test_identification_bytes() -> None:
    uart = Bench().uart
    assert [uart.read(offset, 4) for offset in range(0xFE0, 0x1000, 4)] == [
        0x11,
        0x10,
        0x14,
        0,
        0x0D,
        0xF0,
        5,
        0xB1,
    ]
    assert uart.read(0xFE4, 1) == 0x10


def test_unknown_offsets_read_zero_and_ignore_writes() -> None:
    uart = Bench().uart
    before = uart.state()
    for offset in (0x08, 0x14, 0x1C, 0x4C, 0x800, 0xFDC):
        assert uart.read(offset, 4) == 0
        uart.write(offset, 4, 0xFFFF_FFFF)
    assert uart.state() == before


@pytest.mark.parametrize(
    ("reg", "mask"),
    [
        (Reg.IBRD, 0xFFFF),
        (Reg.FBRD, 0x3F),
        (Reg.IMSC, 0x7FF),
        (Reg.DMACR, 7),
        (Reg.IFLS, 0x3F),
        (Reg.ILPR, 0xFF),
    ],
)
def test_stored_registers_keep_their_bits(reg: Reg, mask: int) -> None:
    bench = Bench()
    bench.write(reg, 0xFFFF_FFFF)
    assert bench.read(reg) == mask


def test_transmit_is_immediate_and_raises_tx_until_cleared() -> None:
    bench = Bench()
    bench.write(Reg.IMSC, Irq.TX)
    assert bench.levels == []
    bench.write(Reg.DR, ord("A"))
    assert bench.sent == b"A"
    assert bench.read(Reg.RIS) == bench.read(Reg.MIS) == Irq.TX
    assert not bench.read(Reg.FR) & TXFF
    bench.write(Reg.ICR, Irq.TX)
    assert bench.levels == [1, 0]


def test_masked_interrupt_shows_in_ris_only() -> None:
    bench = Bench()
    bench.write(Reg.DR, 0)
    assert (bench.read(Reg.RIS), bench.read(Reg.MIS), bench.levels) == (Irq.TX, 0, [])
    bench.write(Reg.IMSC, Irq.TX)
    bench.write(Reg.IMSC, 0)
    assert bench.levels == [1, 0]


def test_a_polling_guest_gets_each_byte_when_it_looks() -> None:
    bench = Bench()
    bench.type(b"ok")
    got = bytearray()
    while not bench.read(Reg.FR) & RXFE:
        got.append(bench.read(Reg.DR))
    assert got == b"ok"
    assert bench.read(Reg.DR) == 0


def test_clearing_rx_after_the_read_loses_no_byte() -> None:
    """The handler that most small guests have: read DR, then clear RX; without FIFO."""
    bench = Bench()
    bench.write(Reg.IMSC, Irq.RX)
    bench.type(b"hello")
    got = bytearray()
    for _ in range(20):
        bench.advance(CHARACTER_NS)
        if bench.read(Reg.MIS) & Irq.RX:
            got.append(bench.read(Reg.DR))
            bench.write(Reg.ICR, Irq.RX)
    assert got == b"hello"


def test_characters_arrive_one_per_character_time() -> None:
    bench = Bench()
    bench.write(Reg.LCR_H, FEN)
    bench.write(Reg.IMSC, Irq.RX)
    bench.type(b"abc")
    bench.advance(CHARACTER_NS - 1)
    assert bench.read(Reg.FR) & RXFE
    bench.advance(1)
    assert bench.levels == [1]
    assert len(bench.wire) == 2
    bench.advance(2 * CHARACTER_NS)
    assert bytes(bench.read(Reg.DR) for _ in range(3)) == b"abc"
    assert bench.levels == [1, 0]


def test_the_fifo_pulls_only_what_it_has_room_for() -> None:
    bench = Bench()
    bench.write(Reg.LCR_H, FEN)
    bench.write(Reg.IMSC, Irq.RX)
    bench.type(bytes(range(20)))
    bench.advance(1_000_000)
    assert bench.read(Reg.FR) & RXFF
    assert len(bench.wire) == 20 - FIFO_DEPTH
    bench.write(Reg.LCR_H, 0)
    assert bench.read(Reg.FR) & RXFE, "changing FEN flushes"
    bench.advance(1_000_000)
    assert bench.read(Reg.FR) & RXFF, "without FIFO the depth is 1"
    assert bench.read(Reg.DR) == FIFO_DEPTH


def test_ifls_of_the_trm_on_request_and_the_timeout_for_the_rest() -> None:
    bench = Bench(honour_ifls=True)
    bench.write(Reg.LCR_H, FEN)
    bench.write(Reg.IFLS, 1 << 3)  # a quarter: 4 bytes
    bench.write(Reg.IMSC, Irq.RX | Irq.RT)
    bench.type(b"xyz")
    bench.advance(3 * CHARACTER_NS)
    assert bench.read(Reg.RIS) == 0
    bench.advance(TIMEOUT_NS)
    assert bench.read(Reg.RIS) == Irq.RT
    bench.type(b"!")
    bench.advance(CHARACTER_NS)
    assert bench.read(Reg.RIS) == Irq.RT | Irq.RX
    bench.read(Reg.DR)
    assert bench.read(Reg.RIS) == Irq.RT, "below the level"
    for _ in range(3):
        bench.read(Reg.DR)
    assert (bench.read(Reg.RIS), bench.levels) == (0, [1, 0])


def test_the_timeout_comes_again_for_bytes_left_after_its_clearing() -> None:
    bench = Bench()
    bench.write(Reg.LCR_H, FEN)
    bench.write(Reg.IMSC, Irq.RX | Irq.RT)
    bench.type(b"z")
    bench.advance(CHARACTER_NS + TIMEOUT_NS)
    bench.write(Reg.ICR, 0x7FF)
    assert bench.read(Reg.RIS) == 0
    bench.advance(TIMEOUT_NS)
    assert bench.read(Reg.RIS) == Irq.RT


def test_loopback_and_overrun() -> None:
    bench = Bench()
    bench.write(Reg.CR, 0x301 | LBE)
    bench.write(Reg.DR, 0x55)
    bench.write(Reg.DR, 0xAA)
    assert bench.sent == b""
    assert bench.read(Reg.RIS) & Irq.OE
    assert bench.read(Reg.DR) == 0x55 | OVERRUN
    assert bench.read(Reg.RSR) == OVERRUN >> 8
    bench.write(Reg.RSR, 0)
    assert bench.read(Reg.RSR) == 0


def test_reset_drops_the_line_and_what_was_received() -> None:
    bench = Bench()
    bench.write(Reg.IMSC, Irq.RX)
    bench.type(b"a")
    bench.advance(CHARACTER_NS)
    bench.uart.reset()
    assert bench.levels == [1, 0]
    assert bench.read(Reg.FR) & RXFE


def test_rows_name_what_is_pending() -> None:
    bench = Bench()
    bench.write(Reg.DR, 1)
    assert ("RIS", Irq.TX, "TX") in bench.uart.rows()


def test_state_survives_json_and_continues_alike() -> None:
    bench, other = Bench(), Bench()
    bench.write(Reg.LCR_H, FEN | 0x60)
    bench.write(Reg.IMSC, Irq.RX | Irq.RT | Irq.TX)
    bench.type(b"state")
    bench.advance(2 * CHARACTER_NS + 5)
    other.uart.load(json.loads(json.dumps(bench.uart.state())))
    other.clock.load(bench.clock.state())
    other.wire = deque(bench.wire)
    assert other.levels == [], "loading drives no line"
    for one in (bench, other):
        one.advance(1_000_000)
    assert other.uart.state() == bench.uart.state()
    assert bytes(other.read(Reg.DR) for _ in range(5)) == b"state"


class FifoAgainstModel(RuleBasedStateMachine):
    """An interrupt-driven UART against a model of a wire and a FIFO that is stepped ns by ns of
    interest."""

    def __init__(self) -> None:
        super().__init__()
        self.bench = Bench()
        self.model_wire: list[int] = []
        self.fifo: list[int] = []
        self.depth = 1
        self.next_at: int | None = None

    @initialize()
    def unmask(self) -> None:
        self.bench.write(Reg.IMSC, Irq.RX)

    def _room(self) -> None:
        """After anything that may have made room or brought input, a character starts if none is on
        its way."""
        if self.next_at is None and len(self.fifo) < self.depth:
            self.next_at = self.bench.clock.now + CHARACTER_NS

    @rule(data=st.binary(min_size=1, max_size=20))
    def type(self, data: bytes) -> None:
        self.bench.type(data)
        self.model_wire += data
        self._room()

    @rule(ns=st.integers(1, 5 * CHARACTER_NS))
    def advance(self, ns: int) -> None:
        end = self.bench.clock.now + ns
        while self.next_at is not None and self.next_at <= end:
            arrives = len(self.fifo) < self.depth and bool(self.model_wire)
            if arrives:
                self.fifo.append(self.model_wire.pop(0))
            self.next_at = (
                self.next_at + CHARACTER_NS if arrives and len(self.fifo) < self.depth else None
            )
        self.bench.advance(ns)

    @rule()
    def read(self) -> None:
        expected = self.fifo.pop(0) if self.fifo else 0
        assert self.bench.read(Reg.DR) == expected
        self._room()

    @rule(fen=st.booleans())
    def set_fen(self, fen: bool) -> None:
        self.bench.write(Reg.LCR_H, FEN if fen else 0)
        depth = FIFO_DEPTH if fen else 1
        if depth != self.depth:
            self.depth, self.fifo = depth, []
            self._room()

    @invariant()
    def flags_tell_the_fill_level(self) -> None:
        flags = self.bench.read(Reg.FR)
        assert bool(flags & RXFE) == (not self.fifo)
        assert bool(flags & RXFF) == (len(self.fifo) >= self.depth)

    @invariant()
    def line_follows_the_fifo(self) -> None:
        line = self.bench.levels[-1] if self.bench.levels else 0
        assert line == int(bool(self.fifo))
        assert all(
            one != other
            for one, other in zip(self.bench.levels, self.bench.levels[1:], strict=False)
        )


FifoAgainstModel.TestCase.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None
)
TestFifo = FifoAgainstModel.TestCase
