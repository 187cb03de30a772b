"""What makes a loop one that may be skipped, rule by rule, and how many of its rounds."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from asm import HS, LO, NE, XZR, Asm

from armvirt.arch.timer import CNTV_CTL_EL0, CNTVCT_EL0
from armvirt.hw.polling import FEWEST_ROUNDS, LONGEST_ROUND
from armvirt.hw.polling.loop import Path, evaluate, rounds_alike, trace
from armvirt.hw.polling.round import Cell, RefusedError, Start

CODE, DATA = 0x1000, 0x8000
MASK64 = (1 << 64) - 1


class Machine:
    """Code and data at their own addresses; one tick of the counter is ``ns`` instructions."""

    def __init__(self, a: Asm, *, first: int = 0, ns: int = 16) -> None:
        self.ram = {a.base + n: byte for n, byte in enumerate(a.code())}
        self.ram.update({DATA + n: 0 for n in range(256)})
        self.first, self.ns = first, ns
        self.timer = (0, 0)
        self.reads = True

    def word(self, pc: int) -> tuple[int, int] | None:
        return (self.value(Cell(pc, 4)), pc) if pc in self.ram else None

    def cell(self, address: int, size: int, *, write: bool) -> Cell | None:
        return Cell(address, size) if address in self.ram else None

    def value(self, cell: Cell) -> int:
        return sum(self.ram[cell.address + n] << 8 * n for n in range(cell.size))

    def readable(self, register: int) -> bool:
        return self.reads

    def ticks(self, register: int, count: int) -> int:
        return self.first + count // self.ns

    def comparator(self, register: int) -> tuple[int, int]:
        return self.timer

    def write(self, address: int, value: int) -> None:
        self.ram.update({address + n: value >> 8 * n & 0xFF for n in range(8)})


Write = Callable[[Asm], None]


def loop(write: Write) -> Asm:
    """A loop at `CODE`: ``write``, then back; label "out" is behind it."""
    a = Asm(CODE)
    a.label("loop")
    write(a)
    a.b("loop")
    a.label("out")
    a.nop()
    return a


def start(x: dict[int, int] | None = None, count: int = 0, nzcv: int = 0) -> Start:
    registers = [0] * 31 + [DATA + 128]
    registers[28] = DATA
    for n, value in (x or {}).items():
        registers[n] = value
    return Start(CODE, count, tuple(registers), nzcv)


def path(write: Write, begin: Start | None = None) -> Path:
    begin = start() if begin is None else begin
    return trace(begin, Machine(loop(write)))


def refused(write: Write, begin: Start | None = None) -> str:
    with pytest.raises(RefusedError) as caught:
        path(write, begin)
    return str(caught.value)


def until(a: Asm) -> None:
    """while (CNTVCT < X3);"""
    a.mrs(0, CNTVCT_EL0)
    a.subs(XZR, 0, 3)
    a.b_cond(HS, "out")


def exact(machine: Machine, begin: Start, length: int, index: int, bound: int) -> int:
    """The rounds of `until` whose read is below the bound, by counting."""
    rounds = 0
    while machine.ticks(CNTVCT_EL0, begin.retired + rounds * length + index) < bound:
        rounds += 1
    return rounds


@pytest.mark.parametrize("ns", [1, 3, 16, 1000])
@pytest.mark.parametrize("bound", [100, 1001, 5003])
@pytest.mark.parametrize("count", [0, 7, 900])
def test_rounds_up_to_a_bound(ns: int, bound: int, count: int) -> None:
    machine, begin = Machine(loop(until), ns=ns), start({3: bound}, count)
    if machine.ticks(CNTVCT_EL0, count) >= bound:
        with pytest.raises(RefusedError):
            trace(begin, machine)
        return
    found = trace(begin, machine)
    assert found.length == 4 and found.counts and not found.yields
    rounds, most = exact(machine, begin, 4, 0, bound), 1 << 30
    answer = rounds_alike(found, begin, machine, most)
    if rounds < FEWEST_ROUNDS:
        assert answer == 0
    else:
        assert rounds - ns // 4 - 2 <= answer <= rounds
    assert rounds_alike(found, begin, machine, 10) == (10 if rounds >= 10 else answer)


def test_a_bound_that_is_not_reached() -> None:
    machine, begin = Machine(loop(until)), start({3: MASK64})
    assert rounds_alike(trace(begin, machine), begin, machine, 1 << 36) == 1 << 36


def test_no_round_over_the_end_of_the_count() -> None:
    """The counter rolls over: those rounds are not proved at once with the ones before."""
    machine, begin = Machine(loop(until), first=MASK64 - 99, ns=1), start({3: MASK64})
    rounds = rounds_alike(trace(begin, machine), begin, machine, 1 << 20)
    assert FEWEST_ROUNDS <= rounds <= 25


def test_elapsed_ticks_in_32_bits() -> None:
    """while ((u32)(CNTVCT - X2) < X3); around the wrap of 32 bits."""

    def write(a: Asm) -> None:
        a.mrs(0, CNTVCT_EL0)
        a.word(0x4B020000)  # SUB W0, W0, W2
        a.word(0x6B03001F)  # CMP W0, W3
        a.b_cond(HS, "out")

    first = (1 << 32) - 50
    machine, begin = Machine(loop(write), first=first, ns=1), start({2: first, 3: 1000})
    rounds = rounds_alike(trace(begin, machine), begin, machine, 1 << 20)
    assert 195 <= rounds <= 200


def test_istatus() -> None:
    def write(a: Asm) -> None:
        a.mrs(0, CNTV_CTL_EL0)
        a.word(0x37100000 | 2 << 5)  # TBNZ X0, #2, to the NOP behind the loop

    machine, begin = Machine(loop(write), ns=1), start()
    for timer, least, most in (
        ((3, 3000), 990, 1000),
        ((0, 3000), 5000, 5000),
        ((1, MASK64), 5000, 5000),
    ):
        machine.timer = timer
        rounds = rounds_alike(trace(begin, machine), begin, machine, 5000)
        assert least <= rounds <= most, timer
    machine.timer = (1, 0)
    with pytest.raises(RefusedError):
        trace(begin, machine)


def test_a_register_that_may_not_be_read() -> None:
    machine = Machine(loop(until))
    machine.reads = False
    with pytest.raises(RefusedError):
        trace(start({3: 100}), machine)


def test_memory_alone() -> None:
    def write(a: Asm) -> None:
        a.ldr(0, 28)
        a.cbnz(0, "out")
        a.yield_()

    machine = Machine(loop(write))
    found = trace(start(), machine)
    assert not found.counts and found.yields
    assert rounds_alike(found, start(), machine, 1 << 60) == 1 << 60
    machine.write(DATA, 1)
    with pytest.raises(RefusedError):
        evaluate(found, start(), machine, 1)


def test_a_count_of_rounds_is_carried() -> None:
    assert "carries register 5" in refused(lambda a: a.add_imm(5, 5, 1))
    assert "carries register 32" in refused(lambda a: a.sub_imm(31, 31, 16))
    path(lambda a: a.add_imm(5, 5, 0))


def test_the_last_count_is_carried_if_it_is_read() -> None:
    def write(a: Asm) -> None:
        a.movr(6, 0)
        a.mrs(0, CNTVCT_EL0)

    assert "carries register 0" in refused(write, start({0: 77}))

    def fresh(a: Asm) -> None:
        a.mrs(0, CNTVCT_EL0)
        a.movr(6, 0)

    path(fresh, start({0: 77, 6: 78}))


def test_a_value_that_is_the_same_by_chance() -> None:
    """The first round puts back what it found, a later one does not."""

    def write(a: Asm) -> None:
        a.movr(6, 0)
        a.mrs(0, CNTVCT_EL0)
        a.subs(XZR, 0, 3)
        a.b_cond(HS, "out")

    machine, begin = Machine(loop(write)), start({0: 0, 3: 1000})
    found = trace(begin, machine)
    with pytest.raises(RefusedError):
        rounds_alike(found, begin, machine, 1 << 20)


def test_flags_are_carried() -> None:
    def write(a: Asm) -> None:
        a.b_cond(LO, "out")
        a.subs(XZR, 28, 3)

    assert "carries NZCV" in refused(write, start({3: 100}, nzcv=0b0110))
    path(write, start({3: 100}, nzcv=0b0010))


def test_stores() -> None:
    def put_back(a: Asm) -> None:
        a.ldr(5, 28)
        a.str_(5, 28)

    def changes(a: Asm) -> None:
        a.ldr(5, 28)
        a.add_imm(5, 5, 1)
        a.str_(5, 28)

    def scratch(a: Asm) -> None:
        a.mrs(0, CNTVCT_EL0)
        a.str_(0, 28)
        a.ldr(5, 28)

    def last(a: Asm) -> None:
        a.ldr(5, 28)
        a.mrs(0, CNTVCT_EL0)
        a.str_(0, 28)

    def part(a: Asm) -> None:
        a.str_(0, 28)
        a.ldr_w(5, 28, 4)

    def half(a: Asm) -> None:
        a.str_(0, 28)
        a.str_w(0, 28, 4)

    def later_part(a: Asm) -> None:
        a.ldr_w(5, 28, 4)
        a.str_(0, 28)

    def code(a: Asm) -> None:
        a.adr(5, "loop")
        a.str_w(0, 5)

    path(put_back)
    path(scratch)
    assert "changes what it loads" in refused(changes)
    assert "changes what it loads" in refused(last, start(count=1600))
    first = path(last)  # the first round stores the 0 that is there
    with pytest.raises(RefusedError, match="changes what it loads"):
        evaluate(first, start(), Machine(loop(last)), 100)
    assert "overlap" in refused(part)
    assert "overlap" in refused(half)
    assert "overlaps" in refused(later_part)
    assert "its code" in refused(code)


def test_a_frame() -> None:
    def write(a: Asm) -> None:
        a.stp_pre(29, 30, 31, -16)
        a.bl("get")
        a.ldp_post(29, 30, 31, 16)
        a.subs(XZR, 0, 3)
        a.b_cond(NE, "loop")
        a.b("out")
        a.label("get")
        a.mrs(0, CNTVCT_EL0)
        a.ret()

    machine = Machine(loop(write), ns=1)
    begin = start({3: 1 << 20, 30: 0x77})
    found = trace(begin, machine)
    assert found.length == 7
    rounds = rounds_alike(found, begin, machine, 1 << 30)
    assert (1 << 20) // 7 - 5 < rounds <= (1 << 20) // 7 + 1


def test_accesses_that_are_none_to_ram() -> None:
    assert "RAM" in refused(lambda a: a.ldr(0, 5), start({5: 0xF000_0000}))
    assert "RAM" in refused(lambda a: a.ldr(0, 5), start({5: DATA + 4}))


def test_a_round_has_an_end() -> None:
    def write(a: Asm) -> None:
        for _ in range(LONGEST_ROUND):
            a.nop()

    assert "too long" in refused(write)
    assert "not known" in refused(lambda a: a.wfe())
    assert "not known" in refused(lambda a: a.br(5), start({5: 0xDEAD0000}))
