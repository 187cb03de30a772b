"""Detect loops that may be polled waits, for the portable engine. A polled wait is a loop that only
polls a counter, a timer or RAM. waits.h does the same in C.

A detected loop is only a suspect: `armvirt.hw.engine.waits` proves whether it can be skipped.
Therefore the two engines may detect a loop at different times, and the result of the run is still
the same. `read` and `block` return the number of skipped instructions, which the caller adds to the
instruction count.
"""

from __future__ import annotations

from armvirt.hw.engine import abi
from armvirt.hw.engine.base import Engine
from armvirt.hw.engine.state import (
    FIRST_ASK,
    LONGEST_WATCH_PERIOD,
    MOST_REFUSALS,
    SITES,
    WATCH_WORTH,
    WATCHED_BLOCKS,
    Callback,
    Stat,
)
from armvirt.hw.polling import LONGEST_ROUND

_WATCHED = [abi.x_register(n) for n in range(31)] + [abi.R_SP]


def read(engine: Engine, pc: int, count: int) -> int:
    """Handle an MRS of a counter or of ISTATUS at ``pc``. ``count`` is the instruction count before
    the MRS.

    If the MRS has executed several times at equal distances in instructions, it may be in a polling
    loop. Then try to skip iterations of this loop. Returns the number of skipped instructions.
    """
    state = engine.state
    site, run = state.sites[pc >> 2 & SITES - 1], state.stats[Stat.RUN]
    distance, site.count = count - site.count, count
    if site.pc != pc:
        site.pc, site.refusals, site.run = pc, 0, 0
    if site.run != run or distance != site.distance or distance > LONGEST_ROUND:
        site.run, site.distance, site.returns = run, distance, 0
        return 0
    site.returns += 1
    if site.returns < state.first_ask << site.refusals or state.tail or state.stop:
        return 0
    site.returns = 0
    added, refused = _ask(engine, pc, count)
    site.refusals = min(site.refusals + 1, MOST_REFUSALS) if refused else 0
    site.count += added
    return added


def block(engine: Engine, pc: int, count: int) -> int:
    """Handle the start of a block at ``pc``. ``count`` is the instruction count at this start. The
    engine calls this function every POLL_INSNS instructions, and at each block while a *watch* is
    active.

    A watch compares three consecutive starts of one block: A (where the watch begins), B and C. The
    block may be in a polling loop if the registers are the same at B and at C, and the number of
    instructions from A to B is equal to the number from B to C. In this case `block` tries to skip
    iterations of the loop. Returns the number of skipped instructions.
    """
    state = engine.state
    if not state.watch_left:
        _begin(engine, pc, count)
        return 0
    state.watch_left -= 1
    if pc != state.watch_pc:
        if not state.watch_left:
            _lengthen_period(engine)
        return 0
    registers = [engine.read(n) for n in _WATCHED] + [engine.pstate]
    distance, state.watch_count = count - state.watch_count, count
    if not state.watch_distance and distance <= LONGEST_ROUND:  # the first return
        state.watch_distance, state.watch_left = distance, WATCHED_BLOCKS
        state.watch_x[:] = registers
        return 0
    state.watch_left, added, refused = 0, 0, True
    same = distance == state.watch_distance and registers == list(state.watch_x)
    if same and not state.stop:
        added, refused = _ask(engine, pc, count) if _may_ask(engine) else (0, False)
    if refused:
        _lengthen_period(engine)
    else:
        _set_period(engine, 1)
    return added


def _begin(engine: Engine, pc: int, count: int) -> None:
    state = engine.state
    state.watch_wait -= 1
    if state.watch_wait:
        return
    state.watch_wait = state.watch_period
    state.watch_pc, state.watch_count, state.watch_left = pc, count, WATCHED_BLOCKS
    state.watch_distance = 0


def _lengthen_period(engine: Engine) -> None:
    _set_period(engine, min(2 * engine.state.watch_period, LONGEST_WATCH_PERIOD))


def _set_period(engine: Engine, polls: int) -> None:
    engine.state.watch_period = engine.state.watch_wait = polls


def _may_ask(engine: Engine) -> bool:
    """Return whether the engine may try to prove that a detected loop is a polled wait. The first
    proof must import Python modules, which takes longer than a short wait. Therefore, before its
    first proof, an engine ignores the first loops that its watches (`block`) detect."""
    state = engine.state
    state.first_ask = max(state.first_ask - WATCH_WORTH, FIRST_ASK)
    return state.first_ask == FIRST_ASK


def _ask(engine: Engine, pc: int, count: int) -> tuple[int, bool]:
    """Try to skip iterations of the loop at ``pc``. ``count`` is the instruction count before the
    instruction at ``pc``. Returns (skipped instructions, True if the loop cannot be skipped)."""
    state = engine.state
    opened, open_ = state.count, state.open
    state.count, state.open, state.pc, state.value = count, 0, pc, 0
    refused = bool(engine.dispatch(Callback.WAIT))
    state.count, state.open = opened + state.value, open_
    return state.value, refused
