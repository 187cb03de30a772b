"""Where a run stops: after a whole access, with the right PC, at the exact instruction, without a flush
of translated code, and at the last instructions before a deadline.

Each test names a fault of Unicorn that breaks guests silently, and the cure. It fails if the engine
loses the cure.
"""

from __future__ import annotations

import ctypes as C
import itertools
import threading
import time
from collections.abc import Callable

import pytest
from asm import EQ, LO, NE, XZR, Asm

from armvirt.hw.engine import Leave, What, abi
from engine.bench import (
    CNTV_CTL,
    CNTV_CVAL,
    DAIF,
    DATA,
    EL0T,
    EL1H,
    IAR1,
    RAM,
    STOP,
    USER,
    Bench,
    Stage1,
    same,
    stop_vectors,
)

MakeBench = Callable[..., Bench]


# -- A stop in the middle of an access --


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


def test_stops_between_instructions(bench: MakeBench) -> None:
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


def test_a_stop_asked_for_in_a_register_access(bench: MakeBench) -> None:
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


def test_a_stop_from_another_thread(bench: MakeBench) -> None:
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


# -- A stale PC --


def test_the_next_exit_has_the_right_pc(bench: MakeBench) -> None:
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
def test_a_stop_behind_an_exit_has_the_right_pc(bench: MakeBench, kind: str) -> None:
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
def test_a_stop_in_chained_blocks_has_the_right_pc(bench: MakeBench, kind: str) -> None:
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


def test_pc_is_written_by_batch_only(bench: MakeBench) -> None:
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


# -- End addresses --


def test_a_guest_at_address_0(bench: MakeBench) -> None:
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


def test_wfi_is_an_exit_of_its_own(bench: MakeBench) -> None:
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


# -- Instruction counts --


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


def test_stops_do_not_flush_translations(bench: MakeBench) -> None:
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


def test_the_core_is_never_given_a_count(bench: MakeBench) -> None:
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


# -- The last instructions before a deadline --


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
def test_an_exception_in_the_tail(bench: MakeBench, kind: str, mode: int) -> None:
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
def test_an_interrupt_in_the_tail(bench: MakeBench, line: str, mode: int) -> None:
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
