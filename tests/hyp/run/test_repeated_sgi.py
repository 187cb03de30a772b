"""The engine delivers an SGI that a vCPU sends to itself without EL2. The guest sees no difference.

Each program runs on the native engine without a trace sink, and beside it with one, which makes EL2
handle every SGI. Both runs are stopped at the same moments, and their whole states must be equal.
`trapped_sysregs`, `armvirt.hw.shadow`.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import NamedTuple

import pytest
from hyp_tools import DEVICE, EQ, GICR, LIMIT_NS, RAM, Asm, Rig, power_off
from run.repeat_tools import IGRPEN1, PMR, begin, compare, repeats

from armvirt.arch.gic import ICC_REGISTERS

IAR1, EOIR1, DIR, CTLR, SGI1R = (
    ICC_REGISTERS[f"ICC_{name}_EL1"] for name in ("IAR1", "EOIR1", "DIR", "CTLR", "SGI1R")
)
TURNS = 60
STOPS = 30
SELF, OTHER, OTHERS = 1, 2, 1 << 40
Part = Callable[[Asm], None]


def nothing(a: Asm) -> None:
    pass


def send(a: Asm, intid: int = 3, targets: int = SELF) -> None:
    a.mov(1, intid << 24 | targets)
    a.msr(SGI1R, 1)


class Case(NamedTuple):
    """``send`` sends the SGI of a turn; ``after`` follows; ``handler`` is between the acknowledge and
    the end of interrupt, ``end`` after the end. ``repeats``: the engine is expected to repeat."""

    send: Part = send
    after: Part = nothing
    handler: Part = nothing
    end: Part = nothing
    setup: Part = nothing
    repeats: bool = True


def masked(a: Asm) -> None:
    a.daifset(2)
    send(a)
    a.nop()
    a.daifclr(2)


def twice(a: Asm) -> None:
    """The second write comes while the SGI is pending already."""
    a.daifset(2)
    send(a)
    send(a)
    a.daifclr(2)


def below_the_mask(a: Asm) -> None:
    a.msr_const(PMR, 0)
    send(a)
    a.nop()
    a.msr_const(PMR, 0xF0)


def alternate(a: Asm) -> None:
    send(a, 3)
    send(a, 4)


def device(a: Asm) -> None:
    a.mov(4, DEVICE)
    a.ldr_w(5, 4)


def now_and_then(part: Part) -> Part:
    """``part`` in each eighth turn."""

    def run(a: Asm) -> None:
        a.word(0x92400A85)  # AND X5, X20, #7
        a.cbz(5, "part")
        a.b("no part")
        a.label("part")
        part(a)
        a.label("no part")

    return run


def once(a: Asm) -> None:
    """One more SGI in this turn, sent while the first one is active."""
    a.subs(5, 20, 22)
    a.b_cond(EQ, "sent")
    a.movr(22, 20)
    send(a)
    a.label("sent")


def disable(a: Asm) -> None:
    """The SGI is disabled, sent and enabled again."""
    a.mov(2, GICR + 0x1_0000)
    a.mov(3, 1 << 3)
    a.str_w(3, 2, 0x180)
    send(a)
    a.mov(3, 1 << 3)
    a.str_w(3, 2, 0x100)


def timer(a: Asm) -> None:
    """The virtual timer fires in between; its interrupt is disabled in the redistributor."""
    a.mrs(3, "CNTVCT_EL0")
    a.add_imm(3, 3, 40)
    a.msr("CNTV_CVAL_EL0", 3)
    a.msr_const("CNTV_CTL_EL0", 1)


CASES = {
    "plain": Case(),
    "masked": Case(send=masked),
    "twice": Case(send=twice),
    "below the mask": Case(send=below_the_mask),
    "alternately two": Case(send=alternate, repeats=False),
    "EOImode 1": Case(setup=lambda a: a.msr_const(CTLR, 2), end=lambda a: a.msr(DIR, 7)),
    "in the handler": Case(handler=now_and_then(once)),
    "a device now and then": Case(after=now_and_then(device)),
    "a device each time": Case(after=device, repeats=False),
    "disabled now and then": Case(after=now_and_then(disable)),
    "group off now and then": Case(
        after=now_and_then(lambda a: (a.msr_const(IGRPEN1, 0), send(a), a.msr_const(IGRPEN1, 1)) and None)
    ),
    "a timer": Case(after=now_and_then(timer)),
    "to all others": Case(send=lambda a: send(a, 3, OTHERS), repeats=False),
    "to itself and another": Case(send=lambda a: send(a, 3, SELF | OTHER)),
}  # fmt: skip


def program(case: Case) -> Asm:
    """X20 counts the turns, X21 the interrupts."""
    a = begin(3 << 3)
    case.setup(a)
    a.daifclr(2)
    a.label("loop")
    case.send(a)
    case.after(a)
    a.add_imm(20, 20, 1)
    a.cmp_imm(20, TURNS)
    a.b_cond(3, "loop")  # lower
    power_off(a)
    a.vectors(_vector)
    a.label("irq")
    a.mrs(7, IAR1)
    a.add_imm(21, 21, 1)
    case.handler(a)
    a.msr(EOIR1, 7)
    case.end(a)
    a.eret()
    return a


def _vector(a: Asm, offset: int) -> None:
    if offset == 0x280:
        a.b("irq")
    else:
        power_off(a)


def rig(case: Case, watched: bool, vcpus: int = 1) -> Rig:
    made = Rig(kind="native", vcpus=vcpus, gic=True)
    if watched:
        made.host.bus.subscribe(lambda stamp, event: None)
    made.start(program(case))
    for each in range(1, vcpus):
        sleeper = Asm(RAM + 0x10_0000)
        sleeper.label("sleep")
        sleeper.wfi()
        sleeper.b("sleep")
        made.start(sleeper, each)
    return made


def moments(case: Case, vcpus: int, seed: int) -> list[int]:
    """Random times in ns at which a run is stopped, in the time that the whole run takes."""
    whole = rig(case, True, vcpus)
    whole.run()
    end = whole.host.clock.now
    whole.close()
    chance = random.Random(seed)
    return sorted(chance.randrange(1, end) for _ in range(STOPS))


@pytest.mark.parametrize("vcpus", [1, 2])
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_same_as_if_el2_delivered_it(name: str, seed: int, vcpus: int) -> None:
    """Seed 0: without a stop."""
    case = CASES[name]
    unwatched, watched = rig(case, False, vcpus), rig(case, True, vcpus)
    compare((unwatched, watched), [*(moments(case, vcpus, seed) if seed else ()), LIMIT_NS])
    assert unwatched.x(20) == watched.x(20) == TURNS and unwatched.x(21) == watched.x(21)
    assert repeats(watched) == 0
    if vcpus == 1:
        assert (repeats(unwatched) > TURNS // 4) is case.repeats or seed
    for each in (unwatched, watched):
        each.close()
