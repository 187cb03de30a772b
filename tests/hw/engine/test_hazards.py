"""What breaks guests silently on this core: regression tests for each hazard. Each says the hazard
and the cure, and fails if the cure is taken out of the engine.

1 stops in the middle of an access; 2 stale PC; 3 stale code; 4 random numbers; 5 end addresses; 6
levels that fell; 7 misaligned PC, restored contexts; 8 instruction counts; 9 unknown registers in
hooks; 10 the last instructions before a deadline; 11 the interrupt line and the TLB after a
restore; 12 host time; 13 the exclusive monitor.
"""

from __future__ import annotations

import ctypes as C
import itertools
import threading
import time
from collections.abc import Callable

import pytest
from asm import EQ, LO, NE, XZR, Asm

from armvirt.arch.decode import SYS_BY_NAME
from armvirt.arch.encoding import sysreg
from armvirt.arch.gic import ICC_REGISTERS, ICH_HCR_EN, ListRegister
from armvirt.arch.sysregs import encoding_of
from armvirt.arch.timer import PPI_VTIMER
from armvirt.errors import UserError
from armvirt.events import EventBus
from armvirt.hw.clock import Clock
from armvirt.hw.config import HostConfig
from armvirt.hw.context import ShareableDomain
from armvirt.hw.engine import Action, EngineFactory, Leave, What, abi
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
    UNDEF_ESR,
    USER,
    XN,
    Bench,
    Stage1,
    same,
    stop_vectors,
    vector_that_stopped,
)

MakeBench = Callable[..., Bench]
NEVER = (1 << 64) - 1


# 1 ----------------------------------------------------------------------------------------------


def pushes(n: int) -> Asm:
    """``n`` stores and loads that move their pointers: an access that is done twice shows."""
    program = Asm()
    program.mov(1, DATA)
    program.mov(2, DATA)
    for i in range(n):
        program.movz(3, i + 1)
        program.str_post(3, 1, 8)
        program.ldr_post(4, 2, 8)
        program.add(5, 5, 4)
    program.hvc(STOP)
    return program


def test_hazard_01_stops_between_instructions(bench: MakeBench) -> None:
    """The core may leave behind a load or store with PC still on it. Stops fall at blocks and steps
    only."""
    guest = bench(pushes(20))
    for count in itertools.count(1):
        why = guest.run(count)
        if why == Leave.STOP:
            break
        assert (why, guest.count) == (Leave.BUDGET, count)
        stored, loaded = max(0, count - 2) // 4, max(0, count - 3) // 4
        assert guest.engine.pc == RAM + 4 * count
        assert count < 4 or (guest.x(1), guest.x(2)) == (DATA + 8 * stored, DATA + 8 * loaded), (
            count
        )
    assert [guest.read64(DATA + 8 * i) for i in range(21)] == [*range(1, 21), 0]
    assert guest.x(1) == guest.x(2) == DATA + 160 and guest.x(5) == 210


def test_hazard_01_a_stop_asked_for_in_a_register_access(bench: MakeBench) -> None:
    """The hook of an MSR is no place to stop either: the access would be done twice. It stops at
    the next block."""
    program = Asm()
    for i in range(8):
        program.movz(1, i)
        program.msr(CNTV_CVAL, 1)
        program.str_post(1, 2, 8)
        program.mrs(3, CNTV_CVAL)
        program.str_post(3, 2, 8)
    program.hvc(STOP)
    guest = bench(program)
    guest.engine.set_x(2, DATA)
    once = guest.callbacks.timer_access

    def access() -> None:
        once()
        guest.engine.state.stop = 1

    guest.callbacks.timer_access = access  # type: ignore[method-assign]
    stops = 0
    while not guest.callbacks.of("el2"):
        assert guest.run() == Leave.STOP
        stops += 1
    assert 8 < stops < 20
    writes = [line[2] for line in guest.callbacks.of("timer") if line[1]]
    assert writes == list(range(8)) and len(guest.callbacks.of("timer")) == 16
    assert [guest.read64(DATA + 8 * i) for i in range(16)] == [i // 2 for i in range(16)]
    assert guest.count == 42 - 1 and guest.x(2) == DATA + 128


def test_hazard_01_a_stop_from_another_thread(bench: MakeBench) -> None:
    """Another thread may only set a flag; blocks look at it. Stopped at whatever moments, nothing
    is done twice."""
    program = Asm()
    program.mov(1, DATA)
    program.mov(2, DATA + 0x8000)
    program.label("loop")
    program.add_imm(3, 3, 1)
    program.str_post(3, 1, 8)
    program.subs(XZR, 1, 2)
    program.b_cond(NE, "loop")
    program.hvc(STOP)
    guest = bench(program)
    done = threading.Event()

    def pester() -> None:
        while not done.is_set():
            guest.engine.state.stop = 1
            time.sleep(0.0002)

    thread = threading.Thread(target=pester)
    thread.start()
    try:
        while not guest.callbacks.of("el2"):
            assert guest.run() == Leave.STOP
    finally:
        done.set()
        thread.join()
    assert [guest.read64(DATA + 8 * i) for i in range(4097)] == [*range(1, 4097), 0]
    assert guest.count == len(program.words) - 4 + 4 * 4096


# 2 ----------------------------------------------------------------------------------------------


def test_hazard_02_the_next_exit_has_the_right_pc(bench: MakeBench) -> None:
    """A plain write of PC in a hook makes the next exit report a stale one. PC is written by
    batch."""
    kinds: tuple[Callable[[Asm], None], ...] = (
        lambda a: a.mrs(1, IAR1),  # completed at PC + 4
        lambda a: a.smc(1),  # the same, from EL2
        lambda a: a.hvc(2),
        lambda a: a.svc(3),  # a vector, and back
        lambda a: a.sys("IC IVAU", 2),
        lambda a: a.wfi(),
        lambda a: a.ldr(3, 4),  # stage-1 abort
    )
    program = Asm()
    program.set_vectors()
    expected = []
    for first, second in itertools.product(range(len(kinds)), repeat=2):
        for which in (first, second):
            expected.append((which, program.here))
            kinds[which](program)
        program.nop()
    program.hvc(STOP)

    def handler(a: Asm, offset: int) -> None:
        a.mrs(20, "ESR_EL1")
        a.lsr(20, 20, 26)
        a.cmp_imm(20, 0x25)
        a.b_cond(NE, f"back{offset}")
        a.mrs(21, "ELR_EL1")
        a.add_imm(21, 21, 4)
        a.msr("ELR_EL1", 21)
        a.label(f"back{offset}")
        a.eret()

    program.vectors(handler)
    guest = bench(program)
    tables = Stage1(guest)
    tables.identity()
    tables.enable()
    guest.engine.set_x(2, RAM)
    guest.engine.set_x(4, 0x60_0000)
    assert guest.run() == Leave.STOP
    seen = [
        (line[3] - 4 * (line[1] >> 26 == 0x16), line[6])
        for line in guest.callbacks.log
        if line[0] == "el2"
    ]  # type: ignore[operator]
    seen += [(line[4], line[5]) for line in guest.callbacks.log if line[0] == "undefined"]
    entries = [line[1] for line in guest.callbacks.of("entry")]
    assert sorted(pc for pc, _ in seen) == sorted(
        [pc for which, pc in expected if which in (0, 1, 2, 5)]
        + [program["vectors"] - 4 * _padding(program) - 4]
    )
    assert entries == [pc + 4 * (which == 3) for which, pc in expected if which in (3, 6)]


@pytest.mark.parametrize("kind", ["icc", "trap", "maintenance", "svc"])
def test_hazard_02_a_stop_behind_an_exit_has_the_right_pc(bench: MakeBench, kind: str) -> None:
    """The same seen from outside: stopped by a deadline behind an exit, PC is that of the count."""
    program = Asm()
    program.set_vectors()
    expected = [program.base, program.base + 4]
    for i in range(6):
        {"icc": lambda: program.mrs(1, IAR1), "trap": program.wfi, "maintenance": lambda: program.sys("IC IVAU", 2),
         "svc": lambda: program.svc(1)}[kind]()  # fmt: skip
        for _ in range(i):
            program.nop()
    program.hvc(STOP)
    program.vectors(lambda a, offset: a.eret())
    at = program.base + 8
    for word in program.words[2:]:
        expected.append(at)
        if word == 0xD4000021:
            expected.append(program["vectors"] + 0x200)
        at += 4
        if word & 0xFFE0001F == 0xD4000002:
            break
    guest = bench(program)
    guest.engine.set_x(2, RAM)
    for count, pc in enumerate(expected):
        guest.run(count)
        assert (guest.count, guest.engine.pc) == (count, pc)
    free = bench(program)
    free.engine.set_x(2, RAM)
    for count in range(3, len(expected), 3):
        free.run(count)
        assert (free.count, free.engine.pc) == (count, expected[count])


@pytest.mark.parametrize("kind", ["icc", "trap", "maintenance"])
def test_hazard_02_a_stop_in_chained_blocks_has_the_right_pc(bench: MakeBench, kind: str) -> None:
    """Blocks that jump to each other directly do not keep the core's PC up to date: leaving them
    must."""
    program = Asm()
    program.label("loop")
    {
        "icc": lambda: program.mrs(1, IAR1),
        "trap": program.wfi,
        "maintenance": lambda: program.sys("IC IVAU", 2),
    }[kind]()
    for n in range(4):
        program.add_imm(3, 3, 1)
        program.b(f"next{n}")
        program.label(f"next{n}")
    program.nop()
    program.b("loop")
    length = len(program.words)
    guest = bench(program)
    guest.engine.set_x(2, RAM)
    guest.run(50 * length)
    count = 50 * length
    for step in itertools.islice(itertools.cycle((1, 3, length + 2, 4 * length + 5, 2, 7)), 100):
        count += step
        guest.run(count)
        assert (guest.count, guest.engine.pc) == (count, RAM + 4 * (count % length))


REG_WRITE = C.CFUNCTYPE(C.c_int, C.c_void_p, C.c_int, C.c_void_p)


def test_hazard_02_pc_is_written_by_batch_only(bench: MakeBench) -> None:
    """The rule itself, for the stale PC comes and goes with what the core has translated."""
    program = Asm()
    program.set_vectors()
    for _ in range(2):
        program.mrs(1, IAR1)
        program.wfi()
        program.sys("IC IVAU", 2)
        program.svc(1)
        program.br(3)
    stop_vectors(program)
    guest = bench(program)
    written: list[int] = []

    def reg_write(uc: int, register: int, value: int) -> int:
        written.append(register)
        return int(original(uc, register, value))

    lib = guest.engine.lib
    original = REG_WRITE(lib.address("uc_reg_write"))
    pointer = REG_WRITE(reg_write)
    guest.engine.state.reg_write = C.cast(pointer, C.c_void_p).value
    guest.engine.lib = _Replaced(lib, "uc_reg_write", pointer)  # type: ignore[assignment]
    guest.engine.set_x(2, RAM)
    for count in range(1, 12):
        guest.run(count)
    assert abi.R_CP in written and abi.R_PC not in written


def _padding(program: Asm) -> int:
    """How many NOPs stand before the vectors."""
    at, n = (program["vectors"] - program.base) // 4 - 1, 0
    while program.words[at - n] == 0xD503201F:
        n += 1
    return n


# 3 ----------------------------------------------------------------------------------------------

ALIAS, RUN, CODE = 0x5000_0000, 0x5100_0000, RAM + 0x1_0000
"""Virtual: where the code is written and where it runs. Physical: where it lies, which as a VA is
another page."""
RET, MOVZ_X0 = 0xD65F03C0, 0xD2800000


@pytest.mark.parametrize(
    "sync",
    [("IC IVAU", RUN), ("IC IVAU", ALIAS), ("IC IALLU", 0), ("IC IALLUIS", 0)],
    ids=["ivau-run", "ivau-alias", "iallu", "ialluis"],
)
def test_hazard_03_code_written_through_an_alias(bench: MakeBench, sync: tuple[str, int]) -> None:
    """Stores through a mapping that is not executable do not invalidate translated code after the
    first one. Cache maintenance is trapped and invalidates by physical address, whatever VA names
    the line."""
    operation, line = sync
    rounds = 10
    program = Asm()
    program.mov(10, ALIAS)
    program.mov(11, RUN)
    program.mov(12, MOVZ_X0)
    program.mov(13, RET)
    program.mov(15, line)
    program.str_w(13, 10, 4)
    program.label("round")
    program.add_imm(12, 12, 1 << 5)
    program.str_w(12, 10, 0)
    program.sys("DC CVAU", 10)
    program.dsb()
    program.sys(operation, 15 if line else XZR)
    program.dsb()
    program.isb()
    program.blr(11)
    program.add(14, 14, 0)
    program.add_imm(16, 16, 1)
    program.cmp_imm(16, rounds)
    program.b_cond(NE, "round")
    program.hvc(STOP)
    guest = bench(program)
    tables = Stage1(guest)
    tables.identity()
    tables.map(ALIAS, CODE, XN)
    tables.map(RUN, CODE)
    tables.map(CODE, DATA)
    tables.enable()
    assert guest.run(10_000) == Leave.STOP
    assert guest.x(0) == rounds and guest.x(14) == rounds * (rounds + 1) // 2


@pytest.mark.parametrize("when", ["between runs", "in an exit"])
def test_hazard_03_code_written_by_the_hypervisor(bench: MakeBench, when: str) -> None:
    """A write by a device or a debugger never invalidates; whoever writes says so, with the
    physical address. The guest runs that code at another VA, with its MMU on: the address must not
    be taken for a virtual one."""
    program = Asm()
    program.mov(11, RUN)
    program.label("round")
    program.hvc(1 if when == "in an exit" else STOP)
    program.blr(11)
    program.add(14, 14, 0)
    program.b("round")
    guest = bench(program)
    tables = Stage1(guest)
    tables.identity()
    tables.map(RUN, CODE)
    tables.map(CODE, DATA)
    tables.enable()
    values = iter(range(1, 8))

    def rewrite() -> int:
        value = next(values, 0)
        guest.write(CODE, (MOVZ_X0 | value << 5).to_bytes(4, "little") + RET.to_bytes(4, "little"))
        guest.engine.invalidate_code(CODE, 8)
        return Action.RETRY if value else Action.STOP

    guest.callbacks.on_hvc[1] = rewrite
    assert guest.run(10_000) == Leave.STOP
    if when == "between runs":
        while rewrite() == Action.RETRY:
            assert guest.run(10_000) == Leave.STOP
    assert guest.x(14) == sum(range(1, 8))
    assert guest.engine.pstate & 0xF == EL1H, "the look from EL2 is over"


def test_hazard_03_other_cpus_are_told_the_physical_address(bench: MakeBench) -> None:
    """IC IVAU reaches every CPU: the message has the physical address, for each has its own view of
    VAs."""
    program = Asm()
    program.mov(1, ALIAS + 0x48)
    program.sys("IC IVAU", 1)
    program.sys("IC IALLUIS")
    program.sys("IC IALLU")
    program.sys("TLBI VMALLE1IS")
    program.sys("TLBI VMALLE1")
    program.hvc(STOP)
    guest = bench(program)
    tables = Stage1(guest)
    tables.identity()
    tables.map(ALIAS, CODE)
    tables.enable()
    guest.engine.state.broadcast = 1
    guest.run()
    assert guest.callbacks.of("broadcast") == [
        (SYS_BY_NAME["IC IVAU"].encoding, CODE + 0x40),
        (SYS_BY_NAME["IC IALLUIS"].encoding, 0),
        (SYS_BY_NAME["TLBI VMALLE1IS"].encoding, 0),
    ]


def test_hazard_03_maintenance_that_el2_wants(bench: MakeBench) -> None:
    """With HCR_EL2.TPU set by the hypervisor itself, the same trap is an exit, and nothing is done
    for it."""
    program = Asm()
    program.sys("IC IVAU", 1)
    program.sys("DC CVAU", 1)
    program.hvc(STOP)
    guest = bench(program)
    guest.engine.state.native_maintenance = 0
    guest.run()
    assert [line[0] >> 26 for line in guest.callbacks.of("el2")] == [0x18, 0x18, 0x16]  # type: ignore[operator]


# 4 ----------------------------------------------------------------------------------------------


def test_hazard_04_the_max_model_is_not_offered() -> None:
    """The core's ``max`` model has RNDR, which is the host's randomness. Only deterministic models
    may be chosen."""
    with pytest.raises(UserError, match="cortex-a53, cortex-a57, cortex-a72"):
        EngineFactory("portable", "max")
    assert sorted(abi.CPU_MODELS) == ["cortex-a53", "cortex-a57", "cortex-a72"]


@pytest.mark.parametrize("model", sorted(abi.CPU_MODELS))
def test_hazard_04_no_model_has_random_numbers(model: str) -> None:
    """RNDR and RNDRRS are UNDEFINED on every model that is offered, and the ID register does not
    promise them."""
    program = Asm()
    program.mrs(0, "ID_AA64ISAR0_EL1")
    program.mrs(1, sysreg(3, 3, 2, 4, 0))
    program.hvc(STOP)
    stop_vectors(program)
    guest = Bench(EngineFactory("portable", model), program)
    guest.set_system("VBAR_EL1", program["vectors"])
    guest.run()
    assert vector_that_stopped(guest) == 0x200 and guest.system("ESR_EL1") == UNDEF_ESR
    assert guest.x(0) >> 60 == 0 and guest.system("ELR_EL1") == RAM + 4
    guest.close()


# 5 ----------------------------------------------------------------------------------------------


def test_hazard_05_a_guest_at_address_0(bench: MakeBench) -> None:
    """``until`` of the core's run call is an address at which it stops, 0 included. An empty set of
    exits is used instead, so that a guest can start at 0, come back to it and go through the end of
    memory."""
    program = Asm(base=0)
    program.label("start")
    program.add_imm(1, 1, 1)
    program.cmp_imm(1, 5)
    program.b_cond(LO, "start")
    program.hvc(STOP)
    guest = bench(program, base=0)
    assert guest.run(1000) == Leave.STOP
    assert guest.x(1) == 5 and guest.count == 16
    [exit_] = guest.callbacks.of("el2")
    assert exit_[0] == 0x16 << 26 | 1 << 25 | STOP and exit_[2] == 16


def test_hazard_05_wfi_is_an_exit_of_its_own(bench: MakeBench) -> None:
    """``until`` is implemented as a WFI: only the guest's own WFIs may arrive as such exits."""
    program = Asm(base=0)
    program.nop()
    program.wfi()
    program.hvc(STOP)
    guest = bench(program, base=0)
    for count in (1, 1, 2, 3):
        guest.run(count)
    guest.run()
    assert [(line[0] >> 26, line[2]) for line in guest.callbacks.of("el2")] == [(1, 4), (0x16, 12)]  # type: ignore[operator]


# 6 ----------------------------------------------------------------------------------------------


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


def test_hazard_06_a_level_is_looked_at_again(factory: EngineFactory) -> None:
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


# 7 ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [EL1H, EL0T], ids=["EL1", "EL0"])
@pytest.mark.parametrize("odd", [1, 2, 3])
def test_hazard_07_a_misaligned_pc_faults(bench: MakeBench, mode: int, odd: int) -> None:
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


def test_hazard_07_a_misaligned_return(bench: MakeBench) -> None:
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
def test_hazard_07_a_loaded_context_at_its_next_exception(bench: MakeBench, kind: str) -> None:
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


# 8 ----------------------------------------------------------------------------------------------

START = C.CFUNCTYPE(C.c_int, C.c_void_p, C.c_uint64, C.c_uint64, C.c_uint64, C.c_size_t)
GENERATED = C.CFUNCTYPE(None, C.c_void_p, C.c_void_p, C.c_void_p, C.c_void_p)


def loops() -> Asm:
    program = Asm()
    program.label("loop")
    for _ in range(10):
        program.add_imm(1, 1, 1)
    program.cbz(2, "skip")
    program.nop()
    program.label("skip")
    program.eor(2, 2, 3)
    program.b("loop")
    return program


def test_hazard_08_stops_do_not_flush_translations(bench: MakeBench) -> None:
    """A run with an instruction count toggles an internal hook, and going back flushes all
    translated code. Exact stops are made of blocks and single steps: the second time around,
    nothing at all is translated anew."""
    guest = bench(loops())
    guest.engine.set_x(3, 1)
    translated = 0

    @GENERATED
    def generated(*_: object) -> None:
        nonlocal translated
        translated += 1

    guest.engine.hook(abi.HOOK_EDGE, generated)
    seen = []
    for _ in range(4):
        begin, translated = guest.count, 0
        for count in range(begin + 1, begin + 27 * 2 + 1):
            assert guest.run(count) == Leave.BUDGET and guest.count == count
        seen.append(translated)
    assert seen[0] > 0 and seen[2:] == [0, 0]


def test_hazard_08_the_core_is_never_given_a_count(bench: MakeBench) -> None:
    """Neither a count nor a time limit nor an end address is ever passed to the core's run call."""
    guest = bench(loops())
    calls = []

    def start(uc: int, begin: int, until: int, timeout: int, count: int) -> int:
        calls.append((until, timeout, count))
        return int(original(uc, begin, until, timeout, count))

    lib = guest.engine.lib
    original = START(lib.address("uc_emu_start"))
    pointer = START(start)
    if guest.engine.kind == "native":
        guest.engine.state.emu_start = C.cast(pointer, C.c_void_p).value
    else:
        guest.engine.lib = _Replaced(lib, "uc_emu_start", pointer)  # type: ignore[assignment]
    for count in (5, 6, 7, 100, 1000):
        guest.run(count)
    assert calls and set(calls) == {(0, 0, 0)}


class _Replaced:
    """A library with one function replaced."""

    def __init__(self, lib: abi.Library, name: str, function: object) -> None:
        vars(self).update(vars(lib), check=lib.check, address=lib.address)
        setattr(self, name, function)


# 9 ----------------------------------------------------------------------------------------------


def test_hazard_09_gic_registers_are_undefined_exits_only(bench: MakeBench) -> None:
    """Answering an MRS or MSR that the core does not know in its hook repeats the block's beginning
    and loses its end. Such accesses are completed in the UNDEF exit: what stands around them in a
    block runs exactly once."""
    program = Asm()
    program.mov(2, DATA)
    for register in ("ICC_PMR_EL1", "ICC_IGRPEN1_EL1", "ICC_BPR1_EL1", "ICC_EOIR1_EL1"):
        program.movz(1, len(program.words))
        program.str_post(1, 2, 8)
        program.msr(ICC_REGISTERS[register], 1)
        program.str_post(1, 2, 8)
        program.mrs(3, IAR1)
        program.str_post(3, 2, 8)
    program.hvc(STOP)
    guest = bench(program)
    guest.engine.state.virq = 1
    guest.run()
    lines = guest.callbacks.of("undefined")
    assert len(lines) == 8 and guest.x(2) == DATA + 8 * 12
    writes = [line[2] for line in lines if not line[0] & 1 << 21]  # type: ignore[operator]
    words = [guest.read64(DATA + 8 * i) for i in range(12)]
    assert words[0::3] == words[1::3] == writes and words[2::3] == [27, 0, 0, 0]
    assert guest.count == len(program.words)


# 10 ---------------------------------------------------------------------------------------------


def in_the_tail(write: Callable[[Asm], None], mode: int) -> tuple[Asm, int]:
    """One block: some instructions, the exception, more instructions. The second value is the
    exception's count."""
    program = Asm()
    for _ in range(4):
        program.add_imm(1, 1, 1)
    at = program.here
    write(program)
    for _ in range(4):
        program.add_imm(2, 2, 1)
    program.hvc(STOP) if mode == EL1H else program.svc(STOP)

    def handler(a: Asm, offset: int) -> None:
        a.mrs(20, "ESR_EL1")
        a.lsr(21, 20, 26)
        a.cmp_imm(21, 0x15)
        a.b_cond(EQ, f"svc{offset}")
        a.mrs(22, "SPSR_EL1")
        a.mrs(23, "MDSCR_EL1")
        a.mrs(24, "ELR_EL1")
        if offset & 0x80 == 0:
            a.add_imm(25, 24, 4)
            a.msr("ELR_EL1", 25)
        else:
            a.mrs(25, IAR1)
        a.eret()
        a.label(f"svc{offset}")
        a.cmp_imm(20, 0)
        a.hvc(STOP)

    program.vectors(handler)
    return program, (at - RAM) // 4


TAILS: dict[str, Callable[[Asm], None]] = {
    "abort": lambda a: a.ldr(9, 28),
    "undef": lambda a: a.udf(),
    "brk": lambda a: a.brk(1),
    "icc": lambda a: a.mrs(9, IAR1),
    "trap": lambda a: a.wfi(),
    "hvc": lambda a: a.hvc(1),
    "debug-register": lambda a: a.mrs(9, "MDSCR_EL1"),
    "timer": lambda a: a.mrs(9, CNTV_CTL),
    "counter": lambda a: a.mrs(9, "CNTVCT_EL0"),
    "svc": lambda a: a.svc(1),
}


@pytest.mark.parametrize("mode", [EL1H, EL0T], ids=["EL1", "EL0"])
@pytest.mark.parametrize("kind", TAILS)
def test_hazard_10_an_exception_in_the_tail(bench: MakeBench, kind: str, mode: int) -> None:
    """The last instructions before a deadline are the delicate ones: with an end address they left
    stale exits, with single steps they must not show. A deadline on and around each kind of
    exception changes nothing, and neither the handler's SPSR nor its MDSCR_EL1 has a trace of the
    steps."""
    program, at = in_the_tail(TAILS[kind], mode)

    def prepare() -> Bench:
        guest = bench(program, pstate=DAIF | mode)
        guest.set_system("VBAR_EL1", program["vectors"])
        guest.set_system("CNTKCTL_EL1", 0x303)
        tables = Stage1(guest)
        tables.identity()
        for page in range(RAM, RAM + 0x1000, 0x1000):
            tables.map(page, page, USER | 1 << 7 if mode == EL0T else 0)
        tables.enable()
        guest.engine.set_x(28, 0x60_0000)
        return guest

    reference = prepare()
    reference.run(1000)
    results = [reference.result()]
    for deadline in range(at - 1, at + 4):
        guest = prepare()
        assert guest.run(deadline) == Leave.BUDGET and guest.count == deadline
        assert guest.system("MDSCR_EL1") == 0 and not guest.engine.pstate & 1 << 21
        if guest.x(24):
            assert not guest.x(22) & 1 << 21
        guest.run(1000)
        results.append(guest.result())
        assert guest.x(9) & 1 == 0 or kind in ("icc", "counter")
    same(results)
    assert reference.x(1) == 4


@pytest.mark.parametrize("mode", [EL1H, EL0T], ids=["EL1", "EL0"])
@pytest.mark.parametrize("line", ["virq", "vfiq"])
def test_hazard_10_an_interrupt_in_the_tail(bench: MakeBench, line: str, mode: int) -> None:
    """The same for an interrupt that an exit in the tail makes pending: taken behind that
    instruction, and counted."""
    program, at = in_the_tail(lambda a: a.wfi(), mode)
    results = []
    for deadline in (1000, *range(at, at + 5)):
        guest = bench(program, pstate=mode)
        guest.set_system("VBAR_EL1", program["vectors"])
        guest.set_system("SCTLR_EL1", guest.system("SCTLR_EL1") | 1 << 16)  # WFI of EL0 goes to EL2
        exits = guest.callbacks.el2_exit

        def raise_line(guest: Bench = guest, exits: Callable[[], int] = exits) -> int:
            if guest.engine.state.esr >> 26 == 1:
                setattr(guest.engine.state, line, 1)
            return exits()

        guest.callbacks.el2_exit = raise_line  # type: ignore[method-assign]
        guest.run(deadline)
        if deadline < 1000:
            assert guest.count - deadline in (0, 1)
            assert guest.system("MDSCR_EL1") == 0
            guest.run(1000)
        results.append(guest.result())
        first = guest.callbacks.of("entry")[0]
        assert (
            first[:2] == (What.IRQ if line == "virq" else What.FIQ, RAM + 4 * at + 4)
            and first[4] == at + 1
        )
    same(results)


# 11 ---------------------------------------------------------------------------------------------


def test_hazard_11_a_load_brings_the_interrupt_line(bench: MakeBench) -> None:
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


def test_hazard_11_a_load_forgets_translations(bench: MakeBench) -> None:
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


# 12 ---------------------------------------------------------------------------------------------

HOST_REGISTERS = (
    "CNTVCT_EL0", "CNTPCT_EL0", "PMCCNTR_EL0", "ID_AA64PFR0_EL1", "ID_AA64ISAR0_EL1", "ID_AA64DFR0_EL1", "MIDR_EL1",
)  # fmt: skip


def test_hazard_12_nothing_of_the_host_shows(bench: MakeBench) -> None:
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


def test_hazard_12_the_counters_follow_the_instructions(bench: MakeBench) -> None:
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
def test_hazard_12_el0_may_be_denied_the_timer(bench: MakeBench, kind: str) -> None:
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


def test_hazard_12_the_physical_counter_can_be_trapped(bench: MakeBench) -> None:
    """CNTHCTL_EL2.EL1PCTEN = 0: the read is EL2's, EC 0x18."""
    program = Asm()
    program.mrs(1, "CNTPCT_EL0")
    program.hvc(STOP)
    guest = bench(program)
    guest.set_cnthctl(0)
    guest.run()
    assert [line[0] >> 26 for line in guest.callbacks.of("el2")] == [0x18, 0x16]  # type: ignore[operator]


# 13 ---------------------------------------------------------------------------------------------


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
def test_hazard_13_the_monitor_of_a_vcpu_that_is_loaded(bench: MakeBench, cleared: bool) -> None:
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


def test_hazard_13_the_monitor_is_saved_and_loaded(bench: MakeBench) -> None:
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
def test_hazard_13_a_pair_is_saved_and_loaded(bench: MakeBench, second: int) -> None:
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


def test_hazard_13_clearing_touches_nothing_else(bench: MakeBench) -> None:
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
