"""Waits that each need one rule of the proof, twice in a row: first proved in Python, then in C."""

from __future__ import annotations

from collections.abc import Callable

from asm import HS, LO, NE, XZR, Asm
from engine.bench import RAM, STOP, Bench
from polling.poll_loops import DATA, MASK64, POINTER, START, Timer

from armvirt.arch.timer import CNTVCT_EL0
from armvirt.hw.engine import EngineFactory
from armvirt.hw.engine.state import FIRST_ASK

GE, LT = 10, 11
FIRST = 1000
TURNS = 3

Write = Callable[[Asm, str], None]


def program(wait: Write) -> Asm:
    """``wait``, three times; it ends at its label."""
    a = Asm(RAM)
    a.mov(POINTER, DATA)
    a.mov(20, TURNS)
    a.label("turn")
    a.mrs(START, CNTVCT_EL0)
    a.label("wait")
    wait(a, "wait")
    a.label("out")
    a.subs_imm(20, 20, 1)
    a.b_cond(NE, "turn")
    a.hvc(STOP)
    return a


def elapsed(a: Asm) -> None:
    a.mrs(0, CNTVCT_EL0)
    a.word(0xCB000000 | START << 16)  # SUB X0, X0, X2


def yields(a: Asm, name: str) -> None:
    elapsed(a)
    a.yield_()
    a.mov(3, 900)
    a.subs(XZR, 0, 3)
    a.b_cond(LO, name)


def signed(a: Asm, name: str) -> None:
    """From a negative value up to zero."""
    elapsed(a)
    a.sub_imm(0, 0, 700)
    a.cmp_imm(0, 0)
    a.b_cond(LT, name)


def sign_of_32_bits(a: Asm, name: str) -> None:
    elapsed(a)
    a.mov(3, (1 << 31) - 500)
    a.add(0, 0, 3)
    a.word(0x93407C00)  # SXTW X0, W0
    a.cmp_imm(0, 0)
    a.b_cond(GE, name)


def low_bits(a: Asm, name: str) -> None:
    elapsed(a)
    a.word(0x92402400)  # AND X0, X0, #0x3FF
    a.mov(3, 900)
    a.subs(XZR, 0, 3)
    a.b_cond(HS, "out")
    a.b(name)


def quotient(a: Asm, name: str) -> None:
    elapsed(a)
    a.mov(3, 7)
    a.word(0x9AC00800 | 3 << 16)  # UDIV X0, X0, X3
    a.cmp_imm(0, 100)
    a.b_cond(LO, name)


def one_bit(a: Asm, name: str) -> None:
    elapsed(a)
    a.word(0x36480000 | 0)  # TBZ X0, #9, to the branch behind the next one
    a.words[-1] |= 2 << 5
    a.b("out")
    a.b(name)


def equal(a: Asm, name: str) -> None:
    elapsed(a)
    a.lsr(0, 0, 5)
    a.cmp_imm(0, 20)
    a.b_cond(NE, name)


def flags(a: Asm, name: str) -> None:
    """The flags of the round before, which change once."""
    elapsed(a)
    a.b_cond(HS, "out")
    a.mov(3, 900)
    a.subs(XZR, 0, 3)
    a.b(name)


def halves(a: Asm, name: str) -> None:
    """A part of the word that the round stores."""
    elapsed(a)
    a.ldr_w(5, POINTER)
    a.str_(0, POINTER)
    a.mov(3, 900)
    a.subs(XZR, 5, 3)
    a.b_cond(LO, name)


def patched(a: Asm, name: str) -> None:
    """The first instruction is changed while the loop runs."""
    a.add_imm(26, 26, 0)
    elapsed(a)
    a.mov(3, 900)
    a.subs(XZR, 0, 3)
    a.b_cond(LO, name)


SCENES: tuple[Write, ...] = (
    yields, signed, sign_of_32_bits, low_bits, quotient, one_bit, equal, flags, halves, patched,
)  # fmt: skip


def execute(
    factory: EngineFactory, wait: Write, step: int, *, skip: bool
) -> tuple[list[tuple[object, ...]], int]:
    """What an observer sees at stops in a distance of ``step`` instructions; the instructions that
    were skipped. A YIELD ends a run from ``step`` // 2 instructions on."""
    a = program(wait)
    bench = Bench(factory, a)
    timer = Timer(bench.engine)
    bench.callbacks = bench.engine.callbacks = timer
    bench.write64(DATA, 0, 0)
    state, seen = bench.engine.state, []
    state.frequency, state.counter_start, state.skip = 10**9, FIRST, int(skip)
    state.first_ask = FIRST_ASK
    bench.engine.watch_wfe()
    try:
        for n in range(200):
            state.yield_at = state.count + step // 2 if wait is yields else MASK64
            why = bench.run(state.count + step)
            state.wfe = 0
            seen.append(
                (int(why), state.count, bench.engine.save(), bytes(bench.ram[0x80000:0x80010]))
            )
            if timer.of("el2"):
                break
            if wait is patched and n == 1:
                bench.write(a["wait"], (0x91000400 | 26 << 5 | 26).to_bytes(4, "little"))
                bench.engine.invalidate_code(a["wait"], 4)
        return seen, state.skipped
    finally:
        bench.close()


def check(factory: EngineFactory, wait: Write, step: int) -> int:
    """Assert that skipping changes nothing; the number of instructions that were skipped."""
    plain, _ = execute(factory, wait, step, skip=False)
    quick, skipped = execute(factory, wait, step, skip=True)
    assert [line[:2] for line in plain] == [line[:2] for line in quick], "(why, count)"
    assert plain == quick
    return skipped


STEPS = (97, 151, 300, 301, 302, 303, 304, 305, 306, 307, 5000)
