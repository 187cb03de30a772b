"""Unicorn executes WFE as a hint. The engine finds the blocks that end in WFE and stops behind
it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from asm import NE, Asm

from armvirt.hw.engine import EngineFactory, Leave
from armvirt.hw.engine.state import Stat, Waits
from engine.bench import DAIF, EL0T, EL1H, HCR, RAM, STOP, Bench, Stage1, Stage2, Tables, same

MakeBench = Callable[..., Bench]


def watched(make: MakeBench, program: Asm, **options: object) -> Bench:
    guest = make(program, **options)
    guest.engine.watch_wfe()
    return guest


def wfe_stops(guest: Bench) -> list[tuple[int, int]]:
    """(count, PC) at each stop for a WFE, to the guest's end."""
    stops = []
    while guest.run(10_000) == Leave.STOP and not guest.callbacks.of("el2"):
        assert guest.engine.state.wfe == 1
        guest.engine.state.wfe = 0
        stops.append((guest.count, guest.engine.pc))
    return stops


def test_stops_behind_each_wfe(bench: MakeBench) -> None:
    """The WFE is retired: count and PC are behind it. YIELD and WFI are not taken for one."""
    program = Asm()
    program.wfe()
    program.nop()
    program.wfe()
    program.yield_()
    program.nop()
    program.wfi()
    program.wfe()
    program.hvc(STOP)
    guest = watched(bench, program)
    guest.callbacks.el2_exit = lambda: 1 if guest.engine.state.esr >> 26 == 1 else _stop(guest)  # type: ignore[method-assign]
    assert wfe_stops(guest) == [(1, RAM + 4), (3, RAM + 12), (7, RAM + 28)]
    assert guest.count == 8 and guest.engine.state.stats[Stat.WFE] == 3


def _stop(guest: Bench) -> int:
    guest.callbacks.log.append(("el2",))
    return 8


def test_without_a_watch_it_is_a_hint(bench: MakeBench) -> None:
    program = Asm()
    program.wfe()
    program.wfe()
    program.hvc(STOP)
    guest = bench(program)
    assert (
        guest.run(10_000) == Leave.STOP and guest.callbacks.of("el2") and not guest.engine.state.wfe
    )


def test_a_watch_that_comes_late_sees_old_code(bench: MakeBench) -> None:
    """Blocks that were translated before the watch must not be missed."""
    program = Asm()
    program.label("again")
    program.wfe()
    program.hvc(1)
    program.b("again")
    guest = bench(program)
    guest.callbacks.on_hvc[1] = lambda: 8
    guest.run()
    guest.engine.watch_wfe()
    guest.engine.watch_wfe()
    guest.callbacks.log.clear()
    assert guest.run(10_000) == Leave.STOP
    assert guest.engine.state.wfe == 1 and not guest.callbacks.of("el2")


def test_a_spinlock_loop(bench: MakeBench) -> None:
    program = Asm()
    program.label("loop")
    program.add_imm(1, 1, 1)
    program.cmp_imm(1, 5)
    program.wfe()
    program.b_cond(NE, "loop")
    program.hvc(STOP)
    guest = watched(bench, program)
    assert wfe_stops(guest) == [(3 + 4 * i, RAM + 12) for i in range(5)]


@pytest.mark.parametrize("mode", [EL1H, EL0T], ids=["EL1", "EL0"])
def test_under_translation(bench: MakeBench, mode: int) -> None:
    program = Asm()
    program.nop()
    program.wfe()
    program.wfe()
    program.label("end")
    program.b("end")
    guest = watched(bench, program, pstate=DAIF | mode)
    guest.set_system("SCTLR_EL1", guest.system("SCTLR_EL1") | 1 << 18)  # nTWE
    tables = Stage1(guest)
    tables.identity(1 << 6 | 1 << 7)
    tables.enable()
    for expected in (2, 3):
        assert (
            guest.run(10_000) == Leave.STOP and guest.engine.state.wfe and guest.count == expected
        )
        guest.engine.state.wfe = 0
    assert guest.run(10_000) == Leave.BUDGET and guest.engine.state.spin


def test_behind_an_indirect_branch(bench: MakeBench) -> None:
    """Blocks that are reached by BR, BLR and RET, and those behind an exit, are not chained to one
    before them. The exception return sets the event register, so the WFE behind it completes."""
    program = Asm()
    program.adr(1, "function")
    program.blr(1)
    program.wfe()
    program.hvc(1)
    program.wfe()
    program.svc(1)
    program.wfe()
    program.hvc(STOP)
    program.label("function")
    program.wfe()
    program.ret()
    program.vectors(lambda a, offset: a.eret())
    guest = watched(bench, program)
    guest.set_system("VBAR_EL1", program["vectors"])
    guest.callbacks.on_hvc[1] = lambda: guest.callbacks.log.clear() or 0
    assert [count for count, _ in wfe_stops(guest)] == [3, 5, 7]
    assert guest.engine.state.stats[Stat.WFE] == 4 and not guest.engine.state.event_register


def test_a_page_that_is_not_there_behind_it(bench: MakeBench) -> None:
    """The next fetch faults: the WFE comes first, then, if it goes on, the fault."""
    program = Asm()
    program.align(4096)
    while program.here % 4096 != 4092:
        program.nop()
    program.word(0xD503205F)
    guest = watched(bench, program)
    tables = Stage2(guest)
    tables.identity()
    tables.set_entry(RAM + 0x1000, 0)
    tables.enable()
    assert guest.run(10_000) == Leave.STOP
    assert guest.engine.state.wfe == 1 and guest.count == 1024 and not guest.callbacks.of("el2")
    guest.engine.state.wfe = 0
    assert guest.run(10_000) == Leave.STOP
    [fault] = guest.callbacks.of("el2")
    assert fault[0] >> 26 == 0x20 and guest.count == 1024  # type: ignore[operator]


def test_another_address_space(bench: MakeBench) -> None:
    """The same address in another address space is other code: what was no WFE may be one there."""
    program = Asm()
    program.label("loop")
    program.blr(20)
    program.msr("TTBR0_EL1", 21)
    program.isb()
    program.blr(20)
    program.hvc(STOP)
    guest = watched(bench, program, hcr=HCR)
    va, first, second = 0x5000_0000, RAM + 0x1_0000, RAM + 0x2_0000
    body = Asm()
    body.nop()
    body.isb()  # ends its block, as WFE does
    body.ret()
    guest.write(first, body.code())
    guest.write(second, body.code()[:4] + (0xD503205F).to_bytes(4, "little") + body.code()[8:])
    tables = Stage1(guest)
    tables.identity()
    tables.map(va, first)
    tables.enable()
    other = Tables(guest, RAM + 0xE_0000)
    other.identity()
    other.map(va, second)
    guest.engine.set_x(20, va)
    guest.engine.set_x(21, other.root | 1 << 48)
    assert [pc for _, pc in wfe_stops(guest)] == [va + 8]


def test_code_that_becomes_a_wfe(bench: MakeBench) -> None:
    program = Asm()
    program.label("loop")
    program.hvc(1)
    program.nop()
    program.b("loop")
    guest = watched(bench, program)
    rounds = 0

    def patch() -> int:
        nonlocal rounds
        rounds += 1
        word = 0xD503205F if rounds == 3 else 0xD503201F
        guest.write(RAM + 4, word.to_bytes(4, "little"))
        guest.engine.invalidate_code(RAM + 4, 4)
        return 0

    guest.callbacks.on_hvc[1] = patch
    assert guest.run(100) == Leave.STOP
    assert guest.engine.state.wfe == 1 and rounds == 3 and guest.engine.pc == RAM + 8
    guest.engine.state.wfe = 0
    assert guest.run(100) == Leave.BUDGET, "and the same place is no WFE any more"


def test_more_of_them_than_the_table_holds(bench: MakeBench) -> None:
    n = 600
    program = Asm()
    for _ in range(n):
        program.nop()
        program.wfe()
    program.hvc(STOP)
    guest = watched(bench, program)
    assert wfe_stops(guest) == [(2 * i + 2, RAM + 8 * i + 8) for i in range(n)]


def test_deadlines_around_a_wfe(factories: list[EngineFactory]) -> None:
    """A deadline before, at and behind a WFE; the two engines stop alike."""
    program = Asm()
    for _ in range(3):
        program.nop()
        program.nop()
        program.wfe()
    program.hvc(STOP)
    results = []
    for factory in factories:
        for stops in ([], [1], [2], [3], [4], range(1, 10)):
            guest = Bench(factory, program, hcr=HCR)
            guest.engine.watch_wfe()
            wfes = []
            for stop in (*stops, 1 << 40):
                while guest.run(stop) == Leave.STOP and guest.engine.state.wfe:
                    guest.engine.state.wfe = 0
                    wfes.append(guest.count)
            assert wfes == [3, 6, 9], stops
            results.append(guest.result())
            guest.close()
    same(results)


def test_a_yield_stops_once_its_time_is_over(bench: MakeBench) -> None:
    """From the count that EL2 has set: the first one before it is a hint, the others end the run
    behind them."""
    program = Asm()
    for _ in range(4):
        program.nop()
        program.yield_()
    program.hvc(STOP)
    guest = watched(bench, program)
    guest.engine.state.yield_at = 4
    stops = []
    while guest.run(10_000) == Leave.STOP and not guest.callbacks.of("el2"):
        assert guest.engine.state.wfe == Waits.YIELD
        guest.engine.state.wfe = 0
        stops.append((guest.count, guest.engine.pc))
    assert stops == [(4, RAM + 16), (6, RAM + 24), (8, RAM + 32)]


def sleepless(rounds: int, *, change: bool) -> Asm:
    """SEVL and WFE again and again; ``change``: the WFE's block is dropped each time."""
    program = Asm()
    program.mov(20, rounds)
    program.adr(2, "wfe")
    program.label("again")
    if change:
        program.sys("IC IVAU", 2)
    program.b("wfe")
    program.label("wfe")
    program.sevl()
    program.wfe()
    program.ldr_w(3, 2, 4)
    program.add(4, 4, 3)
    program.subs_imm(20, 20, 1)
    program.b_cond(NE, "again")
    program.hvc(STOP)
    return program


@pytest.mark.parametrize("change", [False, True])
def test_a_wfe_is_translated_as_an_isb_and_is_none(bench: MakeBench, change: bool) -> None:
    """Memory has the WFE whenever the guest reads it. The work for it is bounded, however often it
    is translated."""
    rounds = 500
    guest = watched(bench, sleepless(rounds, change=change))
    assert guest.run(100_000) == Leave.STOP and not guest.engine.state.wfe
    stats = guest.engine.state.stats
    assert guest.engine.x(4) == rounds * 0xD503_205F and stats[Stat.WFE] == rounds
    if guest.engine.kind == "native":
        exchanged = stats[Stat.EXCHANGE]
        assert 0 < exchanged <= 16
