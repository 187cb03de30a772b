"""The engine repeats the timer tick of a guest that sleeps between ticks. The guest sees no
difference.

Each program runs on the native engine without a trace sink, and beside it with one, which makes EL2
handle every tick. Both runs are stopped at the same moments, and their whole states must be equal.
`RunLoop._repeat_tick`, `armvirt.hw.shadow`.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import NamedTuple

import pytest
from hyp_tools import DATA, DEVICE, EQ, LIMIT_NS, RAM, Asm, Rig, power_off
from run.repeat_tools import IGRPEN1, PMR, begin, compare, repeats

from armvirt.arch.gic import ICC_REGISTERS
from armvirt.hyp.kvm import Start, VcpuGroup

IAR1, EOIR1, DIR, CTLR = (
    ICC_REGISTERS[f"ICC_{name}_EL1"] for name in ("IAR1", "EOIR1", "DIR", "CTLR")
)
CTL, CVAL, TVAL = "CNTV_CTL_EL0", "CNTV_CVAL_EL0", "CNTV_TVAL_EL0"
PERIOD = 200  # ticks; 3,200 ns at 62.5 MHz
TICKS = 60
STOPS = 40
Part = Callable[[Asm], None]


def nothing(a: Asm) -> None:
    pass


class Case(NamedTuple):
    """What a guest does beside sleeping: ``before`` and ``after`` each WFI, and in the handler
    (``tick``, ``end``)."""

    before: Part = nothing
    after: Part = nothing
    tick: Part = nothing
    end: Part = nothing
    setup: Part = nothing
    intid: int = 27
    vhe: bool = False
    sleeps: bool = True  # the engine is expected to repeat ticks


def next_deadline(a: Asm) -> None:
    a.mrs(3, CVAL)
    a.add_imm(3, 3, PERIOD)
    a.msr(CVAL, 3)


def program(case: Case) -> Asm:
    """X20 counts the ticks; X21 is the case's own."""
    a = begin(1 << case.intid)
    a.mov(6, DATA)
    a.mrs(3, "CNTVCT_EL0")
    a.add_imm(3, 3, PERIOD)
    a.msr(CVAL, 3)
    a.msr_const(CTL, 1)
    case.setup(a)
    a.daifclr(2)
    a.label("loop")
    case.before(a)
    a.wfi()
    case.after(a)
    a.cmp_imm(20, TICKS)
    a.b_cond(3, "loop")  # lower
    power_off(a)
    a.vectors(lambda a, offset: _handler(a, offset, case))
    return a


def _handler(a: Asm, offset: int, case: Case) -> None:
    if offset != 0x280:
        power_off(a)
        return
    a.b("tick")


def with_tick(a: Asm, case: Case) -> Asm:
    a.label("tick")
    a.mrs(1, IAR1)
    a.add_imm(20, 20, 1)
    case.tick(a)
    next_deadline(a)
    a.msr(EOIR1, 1)
    case.end(a)
    a.eret()
    return a


def exclusive_before(a: Asm) -> None:
    """With interrupts masked, no exception return clears the monitor between the two: only the
    wake-up does."""
    a.daifset(2)
    a.ldxr(5, 6)


def exclusive_after(a: Asm) -> None:
    a.stxr(7, 5, 6)
    a.add(21, 21, 7)
    a.daifclr(2)


def late(a: Asm) -> None:
    """Two periods are over before the deadline moves on: it is met again at once."""
    for _ in range(3):
        a.nop()
    a.mrs(4, CVAL)
    a.sub_imm(4, 4, PERIOD - 4)
    a.msr(CVAL, 4)


def storm(a: Asm) -> None:
    """Seven of eight ticks leave the deadline where it is, so the line stays high after the end of
    interrupt."""
    a.word(0x92400A85)  # AND X5, X20, #7
    a.cbz(5, "calm")
    a.mrs(4, CVAL)
    a.sub_imm(4, 4, PERIOD)
    a.msr(CVAL, 4)
    a.label("calm")


def storm_with_a_mask(a: Asm) -> None:
    """A storm in which the priority mask holds the interrupt back in the list register for a while."""
    storm(a)
    a.msr_const(PMR, 0)


def physical_timer(a: Asm) -> None:
    a.mrs(4, "CNTPCT_EL0")
    a.add_imm(4, 4, 7 * PERIOD + 5)
    a.msr("CNTP_CVAL_EL0", 4)
    a.msr_const("CNTP_CTL_EL0", 1)


def urgent_only(a: Asm) -> None:
    """The mask is above the interrupt: WFI ends (KVM), and nothing is taken before it is put
    down."""
    a.msr_const(PMR, 0)


def device(a: Asm) -> None:
    a.mov(4, DEVICE)
    a.ldr_w(5, 4)


def at_each_eighth(a: Asm, part: Part) -> None:
    a.lsr(4, 20, 3)
    a.subs(5, 4, 22)
    a.b_cond(EQ, "same")
    a.movr(22, 4)
    part(a)
    a.label("same")


def not_taken(a: Asm) -> None:
    """A tick that is pending in its list register, and whose deadline moves on before it is
    acknowledged."""
    a.daifset(2)
    a.wfi()
    next_deadline(a)


def asleep_in_the_handler(a: Asm) -> None:
    """With the interrupt active and its deadline moved on: a timer that fires cannot pend, but WFI
    ends."""
    next_deadline(a)
    a.wfi()


CASES = {
    "plain": Case(),
    "interrupts masked": Case(before=lambda a: a.daifset(2), after=lambda a: a.daifclr(2)),
    "exclusives": Case(before=exclusive_before, after=exclusive_after, sleeps=False),
    "late": Case(tick=late),
    "storm": Case(tick=storm),
    "storm in EOImode 1": Case(
        tick=storm, setup=lambda a: a.msr_const(CTLR, 2), end=lambda a: a.msr(DIR, 1)
    ),
    "storm and a mask": Case(tick=storm_with_a_mask, end=lambda a: a.msr_const(PMR, 0xF0)),
    "storm and a device now and then": Case(
        tick=storm, after=lambda a: at_each_eighth(a, device)
    ),
    "EOImode 1": Case(setup=lambda a: a.msr_const(CTLR, 2), end=lambda a: a.msr(DIR, 1)),
    "priority mask": Case(before=urgent_only, after=lambda a: a.msr_const(PMR, 0xF0), sleeps=False),
    "a device in the handler": Case(tick=device, sleeps=False),
    "a device now and then": Case(after=lambda a: at_each_eighth(a, device)),
    "physical timer": Case(setup=physical_timer, sleeps=False),
    "physical timer on hardware": Case(after=lambda a: at_each_eighth(a, physical_timer), vhe=True, sleeps=False),
    "not taken": Case(before=not_taken, after=lambda a: a.daifclr(2)),
    "asleep in the handler": Case(tick=asleep_in_the_handler, sleeps=False),
    "group off": Case(
        before=lambda a: a.msr_const(IGRPEN1, 0), after=lambda a: a.msr_const(IGRPEN1, 1), sleeps=False,
    ),
    "timer masked": Case(before=lambda a: a.msr_const(CTL, 3), after=lambda a: a.msr_const(CTL, 1), sleeps=False),
    "another PPI": Case(intid=20),
}  # fmt: skip


def rig(case: Case, watched: bool, vcpus: int = 1) -> Rig:
    made = Rig(kind="native", vcpus=vcpus, gic=True, vhe=case.vhe)
    if watched:
        made.host.bus.subscribe(lambda stamp, event: None)
    if case.intid != 27:
        made.vcpu.set_device_attr(VcpuGroup.TIMER_CTRL, 0, case.intid)
    made.start(with_tick(program(case), case))
    return made


def moments(case: Case, seed: int) -> list[int]:
    """Times to stop at, in ns: when the timer's line rises, shortly before and after, and any."""
    chance, rises = random.Random(seed), []
    with_sink = rig(case, True)
    with_sink.host.bus.subscribe(
        lambda stamp, event: rises.append(stamp.ns) if event.kind == "timer-line" else None
    )
    with_sink.run()
    with_sink.close()
    rises = rises or [PERIOD * 16 * TICKS]
    near = [
        ns + chance.choice([-1, 0, 0, 1, 2, 3, 5, 9])
        for ns in chance.sample(rises, min(STOPS, len(rises)))
    ]
    return sorted({*near, *(chance.randrange(1, rises[-1]) for _ in range(STOPS // 2))})


def test_with_another_cpu_that_sleeps_the_same_way() -> None:
    """Each wakes by itself: the other's background timer is an event that ends a nap."""
    made = [rig(CASES["plain"], watched, 2) for watched in (False, True)]
    for each in made:
        each.vcpus[1].start(Start(RAM, 0))
    compare(made, moments(CASES["plain"], 3))
    for each in made:
        each.close()


def test_with_another_cpu_that_works() -> None:
    """While it can run, no time is skipped."""
    made = [rig(CASES["plain"], watched, 2) for watched in (False, True)]
    work = Asm(RAM + 0x10_0000)
    work.label("work")
    work.add_imm(20, 20, 1)
    work.nop()
    work.b("work")
    for each in made:
        each.start(work, 1)
    compare(made, moments(CASES["plain"], 4))
    assert made[0].x(20, 1) > 1000 and repeats(made[0]) == 0
    for each in made:
        each.close()


def test_who_asks_for_idle_time_is_asked_each_time() -> None:
    made, asked = rig(CASES["plain"], False), []

    def on_idle(now: int, due: int | None) -> int | None:
        asked.append(now)
        return due

    made.host.add_idle(on_idle)
    made.finish()
    assert len(asked) >= TICKS and repeats(made) == 0
    made.close()


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_whatever_wakes_it_is_as_if_it_came_here(name: str, seed: int) -> None:
    """Seed 0: without a stop, for each of them keeps a nap from being taken."""
    case = CASES[name]
    unwatched, watched = rig(case, False), rig(case, True)
    compare((unwatched, watched), [*(moments(case, seed) if seed else ()), LIMIT_NS])
    assert unwatched.x(20) == watched.x(20) and unwatched.word(DATA) == watched.word(DATA)
    assert repeats(watched) == 0
    assert (repeats(unwatched) > TICKS // 4) is case.sleeps or seed
    for each in (unwatched, watched):
        each.close()
