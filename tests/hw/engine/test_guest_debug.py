"""A guest's own breakpoints and watchpoints (DDI 0487 D2.8, D2.10). Its software step is in
test_exactness.py."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
from asm import EQ, XZR, Asm

from armvirt.hw.engine import Leave
from engine.bench import DATA, EL1H, STOP, Bench, stop_vectors, vector_that_stopped

MakeBench = Callable[..., Bench]

UNMASKED_D = 0x1C0 | EL1H
MDE_KDE = 1 << 15 | 1 << 13
BREAK_EL1_EL0, WATCH_EL1_EL0 = 0xF << 5 | 3 << 1 | 1, 0xFF << 5 | 3 << 3 | 3 << 1 | 1


def program(watch: bool) -> Asm:
    a = Asm()
    a.mov(2, DATA)
    a.msr_const("MDSCR_EL1", MDE_KDE)
    if watch:
        a.msr("DBGWVR0_EL1", 2)
        a.msr_const("DBGWCR0_EL1", WATCH_EL1_EL0)
    else:
        a.adr(9, "place")
        a.msr("DBGBVR0_EL1", 9)
        a.msr_const("DBGBCR0_EL1", BREAK_EL1_EL0)
    a.isb()
    a.label("armed")
    a.add_imm(1, 1, 1)
    a.nop()
    a.label("place")
    a.str_(1, 2)
    a.nop()
    a.hvc(STOP)
    stop_vectors(a)
    return a


def debugged(make: MakeBench, watch: bool) -> tuple[Bench, Asm]:
    a = program(watch)
    guest = make(a, pstate=UNMASKED_D)
    guest.set_system("VBAR_EL1", a["vectors"])
    return guest, a


def check(guest: Bench, a: Asm, ec: int) -> None:
    """Taken before the instruction, at its exact count."""
    assert vector_that_stopped(guest) == 0x200
    assert guest.system("ESR_EL1") >> 26 == ec and guest.system("ELR_EL1") == a["place"]
    assert guest.callbacks.of("entry")[0][4] == (a["place"] - a.base) // 4 and not guest.read64(
        DATA
    )


@pytest.mark.parametrize("stop", [0, 9, 10])
def test_a_breakpoint(bench: MakeBench, stop: int) -> None:
    guest, a = debugged(bench, watch=False)
    if stop:
        assert guest.run(stop) == Leave.BUDGET and guest.count == stop
    assert guest.run(1000) == Leave.STOP
    check(guest, a, 0x31)


@pytest.mark.xfail(
    reason="the core arms breakpoints at an MSR only, not when their registers are loaded",
    strict=True,
)
def test_a_breakpoint_after_a_load(bench: MakeBench) -> None:
    guest, a = debugged(bench, watch=False)
    guest.run(a.words.index(0xD5033FDF) + 1)
    guest.move()
    guest.run(1000)
    check(guest, a, 0x31)


@pytest.mark.xfail(reason="the core does not look at watchpoints", strict=True)
def test_a_watchpoint(bench: MakeBench) -> None:
    guest, a = debugged(bench, watch=True)
    guest.run(1000)
    check(guest, a, 0x35)


SELF_BRANCHES: dict[str, Callable[[Asm], None]] = {
    "b": lambda a: a.b("self"),
    "cbz": lambda a: a.cbz(XZR, "self"),
    "br": lambda a: a.br(5),
}


@pytest.mark.parametrize("kind", SELF_BRANCHES)
def test_a_step_over_a_branch_to_itself_counts(bench: MakeBench, kind: str) -> None:
    """PC does not move, but the instruction was executed: the syndrome's ISV says so (DDI 0487, ISS
    of EC 0x32)."""
    step = 1 << 21
    a = Asm()
    a.set_vectors()
    a.mov(3, 4)
    a.msr_const("MDSCR_EL1", 1)
    a.adr(5, "self")
    a.drop_to("self", step)
    a.label("self")
    SELF_BRANCHES[kind](a)

    def handler(a: Asm, offset: int) -> None:
        if offset == 0x400:
            a.msr_const("SPSR_EL1", step)
            a.subs_imm(3, 3, 1)
            a.b_cond(EQ, "end")
            a.eret()
            a.label("end")
            a.hvc(STOP)

    a.vectors(handler)
    guest = bench(a)
    guest.run(300)
    counts = [line[4] for line in guest.callbacks.of("entry")]
    length_of_handler = 6
    assert [later - earlier for earlier, later in itertools.pairwise(counts)] == [
        1 + length_of_handler + 1
    ] * 3  # type: ignore[operator]
