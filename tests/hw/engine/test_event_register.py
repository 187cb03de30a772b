"""The event register: what sets it, what clears it, and at which instruction (DDI 0487 D1.6.1)."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from asm import NE, Asm

from armvirt.hw.engine import Engine, EngineFactory, Leave
from armvirt.hw.engine.state import Stat
from engine.bench import DAIF, DATA, EL0T, EL1H, HCR, RAM, STOP, Bench, Stage1, Stage2, Tables, same

MakeBench = Callable[..., Bench]


def watched(make: MakeBench, program: Asm, **options: object) -> Bench:
    guest = make(program, **options)
    guest.engine.watch_wfe()
    guest.engine.state.broadcast = 1
    return guest


def waits(guest: Bench) -> list[int]:
    """The count behind each WFE that found the register clear, to the guest's end. Such a WFE then
    completes."""
    found = []
    while guest.run(10_000) == Leave.STOP and not guest.callbacks.of("el2"):
        assert guest.engine.state.wfe == 1
        guest.engine.state.wfe = 0
        found.append(guest.count)
    return found


def register(guest: Bench) -> int:
    return guest.engine.state.event_register


def wfes(guest: Bench) -> int:
    retired: int = guest.engine.state.stats[Stat.WFE]
    return retired


def ending(*calls: str) -> Asm:
    """These instructions, then the end."""
    program = Asm()
    for call in calls:
        getattr(program, call)()
    program.hvc(STOP)
    return program


@pytest.mark.parametrize(
    ("calls", "expected"),
    [
        (("wfe",), [1]),
        (("sevl", "wfe"), []),
        (("sev", "wfe"), []),
        (("sevl", "wfe", "wfe"), [3]),
        (("sevl", "sevl", "wfe", "wfe"), [4]),
        (("wfe", "sevl", "wfe"), [1]),
        (("sevl", "nop", "isb", "nop", "wfe", "nop", "wfe"), [7]),
        (("wfe", "sev"), [1]),
        (("sevl", "yield_", "wfe", "wfe"), [4]),
    ],
    ids=lambda value: " ".join(map(str, value)) or "none",
)
def test_straight_lines(bench: MakeBench, calls: tuple[str, ...], expected: list[int]) -> None:
    guest = watched(bench, ending(*calls))
    assert waits(guest) == expected
    assert wfes(guest) == calls.count("wfe") and guest.count == len(calls) + 1
    assert register(guest) == int("wfe" not in calls or (calls[-1] in ("sev", "sevl")))


def test_it_completes_without_leaving_the_engine(bench: MakeBench) -> None:
    """xv6's acquire, uncontended: the engine is started once."""
    program = Asm()
    program.mov(1, 100)
    program.mov(2, DATA)
    program.label("acquire")
    program.sevl()
    program.label("wait")
    program.wfe()
    program.ldxr(3, 2)
    program.cbnz(3, "wait")
    program.stxr(4, 1, 2)
    program.cbnz(4, "wait")
    program.str_(31, 2)
    program.subs_imm(1, 1, 1)
    program.b_cond(NE, "acquire")
    program.hvc(STOP)
    guest = watched(bench, program)
    assert waits(guest) == [] and wfes(guest) == 100
    assert guest.engine.state.stats[Stat.RUN] == 1, "runs"
    assert guest.count == 3 + 9 * 100 + 1


def test_sev_tells_the_others_at_which_instruction(bench: MakeBench) -> None:
    program = ending("nop", "sev", "nop", "sevl", "isb", "sev", "sev")
    guest = watched(bench, program)
    assert waits(guest) == [] and guest.callbacks.of("sev") == [(2,), (6,)], (
        "two in a block are one"
    )
    alone = watched(bench, program)
    alone.engine.state.broadcast = 0
    assert waits(alone) == [] and alone.callbacks.of("sev") == [] and register(alone) == 1


@pytest.mark.parametrize(("word", "set_"), [("sevl", 0), ("sev", 0), ("nop", 0)])
def test_an_exit_before_it_does_not_count_it(bench: MakeBench, word: str, set_: int) -> None:
    """The block is `ldr; sevl; nop; hvc`, and the load faults: nothing behind it has retired."""
    program = Asm()
    program.ldr(3, 2)
    getattr(program, word)()
    program.nop()
    program.hvc(STOP + 1)
    guest = watched(bench, program)
    guest.engine.set_x(2, 0x5000_0000)
    faults: list[int] = []

    def exit_() -> int:
        faults.append(register(guest))
        return 8

    guest.callbacks.el2_exit = exit_  # type: ignore[method-assign]
    tables = Stage2(guest)
    tables.identity()
    tables.enable()
    assert guest.run() == Leave.STOP and faults == [set_] and not guest.callbacks.of("sev")


def test_an_exit_behind_it_counts_it(bench: MakeBench) -> None:
    guest = watched(bench, ending("sev", "nop"))
    seen: list[object] = []
    guest.callbacks.on_hvc[STOP] = lambda: (
        seen.extend((register(guest), guest.callbacks.of("sev"))) or 8
    )  # type: ignore[func-returns-value]
    guest.run()
    assert seen == [1, [(1,)]]


@pytest.mark.parametrize("mode", [EL1H, EL0T], ids=["EL1", "EL0"])
def test_an_exception_return_sets_it(bench: MakeBench, mode: int) -> None:
    program = Asm()
    program.adr(1, "there")
    program.msr("ELR_EL1", 1)
    program.msr_const("SPSR_EL1", DAIF | mode)
    program.eret()
    program.label("there")
    program.wfe()
    program.wfe()
    program.svc(0)
    program.vectors(lambda a, offset: a.hvc(STOP))
    guest = watched(bench, program)
    guest.set_system("VBAR_EL1", program["vectors"])
    guest.set_system("SCTLR_EL1", guest.system("SCTLR_EL1") | 1 << 18)  # nTWE
    [at] = waits(guest)
    assert wfes(guest) == 2 and guest.count >= at


def test_an_exception_return_to_what_is_not_there(bench: MakeBench) -> None:
    """The fetch behind the ERET faults: the return has happened."""
    program = Asm()
    program.mov(1, 0x6000_0000)
    program.msr("ELR_EL1", 1)
    program.msr_const("SPSR_EL1", DAIF | EL1H)
    program.eret()
    guest = watched(bench, program)
    tables = Stage2(guest)
    tables.identity()
    tables.enable()
    assert guest.run() == Leave.STOP and register(guest) == 1
    assert guest.callbacks.of("el2")[-1][0] >> 26 == 0x20  # type: ignore[operator]


def test_an_exception_return_that_lets_an_interrupt_in(bench: MakeBench) -> None:
    """The core takes the interrupt by itself, at the instruction that the return leads to."""
    program = Asm()
    program.adr(1, "there")
    program.msr("ELR_EL1", 1)
    program.msr_const("SPSR_EL1", EL1H)
    program.nop()
    program.eret()
    program.label("there")
    program.nop()
    program.vectors(lambda a, offset: a.hvc(STOP + (offset == 0x280)))
    guest = watched(bench, program)
    guest.set_system("VBAR_EL1", program["vectors"])
    guest.engine.state.virq = 1
    guest.run()
    assert register(guest) == 1 and guest.callbacks.of("el2")[-1][0] & 0xFFFF == STOP + 1  # type: ignore[operator]


def test_an_exception_entry_does_not(bench: MakeBench) -> None:
    program = Asm()
    program.svc(0)
    program.vectors(lambda a, offset: a.hvc(STOP))
    guest = watched(bench, program)
    guest.set_system("VBAR_EL1", program["vectors"])
    assert waits(guest) == [] and register(guest) == 0


def test_it_moves_with_the_cpu(bench: MakeBench) -> None:
    program = ending("sevl", "nop", "wfe", "wfe")
    guest = watched(bench, program)
    guest.run(2)
    guest.move()
    assert register(guest) == 1 and waits(guest) == [4]


def test_two_address_spaces(bench: MakeBench) -> None:
    """The same address holds SEVL in one and a NOP in the other: blocks of one size, and both stay
    translated."""
    program = Asm()
    program.label("again")
    for n in (20, 22):
        program.msr("TTBR0_EL1", n + 1)
        program.isb()
        program.blr(20)
        program.wfe()
    program.subs_imm(5, 5, 1)
    program.b_cond(NE, "again")
    program.hvc(STOP)
    guest = watched(bench, program, hcr=HCR)
    va, first, second = 0x5000_0000, RAM + 0x1_0000, RAM + 0x2_0000
    for at, word in ((first, "sevl"), (second, "nop")):
        body = Asm()
        getattr(body, word)()
        body.ret()
        guest.write(at, body.code())
    tables = Stage1(guest)
    tables.identity()
    tables.map(va, first)
    tables.enable()
    other = Tables(guest, RAM + 0xE_0000)
    other.identity()
    other.map(va, second)
    engine = guest.engine
    engine.set_x(20, va)
    engine.set_x(21, guest.system("TTBR0_EL1"))
    engine.set_x(23, other.root | 1 << 48)
    engine.set_x(5, 4)
    round_ = 5 + 5 + 2 * 1 + 2
    assert waits(guest) == [round_ * n + 12 for n in range(4)]


def test_code_that_changes(bench: MakeBench) -> None:
    """SEVL where NOP was, and NOP again."""
    program = Asm()
    program.label("loop")
    program.hvc(1)
    program.nop()
    program.wfe()
    program.b("loop")
    guest = watched(bench, program)
    rounds = 0

    def patch() -> int:
        nonlocal rounds
        rounds += 1
        guest.write(
            RAM + 4, (0xD503_20BF if rounds % 3 == 0 else 0xD503_201F).to_bytes(4, "little")
        )
        guest.engine.invalidate_code(RAM + 4, 4)
        return 8 if rounds == 8 else 0

    guest.callbacks.on_hvc[1] = patch
    found = []
    while rounds < 8:
        guest.run(10_000)
        if guest.engine.state.wfe:
            found.append(rounds)
            guest.engine.state.wfe = 0
    assert found == [1, 2, 4, 5, 7]


def test_more_than_the_table_holds(bench: MakeBench) -> None:
    """A thousand blocks of which each third has a SEVL, twice, through two levels of the table's
    end."""
    n = 1500
    program = Asm()
    program.mov(1, 2)
    program.label("again")
    for i in range(n):
        getattr(program, "sevl" if i % 3 == 0 else "nop")()
        program.wfe()
    program.subs_imm(1, 1, 1)
    program.b_cond(NE, "again")
    program.hvc(STOP)
    guest = watched(bench, program)
    first = [2 * i + 3 for i in range(n) if i % 3]
    assert waits(guest) == first + [at + 2 * n + 2 for at in first]


def test_deadlines(factories: list[EngineFactory]) -> None:
    """A deadline before, at and behind each instruction, with a move there: the register is the
    same."""
    program = ending(
        "nop", "sevl", "nop", "wfe", "sev", "wfe", "nop", "sevl", "nop", "nop", "isb", "wfe", "wfe"
    )
    results = []
    for factory in factories:
        for stop in range(14):
            guest = Bench(factory, program, hcr=HCR)
            guest.engine.watch_wfe()
            guest.engine.state.broadcast = 1
            guest.run(stop)
            at = (guest.count, register(guest))
            expected = {1: 0, 2: 1, 3: 1, 4: 0, 5: 1, 6: 0, 7: 0, 8: 1, 9: 1, 10: 1, 11: 1, 12: 0}
            assert expected.get(stop, 0) == at[1] and at[0] == stop, stop
            guest.move()
            guest.engine.state.broadcast = 1
            assert waits(guest) == [13] or stop >= 13
            results.append(guest.result())
            guest.close()
    same(results)


def test_a_step_of_the_guests_ends_a_wfe(bench: MakeBench) -> None:
    """Under the guest's own single-stepping the exception comes behind the WFE, which does not
    wait."""
    program = Asm()
    program.msr_const("MDSCR_EL1", 1)
    program.adr(1, "there")
    program.msr("ELR_EL1", 1)
    program.msr_const("SPSR_EL1", DAIF & ~(1 << 9) | 1 << 21)  # EL0t, SS, debug exceptions unmasked
    program.eret()
    program.label("there")
    program.wfe()
    program.nop()
    program.vectors(lambda a, offset: a.hvc(STOP))
    guest = watched(bench, program)
    guest.set_system("VBAR_EL1", program["vectors"])
    guest.set_system("SCTLR_EL1", guest.system("SCTLR_EL1") | 1 << 18)
    assert waits(guest) == [] and wfes(guest) == 1
    assert guest.system("ESR_EL1") >> 26 == 0x32 and guest.system("ELR_EL1") == program["there"] + 4


def test_the_stale_state_of_an_engine(bench: MakeBench) -> None:
    """Clearing the monitor says whether it was in the exclusive state."""
    program = Asm()
    program.mov(1, DATA)
    program.ldxr(2, 1)
    program.hvc(STOP)
    guest = bench(program)
    engine: Engine = guest.engine
    assert not engine.clear_exclusive()
    guest.run()
    assert engine.clear_exclusive() and not engine.clear_exclusive()
