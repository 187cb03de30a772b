"""TLB and cache maintenance by the guest: the operations that Unicorn's core does not do
completely, and their broadcast to the other CPUs."""

from __future__ import annotations

import ctypes as C

from armvirt.arch.decode import tlbi_address, tlbi_asid
from armvirt.arch.encoding import OP0_SHIFT, sysreg
from armvirt.arch.esr import decode_sysreg
from armvirt.arch.insn import (
    DC_CVAU,
    IC_IALLU,
    IC_IALLUIS,
    IC_IVAU,
    TLBI_ANY_ASID,
    TLBI_BY_VA,
    TLBI_CRM_IS,
)
from armvirt.arch.named import TCR_EL1
from armvirt.arch.translation import (
    ADDRESS_MASK,
    ENTRIES,
    LAST_LEVEL,
    MAX_TSZ,
    MIN_TSZ,
    TABLE,
    TCR_A1,
    TCR_T0SZ_SHIFT,
    TCR_T1SZ_SHIFT,
    TCR_TG0_SHIFT,
    TCR_TG1_SHIFT,
    TCR_TG_MASK,
    TCR_TSZ_MASK,
    TG0_4K,
    TG1_4K,
    TTBR_ASID_SHIFT,
    UPPER_RANGE_SHIFT,
    VALID,
    start_level,
)
from armvirt.arch.translation import index as table_index
from armvirt.hw.engine import abi
from armvirt.hw.engine.base import Engine
from armvirt.hw.engine.state import Callback, Stat


def _page_mapped(engine: Engine, va: int, asid: int | None) -> bool:
    """Return whether the present walk for ``va`` reaches a level 3 table. ``asid`` is the ASID of
    the TLBI, or None if the TLBI applies to all ASIDs. The result is False for a granule other than
    4 KiB, and for a VA of TTBR0 if ``asid`` is not the current ASID.

    At a TLBI by address the core flushes one page of its TLB. If the result is True, this is
    sufficient, because the TLB has only page entries for ``va``. If the result is False, ``va`` may
    be in a block mapping, which the core may have cached as many pages. Break-before-make (DDI 0487
    D8.16) permits this check: at the TLBI the descriptor of a former block is invalid or still a
    block descriptor, so the walk does not reach level 3.

    The stage-2 map is the identity, so the address of a table is a physical address.
    """
    tcr, high = engine.read_system(TCR_EL1), va >> UPPER_RANGE_SHIFT & 1
    ttbr = engine.read(abi.R_TTBR1_EL1 if high else abi.R_TTBR0_EL1)
    tsz = tcr >> (TCR_T1SZ_SHIFT if high else TCR_T0SZ_SHIFT) & TCR_TSZ_MASK
    granule = tcr >> (TCR_TG1_SHIFT if high else TCR_TG0_SHIFT) & TCR_TG_MASK
    if granule != (TG1_4K if high else TG0_4K) or not MIN_TSZ <= tsz <= MAX_TSZ:
        return False
    if not high and asid is not None:
        current = engine.read(abi.R_TTBR1_EL1) if tcr & TCR_A1 else ttbr
        if current >> TTBR_ASID_SHIFT != asid:
            return False
    bits, table = 64 - tsz, ttbr & ADDRESS_MASK
    index = va & (1 << bits) - 1
    for level in range(start_level(bits), LAST_LEVEL):
        entry = table + (table_index(index, level) & ENTRIES - 1) * 8
        word = (C.c_uint64 * 1)()
        if engine.lib.uc_mem_read(engine.uc, entry, word, 8) or ~word[0] & (VALID | TABLE):
            return False
        table = word[0] & ADDRESS_MASK
    return True


def _broadcast(engine: Engine, encoding: int, value: int) -> None:
    engine.state.timer_encoding, engine.state.value = encoding, value
    engine.dispatch(Callback.BROADCAST)


def tlbi(engine: Engine, r: abi.CpReg) -> None:
    """Complete a TLBI that the guest executes at EL1. If the core's flush of one page is not
    sufficient, flush the whole TLB. Broadcast an Inner Shareable TLBI to the other CPUs."""
    value, state = r.val, engine.state
    state.stats[Stat.TLBI] += 1
    if r.op2 & TLBI_BY_VA:
        va = tlbi_address(value)
        if not _page_mapped(engine, va, None if r.op2 & TLBI_ANY_ASID else tlbi_asid(value)):
            state.stats[Stat.TLB_FLUSH] += 1
            engine.flush_tlb()
    if state.broadcast and r.crm == TLBI_CRM_IS:
        _broadcast(engine, sysreg(r.op0, r.op1, r.crn, r.crm, r.op2), value)


def cache(engine: Engine, esr: int, pc: int) -> bool:
    """Complete an instruction for cache maintenance that trapped only because the engine sets
    HCR_EL2.TPU. Returns False if EL2 must handle the trap."""
    state, (encoding, _, rt) = engine.state, decode_sysreg(esr)
    if not state.native_maintenance or encoding >> OP0_SHIFT != 1:
        return False
    if encoding == DC_CVAU:  # there is no data cache to clean
        state.stats[Stat.DC] += 1
    elif encoding == IC_IVAU:
        state.stats[Stat.IC] += 1
        pa = engine.translate(engine.x(rt) & ~63)
        if pa is not None:
            engine.invalidate_code(pa & ~63, 64)
            if state.broadcast:
                _broadcast(engine, IC_IVAU, pa & ~63)
    elif encoding in (IC_IALLU, IC_IALLUIS):
        state.stats[Stat.IC] += 1
        engine.invalidate_all_code()
        if state.broadcast and encoding == IC_IALLUIS:
            _broadcast(engine, IC_IALLUIS, 0)
    else:
        return False
    engine.pc = pc + 4
    state.count += 1
    return True
