"""The state of a vCPU after reset (arch/arm64/kvm/reset.c; DDI 0487 D1.8)."""

from __future__ import annotations

from typing import NamedTuple

from armvirt.arch.el1 import SCTLR_EE
from armvirt.arch.pstate import PSTATE_EL1_ENTRY
from armvirt.arch.sysregs import CONTEXT_REGISTERS
from armvirt.hw.context import NO_MONITOR, Context

SCTLR_RESET = 0x00C50078  # KVM: RES1 bits (kvm_arm reset_val of SCTLR_EL1)


class Start(NamedTuple):
    """Where a vCPU starts: PC, x0, and whether in big-endian (the caller's, for CPU_ON)."""

    entry: int
    context_id: int
    big_endian: bool = False


def reset(context: Context, start: Start) -> None:
    """EL1h, interrupts masked, MMU and caches off, every register zero but those of ``start``."""
    engine = context.engine
    saved = engine.save()
    system = {row.name: row.reset for row in CONTEXT_REGISTERS}
    system["SCTLR_EL1"] = SCTLR_RESET | (SCTLR_EE if start.big_endian else 0)
    saved.update(
        x=[start.context_id] + [0] * 30, q=[0] * 32, sp=0, sp_el0=0, sp_el1=0, pc=start.entry, pstate=PSTATE_EL1_ENTRY,
        fpcr=0, fpsr=0, system=system, exclusive=[NO_MONITOR, 0, 0], vector_faults=0, last_vector_elr=0,
    )  # fmt: skip
    engine.load(saved)
