"""The EL2 registers with which a vCPU runs: traps, virtual exceptions and stage 2
(arch/arm64/kvm/hyp: __activate_traps, __load_stage2)."""

from __future__ import annotations

from armvirt.arch import translation
from armvirt.arch.named import (
    HCR_AMO,
    HCR_E2H,
    HCR_EL2,
    HCR_FMO,
    HCR_IMO,
    HCR_RW,
    HCR_SWIO,
    HCR_TID3,
    HCR_TSC,
    HCR_TWE,
    HCR_TWI,
    HCR_VF,
    HCR_VI,
    HCR_VM,
    MDCR_EL2,
    MDCR_TDE,
    MDCR_TPM,
    MDCR_TPMCR,
    PMUSERENR_EL0,
    PMUSERENR_EN,
    VTCR_EL2,
    VTTBR_EL2,
)
from armvirt.hw.pe import Pe
from armvirt.hyp.memory.mmu import Mmu
from armvirt.hyp.vcpu.parts import VcpuPart
from armvirt.state import State, checked

STATE_VERSION = 1

HCR_GUEST_FLAGS = (
    HCR_VM
    | HCR_SWIO
    | HCR_FMO
    | HCR_IMO
    | HCR_AMO
    | HCR_TWI
    | HCR_TWE
    | HCR_TID3
    | HCR_TSC
    | HCR_RW
)


class Traps(VcpuPart):
    """HCR_EL2, MDCR_EL2, VTCR_EL2 and VTTBR_EL2 of one vCPU.

    ``lines`` has the bits VI and VF of HCR_EL2. They are the levels of the vCPU's interrupt inputs
    IRQ and FIQ. In a VM without an interrupt controller, the VMM drives these inputs.
    ``serror_pending`` is the bit VSE of HCR_EL2. If ``breakpoints`` is true, BRK traps to EL2,
    because the VMM debugs the guest.
    """

    __slots__ = ("_flags", "_mmu", "breakpoints", "lines", "serror_pending")

    def __init__(self, mmu: Mmu, vhe: bool) -> None:
        self._mmu = mmu
        self._flags = HCR_GUEST_FLAGS | (HCR_E2H if vhe else 0)
        self.lines = 0
        self.serror_pending = False
        self.breakpoints = False

    def reset(self) -> None:
        """Cancel a pending SError. The interrupt inputs keep their levels, because the VMM drives
        them."""
        self.serror_pending = False

    def vcpu_load(self, pe: Pe) -> None:
        table = self._mmu.stage2
        pe.write_el2(VTCR_EL2, translation.vtcr(table.shape))
        pe.write_el2(VTTBR_EL2, table.vttbr)
        self.activate(pe)

    def activate(self, pe: Pe) -> None:
        """Program MDCR_EL2 and HCR_EL2 of the PE on which the vCPU is loaded."""
        pe.write_el2(MDCR_EL2, MDCR_TPM | MDCR_TPMCR | (MDCR_TDE if self.breakpoints else 0))
        # At EL0, the trap to EL1 has priority over MDCR_EL2.TPM. PMUSERENR_EL0.EN disables the trap
        # to EL1, so that PMU accesses at EL0 trap to EL2 (__activate_traps_common). The guest
        # cannot access PMUSERENR_EL0.
        pe.write_el2(PMUSERENR_EL0, PMUSERENR_EN)
        pe.write_el2(HCR_EL2, self._flags | self.lines)

    def set_line(self, number: int, level: bool) -> None:
        """Set the level of an interrupt input of the vCPU (vcpu_interrupt_line). ``number`` selects
        the input: input 0 is IRQ, input 1 is FIQ."""
        bit = HCR_VF if number else HCR_VI
        self.lines = self.lines | bit if level else self.lines & ~bit

    def state(self) -> State:
        return {
            "version": STATE_VERSION,
            "lines": self.lines,
            "serror_pending": self.serror_pending,
        }

    def load(self, state: State) -> None:
        checked(state, "Traps", STATE_VERSION)
        self.lines, self.serror_pending = int(state["lines"]), bool(state["serror_pending"])
