"""The traps of a guest in HCR_EL2 and MDCR_EL2 (arch/arm64/kvm/hyp, __activate_traps)."""

from __future__ import annotations

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
    HCR_VM,
    MDCR_EL2,
    MDCR_TDE,
    MDCR_TPM,
    MDCR_TPMCR,
    PMUSERENR_EL0,
    PMUSERENR_EN,
)
from armvirt.hw.pe import Pe

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


def activate_traps(pe: Pe, *, vhe: bool, breakpoints: bool, lines: int) -> None:
    """Program the traps of the guest on a PE. ``breakpoints``: BRK traps to EL2, for the VMM.
    ``lines`` are HCR_EL2.VI and VF."""
    pe.write_el2(MDCR_EL2, MDCR_TPM | MDCR_TPMCR | (MDCR_TDE if breakpoints else 0))
    # At EL0, the trap to EL1 has priority over MDCR_EL2.TPM. PMUSERENR_EL0.EN disables the trap to
    # EL1, so that PMU accesses at EL0 trap to EL2 (__activate_traps_common). The guest cannot
    # access this register.
    pe.write_el2(PMUSERENR_EL0, PMUSERENR_EN)
    pe.write_el2(HCR_EL2, HCR_GUEST_FLAGS | (HCR_E2H if vhe else 0) | lines)
