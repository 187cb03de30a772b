"""Accesses of EL0 and EL1 to the counters and comparators, and their traps (DDI 0487 D12)."""

from __future__ import annotations

from armvirt.arch.bits import MASK64
from armvirt.arch.encoding import CRM_MASK, CRM_SHIFT, sysreg
from armvirt.arch.pstate import PSTATE_EL, PSTATE_MODE
from armvirt.arch.timer import (
    CNTHCTL_PCEN,
    CNTHCTL_PCTEN,
    CNTHCTL_TVCT,
    CNTHCTL_TVT,
    CNTKCTL_EL1,
    CNTPCT_EL0,
    CNTVCT_EL0,
    EL0_ENABLES,
    NS_PER_SECOND,
)
from armvirt.hw.engine import abi
from armvirt.hw.engine.base import Engine
from armvirt.hw.engine.portable import suspects
from armvirt.hw.engine.state import Callback, Stat


def _counter_at(engine: Engine, count: int) -> int:
    state = engine.state
    ns = state.ns_base + (count - state.count_base) * state.ns_per_insn
    return state.counter_start + ns * state.frequency // NS_PER_SECOND


def _el0_denied(engine: Engine, encoding: int) -> bool:
    """Return whether CNTKCTL_EL1 denies an access at EL0. In this case Unicorn's core itself takes
    the exception to EL1."""
    if engine.pstate & PSTATE_EL:
        return False
    return not engine.read_system(CNTKCTL_EL1) & EL0_ENABLES[encoding]


def _trapped_to_el2(engine: Engine, encoding: int) -> bool:
    """Return whether CNTHCTL_EL2 (in its layout for HCR_EL2.E2H = 0) traps an access to EL2. The
    caller has already checked that CNTKCTL_EL1 permits an access at EL0."""
    cnthctl, crm = engine.state.cnthctl, encoding >> CRM_SHIFT & CRM_MASK
    if crm == 0:
        return (
            not cnthctl & CNTHCTL_PCTEN if encoding == CNTPCT_EL0 else bool(cnthctl & CNTHCTL_TVCT)
        )
    return not cnthctl & CNTHCTL_PCEN if crm == 2 else bool(cnthctl & CNTHCTL_TVT)


def _refuse(engine: Engine) -> int:
    """Trap an access of the guest to a counter or timer to EL2.

    A hook cannot take an exception, and Unicorn's core has no trap of the virtual timer (FEAT_ECV).
    Therefore this function changes PSTATE to EL0 and CNTKCTL_EL1 to 0, so that the core traps the
    access to EL1. `PortableEngine._on_intr` then restores PSTATE and CNTKCTL_EL1, and redirects the
    exception to EL2.
    """
    state = engine.state
    state.denied, state.denied_pstate = 1, engine.pstate
    state.denied_cntkctl = engine.read_system(CNTKCTL_EL1)
    engine.write_system(CNTKCTL_EL1, 0)
    engine.pstate = state.denied_pstate & ~PSTATE_MODE
    return 0


def access(engine: Engine, rt: int, r: abi.CpReg, is_write: bool) -> int:
    if r.op1 != 3 or not (r.op2 in (1, 2) if r.crm == 0 else r.crm in (2, 3) and r.op2 < 3):
        return 0
    encoding = sysreg(r.op0, r.op1, r.crn, r.crm, r.op2)
    if (is_write and r.crm == 0) or _el0_denied(engine, encoding):
        return 0
    if _trapped_to_el2(engine, encoding):
        return _refuse(engine)
    state, pc = engine.state, engine.pc
    count = state.count + ((pc - state.block_pc) >> 2 if state.open else 0)
    if state.skip and not is_write and (r.crm == 0 or r.op2 == 1):
        count += suspects.read(engine, pc, count)
    if r.crm == 0:
        state.stats[Stat.COUNTER] += 1
        offset = state.cntvoff if encoding == CNTVCT_EL0 else state.cntpoff
        engine.write(rt, (_counter_at(engine, count) - offset) & MASK64)
        return 1
    state.stats[Stat.TIMER] += 1
    opened, open_ = state.count, state.open
    state.count, state.open = count, 0
    state.timer_encoding, state.timer_write, state.value, state.pc = (
        encoding,
        int(is_write),
        r.val,
        pc,
    )
    engine.dispatch(Callback.TIMER)
    state.count, state.open = opened, open_
    if not is_write:
        engine.write(rt, state.value)
    return 1
