"""Read the exception record of Unicorn's core (ESR, FAR and target EL), and correct the ESR where
the core differs from the architecture."""

from __future__ import annotations

import ctypes as C

from armvirt.arch.esr import ACCESS_FIELDS, EC, ISV, UNDEFINED, exception_class, sysreg_trap
from armvirt.arch.insn import (
    MSR_IMM,
    MSR_IMM_MASK,
    SYSTEM_ENCODING,
    SYSTEM_SHIFT,
    WRITEBACK,
    WRITEBACK_MASK,
    XZR,
)
from armvirt.arch.pstate import PSTATE_EL
from armvirt.hw.engine.base import Engine


def read(engine: Engine) -> tuple[int, int, int]:
    """Read (ESR, FAR, target EL) of the exception that is being taken."""
    engine.lib.uc_context_save(engine.uc, engine.raw_context)
    at = (engine.raw_context.value or 0) + engine.calibration.syndrome
    word, address = C.c_uint32.from_address, C.c_uint64.from_address(at + 8)
    return word(at).value, address.value, word(at + 16).value


def repair(engine: Engine, esr: int, target: int, pc: int) -> int:
    """Return the ESR that the architecture requires for this exception (DDI 0487, ISS encodings).
    ``esr`` is the ESR that the core reports, and ``target`` is the target EL that the core reports.
    ``pc`` is the preferred return address."""
    if exception_class(esr) == EC.DABT_LOWER and target == 2 and esr & ISV:
        # ISV must be 0 for a load or store with writeback, but the core sets ISV.
        writeback = engine.fetch(pc) & WRITEBACK_MASK == WRITEBACK
        return esr & ~ACCESS_FIELDS if writeback else esr
    if esr == 0 and target == 1:
        # MSR DAIFSet or DAIFClr at EL0 with SCTLR_EL1.UMA = 0 has EC 0x18. Any other instruction is
        # UNDEFINED, and IL must be 1.
        insn = engine.fetch(pc)
        if insn & MSR_IMM_MASK == MSR_IMM:
            return sysreg_trap(insn >> SYSTEM_SHIFT & SYSTEM_ENCODING, False, XZR)
        return UNDEFINED
    if exception_class(esr) == EC.SYSREG and target == 1 and engine.pstate & PSTATE_EL:
        # No access at EL1 traps to EL1. But the core traps CNTPS_*_EL1, which are UNDEFINED at
        # Non-secure EL1 (DDI 0487, CNTPS_CTL_EL1).
        return UNDEFINED
    return esr
