"""The state of a vCPU after reset (arch/arm64/kvm/reset.c; DDI 0487 D1.8)."""

from __future__ import annotations

from typing import NamedTuple

from armvirt.arch.el1 import SCTLR_EE
from armvirt.arch.pstate import PSTATE_EL1_ENTRY
from armvirt.arch.sysregs import CONTEXT_REGISTERS
from armvirt.hw.context import Context

SCTLR_RESET = 0x00C50078  # KVM: RES1 bits (kvm_arm reset_val of SCTLR_EL1)


class Start(NamedTuple):
    """Where a vCPU starts: PC, x0, and whether in big-endian (the caller's, for CPU_ON)."""

    entry: int
    context_id: int
    big_endian: bool = False


def reset(context: Context, start: Start) -> None:
    """EL1h, interrupts masked, MMU and caches off, every register zero but those of ``start``."""
    system = {row.name: row.reset for row in CONTEXT_REGISTERS}
    system["SCTLR_EL1"] = SCTLR_RESET | (SCTLR_EE if start.big_endian else 0)
    context.reset(start.entry, start.context_id, PSTATE_EL1_ENTRY, system)
