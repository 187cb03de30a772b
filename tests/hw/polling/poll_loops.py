"""Random polling loops, executed with and without skipping, which must be the same run.

`Case` is made from a seed: one to three loops, the values that they start with, and a schedule of
stops. At a stop the count, all registers, RAM and the log of the callbacks are compared; after it RAM
changes as another CPU would change it, or an interrupt is raised. The loops have forms that the
proof understands and others, bounds near the wraps of 32 and 64 bits, and state that they carry.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from asm import XZR, Asm
from engine.bench import DAIF, EL1H, FREQUENCY, RAM, STOP, Bench, Recorder

from armvirt.arch.sysregs import encoding_of
from armvirt.arch.timer import CNTP_CTL_EL0, CNTV_CTL_EL0, CNTVCT_EL0, CTL_ENABLE, CTL_ISTATUS
from armvirt.hw.engine import EngineFactory
from armvirt.hw.engine.state import FIRST_ASK

DATA = RAM + 0x8_0000
FLAGS, SCRATCH, BOUNDS = DATA, DATA + 0x100, DATA + 0x200
START, BOUND, POINTER, CARRIED, STEP, TURN = 2, 3, 28, 26, 25, 24
"""X2 is the count at the start of a loop, X3 its bound, X28 the data, X26 carries state, changed by
X25. X24 counts the times that all loops are executed."""

MASK64 = (1 << 64) - 1
CONDITIONS = tuple(range(14))
EDGES = (0, 1, 1 << 31, (1 << 32) - 1, 1 << 32, 1 << 63, (1 << 64) - 1)

Piece = Callable[[Asm, random.Random, str], None]


class Timer(Recorder):
    """A callbacks with comparators, whose control registers are not in the log."""

    ctl = 0
    cval = 0

    def timer_access(self) -> None:
        state = self.engine.state
        assert not state.timer_write
        is_virtual = state.timer_encoding == CNTV_CTL_EL0
        ns = state.ns_base + (state.count - state.count_base) * state.ns_per_insn
        offset = state.cntvoff if is_virtual else state.cntpoff
        now = state.counter_start + ns * state.frequency // 10**9 - offset & MASK64
        met = self.ctl & CTL_ENABLE and now >= self.cval
        state.value = self.ctl | (CTL_ISTATUS if met else 0)

    def comparator(self, encoding: int) -> tuple[int, int] | None:
        return self.ctl, self.cval


# -- pieces of a loop: X0, X1, X4 to X12 are theirs --


def _count(a: Asm, r: random.Random, name: str) -> None:
    if r.random() < 0.5:
        a.isb()
    a.mrs(0, r.choice((CNTVCT_EL0, CNTVCT_EL0, encoding_of("CNTPCT_EL0"))))


def _elapsed(a: Asm, r: random.Random, name: str) -> None:
    a.mrs(0, CNTVCT_EL0)
    a.word(0xCB000000 | START << 16 | 0 << 5 | 0)  # SUB X0, X0, X2


def _arithmetic(a: Asm, r: random.Random, name: str) -> None:
    """On the count: shifts, masks, extensions, sums, products."""
    rd, rn = r.choice((0, 0, 0, 1, 4)), r.choice((0, 0, 0, 1, 4))
    shift, n = r.choice((1, 2, 4, 16, 31)), rn << 5 | rd
    a.word(
        r.choice(
            (
                0xD340FC00 | shift << 16 | n,  # LSR X
                0x9340FC00 | shift << 16 | n,  # ASR X
                0xD3400000 | (64 - shift) << 16 | (63 - shift) << 10 | n,  # LSL X
                0x53007C00 | n,  # UXTW
                0x93407C00 | n,  # SXTW
                0xD3403C00 | n,  # UXTH
                0x92403C00 | n,  # AND X, #0xFFFF
                0x12003C00 | n,  # AND W, #0xFFFF
                0x91000000 | r.randrange(4096) << 10 | n,
                0xD1000000 | r.randrange(4096) << 10 | n,
                0x51000000 | r.randrange(4096) << 10 | n,
                0x8B000000 | BOUND << 16 | n,
                0xCB000000 | START << 16 | n,
                0x4B000000 | START << 16 | n,
                0xCA000000 | BOUND << 16 | n,
                0xAA000000 | START << 16 | n,
                0x9B007C00 | START << 16 | n,  # MUL
                0x9BC07C00 | BOUND << 16 | n,  # UMULH
                0x9AC00800 | BOUND << 16 | n,  # UDIV
                0x9AC00C00 | BOUND << 16 | n,  # SDIV
                0x1AC00800 | START << 16 | n,
                0x2A2003E0 | rn << 16 | rd,  # MVN W
                0xDAC01000 | n,  # CLZ: not understood
                0xDAC00C00 | n,  # REV: not understood
                0x8B204000 | rn << 16 | 2 << 13 | BOUND << 5 | rd,  # ADD, UXTW
                0x9A800400 | r.choice(CONDITIONS) << 12 | BOUND << 16 | n,  # CSINC
                0x9A800000 | r.choice(CONDITIONS) << 12 | BOUND << 16 | n,  # CSEL
                0x5A800000 | r.choice(CONDITIONS) << 12 | BOUND << 16 | n,  # CSINV W
            )
        )
    )


def _compare(a: Asm, r: random.Random, name: str) -> None:
    rn = r.choice((0, 0, 0, 1, 4))
    a.word(
        r.choice(
            (
                0xEB00001F | BOUND << 16 | rn << 5,
                0xEB00001F | BOUND << 16 | rn << 5,
                0xEB00001F | rn << 16 | BOUND << 5,
                0x6B00001F | BOUND << 16 | rn << 5,
                0xF100001F | r.randrange(4096) << 10 | rn << 5,
                0x7100001F | r.randrange(4096) << 10 | rn << 5,
                0xAB00001F | BOUND << 16 | rn << 5,  # CMN
                0xEA00001F | BOUND << 16 | rn << 5,  # TST
                0xF240001F | r.randrange(40) << 16 | rn << 5,  # TST, one bit
                0xFA400000 | BOUND << 16 | r.choice(CONDITIONS) << 12 | rn << 5 | r.randrange(16),
            )
        )
    )


def _leave(a: Asm, r: random.Random, name: str) -> None:
    a.b_cond(r.choice(CONDITIONS), name)


def _leave_on_bit(a: Asm, r: random.Random, name: str) -> None:
    rt, bit = r.choice((0, 0, 1, 5)), r.randrange(64)
    word = 0x36000000 | r.randrange(2) << 24 | bit >> 5 << 31 | (bit & 31) << 19 | rt
    a._to(word, name, lambda d: (d // 4 & 0x3FFF) << 5)


def _leave_on_zero(a: Asm, r: random.Random, name: str) -> None:
    (a.cbz if r.random() < 0.5 else a.cbnz)(r.choice((0, 1, 4, 5)), name)


def _flag(a: Asm, r: random.Random, name: str) -> None:
    """Load a flag that another CPU or the interrupt handler writes."""
    a.word(
        r.choice(
            (
                0xF9400000 | POINTER << 5 | 5,
                0xB9400000 | POINTER << 5 | 5,
                0x39400000 | POINTER << 5 | 5,
                0x79800000 | POINTER << 5 | 5,  # LDRSH
                0xC8DFFC00 | POINTER << 5 | 5,  # LDAR
                0x88DFFC00 | POINTER << 5 | 5,
                0xA9401805 | POINTER << 5,  # LDP X5, X6
            )
        )
    )
    r.choice((a.cbz, a.cbnz))(r.choice((5, 5, 5, 6)), name)


def _istatus(a: Asm, r: random.Random, name: str) -> None:
    a.mrs(1, r.choice((CNTV_CTL_EL0, CNTV_CTL_EL0, CNTP_CTL_EL0)))
    if r.random() < 0.7:
        word = 0x36000000 | r.randrange(2) << 24 | 2 << 19 | 1
        a._to(word, name, lambda d: (d // 4 & 0x3FFF) << 5)


def _spill(a: Asm, r: random.Random, name: str) -> None:
    """Store the count, and perhaps load it again."""
    offset = r.choice((0, 8, 16))
    a.str_(r.choice((0, 1, 4, 5)), POINTER, SCRATCH - DATA + offset)
    if r.random() < 0.6:
        a.ldr(r.choice((0, 4)), POINTER, SCRATCH - DATA + r.choice((offset, offset, 0)))
    if r.random() < 0.15:
        a.str_w(4, POINTER, SCRATCH - DATA + offset + r.choice((0, 4)))


def _put_back(a: Asm, r: random.Random, name: str) -> None:
    """Load a word and store it again, changed in some cases."""
    offset = SCRATCH - DATA + 32
    a.ldr(7, POINTER, offset)
    if r.random() < 0.3:
        a.word(r.choice((0x91000400 | 7 << 5 | 7, 0xAA0003E7, 0xD2400000 | 7 << 5 | 7)))
    a.str_(7, POINTER, offset)


def _carry(a: Asm, r: random.Random, name: str) -> None:
    """State from round to round: a count of rounds, or the last count."""
    kind = r.randrange(7)
    if kind == 0:
        a.add_imm(CARRIED, CARRIED, 1)
    elif kind >= 4:
        _change(a, r, name)
        return
    elif kind == 1:
        a.movr(8, CARRIED)
        a.movr(CARRIED, 0)
    elif kind == 2:
        a.add_imm(CARRIED, CARRIED, 0)
    else:
        a.ldr(8, POINTER, SCRATCH - DATA + 40)
        a.str_(0, POINTER, SCRATCH - DATA + 40)
    if r.random() < 0.5:
        a.word(0xEB00001F | BOUND << 16 | r.choice((8, CARRIED)) << 5)
        a.b_cond(r.choice(CONDITIONS), name)


def _change(a: Asm, r: random.Random, name: str, kind: int | None = None) -> None:
    """State that changes by X25, which is 0 at some times."""
    kind = r.randrange(4) if kind is None else kind
    if kind == 0:
        a.add(CARRIED, CARRIED, STEP)
    elif kind == 1:
        a.ldr(8, POINTER, SCRATCH - DATA + 48)
        a.add(8, 8, STEP)
        a.str_(8, POINTER, SCRATCH - DATA + 48)
    elif kind == 2:
        a.b_cond(r.choice((0, 2, 3)), name)
        a.subs(XZR, STEP, r.choice((TURN, XZR)))
    else:
        a.word(
            0x8B000000 | STEP << 16 | POINTER << 5 | 13
        )  # ADD X13, X28, X25: the address changes
        a.ldr(8, POINTER, SCRATCH - DATA + 56)
        a.word(0x39000000 | (SCRATCH - DATA + 56) << 10 | 13 << 5 | TURN)  # STRB


def _late(a: Asm, r: random.Random, name: str) -> None:
    """A value of this round that is written behind the exit."""
    if r.random() < 0.5:
        a.mrs(r.choice((4, 10)), CNTVCT_EL0)
    else:
        a.movr(r.choice((4, 10)), 0)


def _narrow(a: Asm, r: random.Random, name: str) -> None:
    """A part of the count, with its sign or without, and a bit of the bound."""
    a.word(
        r.choice(
            (
                0x93407C00,  # SXTW X0, W0
                0x93401C00 | r.randrange(3, 15) << 10,  # SBFX X0, X0, #0
                0x9340FC00 | r.randrange(12) << 16,  # ASR
                0x92400000 | r.randrange(3, 20) << 10,  # AND X0, X0, #ones
                0xCA000000 | BOUND << 16,  # EOR X0, X0, X3
                0x8A000000 | BOUND << 16,
                0x9AC00800 | START << 16,
                0xD2400000 | r.randrange(16) << 16,  # EOR X0, X0, #bit
            )
        )
    )


def _call(a: Asm, r: random.Random, name: str) -> None:
    a.bl(r.choice(("leaf", "framed", "get_ticks")))


def _hint(a: Asm, r: random.Random, name: str) -> None:
    r.choice((a.nop, a.isb, a.dsb, a.yield_, a.yield_))()


def _branch_over(a: Asm, r: random.Random, name: str) -> None:
    label = f"over{a.here:x}"
    r.choice((a.cbz, a.cbnz))(r.choice((0, 4, 5)), label)
    _arithmetic(a, r, name)
    a.label(label)


def _rare(a: Asm, r: random.Random, name: str) -> None:
    """Not understood: exclusives, other system registers, exits, exceptions, stores to code."""
    kind = r.randrange(7)
    if kind == 0:
        a.ldxr(9, POINTER)
    elif kind == 1:
        a.mrs(9, "TPIDR_EL1")
    elif kind == 2:
        a.hvc(1)
    elif kind == 3:
        a.svc(0)
    elif kind == 4:
        a.fmov_d(0, 0)
    elif kind == 5:
        a.adr(9, "code")
        a.ldr_w(10, 9)
        a.str_w(10, 9)
    else:
        a.ldr(9, POINTER, 4)
        a.word(0xF8404000 | POINTER << 5 | 9)  # LDUR at an odd word


PIECES: tuple[tuple[Piece, int], ...] = (
    (_count, 6), (_elapsed, 6), (_arithmetic, 6), (_compare, 8), (_leave, 6), (_leave_on_bit, 2), (_leave_on_zero, 1),
    (_flag, 4), (_istatus, 3), (_spill, 3), (_put_back, 2), (_carry, 2), (_call, 2), (_hint, 3), (_branch_over, 1),
    (_rare, 1), (_change, 1), (_late, 1), (_narrow, 2),
)  # fmt: skip

#: Loops as guests have them: pieces in their order, each with its probability.
SHAPES: tuple[tuple[tuple[Piece, float], ...], ...] = (
    ((_hint, 0.5), (_count, 1), (_narrow, 0.3), (_compare, 1), (_leave, 1), (_late, 0.7), (_change, 0.4)),
    ((_hint, 0.5), (_elapsed, 1), (_narrow, 0.5), (_compare, 1), (_leave, 1), (_late, 0.7), (_change, 0.3)),
    ((_hint, 0.9), (_flag, 1), (_hint, 0.3), (_change, 0.3)),
    ((_flag, 1), (_elapsed, 1), (_narrow, 0.3), (_compare, 1), (_leave, 1), (_hint, 0.5), (_late, 0.4)),
    ((_change, 0.5), (_istatus, 1), (_late, 0.3)),
    ((_call, 1), (_compare, 1), (_leave, 1), (_spill, 0.5), (_put_back, 0.3), (_change, 0.3)),
)  # fmt: skip


def _functions(a: Asm) -> None:
    a.label("leaf")
    a.add_imm(11, 0, 3)
    a.ret()
    a.label("framed")
    a.stp_pre(29, 30, 31, -32)
    a.str_(0, 31, 16)
    a.bl("leaf")
    a.ldr(12, 31, 16)
    a.ldp_post(29, 30, 31, 32)
    a.ret()
    a.label("get_ticks")
    a.mrs(0, CNTVCT_EL0)
    a.str_(0, POINTER, SCRATCH - DATA + 64)
    a.ret()


def _handler(a: Asm, offset: int) -> None:
    """An interrupt writes the flag; another exception goes on."""
    if offset & 0x80:
        a.ldr(14, POINTER)
        a.word(0xD2400000 | 14 << 5 | 14)  # EOR X14, X14, #1
        a.str_(14, POINTER)
        a.hvc(2)
    a.eret()


class Case:
    """A program and its schedule: (count of the next stop, what happens then)."""

    def __init__(self, seed: int, longest: int = 40_000) -> None:
        self.seed = seed
        r = self._random = random.Random(seed)
        self.frequency = r.choice(
            (FREQUENCY, FREQUENCY, 10**9, 10**9, 24_000_000, 1_000_000, 32_768)
        )
        self.counter_start = r.choice(
            (1000, 1000, (1 << 32) - 200, (1 << 64) - 300, (1 << 63) - 100)
        )
        self.counter_start = self.counter_start + r.randrange(50) & MASK64
        self.cntvoff = r.choice((0, 0, self.counter_start, r.randrange(1 << 64)))
        self.ctl, self.cval = r.choice((0, 1, 3, 3)), self._near()
        self.masks_interrupts = r.random() < 0.5
        self.program = self._program(r)
        self.stops = self._schedule(r, longest)

    def __repr__(self) -> str:
        return f"<Case {self.seed}>"

    def _near(self) -> int:
        """A count that is reached soon, or an edge."""
        r = self._random
        soon = self.counter_start - self.cntvoff + r.randrange(1 << r.randrange(1, 12))
        return (soon if r.random() < 0.7 else r.choice(EDGES) + r.randrange(-3, 4)) & MASK64

    def _program(self, r: random.Random) -> Asm:
        a = Asm(RAM)
        a.set_vectors()
        a.mov(POINTER, DATA)
        if not self.masks_interrupts:
            a.daifclr(2)
        directed = r.random() < 0.3
        a.mov(STEP, 0 if directed else r.choice((0, 0, 0, 1)))
        a.mov(TURN, 3 if directed else r.randrange(1, 5))
        a.label("code")
        if directed:
            self._directed(a, r)
        else:
            for n in range(r.randrange(1, 4)):
                self._loop(a, r, f"end{n}")
        a.mov(STEP, 1 if directed else r.choice((0, 1, 8)))
        a.subs_imm(TURN, TURN, 1)
        a.b_cond(1, "code")
        a.hvc(STOP)
        _functions(a)
        a.vectors(_handler)
        return a

    def _directed(self, a: Asm, r: random.Random) -> None:
        """A short wait, three times: the first one is proved in Python, the others in C, where one
        rule may forbid it."""
        self.frequency = r.choice((10**9, 10**9, FREQUENCY))
        self.ctl = 0
        name, kind = "end", r.randrange(5)
        a.mov(CARRIED, 5)
        a.mrs(START, CNTVCT_EL0)
        a.mov(BOUND, r.randrange(100, 4000))
        a.subs(XZR, START, START)
        a.label("topend")
        if kind == 4:  # the turn of a CPU that executes YIELD
            a.mrs(0, CNTVCT_EL0)
            a.word(0xCB000000 | START << 16)
            for _ in range(r.randrange(3)):
                a.nop()
            a.yield_()
        else:
            if r.random() < 0.5:
                _change(a, r, name, kind)
            _elapsed(a, r, name)
            if r.random() < 0.4:
                _narrow(a, r, name)
        a.subs(XZR, 0, BOUND)
        a.b_cond(r.choice((2, 2, 10, 8)), name)  # HS, GE, HI
        if kind != 4:
            _late(a, r, name)
        a.b("topend")
        a.label(name)

    def _loop(self, a: Asm, r: random.Random, name: str) -> None:
        for register in (0, 1, 4, 5, 6, 7, 8, 10, 11, 12, CARRIED):
            a.mov(register, r.choice((0, 1, r.randrange(1 << 16))))
        a.mrs(START, CNTVCT_EL0)
        a.mov(BOUND, self._bound())
        if r.random() < 0.5:
            a.add(BOUND, BOUND, START)
        a.label("top" + name)
        if r.random() < 0.5:
            for piece, probability in r.choice(SHAPES):
                if r.random() < probability:
                    piece(a, r, name)
        else:
            pieces = [piece for piece, weight in PIECES for _ in range(weight)]
            for _ in range(r.randrange(1, 7)):
                r.choice(pieces)(a, r, name)
        if r.random() < 0.5:
            a.b("top" + name)
        else:
            r.choice((_elapsed, _count))(a, r, name)
            a.word(0xEB00001F | BOUND << 16)
            a.b_cond(r.choice((1, 3, 3, 3, 9, 11, 13, 4)), "top" + name)
        a.label(name)

    def _bound(self) -> int:
        r = self._random
        return r.choice((r.randrange(1 << r.randrange(1, 16)), self._near())) & MASK64

    def _schedule(self, r: random.Random, longest: int) -> list[tuple[int, str]]:
        stops, count = [], 0
        while count < longest:
            count += r.choice((1, r.randrange(1, 60), r.randrange(1, 3000), longest // 2))
            stops.append((count, r.choice(("", "", "flag", "interrupt", "yield", "yield", "move"))))
        return stops


def execute(
    factory: EngineFactory, case: Case, *, skip: bool
) -> tuple[list[tuple[int, int, dict[str, object], bytes, list[object]]], int]:
    """What an observer sees at each stop; the number of instructions that were skipped."""
    bench = Bench(factory, case.program, pstate=DAIF | EL1H)
    timer = Timer(bench.engine)
    timer.ctl, timer.cval = case.ctl, case.cval
    bench.callbacks = bench.engine.callbacks = timer
    bench.write64(FLAGS, 0, 0)
    seen, skipped, r = [], 0, random.Random(case.seed)
    yield_at = MASK64

    def prepare() -> None:
        state = bench.engine.state
        state.frequency, state.counter_start = case.frequency, case.counter_start
        state.cntvoff, state.skip, state.yield_at = case.cntvoff, int(skip), yield_at
        state.first_ask = FIRST_ASK

    prepare()
    bench.engine.watch_wfe()
    try:
        for count, action in case.stops:
            why = bench.run(count)
            state = bench.engine.state
            state.wfe = 0
            log = [line for line in timer.seen() if line[0] != "entry" or line[1] != 3]
            seen.append((int(why), state.count, bench.engine.save(), bytes(bench.ram), list(log)))
            if timer.of("el2") and timer.of("el2")[-1][0] == 0x16 << 26 | 1 << 25 | STOP:
                break
            if action == "flag":
                bench.write64(FLAGS, r.choice((0, 1, 2, 1 << 40)), r.choice((0, 1)))
            elif action == "interrupt":
                state.virq = 1
            elif action == "yield":
                yield_at = r.choice(
                    (MASK64, count + r.randrange(1, 500), count + r.randrange(5000))
                )
                state.yield_at = yield_at
            elif action == "move":
                skipped += state.skipped
                bench.move()
                prepare()
            timer.on_hvc[2] = lambda: _lower(bench)
        skipped += bench.engine.state.skipped
    finally:
        bench.close()
    return seen, skipped


def _lower(bench: Bench) -> int:
    bench.engine.state.virq = 0
    return 0


def check(factory: EngineFactory, case: Case) -> int:
    """Assert that skipping changes nothing; the number of instructions that were skipped."""
    plain, _ = execute(factory, case, skip=False)
    quick, skipped = execute(factory, case, skip=True)
    assert len(plain) == len(quick), f"seed {case.seed}: the number of stops"
    for n, (one, other) in enumerate(zip(plain, quick, strict=True)):
        where = f"seed {case.seed}, stop {n} at {case.stops[n][0]}"
        assert one[:2] == other[:2], f"{where}: (why, count) {one[:2]}, skipped {other[:2]}"
        differing = {k: (one[2][k], other[2][k]) for k in one[2] if one[2][k] != other[2][k]}
        assert not differing, f"{where}: {differing}"
        assert one[3] == other[3], f"{where}: RAM"
        assert one[4] == other[4], f"{where}: the log"
    return skipped
