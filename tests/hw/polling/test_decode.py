"""One instruction: the effect that `decode` gives it, and what the core does with it.

The core that executes the guest is the oracle: it steps the same word, with the same registers.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
from engine.bench import DAIF, DATA, EL1H, RAM, RAM_SIZE, Bench
from engine.conftest import make_factory
from hypothesis import given, settings
from hypothesis import strategies as st

from armvirt.arch.insn import XZR
from armvirt.hw.polling.decode import NZCV, SP, bit_masks, decode
from armvirt.hw.polling.flags import UndecidedError, holds, number
from armvirt.hw.polling.round import Cell, RefusedError, Round, Start

PC = RAM + 0x4_0000
GROUPS = (4, 5, 6, 8, 9, 10, 11, 12, 13, 14)
EDGES = (0, 1, 2, 7, 1 << 31, (1 << 32) - 1, 1 << 32, 1 << 63, (1 << 64) - 1, DATA)
WORDS = st.one_of(
    st.builds(
        lambda group, rest: group << 25 | rest & ~(0xF << 25),
        st.sampled_from(GROUPS), st.integers(0, (1 << 32) - 1),
    ),
    # Compares and branches, conditional selects and compares, loads and stores: more of them
    st.builds(
        lambda base, rest: base | rest & 0x1FFFFF,
        st.sampled_from((0xEB000000, 0x6B000000, 0xF1000000, 0x9A800000, 0x5A800000, 0xFA400000, 0x7A400000,
                         0xF9400000, 0xB9000000, 0xF8400000, 0x38400000, 0x78800000, 0xA9400000, 0x29000000,
                         0xA8C00000, 0xF8600000, 0x54000000, 0xB4000000, 0x36000000, 0xD65F0000, 0x9AC00000)),
        st.integers(0, (1 << 21) - 1),
    ),
)  # fmt: skip


class Memory:
    """The RAM of the bench, at its own address."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench

    def word(self, pc: int) -> tuple[int, int] | None:
        raise AssertionError

    def cell(self, address: int, size: int, *, write: bool) -> Cell | None:
        inside = RAM <= address <= RAM + RAM_SIZE - size
        return Cell(address, size) if inside and not PC <= address < PC + 4 else None

    def value(self, cell: Cell) -> int:
        at = cell.address - RAM
        return int.from_bytes(self.bench.ram[at : at + cell.size], "little")

    def readable(self, register: int) -> bool:
        return True

    def ticks(self, register: int, count: int) -> int:
        raise AssertionError

    def comparator(self, register: int) -> tuple[int, int]:
        raise AssertionError


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    made = Bench(make_factory("native"), pstate=DAIF | EL1H)
    made.write(DATA, random.Random(1).randbytes(0x8000))
    yield made
    made.close()


def start(bench: Bench, word: int, r: random.Random) -> Start:
    registers = [
        r.choice(
            (DATA + 8 * r.randrange(4096), r.randrange(64), r.choice(EDGES), r.randrange(1 << 64))
        )
        for _ in range(31)
    ]
    sp, nzcv = DATA + 16 * r.randrange(64), r.randrange(16)
    engine = bench.engine
    engine.pstate = nzcv << 28 | DAIF | EL1H
    engine.rebuild_flags()
    for n, value in enumerate(registers):
        engine.set_x(n, value)
    engine.sp, engine.pc = sp, PC
    bench.write(PC, word.to_bytes(4, "little"))
    engine.invalidate_code(PC, 4)
    return Start(PC, engine.state.count, (*registers, sp), nzcv)


def step(bench: Bench) -> None:
    engine, entries = bench.engine, len(bench.callbacks.log)
    engine.run(engine.state.count + 1)
    assert len(bench.callbacks.log) == entries, "an exit or an exception"


@settings(max_examples=3000)
@given(WORDS, st.integers(0, 1 << 32))
def test_the_core_does_the_same(bench: Bench, word: int, seed: int) -> None:
    effect = decode(word, PC)
    if effect is None or effect.system:
        return
    r = random.Random(seed)
    begin = start(bench, word, r)
    exact = Round(begin, Memory(bench))
    wide = Round(begin, Memory(bench))
    for n in r.sample(range(31), 3):  # intervals that contain the value
        low, high = begin.registers[n] - r.randrange(300), begin.registers[n] + r.randrange(300)
        wide.x[n] = max(low, 0), min(high, (1 << 64) - 1)
    try:
        following = effect.run(exact)
    except RefusedError:
        return
    if following is not None and (following & 3 or not RAM <= following < RAM + RAM_SIZE):
        return  # nothing can be fetched there
    changed = {n for n in (*range(31), SP) if exact.x[n] != Round(begin, exact.around).x[n]}
    assert changed <= set(effect.writes)
    assert number(exact.flags) == begin.nzcv or NZCV in effect.writes
    try:
        elsewhere = effect.run(wide)
    except (UndecidedError, RefusedError):
        wide = exact
        elsewhere = following
    step(bench)
    engine = bench.engine
    assert engine.pc == (PC + 4 if following is None else following), hex(word)
    assert elsewhere == following
    for n in (*range(31), SP):
        value = engine.sp if n == SP else engine.x(n)
        assert exact.x[n] == (value, value), f"{word:#x}: register {n}"
        assert wide.x[n][0] <= value <= wide.x[n][1], f"{word:#x}: interval of register {n}"
    assert exact.x[XZR] == (0, 0)
    flags = engine.pstate >> 28
    assert number(exact.flags) == flags, f"{word:#x}: NZCV"
    for condition in range(14):
        try:
            decided = holds(wide.flags, condition)
        except UndecidedError:
            continue
        assert decided is holds(exact.flags, condition)
    for cell, value in exact.stored.items():
        assert exact.around.value(cell) == value[0] == value[1], f"{word:#x}: memory"


@pytest.mark.parametrize("word", [
    0xD503205F,  # WFE
    0xD503207F,  # WFI
    0xD503209F,  # SEV
    0xD5033F5F,  # CLREX
    0xD4000002,  # HVC
    0xC85F7C00,  # LDXR
    0xC85FFC00,  # LDAXR
    0xC8007C00,  # STXR
    0xF8200000,  # LDADD
    0xD5380000,  # MRS X0, MIDR_EL1
    0xD51BE320,  # MSR CNTV_CTL_EL0
    0xD50B7420,  # DC ZVA
    0x3DC00000,  # LDR Q
    0xF9800000,  # PRFM
    0x9E670000,  # FMOV
    0xD69F03E0,  # ERET
    0xF8400800,  # LDTR
])  # fmt: skip
def test_other_instructions_are_not_known(word: int) -> None:
    assert decode(word, PC) is None


def test_reserved_immediates() -> None:
    assert bit_masks(0, 0b111111, 0, 64) is None
    assert bit_masks(1, 0b111111, 0, 64) is None
    assert bit_masks(1, 0b000000, 0, 32) is None
    assert bit_masks(1, 0b000000, 1, 64) == 1 << 63
    assert bit_masks(0, 0b111100, 0, 64) == 0x5555555555555555
