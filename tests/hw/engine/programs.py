"""Random programs of all kinds of instructions, and a driver that stops them at chosen
instructions."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from asm import NE, XZR, Asm

from armvirt.hw.engine import EngineFactory, Leave
from engine.bench import (
    CNTV_CTL,
    CNTV_CVAL,
    DAIF,
    DATA,
    EL0T,
    EL1H,
    EL1T,
    IAR1,
    READ_ONLY,
    STACK,
    STOP,
    USER,
    Bench,
    Result,
    Stage1,
)

UNMAPPED = 0x60_0000
HASH, RECOVER, SCRATCH, UNMAPPED_X, DATA_X, RETURN = 27, 26, 9, 25, 24, 23
SS = 1 << 21


def fold(a: Asm, *registers: str) -> None:
    """Mix system registers into X27, so that the end knows what handlers saw."""
    for register in registers:
        a.mrs(SCRATCH, register)
        a.add(HASH, HASH, HASH)
        a.add(HASH, HASH, SCRATCH)


def handlers(a: Asm, offset: int) -> None:
    """SVC: back, or to X23 from EL0 if it is not 0. Misaligned PC: on at X26. Other faults: the
    next instruction."""
    fold(a, "SPSR_EL1", "ELR_EL1", "MDSCR_EL1")
    if offset & 0x180:
        a.mrs(SCRATCH, IAR1)
        a.add(HASH, HASH, SCRATCH)
        a.eret()
        return
    a.b(f"sync{offset}")


def sync_handlers(a: Asm) -> None:
    for offset in (0, 0x200, 0x400, 0x600):
        a.label(f"sync{offset}")
        a.mrs(20, "ESR_EL1")
        a.add(HASH, HASH, 20)
        a.lsr(21, 20, 26)
        a.cmp_imm(21, 0x22)
        a.b_cond(NE, f"aligned{offset}")
        a.msr("ELR_EL1", RECOVER)
        a.eret()
        a.label(f"aligned{offset}")
        a.cmp_imm(21, 0x15)
        a.b_cond(NE, f"fault{offset}")
        if offset == 0x400:
            a.cbz(RETURN, f"stay{offset}")
            a.msr_const("SPSR_EL1", EL1H)
            a.msr("ELR_EL1", RETURN)
            a.movz(RETURN, 0)
        a.label(f"stay{offset}")
        a.eret()
        a.label(f"fault{offset}")
        a.mrs(22, "ELR_EL1")
        a.add_imm(22, 22, 4)
        a.msr("ELR_EL1", 22)
        a.eret()


Atom = Callable[[Asm, int], None]


def _loop(a: Asm, n: int) -> None:
    a.movz(1, 3)
    a.label(f"loop{n}")
    a.str_post(1, DATA_X, 8)
    a.subs_imm(1, 1, 1)
    a.b_cond(NE, f"loop{n}")


def _el0(a: Asm, n: int) -> None:
    """Down to EL0 for a few instructions, with faults, and back."""
    a.adr(RETURN, f"back{n}")
    a.daifset(15)  # or an interrupt may come between the writes of ELR and SPSR and the ERET
    a.drop_to(f"user{n}", EL0T)
    a.label(f"user{n}")
    a.add_imm(1, 1, 1)
    a.mrs(SCRATCH, "CNTVCT_EL0")
    a.add(HASH, HASH, SCRATCH)
    a.mrs(2, "SCTLR_EL1")
    a.add_imm(1, 1, 1)
    a.svc(2)
    a.label(f"back{n}")


def _eret(a: Asm, n: int, mode: int) -> None:
    a.daifset(15)
    a.drop_to(f"return{n}", mode)
    a.label(f"return{n}")


def _misaligned(a: Asm, n: int) -> None:
    a.adr(RECOVER, f"recover{n}")
    a.add_imm(2, RECOVER, 2)
    a.br(2)
    a.label(f"recover{n}")


def _exclusive(a: Asm, n: int) -> None:
    a.ldxr(1, DATA_X)
    a.add_imm(1, 1, 1)
    a.stxr(2, 1, DATA_X)
    a.add(HASH, HASH, 2)


def _counter(a: Asm, n: int) -> None:
    a.mrs(SCRATCH, "CNTVCT_EL0")
    a.add(HASH, HASH, SCRATCH)


def _timer(a: Asm, n: int) -> None:
    a.mov(SCRATCH, 100 + n)
    a.msr(CNTV_CVAL, SCRATCH)
    a.mrs(SCRATCH, CNTV_CTL)
    a.mrs(SCRATCH, CNTV_CVAL)
    a.add(HASH, HASH, SCRATCH)


def _debug(a: Asm, n: int) -> None:
    a.mrs(SCRATCH, "MDSCR_EL1")
    a.add(HASH, HASH, SCRATCH)
    a.msr("MDSCR_EL1", XZR)
    a.add_imm(1, 1, 1)


def _wait(a: Asm, n: int) -> None:
    """A loop around WFE, as a spinlock has it."""
    a.movz(1, 3)
    a.label(f"wait{n}")
    a.subs_imm(1, 1, 1)
    a.wfe()
    a.b_cond(NE, f"wait{n}")


def _fp(a: Asm, n: int) -> None:
    a.movz(1, 0x3FF8, 48)
    a.fmov_d(1, 1)
    a.fadd_d(0, 0, 1)


ATOMS: dict[str, Atom] = {
    "alu": lambda a, n: [a.add_imm(1, 1, n & 255) for _ in range(5)] and None,
    "loop": _loop,
    "store": lambda a, n: [a.str_post(1, DATA_X, 8), a.ldr(2, DATA_X, 0)] and None,
    "svc": lambda a, n: a.svc(n),
    "brk": lambda a, n: a.brk(n),
    "udf": lambda a, n: a.udf(),
    "abort": lambda a, n: [a.nop(), a.ldr(1, UNMAPPED_X), a.nop()] and None,
    "icc": lambda a, n: [a.mrs(SCRATCH, IAR1), a.add(HASH, HASH, SCRATCH)] and None,
    "wfi": lambda a, n: a.wfi(),
    "wfe": lambda a, n: a.wfe(),
    "wait": _wait,
    "hvc": lambda a, n: a.hvc(n & 127),
    "unmask": lambda a, n: a.daifclr(3),
    "mask": lambda a, n: a.daifset(15),
    "window": lambda a, n: [a.daifclr(2), a.daifset(2)] and None,
    "msr-daif": lambda a, n: a.msr("DAIF", XZR),
    "el0": _el0,
    "eret-h": lambda a, n: _eret(a, n, EL1H),
    "eret-t": lambda a, n: _eret(a, n, EL1T | DAIF),
    "misaligned": _misaligned,
    "exclusive": _exclusive,
    "counter": _counter,
    "timer": _timer,
    "debug": _debug,
    "fp": _fp,
    "ic": lambda a, n: [a.adr(SCRATCH, "start"), a.sys("DC CVAU", SCRATCH), a.sys("IC IVAU", SCRATCH)] and None,
    "tlbi": lambda a, n: [a.sys("TLBI VMALLE1"), a.dsb(), a.isb()] and None,
    "spsel": lambda a, n: [a.spsel(0), a.sub_imm(31, 31, 16), a.spsel(1)] and None,
}  # fmt: skip


def compose(atoms: Iterable[str]) -> Asm:
    """A program of atoms, in EL1h with everything masked at first, that ends in HVC #STOP."""
    a = Asm()
    a.label("start")
    a.set_vectors()
    a.mov(DATA_X, DATA)
    a.mov(UNMAPPED_X, UNMAPPED)
    for n, name in enumerate(atoms):
        ATOMS[name](a, n)
    a.hvc(STOP)
    a.vectors(handlers)
    sync_handlers(a)
    return a


def stepping_program(steps: int, same_level: bool) -> Asm:
    """A guest's own debugger: EL1 steps code of EL0 (or of EL1, with KDE) ``steps`` times, then
    lets it run."""
    a = Asm()
    a.label("start")
    a.set_vectors()
    a.mov(DATA_X, DATA)
    a.mov(UNMAPPED_X, DATA + 0x1000)
    a.mov(RETURN, steps)
    a.msr_const("MDSCR_EL1", 1 | (1 << 13 if same_level else 0))
    a.drop_to("stepped", SS | (EL1H | 0x1C0 if same_level else EL0T))
    a.label("stepped")
    for n in range(4):
        a.add_imm(1, 1, 1)
        a.cbz(XZR, f"on{n}")
        a.nop()
        a.label(f"on{n}")
        a.mrs(2, "CNTVCT_EL0")
        a.str_post(1, UNMAPPED_X, 8)
    a.svc(1)
    for _ in range(6):
        a.add_imm(1, 1, 1)
    a.hvc(STOP) if same_level else a.svc(STOP)

    def handler(a: Asm, offset: int) -> None:
        a.b(f"sync{offset}")

    a.vectors(handler)
    for offset in range(0, 0x800, 0x80):
        a.label(f"sync{offset}")
        fold(a, "SPSR_EL1", "ELR_EL1", "ESR_EL1")
        a.mrs(20, "ESR_EL1")
        a.lsr(21, 20, 27)
        a.cmp_imm(21, 0x32 >> 1)
        a.b_cond(NE, f"other{offset}")
        a.mrs(21, "ELR_EL1")
        a.str_post(21, DATA_X, 8)
        a.mrs(21, "SPSR_EL1")
        a.mov(22, SS)
        a.orr(21, 21, 22)
        a.subs_imm(RETURN, RETURN, 1)
        a.b_cond(NE, f"again{offset}")
        a.msr("MDSCR_EL1", XZR)
        a.eor(21, 21, 22)
        a.label(f"again{offset}")
        a.msr("SPSR_EL1", 21)
        a.eret()
        a.label(f"other{offset}")
        a.subs_imm(21, 20, 0)
        a.mov(22, 0x15 << 26 | 1 << 25 | STOP)
        a.subs(XZR, 20, 22)
        a.b_cond(NE, f"return{offset}")
        a.hvc(STOP)
        a.label(f"return{offset}")
        a.eret()
    return a


def set_up(factory: EngineFactory, program: Asm) -> Bench:
    """With the MMU on, all pages but the data readable and executable at EL0 too, and UNMAPPED
    unmapped."""
    guest = Bench(factory, program, pstate=DAIF | EL1H)
    guest.set_system("VBAR_EL1", 0)
    guest.set_system("CNTKCTL_EL1", 0x303)
    guest.set_system("SP_EL0", STACK - 0x1000)
    tables = Stage1(guest)
    tables.identity()
    for page in range(program.base, program.here + 0x1000, 0x1000):
        tables.map(page & ~0xFFF, page & ~0xFFF, USER | READ_ONLY)
    for page in range(DATA, DATA + 0x2000, 0x1000):
        tables.map(page, page, USER)
    tables.enable()
    return guest


def run_on(guest: Bench, deadline: int) -> Leave:
    """To the deadline or the end, over the stops for WFE."""
    while (why := guest.run(deadline)) == Leave.STOP and guest.engine.state.wfe:
        guest.engine.state.wfe = 0
        guest.callbacks.log.append(("wfe", guest.engine.pc, guest.count))
    return why


def play(
    factory: EngineFactory,
    program: Asm,
    *,
    stops: Iterable[int] = (),
    interrupts: Iterable[int] = (),
    move: bool = False,
    limit: int = 20_000,
) -> Result:
    """Run a program to its end: stopped at each of ``stops`` (and moved to a fresh engine there),
    with the virtual interrupt raised at each count of ``interrupts``. Stops for a WFE go into the
    log."""
    guest = set_up(factory, program)
    guest.engine.watch_wfe()
    where, raised = set(stops), set(interrupts)
    why = Leave.BUDGET
    for target in sorted(where | raised):
        while why == Leave.BUDGET and guest.count < target:
            why = run_on(guest, target)
        if why != Leave.BUDGET:
            break
        assert guest.count - target in (0, 1), "past the deadline by more than an interrupt"
        if target in raised:
            guest.engine.state.virq = 1
        if move and target in where:
            guest.move()
    if why == Leave.BUDGET:
        why = run_on(guest, limit)
    result = guest.result()
    assert why == Leave.STOP, (why, guest.count, hex(guest.engine.pc))
    guest.close()
    return result
