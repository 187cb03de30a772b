"""Find the special instructions of a translated block and apply their effects.

The special instructions (the *marks* of the block) set, clear or wait for the event register (WFE,
SEV, SEVL, ERET; DDI 0487 D1.6.1), or end the time slice (YIELD).
"""

from __future__ import annotations

from armvirt.arch.insn import ERET, SEV, SEVL, WFE, YIELD
from armvirt.hw.engine.base import Engine
from armvirt.hw.engine.state import Callback, Marks, Stat, Waits

LAST_WORDS = {WFE: Marks.WFE, YIELD: Marks.YIELD, ERET: Marks.ERET}
MARKED_ADDRESSES = 1 << 16  # the maximum number of addresses that the engine remembers


class Everywhere(set[int]):
    """A set that contains every address. The engine keeps a set with the addresses of blocks that
    have special instructions (marks). When this set has more than MARKED_ADDRESSES elements, an
    `Everywhere` replaces the set. The engine then examines every block for special instructions."""

    def __contains__(self, pc: object) -> bool:
        return True

    def add(self, pc: int) -> None:
        pass


def marks_of(engine: Engine, pc: int, size: int) -> tuple[int, int, int]:
    """Find the special instructions (marks) in the code of a translated block. ``pc`` is the
    virtual address of the block, and ``size`` is its length in bytes.

    Returns (`Marks` bits, index of the first SEV, index of the first SEVL). The first instruction
    of the block has index 0, and the second has index 1. If the block has no SEV or no SEVL, the
    number ``size`` replaces the index. ``size`` is greater than every index in the block.

    If the code is not readable, the bit UNREAD is set. A translated block never crosses a page
    boundary, so one address translation is sufficient.
    """
    pa = engine.translate(pc, execute=True)
    if pa is None:
        return Marks.UNREAD, 0, 0
    words = memoryview(engine.read_physical(pa, size)).cast("I").tolist()
    marks, sev, sevl = LAST_WORDS.get(words[-1], 0), size, size
    if SEV in words:
        marks, sev = marks | Marks.SEV, words.index(SEV)
    if SEVL in words:
        marks, sevl = marks | Marks.SEVL, words.index(SEVL)
    return marks, sev, sevl


def open_marked(engine: Engine, pc: int, size: int) -> None:
    """At the start of a block, find its special instructions (marks) and store them in the state.
    This is done at each execution of the block. Between two executions the guest may have switched
    to an address space with other code at the same address."""
    state = engine.state
    state.marks, state.block_sev, state.block_sevl = marks_of(engine, pc, size)
    if state.marks & (
        Marks.WFE | Marks.YIELD
    ):  # the core starts again after this block, without a call of _on_edge
        state.unreported = state.wfe_watch


def retire(engine: Engine, done: int, can_wait: bool = True) -> None:
    """Apply the effects of the special instructions (marks) in the block that is executing.
    ``done`` is the number of instructions of the block that have retired.

    SEVL and ERET set the event register of this CPU. SEV sets the event registers of all CPUs. A
    WFE at the end of the block completes if the event register is set, and clears the event
    register. If the event register is clear, the run ends after the WFE (DDI 0487 D1.6.1).
    ``can_wait`` is False if the guest executes a software step. In this case the WFE always
    completes.
    """
    state, end = engine.state, engine.state.count + done
    marks, state.marks = state.marks, 0
    if marks & Marks.UNREAD:
        marks, state.block_sev, state.block_sevl = marks_of(engine, state.block_pc, 4 * state.open)
    if marks & Marks.SEVL and state.block_sevl < done:
        state.event_register = 1
    if marks & Marks.SEV and state.block_sev < done:
        state.event_register = 1
        state.value = state.count + state.block_sev + 1
        if state.broadcast:
            engine.dispatch(Callback.SEV)
    if not done or done < state.open:
        return
    if marks & Marks.ERET:
        state.event_register = 1
    if marks & Marks.WFE:
        state.stats[Stat.WFE] += 1
        if state.event_register or not can_wait:
            state.event_register = 0
            state.event_cleared = state.ns_base + (end - state.count_base) * state.ns_per_insn
        else:
            state.wfe, state.stop = Waits.WFE, 1
    if marks & Marks.YIELD and end >= state.yield_at:
        state.wfe, state.stop = Waits.YIELD, 1
