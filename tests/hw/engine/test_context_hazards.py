"""What a vCPU brings along when it is loaded: interrupt line, translations, misaligned PC, exclusive
monitor; and nothing of the host's time.

Each test names a fault of Unicorn that breaks guests silently, and the cure. It fails if the engine
loses the cure.
"""

from __future__ import annotations

import ctypes as C
import itertools
import time
from collections.abc import Callable

import pytest
from asm import NE, XZR, Asm

from armvirt.arch.gic import ICC_REGISTERS, ICH_HCR_EN, ListRegister
from armvirt.arch.sysregs import encoding_of
from armvirt.arch.timer import PPI_VTIMER
from armvirt.events import EventBus
from armvirt.hw.clock import Clock
from armvirt.hw.config import HostConfig
from armvirt.hw.context import ShareableDomain
from armvirt.hw.engine import Action, EngineFactory
from armvirt.hw.exit import ExitKind
from armvirt.hw.gic import PhysicalGic
from armvirt.hw.pe import Pe
from engine.bench import (
    CNTV_CTL,
    CNTV_CVAL,
    COUNTER_START,
    DAIF,
    DATA,
    EL0T,
    EL1H,
    EOIR1,
    FREQUENCY,
    HCR,
    IAR1,
    MDCR_TPM,
    PMR,
    RAM,
    RAM_SIZE,
    STACK,
    STOP,
    TID3,
    XN,
    Bench,
    Stage1,
    same,
    stop_vectors,
    vector_that_stopped,
)

MakeBench = Callable[..., Bench]
NEVER = (1 << 64) - 1
ALIAS = 0x5000_0000  # a VA


# -- A level that fell --


def tick_guest(ticks: int, step: int) -> Asm:
    """Takes ``ticks`` interrupts of the virtual timer; its handler moves CVAL on by ``step``
    counts."""
    a = Asm()
    a.set_vectors()
    a.mov(9, 0xF0)
    a.msr(PMR, 9)
    a.mov(9, 1)
    a.msr(ICC_REGISTERS["ICC_IGRPEN1_EL1"], 9)
    a.mrs(1, "CNTVCT_EL0")
    a.mov(2, step)
    a.add(1, 1, 2)
    a.msr(CNTV_CVAL, 1)
    a.mov(9, 1)
    a.msr(CNTV_CTL, 9)
    a.daifclr(2)
    a.label("wait")
    a.add_imm(4, 4, 1)
    a.cmp_imm(3, ticks)
    a.b_cond(NE, "wait")
    a.msr(CNTV_CTL, XZR)
    a.hvc(STOP)

    def handler(a: Asm, offset: int) -> None:
        a.mrs(5, IAR1)
        a.add_imm(3, 3, 1)
        a.add(1, 1, 2)
        a.msr(CNTV_CVAL, 1)
        a.msr(EOIR1, 5)
        a.eret()

    a.vectors(handler)
    return a


class Hypervisor:
    """The least that gives a guest its virtual timer: each physical interrupt becomes one list
    register."""

    def __init__(self, factory: EngineFactory, program: Asm) -> None:
        self.clock, self.gic = Clock(), PhysicalGic(1)
        self.pe = Pe(0, self.clock, self.gic, EventBus(), HostConfig(frequency_hz=FREQUENCY))
        self.context = ShareableDomain(factory).create()
        self.bench = Bench(factory, program)  # for its RAM
        engine = self.context.engine
        engine.map_memory(RAM, RAM_SIZE, C.addressof(C.c_char.from_buffer(self.bench.ram)))
        self.pe.write_el2(encoding_of("HCR_EL2"), HCR)
        self.pe.write_el2(encoding_of("MDCR_EL2"), MDCR_TPM)
        self.pe.bind(self.context, 0)
        engine.pstate, engine.pc = DAIF | EL1H, RAM
        engine.rebuild_flags()
        self.gic.enable(0, PPI_VTIMER, True)
        self.pe.vif.program(ICH_HCR_EN, [])
        self.interrupts: list[int] = []

    def run(self, limit: int) -> ExitKind:
        while (kind := self.pe.run(limit, lambda _: Action.STOP)) is ExitKind.IRQ:
            assert self.gic.acknowledge(0) == PPI_VTIMER
            self.interrupts.append(self.clock.now)
            assert len(self.interrupts) < 100, "a storm"
            lr = ListRegister(PPI_VTIMER, 0xA0, 1, True, False, PPI_VTIMER)
            self.pe.vif.program(ICH_HCR_EN, [lr.encode()])
        return kind

    def close(self) -> None:
        self.context.engine.close()
        self.bench.close()


def test_a_level_is_looked_at_again(factory: EngineFactory) -> None:
    """A guest that rewrites CNTV_CVAL lowers the line at once; a GIC that still believes the old
    level would storm it. Every write recomputes the line: one interrupt for each expiry, each at
    its exact nanosecond."""
    ticks, step = 6, 100  # 1600 ns each
    hypervisor = Hypervisor(factory, tick_guest(ticks, step))
    assert hypervisor.run(1_000_000) is ExitKind.STOPPED
    assert len(hypervisor.interrupts) == ticks
    assert {later - earlier for earlier, later in itertools.pairwise(hypervisor.interrupts)} == {
        step * 16
    }
    assert hypervisor.context.x(3) == ticks
    hypervisor.close()


# -- A misaligned PC; a context that was loaded --


@pytest.mark.parametrize("mode", [EL1H, EL0T], ids=["EL1", "EL0"])
@pytest.mark.parametrize("odd", [1, 2, 3])
def test_a_misaligned_pc_faults(bench: MakeBench, mode: int, odd: int) -> None:
    """The core executes at a misaligned PC. Blocks look: EC 0x22 with FAR and ELR the address (DDI
    0487 D1.10.5)."""
    program = Asm()
    program.adr(1, "target")
    program.add_imm(1, 1, odd)
    program.br(1)
    program.label("target")
    program.mov(2, 1)
    program.mov(2, 1)
    stop_vectors(program)
    guest = bench(program, pstate=mode)
    guest.set_system("VBAR_EL1", program["vectors"])
    guest.run()
    assert vector_that_stopped(guest) == (0x200 if mode == EL1H else 0x400)
    assert guest.system("ESR_EL1") == 0x22 << 26 | 1 << 25
    assert (
        guest.system("FAR_EL1") == guest.system("ELR_EL1") == program["target"] + odd
        and guest.x(2) == 0
    )
    assert guest.callbacks.of("entry")[0][4] == 3 and guest.count == 5


def test_a_misaligned_return(bench: MakeBench) -> None:
    """The same for ERET, whose target is not checked at the ERET but as an instruction of the
    target's level."""
    program = Asm()
    program.adr(9, "target")
    program.add_imm(9, 9, 2)
    program.msr("ELR_EL1", 9)
    program.msr_const("SPSR_EL1", EL0T)
    program.eret()
    program.label("target")
    program.mov(2, 1)
    stop_vectors(program)
    guest = bench(program)
    guest.set_system("VBAR_EL1", program["vectors"])
    guest.run()
    assert (
        vector_that_stopped(guest) == 0x400
        and guest.system("ESR_EL1") >> 26 == 0x22
        and guest.x(2) == 0
    )


EXCEPTIONS: dict[str, Callable[[Asm], None]] = {
    "svc": lambda a: a.svc(1),
    "hvc": lambda a: a.hvc(1),
    "brk": lambda a: a.brk(1),
    "icc": lambda a: a.mrs(1, IAR1),
    "wfi": lambda a: a.wfi(),
    "fp": lambda a: a.fadd_d(1, 1, 0),
    "misaligned": lambda a: a.br(25),
}


@pytest.mark.parametrize("kind", EXCEPTIONS)
def test_a_loaded_context_at_its_next_exception(bench: MakeBench, kind: str) -> None:
    """A context looks right when it is restored and goes wrong at the next exception: so that is
    where it is tested."""
    program = Asm()
    program.set_vectors()
    program.mov(25, RAM + 2)
    program.mov(2, 0x3FF0_0000_0000_0000)
    program.fmov_d(0, 2)
    program.nop()
    program.nop()
    EXCEPTIONS[kind](program)
    program.mov(7, 7)
    EXCEPTIONS[kind](program)
    program.hvc(STOP)
    stop_vectors(program)
    reference, moved = bench(program), bench(program)
    reference.run()
    for count in range(5, 12):
        moved.run(count)
        moved.move()
        if (
            moved.callbacks.log
            and moved.callbacks.log[-1][0] == "el2"
            and moved.callbacks.log[-1][1] & STOP
        ):  # type: ignore[operator]
            break
    if moved.count < reference.count:
        moved.run()
    same([reference.result(), moved.result()])


# -- The interrupt line and the TLB after a load --


def test_a_load_brings_the_interrupt_line(bench: MakeBench) -> None:
    """Restoring the core's context restores neither the line of a pending virtual interrupt nor its
    absence."""
    program = Asm()
    program.nop()
    program.nop()
    program.daifclr(2)
    program.nop()
    program.hvc(STOP)
    stop_vectors(program)
    guest = bench(program)
    guest.set_system("VBAR_EL1", program["vectors"])
    guest.run(1)
    saved = guest.engine.save()
    guest.engine.state.virq = 1
    guest.run(2)  # the core holds the line, masked
    guest.engine.load(saved)
    guest.engine.state.virq = 0
    guest.run()
    assert not guest.callbacks.of("entry") and guest.count == 5, (
        "the line was not up in what was loaded"
    )
    guest.engine.load(saved)
    guest.engine.state.virq = 1
    guest.move()
    guest.run()
    assert vector_that_stopped(guest) == 0x280 and guest.system("ELR_EL1") == RAM + 12


def test_a_load_forgets_translations(bench: MakeBench) -> None:
    """A TLB entry of before the load must not serve what is loaded: tables in memory may have
    changed with it."""
    program = Asm()
    program.mov(1, ALIAS)
    program.label("loop")
    program.ldr(2, 1)
    program.hvc(STOP)
    program.b("loop")
    guest = bench(program)
    tables = Stage1(guest)
    tables.identity()
    tables.map(ALIAS, DATA, XN)
    tables.enable()
    guest.write64(DATA, 111)
    guest.write64(DATA + 0x1000, 222)
    guest.run()
    assert guest.x(2) == 111
    saved = guest.engine.save()
    tables.map(ALIAS, DATA + 0x1000, XN)
    guest.run()
    assert guest.x(2) == 111, "no TLB maintenance: the entry may stay, and here it does"
    guest.engine.load(saved)
    guest.run()
    assert guest.x(2) == 222


# -- Host time --


HOST_REGISTERS = (
    "CNTVCT_EL0", "CNTPCT_EL0", "PMCCNTR_EL0", "ID_AA64PFR0_EL1", "ID_AA64ISAR0_EL1", "ID_AA64DFR0_EL1", "MIDR_EL1",
)  # fmt: skip


def test_nothing_of_the_host_shows(bench: MakeBench) -> None:
    """Counters of the core run on host time. Those of the timer are functions of the instruction
    count; those of the PMU and the ID registers are EL2's. Two runs at different host speeds give
    the same registers."""
    program = Asm()
    for n, register in enumerate(HOST_REGISTERS * 2):
        program.mrs(n, register)
    program.hvc(STOP)
    results = []
    for pause in (0.0, 0.02):
        guest = bench(program, hcr=HCR | TID3)
        guest.set_cnthctl(3)
        for count in range(1, 15):
            guest.run(count)
            time.sleep(pause / 14)
        guest.run()
        results.append(guest.result())
        traps = [line[0] >> 26 for line in guest.callbacks.of("el2")]  # type: ignore[operator]
        assert traps == [0x18] * 8 + [0x16], (
            "the PMU's counter and the identification registers, twice"
        )
    same(results)


def test_the_counters_follow_the_instructions(bench: MakeBench) -> None:
    """CNTPCT is the start plus the time of the instruction itself, CNTVCT the same less CNTVOFF, in
    any block."""
    program = Asm()
    for n in range(12):
        program.mrs(n, "CNTVCT_EL0" if n & 1 else "CNTPCT_EL0")
        program.nop()
    program.hvc(STOP)
    guest = bench(program)
    guest.set_cnthctl(3)
    state = guest.engine.state
    state.frequency, state.cntvoff, state.ns_base, state.ns_per_insn = 1_000_000_000, 7, 500, 3
    guest.run(9)
    guest.run()
    assert [guest.x(n) for n in range(12)] == [
        COUNTER_START + 500 + 6 * n - 7 * (n & 1) for n in range(12)
    ]


@pytest.mark.parametrize("kind", ["CNTVCT_EL0", "CNTPCT_EL0", "CNTV_CTL_EL0"])
def test_el0_may_be_denied_the_timer(bench: MakeBench, kind: str) -> None:
    """CNTKCTL_EL1 = 0: EC 0x18 to EL1, and no value."""
    program = Asm()
    program.mrs(1, kind)
    program.svc(STOP)
    stop_vectors(program)
    guest = bench(program, pstate=EL0T)
    guest.set_system("VBAR_EL1", program["vectors"])
    guest.run()
    assert vector_that_stopped(guest) == 0x400 and guest.system("ESR_EL1") >> 26 == 0x18
    assert guest.system("ELR_EL1") == RAM and guest.x(1) == 0 and not guest.callbacks.of("timer")


def test_the_physical_counter_can_be_trapped(bench: MakeBench) -> None:
    """CNTHCTL_EL2.EL1PCTEN = 0: the read is EL2's, EC 0x18."""
    program = Asm()
    program.mrs(1, "CNTPCT_EL0")
    program.hvc(STOP)
    guest = bench(program)
    guest.set_cnthctl(0)
    guest.run()
    assert [line[0] >> 26 for line in guest.callbacks.of("el2")] == [0x18, 0x16]  # type: ignore[operator]


# -- The exclusive monitor --


def exclusive_program() -> Asm:
    program = Asm()
    program.mov(1, DATA)
    program.ldxr(2, 1)
    program.hvc(STOP)
    program.movz(3, 99)
    program.stxr(4, 3, 1)
    program.hvc(STOP)
    return program


@pytest.mark.parametrize("cleared", [True, False], ids=["cleared", "kept"])
def test_the_monitor_of_a_vcpu_that_is_loaded(bench: MakeBench, cleared: bool) -> None:
    """The core compares values: LDXR of 7, another CPU writes 8 and 7 again, STXR succeeds. A vCPU
    that was switched away gets its monitor cleared when it is loaded; without a switch the pair
    works."""
    guest = bench(exclusive_program())
    guest.write64(DATA, 7)
    guest.run()
    assert guest.engine.exclusive[:2] == (DATA, 7)
    guest.write64(DATA, 8)
    guest.write64(DATA, 7)
    if cleared:
        guest.engine.clear_exclusive()
        assert guest.engine.exclusive[0] == NEVER
    guest.run()
    assert (guest.x(4), guest.read64(DATA)) == ((1, 7) if cleared else (0, 99))


def test_the_monitor_is_saved_and_loaded(bench: MakeBench) -> None:
    """A snapshot between LDXR and STXR must not make the STXR fail, nor succeed where it would not
    have."""
    guest = bench(exclusive_program())
    guest.write64(DATA, 7)
    guest.run()
    guest.move()
    guest.run()
    assert (guest.x(4), guest.read64(DATA)) == (0, 99)
    closed = bench(exclusive_program())
    closed.write64(DATA, 7)
    closed.run()
    closed.engine.clear_exclusive()
    closed.move()
    closed.run()
    assert (closed.x(4), closed.read64(DATA)) == (1, 7)


@pytest.mark.parametrize("second", [8, 9], ids=["same", "changed"])
def test_a_pair_is_saved_and_loaded(bench: MakeBench, second: int) -> None:
    """LDXP and STXP: both words are compared, after a load too."""
    program = Asm()
    program.mov(1, DATA)
    program.ldxp(2, 3, 1)
    program.hvc(STOP)
    program.movz(3, 99)
    program.stxp(4, 3, 3, 1)
    program.hvc(STOP)
    guest = bench(program)
    guest.write64(DATA, 7, 8)
    guest.run()
    guest.move()
    guest.write64(DATA, 7, second)
    guest.run()
    succeeded = second == 8
    assert guest.x(4) == (0 if succeeded else 1)
    assert (guest.read64(DATA), guest.read64(DATA + 8)) == ((99, 99) if succeeded else (7, second))


def test_clearing_touches_nothing_else(bench: MakeBench) -> None:
    """The cure goes through a saved context: the line of a pending interrupt and the translations
    stay as they are."""
    program = Asm()
    program.mov(1, DATA)
    program.ldxr(2, 1)
    program.nop()
    program.nop()
    program.daifclr(2)
    program.nop()
    program.hvc(STOP)
    stop_vectors(program)
    guest = bench(program)
    guest.set_system("VBAR_EL1", program["vectors"])
    guest.engine.state.virq = 1
    guest.run(5)
    before = guest.engine.save()
    guest.engine.clear_exclusive()
    after = guest.engine.save()
    assert list(after.pop("exclusive"))[:2] == [NEVER, 0] and list(before.pop("exclusive"))[:2] == [
        DATA,
        0,
    ]  # type: ignore[call-overload]
    assert before == after
    guest.run()
    assert vector_that_stopped(guest) == 0x280 and guest.engine.sp == STACK
