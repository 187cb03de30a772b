"""Single steps to an exact instruction count at the end of a run. These steps are called the *tail*
of the run (docs/engine.md).

The engine uses the architecture's software step, which MDCR_EL2.TDE routes to EL2.
"""

from __future__ import annotations

from armvirt.arch.encoding import OP0_SHIFT
from armvirt.arch.esr import decode_sysreg
from armvirt.arch.named import MDCR_EL2, MDCR_TDA, MDCR_TDE, MDSCR_EL1, MDSCR_SS
from armvirt.arch.pstate import PSTATE_SS
from armvirt.hw.engine.base import Engine
from armvirt.hw.engine.state import Leave, Stat


def begin(engine: Engine) -> None:
    state, ps = engine.state, engine.pstate
    state.stats[Stat.TAILS] += 1
    state.tail, state.tail_ss = 1, ps & PSTATE_SS
    state.tail_mdscr = engine.read_system(MDSCR_EL1)
    engine.write_system(MDCR_EL2, state.mdcr | MDCR_TDE)
    engine.pstate = ps | PSTATE_SS
    engine.write_system(MDSCR_EL1, state.tail_mdscr | MDSCR_SS)


def end(engine: Engine) -> None:
    state = engine.state
    state.tail = 0
    engine.pstate = engine.pstate & ~PSTATE_SS | state.tail_ss
    engine.write_system(MDCR_EL2, state.mdcr)
    engine.write_system(MDSCR_EL1, state.tail_mdscr)


def stepped(engine: Engine) -> None:
    state = engine.state
    state.stats[Stat.STEPS] += 1
    if state.count >= state.deadline or state.stop:
        end(engine)
        engine.leave(Leave.STOP if state.stop else Leave.BUDGET)
        return
    engine.pstate = engine.pstate | PSTATE_SS
    engine.write_system(MDSCR_EL1, state.tail_mdscr | MDSCR_SS)


def debug_register(engine: Engine, esr: int, pc: int) -> bool:
    """Complete an access to a debug register that trapped only because the engine executes single
    steps. The guest reads and writes its own value, without the bits that the engine sets for the
    steps. Returns False if EL2 traps the access; then nothing has changed."""
    encoding, is_read, rt = decode_sysreg(esr)
    if encoding >> OP0_SHIFT != 2 or engine.state.mdcr & MDCR_TDA:
        return False
    if is_read:
        engine.set_x(rt, engine.read_system(encoding))
    else:
        engine.write_system(encoding, engine.x(rt))
    engine.pc = pc + 4
    engine.state.count += 1
    return True
