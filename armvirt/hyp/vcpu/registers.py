"""The register file of a vCPU, and its reset (struct kvm_cpu_context; arch/arm64/kvm/reset.c;
DDI 0487 D1.8)."""

from __future__ import annotations

from typing import NamedTuple

from armvirt.arch.named import SCTLR_EE, SCTLR_KVM_RESET
from armvirt.arch.pstate import PSTATE_EL1_ENTRY
from armvirt.arch.sysregs import CONTEXT_REGISTERS
from armvirt.hw.context import Context
from armvirt.hyp.vcpu.parts import VcpuPart
from armvirt.state import State, checked

STATE_VERSION = 1


class Start(NamedTuple):
    """Where a vCPU starts: PC, x0, and endianness (CPU_ON: the caller's)."""

    entry: int
    context_id: int
    big_endian: bool = False


class Registers(VcpuPart):
    """The registers that a PE has of its own for each vCPU: general, SIMD and system registers in
    ``context``; ``spsr32`` are SPSR_abt, und, irq and fiq of AArch32, which only the VMM can access.

    ``reset_state`` says where the vCPU starts after the next reset (struct vcpu_reset_state).
    """

    __slots__ = ("context", "reset_state", "spsr32")

    def __init__(self, context: Context) -> None:
        self.context = context
        self.reset_state = Start(0, 0)
        self.spsr32 = [0, 0, 0, 0]

    def reset(self) -> None:
        """Reset to EL1h with interrupts masked, MMU and caches off; every general-purpose register
        is zero except PC and x0, and system registers have their reset values."""
        start = self.reset_state
        system = {row.name: row.reset for row in CONTEXT_REGISTERS}
        system["SCTLR_EL1"] = SCTLR_KVM_RESET | (SCTLR_EE if start.big_endian else 0)
        self.context.reset(start.entry, start.context_id, PSTATE_EL1_ENTRY, system)
        self.spsr32 = [0, 0, 0, 0]

    def state(self) -> State:
        return {
            "version": STATE_VERSION,
            "context": self.context.state(),
            "spsr32": list(self.spsr32),
        }

    def load(self, state: State) -> None:
        checked(state, "Registers", STATE_VERSION)
        self.context.load(state["context"])
        self.spsr32 = list(state["spsr32"])
