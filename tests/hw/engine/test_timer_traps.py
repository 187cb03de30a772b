"""CNTHCTL_EL2 and CNTKCTL_EL1 trap every timer register from EL1 and EL0; FEAT_ECV and FEAT_WFxT,
whose instructions Unicorn does not have."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from asm import Asm

from armvirt.arch import timer as t
from armvirt.arch.encoding import sysreg
from armvirt.arch.esr import sysreg_trap
from armvirt.hw.engine import Action, EngineFactory
from engine.bench import (
    COUNTER_START,
    DAIF,
    EL0T,
    EL1H,
    EL1T,
    FREQUENCY,
    STOP,
    Bench,
    same,
    stop_vectors,
)

PCTEN, PCEN, TVT, TVCT = 1, 2, 1 << 13, 1 << 14
OPEN, EL0_OPEN = PCTEN | PCEN, 0x303
#: Each register, and the CNTHCTL_EL2 that traps it and nothing else.
TRAPS = {
    t.CNTPCT_EL0: PCEN,
    t.CNTVCT_EL0: OPEN | TVCT,
    t.CNTP_TVAL_EL0: PCTEN,
    t.CNTP_CTL_EL0: PCTEN,
    t.CNTP_CVAL_EL0: PCTEN,
    t.CNTV_TVAL_EL0: OPEN | TVT,
    t.CNTV_CTL_EL0: OPEN | TVT,
    t.CNTV_CVAL_EL0: OPEN | TVT,
}
every_register = pytest.mark.parametrize("encoding", TRAPS, ids=lambda e: f"{e:#x}")
WFET, WFIT = 0xD503_1000, 0xD503_1020
UNDEF_ESR = 1 << 25
MakeBench = Callable[..., Bench]


def trapped(
    bench: Bench,
    write: Callable[[Asm], None],
    cnthctl: int,
    el: int = EL1H,
    cntkctl: int = EL0_OPEN,
) -> Bench:
    program = Asm()
    program.set_vectors()
    program.mov(9, 77)
    write(program)
    program.hvc(STOP) if el & 0xC else program.svc(0)
    stop_vectors(program)
    made = bench(program, pstate=DAIF | el)
    made.set_system("VBAR_EL1", program["vectors"])
    made.set_system("CNTKCTL_EL1", cntkctl)
    made.set_cnthctl(cnthctl & OPEN)
    made.engine.state.cnthctl = cnthctl
    if not el & 0xC:
        made.engine.pc += 4 * (program.words.index(0xD2800000 | 77 << 5 | 9))
    made.run()
    return made


def exits(bench: Bench) -> list[tuple[object, ...]]:
    """(esr, rt value) of the trapped system registers."""
    lines = bench.callbacks.of("el2")
    return [
        (line[0], line[4]) for line in lines if isinstance(line[0], int) and line[0] >> 26 == 0x18
    ]


@every_register
@pytest.mark.parametrize("el", [EL1H, EL1T, EL0T])
def test_a_read_traps_to_el2_and_nothing_else_changes(
    bench: MakeBench, encoding: int, el: int
) -> None:
    made = trapped(bench, lambda a: a.mrs(9, encoding), TRAPS[encoding], el)
    assert exits(made) == [(sysreg_trap(encoding, True, 9), 77)]
    assert made.system("CNTKCTL_EL1") == EL0_OPEN
    assert not made.callbacks.of("timer") and made.x(9) == 77


@every_register
def test_a_read_that_is_not_trapped_reaches_the_pe(bench: MakeBench, encoding: int) -> None:
    for cnthctl in {*TRAPS.values()} - {TRAPS[encoding]}:
        made = trapped(bench, lambda a: a.mrs(9, encoding), cnthctl)
        assert not exits(made)
        if encoding >> 3 & 15:
            assert [line[0] for line in made.callbacks.of("timer")] == [encoding]


@pytest.mark.parametrize("encoding", [e for e in TRAPS if e >> 3 & 15])
def test_a_write_traps_to_el2(bench: MakeBench, encoding: int) -> None:
    made = trapped(bench, lambda a: a.msr(encoding, 9), TRAPS[encoding])
    assert exits(made) == [(sysreg_trap(encoding, False, 9), 77)]
    assert not made.callbacks.of("timer")


@pytest.mark.parametrize("encoding", [e for e in TRAPS if e >> 3 & 15])
def test_a_write_that_is_not_trapped_reaches_the_pe(bench: MakeBench, encoding: int) -> None:
    made = trapped(bench, lambda a: a.msr(encoding, 9), OPEN)
    assert [line[:3] for line in made.callbacks.of("timer")] == [(encoding, 1, 77)]


@every_register
def test_el0_is_refused_by_cntkctl_before_cnthctl(bench: MakeBench, encoding: int) -> None:
    bit = int(t.EL0_ENABLES[encoding])
    made = trapped(bench, lambda a: a.mrs(9, encoding), TRAPS[encoding], EL0T, EL0_OPEN & ~bit)
    assert not exits(made)
    assert made.system("ESR_EL1") == sysreg_trap(encoding, True, 9)


def test_the_trap_is_exact_in_the_middle_of_a_block_and_at_a_deadline(
    factories: list[EngineFactory],
) -> None:
    """The count at the exit, and PSTATE and CNTKCTL_EL1 behind it, wherever the run is cut."""
    results = []
    for factory in factories:
        for cuts in ((), range(1, 40)):
            program = Asm()
            program.mov(1, 5)
            for n in range(6):
                program.add_imm(2, 2, 1)
                program.mrs(3 + n, (t.CNTV_CTL_EL0, t.CNTVCT_EL0, t.CNTP_CVAL_EL0)[n % 3])
            program.hvc(STOP)
            made = Bench(factory, program, pstate=DAIF | EL1H)
            made.set_cnthctl(PCTEN)
            made.engine.state.cnthctl = PCTEN | TVT | TVCT
            for cut in cuts:
                if not made.callbacks.of("el2") or made.callbacks.of("el2")[-1][0] != 0x5A0000F0:
                    made.run(cut)
            if not made.callbacks.of("el2") or made.callbacks.of("el2")[-1][0] != 0x5A0000F0:
                made.run()
            results.append(made.result())
            made.close()
    same(results)


def test_cntpoff_is_subtracted_from_cntpct(bench: MakeBench) -> None:
    program = Asm()
    program.mrs(1, "CNTPCT_EL0")
    program.mrs(2, "CNTVCT_EL0")
    program.hvc(STOP)
    made = bench(program)
    made.engine.state.cntpoff, made.engine.state.cntvoff = 400, 300
    made.run()
    assert (made.x(1), made.x(2)) == (COUNTER_START - 400, COUNTER_START - 300 + FREQUENCY // 10**9)


@pytest.mark.parametrize(("bits", "kept"), [(t.KCTL_BITS, 0x3FF), (t.KCTL_BITS_ECV, 0x203FF)])
def test_cntkctl_keeps_the_bits_that_there_are(bench: MakeBench, bits: int, kept: int) -> None:
    program = Asm()
    program.mov(1, (1 << 64) - 1)
    program.msr("CNTKCTL_EL1", 1)
    program.mrs(2, "CNTKCTL_EL1")
    program.hvc(STOP)
    made = bench(program)
    made.engine.state.cntkctl_bits = bits
    made.run()
    assert made.x(2) == kept


@pytest.mark.parametrize("word", [0xD53BE0A0 | 9, 0xD53BE0C0 | 9, WFET | 9, WFIT | 9])
def test_ecv_and_wfxt_reach_the_pe(bench: MakeBench, word: int) -> None:
    made = trapped(bench, lambda a: a.word(word), OPEN)
    assert [line[:3] for line in made.callbacks.of("undefined")] == [(word, 9, 77)]


@pytest.mark.parametrize("word", [0xD51BE0A0, 0xD51BE0C0, 0xD503_1040, 0xD53BE0E0, 0xD523_1000])
def test_their_neighbours_are_undefined(bench: MakeBench, word: int) -> None:
    """MSR of a counter, S0_3_C1_C0_2, the counter after CNTVCTSS_EL0, MRS of the wait."""
    made = trapped(bench, lambda a: a.word(word), OPEN)
    assert not made.callbacks.of("undefined")
    assert made.system("ESR_EL1") == UNDEF_ESR


def test_the_pe_may_answer_a_counter(bench: MakeBench) -> None:
    program = Asm()
    program.nop()
    program.word(0xD53BE0C0 | 9)
    program.mrs(8, sysreg(3, 3, 14, 0, 2))
    program.hvc(STOP)
    made = bench(program)

    def answer() -> int:
        made.engine.state.rt_value = made.count
        return Action.WRITE_RT | Action.ADVANCE

    made.callbacks.undefined = answer  # type: ignore[method-assign]
    made.run()
    assert made.x(9) == 1 and made.count == 4
