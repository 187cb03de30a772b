"""What the portable engine suspects to be a polled wait; waits.h has the same in C.

A suspicion needs no proof: `armvirt.hw.engine.waits` has it. So the two engines may suspect at other
times, and both runs are the same. Results are instructions to add to the count.
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
    """An MRS at ``pc`` reads a counter or ISTATUS: ask when it has returned at an equal
    distance often enough."""
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
    """A block begins at ``pc``, and a poll is due or a watch waits for a block: ask when the
    watched block has returned with the same registers and at an equal distance."""
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
    """Whether the engine may ask about a block. An engine that has not asked yet lets some watches
    pass."""
    state = engine.state
    state.first_ask = max(state.first_ask - WATCH_WORTH, FIRST_ASK)
    return state.first_ask == FIRST_ASK


def _ask(engine: Engine, pc: int, count: int) -> tuple[int, bool]:
    """The instructions to add to ``count``, the count before the instruction at ``pc``; whether
    the loop was refused."""
    state = engine.state
    opened, open_ = state.count, state.open
    state.count, state.open, state.pc, state.value = count, 0, pc, 0
    refused = bool(engine.dispatch(Callback.WAIT))
    state.count, state.open = opened + state.value, open_
    return state.value, refused
