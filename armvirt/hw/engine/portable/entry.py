"""Exception entry to EL1, and the virtual interrupts that Unicorn's core takes by itself."""

from __future__ import annotations

from armvirt.arch.insn import unmasks_interrupts
from armvirt.arch.named import HCR_EL2, HCR_VF, HCR_VI, SPSR_EL1
from armvirt.arch.pstate import (
    PSTATE_DAIF,
    PSTATE_EL1_ENTRY,
    PSTATE_F,
    PSTATE_I,
    PSTATE_MODE,
    PSTATE_NRW,
    VECTOR_BYTES,
    VECTOR_END,
    VECTOR_LOWER_A32,
    Vector,
    exception_level,
)
from armvirt.hw.engine import abi
from armvirt.hw.engine.base import Engine
from armvirt.hw.engine.portable import marks
from armvirt.hw.engine.state import EVENTS, NO_BLOCK, VECTOR_FAULT_LIMIT, Leave, Stat, What
from armvirt.hw.exception import take_exception

LINE_IRQ, LINE_FIQ = HCR_VI, HCR_VF
assert (LINE_IRQ, LINE_FIQ) == (PSTATE_I, PSTATE_F)  # a line's bit is also its mask bit in PSTATE


def record(engine: Engine, what: What, esr: int, elr: int, target: int) -> None:
    state = engine.state
    if not state.trace:
        return
    if state.events_n == EVENTS:
        engine.flush_events()
    event = state.events[state.events_n]
    event.count, event.elr, event.target, event.what, event.esr = (
        state.count,
        elr,
        target,
        what,
        esr,
    )
    event.ns = state.ns_base + (state.count - state.count_base) * state.ns_per_insn
    state.events_n += 1


def enter_el1(engine: Engine, what: What, esr: int, far: int | None) -> None:
    """Take an exception to EL1 at the present PC. The instruction count increases by one. ``far``
    is None if the exception does not write FAR_EL1."""
    state, pstate, pc = engine.state, engine.pstate, engine.pc
    vbar, sync = engine.read(abi.R_VBAR_EL1), what == What.SYNC
    target = take_exception(engine, Vector(what * VECTOR_BYTES), esr if sync else None, far)
    record(engine, what, esr, pc, target)
    state.count += 1
    in_vectors = exception_level(pstate) > 0 and 0 <= pc - vbar < VECTOR_END
    _watch_vectors(engine, sync and in_vectors, pc)


def _watch_vectors(engine: Engine, in_vectors: bool, pc: int) -> None:
    """Count the faults of the exception vectors. Leave with VECTOR_LOOP if VECTOR_FAULT_LIMIT
    synchronous exceptions in a row come from the same PC in the vectors. ``pc`` is the PC of the
    present exception. ``in_vectors`` is True if this exception is synchronous and ``pc`` is in the
    vectors."""
    state = engine.state
    if in_vectors and pc == state.last_vector_elr:
        state.vector_faults += 1
        if state.vector_faults >= VECTOR_FAULT_LIMIT:
            state.vector_faults = 0
            engine.leave(Leave.VECTOR_LOOP)
    else:
        state.vector_faults = 0
    state.last_vector_elr = pc


def apply_lines(engine: Engine) -> None:
    """Take a virtual interrupt that is signalled and not masked. If a signalled interrupt is
    masked, set its bit (VI or VF) in HCR_EL2 of Unicorn's core. The core then takes the interrupt
    when the guest unmasks it."""
    state = engine.state
    lines = (LINE_IRQ if state.virq else 0) | (LINE_FIQ if state.vfiq else 0)
    if lines:
        ps = engine.pstate
        if state.vfiq and not ps & LINE_FIQ:
            state.stats[Stat.IRQ_MANUAL] += 1
            enter_el1(engine, What.FIQ, 0, None)
        elif state.virq and not ps & LINE_IRQ:
            state.stats[Stat.IRQ_MANUAL] += 1
            enter_el1(engine, What.IRQ, 0, None)
    if lines != state.lines_in_engine:
        state.lines_in_engine = lines
        engine.write_system(HCR_EL2, state.hcr | lines)


def _native_irq(engine: Engine, pc: int) -> What | None:
    """Return `What.IRQ` or `What.FIQ` if Unicorn's core has just taken a virtual IRQ or FIQ by
    itself. The core takes a pending virtual interrupt when the guest unmasks it. Returns None if
    the core has taken no interrupt. ``pc`` is the address of the next instruction."""
    state, kind = engine.state, pc >> 7 & 3
    if (
        kind not in (1, 2)
        or pc & VECTOR_BYTES - 1
        or not state.lines_in_engine & (LINE_IRQ if kind == 1 else LINE_FIQ)
    ):
        return None
    if (
        not state.open
        or engine.pstate & (PSTATE_DAIF | PSTATE_NRW | PSTATE_MODE) != PSTATE_EL1_ENTRY
    ):
        return None
    offset = pc & VECTOR_END - 1
    if offset >= VECTOR_LOWER_A32 or engine.read(abi.R_VBAR_EL1) != pc - offset:
        return None
    if engine.read_system(SPSR_EL1) & (LINE_IRQ if kind == 1 else LINE_FIQ):
        return None  # the interrupt was masked, so the guest has jumped to the vector
    return (
        What(kind)
        if unmasks_interrupts(engine.fetch(state.block_pc + 4 * (state.open - 1)))
        else None
    )


def note_native_irq(engine: Engine, pc: int) -> None:
    what = _native_irq(engine, pc)
    if what is None:
        return
    state = engine.state
    state.stats[Stat.IRQ_NATIVE] += 1
    if state.marks:
        marks.retire(engine, state.open)
    state.count += state.open
    state.open, state.block_pc = 0, NO_BLOCK
    record(engine, what, 0, engine.read(abi.R_ELR_EL1), pc)
    state.count += 1
    state.unreported = state.wfe_watch
