"""Exception entry to EL1, case by case (DDI 0487 D1.3, AArch64.TakeException), on both engines."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from asm import Asm

from armvirt.arch.gic import ICC_REGISTERS
from armvirt.arch.insn import mrs
from armvirt.hw.engine import Action, Leave, What
from armvirt.hw.engine.state import Stat
from engine.bench import (
    DAIF,
    DATA,
    EL0T,
    EL1H,
    EL1T,
    IAR1,
    RAM,
    READ_ONLY,
    STACK,
    STOP,
    UNDEF_ESR,
    USER,
    Bench,
    Stage1,
    Stage2,
    stop_vectors,
    vector_that_stopped,
)

MakeBench = Callable[..., Bench]


MARK = 0x5EED_0000_1234
N, C = 1 << 31, 1 << 29
D, A, IRQ, FIQ = 1 << 9, 1 << 8, 1 << 7, 1 << 6
SVC64, BRK64, SMC64 = 0x15 << 26 | 1 << 25, 0x3C << 26 | 1 << 25, 0x17 << 26 | 1 << 25
GROUPS = {EL1T: 0x000, EL1H: 0x200, EL0T: 0x400}
ORIGINS = pytest.mark.parametrize("mode", [EL1T, EL1H, EL0T], ids=["EL1t", "EL1h", "EL0"])


def start(
    make: MakeBench,
    write: Callable[[Asm], None],
    mode: int = EL1H,
    masks: int = DAIF,
    flags: int = 0,
) -> Bench:
    """A program with stopping vectors, about to run its first instruction in ``mode``."""
    program = Asm()
    write(program)
    stop_vectors(program)
    bench = make(program, pstate=flags | masks | mode)
    bench.set_system("VBAR_EL1", program["vectors"])
    return bench


def entry(bench: Bench, which: int = 0) -> dict[str, object]:
    """The record of an exception entry, by name."""
    return dict(
        zip(
            ("what", "elr", "target", "esr", "count", "ns"),
            bench.callbacks.of("entry")[which],
            strict=True,
        )
    )


# Where to, and what is saved --------------------------------------------------------------------


@ORIGINS
@pytest.mark.parametrize("kind", [What.SYNC, What.IRQ, What.FIQ], ids=["sync", "irq", "fiq"])
def test_every_vector_that_exists(bench: MakeBench, mode: int, kind: What) -> None:
    """VBAR + group of the origin + 0x80 times the kind; SPSR, ELR, PSTATE, and the record say the
    same."""
    guest = start(bench, lambda a: a.svc(7), mode, masks=D | A, flags=N | C)
    guest.engine.state.virq, guest.engine.state.vfiq = int(kind == What.IRQ), int(kind == What.FIQ)
    assert guest.run() == Leave.STOP
    offset = GROUPS[mode] + 0x80 * kind
    assert vector_that_stopped(guest) == offset
    assert guest.system("SPSR_EL1") == N | C | D | A | mode
    assert guest.engine.pstate == N | C | DAIF | EL1H
    elr = RAM + 4 if kind == What.SYNC else RAM
    assert guest.system("ELR_EL1") == elr
    esr = SVC64 | 7 if kind == What.SYNC else 0
    target = guest.system("VBAR_EL1") + offset
    assert entry(guest) == {
        "what": kind,
        "elr": elr,
        "target": target,
        "esr": esr,
        "count": 0,
        "ns": 0,
    }
    assert guest.count == 2, "the entry, and the HVC in the vector"


@pytest.mark.parametrize("lost", [1 << 21, 1 << 20], ids=["SS", "IL"])
def test_ss_and_il_do_not_survive_an_entry(bench: MakeBench, lost: int) -> None:
    guest = start(bench, lambda a: a.nop(), masks=0, flags=lost)
    guest.engine.state.virq = 1
    guest.run()
    assert guest.system("SPSR_EL1") == lost | EL1H and guest.engine.pstate == DAIF | EL1H


def test_stack_pointers_are_banked(bench: MakeBench) -> None:
    """SP_EL0 belongs to EL0 and EL1t, SP_EL1 to EL1h, through entries from each and back by
    ERET."""

    def write(a: Asm) -> None:
        a.msr_const("SP_EL0", STACK - 0x1000)
        a.drop_to("user", DAIF | EL0T)
        a.label("user")
        a.sub_imm(31, 31, 16)
        a.svc()  # to 0x400, which goes on in EL1t
        a.label("thread")
        a.from_sp(3)
        a.sub_imm(31, 31, 16)
        a.svc()  # to 0x000
        a.label("handler")
        a.from_sp(4)
        a.sub_imm(31, 31, 32)
        a.svc()  # to 0x200
        a.hvc(STOP)

    def handler(a: Asm, offset: int) -> None:
        a.from_sp(1 if offset == 0x400 else 2 if offset == 0x000 else 5)
        a.mrs(6 if offset == 0x400 else 7 if offset == 0x000 else 8, "SP_EL0")
        if offset == 0x400:
            a.drop_to("thread", DAIF | EL1T)
        elif offset == 0x000:
            a.b("handler")
        else:
            a.eret()

    program = Asm()
    program.set_vectors()
    write(program)
    program.vectors(handler)
    guest = bench(program)
    assert guest.run() == Leave.STOP
    user, kernel = STACK - 0x1000, STACK
    assert [guest.x(n) for n in (1, 6)] == [kernel, user - 16], "in the handler of EL0's SVC"
    assert guest.x(3) == user - 16, "EL1t goes on with SP_EL0"
    assert [guest.x(n) for n in (2, 7, 4)] == [kernel, user - 32, kernel], (
        "in the handler of EL1t's SVC"
    )
    assert [guest.x(n) for n in (5, 8)] == [kernel - 32, user - 32], "same level: the stack goes on"
    assert guest.engine.sp == kernel - 32


@pytest.mark.parametrize(
    ("write", "esr"),
    [
        (lambda a: a.svc(1), SVC64 | 1),
        (lambda a: a.brk(9), BRK64 | 9),
        (lambda a: a.udf(), UNDEF_ESR),
        (lambda a: a.hlt(1), UNDEF_ESR),
    ],
    ids=["svc", "brk", "udf", "hlt"],
)
def test_far_is_kept_by_all_but_aborts(
    bench: MakeBench, write: Callable[[Asm], None], esr: int
) -> None:
    guest = start(bench, write)
    guest.set_system("FAR_EL1", MARK)
    guest.run()
    assert guest.system("FAR_EL1") == MARK and guest.system("ESR_EL1") == esr
    assert guest.system("ELR_EL1") == (RAM + 4 if esr >> 26 == 0x15 else RAM)


@pytest.mark.parametrize("kind", ["virq", "vfiq"])
def test_interrupts_keep_far_and_esr(bench: MakeBench, kind: str) -> None:
    guest = start(bench, lambda a: a.nop(), masks=0)
    guest.set_system("FAR_EL1", MARK)
    guest.set_system("ESR_EL1", MARK & 0xFFFF_FFFF)
    setattr(guest.engine.state, kind, 1)
    guest.run()
    assert guest.system("FAR_EL1") == MARK and guest.system("ESR_EL1") == MARK & 0xFFFF_FFFF


NOWHERE = 0x60_1230


@ORIGINS
def test_a_data_abort_sets_far(bench: MakeBench, mode: int) -> None:
    """EC 0x25 from the same level, 0x24 from EL0; WnR and the fault's level are in the ISS."""

    def write(a: Asm) -> None:
        a.mov(1, NOWHERE)
        a.str_(2, 1, 8)

    guest = start(bench, write, mode)
    guest.set_system("FAR_EL1", MARK)
    tables = Stage1(guest)
    tables.identity()
    if mode == EL0T:
        tables.map(RAM, RAM, USER | READ_ONLY)
    tables.enable()
    guest.run()
    assert guest.system("FAR_EL1") == NOWHERE + 8 and guest.system("ELR_EL1") == RAM + 8
    esr = guest.system("ESR_EL1")
    assert esr >> 26 == (0x24 if mode == EL0T else 0x25)
    assert esr & 0x7F == 1 << 6 | 0x05, "a write; translation fault, level 1"


@ORIGINS
def test_an_instruction_abort_sets_far(bench: MakeBench, mode: int) -> None:
    def write(a: Asm) -> None:
        a.mov(1, NOWHERE)
        a.br(1)

    guest = start(bench, write, mode)
    tables = Stage1(guest)
    tables.identity()
    if mode == EL0T:
        tables.map(RAM, RAM, USER | READ_ONLY)
    tables.enable()
    guest.run()
    assert guest.system("FAR_EL1") == guest.system("ELR_EL1") == NOWHERE
    assert guest.system("ESR_EL1") >> 26 == (0x20 if mode == EL0T else 0x21)
    assert entry(guest)["count"] == 3, "the branch is complete"


def test_sp_alignment_keeps_far(bench: MakeBench) -> None:
    def write(a: Asm) -> None:
        a.ldr(0, 31)

    guest = start(bench, write)
    guest.set_system("SCTLR_EL1", guest.system("SCTLR_EL1") | 1 << 3)
    guest.set_system("FAR_EL1", MARK)
    guest.engine.sp = STACK + 8
    guest.engine.rebuild_flags()
    guest.run()
    if guest.system("ESR_EL1") >> 26 == 0x26:  # this core does not check SP; if it did, without FAR
        assert guest.system("FAR_EL1") == MARK


# Interrupts -------------------------------------------------------------------------------------


def test_a_pending_interrupt_goes_before_the_instruction(bench: MakeBench) -> None:
    """IRQ unmasked and pending at an SVC: the IRQ is taken first, its ELR is the SVC, which runs
    afterwards."""

    def handler(a: Asm, offset: int) -> None:
        if offset == 0x280:
            a.mrs(0, IAR1)
            a.eret()
        else:
            a.hvc(STOP)

    program = Asm()
    program.svc(3)
    program.vectors(handler)
    guest = bench(program, pstate=EL1H)
    guest.set_system("VBAR_EL1", program["vectors"])
    guest.engine.state.virq = 1
    guest.run()
    assert [(line[0], line[1]) for line in guest.callbacks.of("entry")] == [
        (What.IRQ, RAM),
        (What.SYNC, RAM + 4),
    ]


def test_fiq_goes_before_irq(bench: MakeBench) -> None:
    guest = start(bench, lambda a: a.nop(), masks=0)
    guest.engine.state.virq = guest.engine.state.vfiq = 1
    guest.run()
    assert vector_that_stopped(guest) == 0x300


@pytest.mark.parametrize(("mask", "vector"), [(FIQ, 0x280), (IRQ, 0x300)], ids=["F", "I"])
def test_each_mask_holds_back_its_own_interrupt(bench: MakeBench, mask: int, vector: int) -> None:
    guest = start(bench, lambda a: a.nop(), masks=mask)
    guest.engine.state.virq = guest.engine.state.vfiq = 1
    guest.run()
    assert vector_that_stopped(guest) == vector


def test_an_injected_abort_goes_before_a_pending_interrupt(bench: MakeBench) -> None:
    """ENTER while an interrupt becomes pending: the entry masks it, the handler's unmask takes
    it."""
    program = Asm()
    program.hvc(1)

    def handler(a: Asm, offset: int) -> None:
        if offset == 0x200:
            a.daifclr(2)
        a.hvc(STOP)

    program.vectors(handler)
    guest = bench(program, pstate=EL1H)
    guest.set_system("VBAR_EL1", program["vectors"])

    def inject() -> int:
        state = guest.engine.state
        state.virq, state.enter_esr, state.enter_has_far, state.enter_far = (
            1,
            0x25 << 26 | 0x10,
            1,
            MARK,
        )
        return Action.ENTER

    guest.callbacks.on_hvc[1] = inject
    guest.run()
    sync, irq = entry(guest, 0), entry(guest, 1)
    assert sync["what"] == What.SYNC and sync["elr"] == RAM + 4 and guest.system("FAR_EL1") == MARK
    assert irq["what"] == What.IRQ and irq["elr"] == program["vectors"] + 0x204
    assert [sync["count"], irq["count"]] == [1, 3]


def daifclr(a: Asm) -> None:
    a.daifclr(3)


def msr_daif(a: Asm) -> None:
    a.msr("DAIF", 31)


UNMASKS = pytest.mark.parametrize("unmask", [daifclr, msr_daif])


@UNMASKS
@pytest.mark.parametrize(("line", "what"), [("virq", What.IRQ), ("vfiq", What.FIQ)])
def test_the_core_takes_an_interrupt_where_it_is_unmasked(
    bench: MakeBench, unmask: Callable[[Asm], None], line: str, what: What
) -> None:
    """Masked and pending: taken right behind the MSR; ELR, count and record are exact."""

    def write(a: Asm) -> None:
        a.nop()
        a.nop()
        unmask(a)
        a.label("after")
        a.nop()
        a.hvc(STOP)

    guest = start(bench, write)
    setattr(guest.engine.state, line, 1)
    guest.run()
    offset = 0x200 + 0x80 * what
    assert vector_that_stopped(guest) == offset
    assert (
        guest.system("ELR_EL1") == RAM + 12
        and guest.system("SPSR_EL1") & (FIQ | IRQ | 0x1F) == EL1H
    )
    target = guest.system("VBAR_EL1") + offset
    assert entry(guest) == {
        "what": what,
        "elr": RAM + 12,
        "target": target,
        "esr": 0,
        "count": 3,
        "ns": 3,
    }
    assert (
        guest.count == 5
        and guest.engine.state.stats[Stat.IRQ_NATIVE] == 1
        and guest.engine.state.stats[Stat.IRQ_MANUAL] == 0
    )


@ORIGINS
def test_eret_takes_a_pending_interrupt(bench: MakeBench, mode: int) -> None:
    """ELR is where ERET goes, not an instruction of the target has run; the group is the
    target's."""

    def write(a: Asm) -> None:
        a.drop_to("target", mode)
        a.label("target")
        a.mov(7, 1)
        a.hvc(STOP)

    guest = start(bench, write)
    guest.engine.state.virq = 1
    guest.run()
    assert vector_that_stopped(guest) == GROUPS[mode] + 0x80
    target = RAM + 20
    assert (
        guest.system("ELR_EL1") == target and guest.system("SPSR_EL1") == mode and guest.x(7) == 0
    )
    assert entry(guest)["count"] == 5 and entry(guest)["elr"] == target and guest.count == 7


def test_unmasking_one_kind_leaves_the_other_pending(bench: MakeBench) -> None:
    def write(a: Asm) -> None:
        a.daifclr(1)  # F only
        a.nop()
        a.daifclr(2)  # I: taken here
        a.hvc(STOP)

    guest = start(bench, write)
    guest.engine.state.virq = 1
    guest.run()
    assert entry(guest)["elr"] == RAM + 12 and vector_that_stopped(guest) == 0x280


def test_a_line_that_falls_before_the_unmask_is_not_taken(bench: MakeBench) -> None:
    def write(a: Asm) -> None:
        a.mrs(0, IAR1)
        a.daifclr(2)
        a.nop()
        a.hvc(STOP)

    guest = start(bench, write)
    guest.engine.state.virq = 1
    guest.run()
    assert not guest.callbacks.of("entry") and guest.count == 4


def test_an_unmask_that_masks_again_is_no_gap(bench: MakeBench) -> None:
    """CPSR-style windows: DAIFClr and DAIFSet in a row have one instruction boundary between them,
    and it is enough."""

    def write(a: Asm) -> None:
        a.daifclr(2)
        a.daifset(2)
        a.hvc(STOP)

    guest = start(bench, write)
    guest.engine.state.virq = 1
    guest.run()
    assert entry(guest)["elr"] == RAM + 4


def test_interrupts_of_a_handler_that_does_not_acknowledge(bench: MakeBench) -> None:
    """The line stays high: taken again right behind each ERET, one entry and one ERET at a time."""
    program = Asm()
    program.set_vectors()
    program.daifclr(2)
    program.label("after")
    program.nop()
    program.hvc(STOP)

    def handler(a: Asm, offset: int) -> None:
        if offset == 0x280:
            a.add_imm(5, 5, 1)
            a.cmp_imm(5, 4)
            a.b_cond(1, "again")
            a.mrs(0, IAR1)
        a.eret()

    program.label("again")
    program.eret()
    program.vectors(handler)
    guest = bench(program)
    guest.engine.state.virq = 1
    guest.run()
    assert [line[1] for line in guest.callbacks.of("entry")] == [program["after"]] * 4


# UNDEFINED at EL0 -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "write",
    [
        lambda a: a.hvc(1),
        lambda a: a.smc(1),
        lambda a: a.mrs(0, IAR1),
        lambda a: a.msr(ICC_REGISTERS["ICC_SGI1R_EL1"], 0),
        lambda a: a.mrs(0, "SCTLR_EL1"),
        lambda a: a.eret(),
        lambda a: a.daifclr(2),
    ],
    ids=["hvc", "smc", "icc-read", "icc-write", "sctlr", "eret", "daifclr"],
)
def test_el0_may_not(bench: MakeBench, write: Callable[[Asm], None]) -> None:
    """UNDEFINED (EC 0, with IL), at the instruction; only MSR DAIFClr has a syndrome of its own, EC
    0x18."""
    guest = start(bench, lambda a: (a.nop(), write(a))[0], EL0T, masks=0)
    guest.run()
    assert vector_that_stopped(guest) == 0x400
    esr = guest.system("ESR_EL1")
    assert esr == UNDEF_ESR or (esr >> 26 == 0x18 and esr & 1 << 25)
    assert (esr >> 26 == 0x18) == (write.__code__.co_names == ("daifclr",))
    assert guest.system("ELR_EL1") == RAM + 4 and entry(guest)["count"] == 1
    assert len(guest.callbacks.of("el2")) == 1, "none of it reaches EL2 but the vector's own HVC"


def test_smc_at_el1_is_for_el2(bench: MakeBench) -> None:
    guest = start(bench, lambda a: (a.smc(5), a.hvc(STOP))[0])
    guest.run()
    smc, _ = guest.callbacks.of("el2")
    assert smc[0] == SMC64 | 5 and smc[2] == RAM
    assert not guest.callbacks.of("entry")


# Illegal exception returns ----------------------------------------------------------------------

ILLEGAL = {
    "AArch32": 0x10, "AArch32-svc": 0x13, "EL2h": 9, "EL3h": 13, "reserved-1": 1, "reserved-6": 6, "IL": 1 << 20 | EL1H,
}  # fmt: skip


@pytest.mark.parametrize(
    "spsr",
    [pytest.param(v, id=k) for k, v in ILLEGAL.items()],
)
def test_an_illegal_return_stays_in_el1(bench: MakeBench, spsr: int) -> None:
    """PSTATE.IL is set and the next instruction is not executed: EC 0x0E, ELR at the target (DDI
    0487 D1.4.4)."""

    def write(a: Asm) -> None:
        a.drop_to("target", spsr | DAIF)
        a.label("target")
        a.mov(7, 1)
        a.hvc(STOP)

    guest = start(bench, write)
    guest.run()
    assert vector_that_stopped(guest) == 0x200
    assert guest.system("ESR_EL1") == 0x0E << 26 | 1 << 25 and guest.x(7) == 0
    assert guest.system("SPSR_EL1") & (1 << 20 | 0x1F) == 1 << 20 | EL1H
    last = guest.callbacks.of("entry")[-1]
    assert last[1] == guest.system("ELR_EL1") == RAM + 4 * (5 + (spsr > 0xFFFF))


# Guests that cannot go on -----------------------------------------------------------------------


def test_a_fault_in_the_vector_of_faults(bench: MakeBench) -> None:
    """UDF at VBAR + 0x200: the same fault at the same place for ever is reported, not executed for
    ever."""
    program = Asm()
    program.udf()
    program.vectors(lambda a, offset: a.udf())
    guest = bench(program)
    guest.set_system("VBAR_EL1", program["vectors"])
    assert guest.run() == Leave.VECTOR_LOOP
    assert {line[2] for line in guest.callbacks.of("entry")} == {program["vectors"] + 0x200}
    assert 16 <= guest.count <= 20
    assert guest.run() == Leave.VECTOR_LOOP, "and again, if run again"


def test_vectors_that_are_not_mapped(bench: MakeBench) -> None:
    """Each entry's fetch faults: EC 0x21, FAR the vector."""
    guest = start(bench, lambda a: a.svc())
    tables = Stage1(guest)
    tables.identity()
    tables.enable()
    guest.set_system("VBAR_EL1", 0x1_0000_0000)
    assert guest.run() == Leave.VECTOR_LOOP
    assert guest.system("FAR_EL1") == guest.system("ELR_EL1") == 0x1_0000_0200
    assert guest.system("ESR_EL1") >> 26 == 0x21


def test_faults_that_alternate_are_no_loop(bench: MakeBench) -> None:
    """A handler that faults at two places in turn makes progress of a kind: only a limit ends
    it."""
    program = Asm()
    program.udf()

    def handler(a: Asm, offset: int) -> None:
        if offset == 0x200:
            a.eor(1, 1, 2)
            a.cbz(1, "other")
            a.udf()
            a.label("other")
            a.udf()

    program.vectors(handler)
    guest = bench(program)
    guest.set_system("VBAR_EL1", program["vectors"])
    guest.engine.set_x(2, 1)
    assert guest.run(500) == Leave.BUDGET and guest.count == 500


def test_many_faults_at_el0_are_no_loop(bench: MakeBench) -> None:
    program = Asm()
    program.drop_to("user", EL0T)
    program.label("user")
    program.svc()
    program.vectors(lambda a, offset: a.drop_to("user", EL0T))
    guest = bench(program)
    guest.set_system("VBAR_EL1", program["vectors"])
    assert guest.run(1000) == Leave.BUDGET and guest.count == 1000


@pytest.mark.parametrize("taken", ["at once", "natively"])
def test_an_interrupt_whose_vector_cannot_be_fetched(bench: MakeBench, taken: str) -> None:
    """The interrupt is entered and counted, then its vector's fetch aborts as a second
    exception."""

    def write(a: Asm) -> None:
        a.nop()
        if taken == "natively":
            a.daifclr(2)
        a.nop()

    guest = start(bench, write, masks=DAIF if taken == "natively" else 0)
    tables = Stage1(guest)
    tables.identity()
    tables.enable()
    vbar = 0x1_0000_0000
    guest.set_system("VBAR_EL1", vbar)
    guest.engine.state.virq = 1
    assert guest.run() == Leave.VECTOR_LOOP
    irq, abort = entry(guest, 0), entry(guest, 1)
    before = 2 if taken == "natively" else 0
    assert irq["what"] == What.IRQ and irq["elr"] == RAM + 4 * before and irq["count"] == before
    assert (
        abort["what"] == What.SYNC and abort["elr"] == vbar + 0x280 and abort["count"] == before + 1
    )
    assert abort["target"] == vbar + 0x200


@pytest.mark.parametrize("taken", ["at once", "natively"])
def test_an_interrupt_whose_vector_stage_2_lacks(bench: MakeBench, taken: str) -> None:
    """EL2 repairs the fault and retries: one entry, and nothing is counted twice."""

    def write(a: Asm) -> None:
        a.nop()
        if taken == "natively":
            a.daifclr(2)
        a.nop()
        a.hvc(STOP)
        a.align(4096)

    guest = start(bench, write, masks=DAIF if taken == "natively" else 0)
    tables = Stage2(guest)
    tables.identity()
    vector = guest.system("VBAR_EL1") + 0x280
    tables.set_entry(vector, 0)
    tables.enable()

    exits = guest.callbacks.el2_exit

    def repair() -> int:
        if guest.engine.state.esr >> 26 == 0x20:
            guest.callbacks.log.append(
                ("fetch", guest.engine.state.pc, guest.engine.state.ipa & ~0xFFF, guest.count)
            )
            tables.map(vector & ~0xFFF, vector & ~0xFFF)
            return Action.RETRY
        return exits()

    guest.callbacks.el2_exit = repair  # type: ignore[method-assign]
    guest.engine.state.virq = 1
    assert guest.run() == Leave.STOP
    before = 2 if taken == "natively" else 0
    assert vector_that_stopped(guest) == 0x280 and len(guest.callbacks.of("entry")) == 1
    assert guest.callbacks.of("fetch") == [(vector, vector & ~0xFFF, before + 1)]
    assert entry(guest)["count"] == before and guest.count == before + 2


SPINS: dict[str, Callable[[Asm], None]] = {
    "b": lambda a: a.b("self"),
    "cbz": lambda a: a.cbz(2, "self"),
    "br": lambda a: a.br(1),
}


@pytest.mark.parametrize("write", SPINS.values(), ids=SPINS)
def test_a_branch_to_itself_is_noticed(bench: MakeBench, write: Callable[[Asm], None]) -> None:
    """Only an interrupt ends it: the engine comes back and says so, long before the deadline."""

    def program(a: Asm) -> None:
        a.adr(1, "self")
        a.label("self")
        write(a)

    guest = start(bench, program, masks=0)
    assert guest.run(10**12) == Leave.BUDGET
    assert guest.engine.state.spin == 1 and guest.count < 10 and guest.engine.pc == RAM + 4
    guest.engine.state.virq = 1
    assert guest.run() == Leave.STOP and guest.engine.state.spin == 0
    assert guest.system("ELR_EL1") == RAM + 4


def test_a_loop_of_two_is_no_spin(bench: MakeBench) -> None:
    def program(a: Asm) -> None:
        a.label("loop")
        a.add_imm(1, 1, 1)
        a.b("loop")

    guest = start(bench, program)
    assert guest.run(10_001) == Leave.BUDGET
    assert guest.engine.state.spin == 0 and guest.count == 10_001 and guest.x(1) == 5001


def test_a_loop_of_one_that_ends_is_executed(bench: MakeBench) -> None:
    """A one-instruction loop whose own fault ends it is none: SVC to itself by way of a handler."""

    def program(a: Asm) -> None:
        a.label("self")
        a.svc()

    guest = start(bench, program)
    guest.run()
    assert guest.engine.state.spin == 0 and vector_that_stopped(guest) == 0x200


# An interrupt that only looks like one ----------------------------------------------------------


def test_a_return_to_the_vector_is_no_interrupt(bench: MakeBench) -> None:
    """ERET to VBAR + 0x280 with I masked, an interrupt pending: a jump, counted as such, not an
    entry."""
    program = Asm()
    program.adr(1, "vectors")
    program.add_imm(1, 1, 0x280)
    program.msr("ELR_EL1", 1)
    program.msr_const("SPSR_EL1", DAIF | EL1H)
    program.eret()
    stop_vectors(program)
    guest = bench(program)
    guest.set_system("VBAR_EL1", program["vectors"])
    guest.engine.state.virq = 1
    guest.run()
    assert vector_that_stopped(guest) == 0x280
    assert not guest.callbacks.of("entry") and guest.count == 7


def test_low_bits_of_vbar_are_ignored(bench: MakeBench) -> None:
    """VBAR_EL1[10:0] are RES0 (DDI 0487 D17.2.152): an interrupt and an SVC land in the aligned
    table."""

    def write(a: Asm) -> None:
        a.adr(9, "vectors")
        a.add_imm(9, 9, 0x40)
        a.msr("VBAR_EL1", 9)
        a.daifclr(2)
        a.nop()

    guest = start(bench, write)
    guest.engine.state.virq = 1
    assert guest.run(100) == Leave.STOP
    assert vector_that_stopped(guest) == 0x280 and entry(guest)["elr"] == RAM + 16


def test_trapped_icc_access_of_el1_is_not_undefined(bench: MakeBench) -> None:
    guest = start(bench, lambda a: (a.mov(1, DATA), a.mrs(0, IAR1), a.hvc(STOP))[0])
    guest.run()
    assert guest.callbacks.of("undefined") == [(mrs(IAR1, 0), 0, 0, RAM + 8, 2)]
