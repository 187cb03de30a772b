"""System registers of EL0 to EL3 by name: encodings and masks as plain integers.

The values are computed from the table in `armvirt.arch.sysregs` when this module is imported.
"""

from __future__ import annotations

from armvirt.arch.bits import shift_of
from armvirt.arch.sysregs import encoding_of, field

CCSIDR_EL1 = encoding_of("CCSIDR_EL1")
CLIDR_EL1 = encoding_of("CLIDR_EL1")
CSSELR_EL1 = encoding_of("CSSELR_EL1")
DCZID_EL0 = encoding_of("DCZID_EL0")
ELR_EL1 = encoding_of("ELR_EL1")
ESR_EL1 = encoding_of("ESR_EL1")
FAR_EL1 = encoding_of("FAR_EL1")
MIDR_EL1 = encoding_of("MIDR_EL1")
MPIDR_EL1 = encoding_of("MPIDR_EL1")
OSDLR_EL1 = encoding_of("OSDLR_EL1")
PAR_EL1 = encoding_of("PAR_EL1")
PMUSERENR_EL0 = encoding_of("PMUSERENR_EL0")
SPSR_EL1 = encoding_of("SPSR_EL1")
TCR_EL1 = encoding_of("TCR_EL1")
TTBR0_EL1 = encoding_of("TTBR0_EL1")
TTBR1_EL1 = encoding_of("TTBR1_EL1")
VBAR_EL1 = encoding_of("VBAR_EL1")

CSSELR_IND = field("CSSELR_EL1.InD")
CSSELR_LEVEL_SHIFT = shift_of(field("CSSELR_EL1.Level"))
#: CLIDR_EL1 has a Ctype field of 3 bits for each of 7 levels: 1 instruction cache, 2 data cache,
#: 3 both of them, 4 unified cache. CSSELR_EL1 selects a unified cache as a data cache.
CLIDR_LEVELS, CLIDR_CTYPE_BITS, CLIDR_CTYPE = 7, 3, field("CLIDR_EL1.Ctype1")
CTYPES_WITH_CODE, CTYPES_WITH_DATA = (1, 3), (2, 3, 4)

PAR_F = field("PAR_EL1.F")
PAR_PA = field("PAR_EL1.PA")
PMUSERENR_EN = field("PMUSERENR_EL0.EN")

ID_AA64PFR0_EL1 = encoding_of("ID_AA64PFR0_EL1")
PFR0_GIC_SYSREGS = field("ID_AA64PFR0_EL1.GIC") & -field("ID_AA64PFR0_EL1.GIC")
"""ID_AA64PFR0_EL1.GIC = 1, which means that the CPU has the system-register interface of GICv3 and
GICv4.0."""

MPIDR_RES1 = 1 << 31
SCTLR_KVM_RESET = 0x00C5_0078  # KVM's reset_val of SCTLR_EL1: the RES1 bits

SCTLR_EL1 = encoding_of("SCTLR_EL1")
SCTLR_NTWI, SCTLR_NTWE = field("SCTLR_EL1.nTWI"), field("SCTLR_EL1.nTWE")
SCTLR_E0E, SCTLR_EE = field("SCTLR_EL1.E0E"), field("SCTLR_EL1.EE")

MDSCR_EL1 = encoding_of("MDSCR_EL1")
MDSCR_SS, MDSCR_MDE = field("MDSCR_EL1.SS"), field("MDSCR_EL1.MDE")

# EL2 and EL3

HPFAR_EL2 = encoding_of("HPFAR_EL2")
HPFAR_FIPA = field("HPFAR_EL2.FIPA")
TPIDR_EL2 = encoding_of("TPIDR_EL2")
VMPIDR_EL2 = encoding_of("VMPIDR_EL2")
VPIDR_EL2 = encoding_of("VPIDR_EL2")
VTCR_EL2 = encoding_of("VTCR_EL2")
VTTBR_EL2 = encoding_of("VTTBR_EL2")

HCR_EL2 = encoding_of("HCR_EL2")
HCR_VM, HCR_SWIO = field("HCR_EL2.VM"), field("HCR_EL2.SWIO")
HCR_FMO, HCR_IMO, HCR_AMO = field("HCR_EL2.FMO"), field("HCR_EL2.IMO"), field("HCR_EL2.AMO")
HCR_VF, HCR_VI = field("HCR_EL2.VF"), field("HCR_EL2.VI")
HCR_TWI, HCR_TWE = field("HCR_EL2.TWI"), field("HCR_EL2.TWE")
HCR_TID3, HCR_TSC, HCR_TPU = field("HCR_EL2.TID3"), field("HCR_EL2.TSC"), field("HCR_EL2.TPU")
HCR_RW, HCR_E2H = field("HCR_EL2.RW"), field("HCR_EL2.E2H")

MDCR_EL2 = encoding_of("MDCR_EL2")
MDCR_TPM, MDCR_TPMCR = field("MDCR_EL2.TPM"), field("MDCR_EL2.TPMCR")
MDCR_TDE, MDCR_TDA = field("MDCR_EL2.TDE"), field("MDCR_EL2.TDA")

SCR_EL3 = encoding_of("SCR_EL3")
SCR_NS, SCR_HCE, SCR_RW = field("SCR_EL3.NS"), field("SCR_EL3.HCE"), field("SCR_EL3.RW")
