"""EL1 and EL0 system registers by name: encodings and masks as plain integers.

The values come from the table in `armvirt.arch.sysregs` when this module is imported.
"""

from __future__ import annotations

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

PAR_F = field("PAR_EL1.F")
PAR_PA = field("PAR_EL1.PA")
PMUSERENR_EN = field("PMUSERENR_EL0.EN")

ID_AA64PFR0_EL1 = encoding_of("ID_AA64PFR0_EL1")
PFR0_GIC_SYSREGS = field("ID_AA64PFR0_EL1.GIC") & -field("ID_AA64PFR0_EL1.GIC")
"""ID_AA64PFR0_EL1.GIC = 1: the system-register interface of GICv3 and GICv4.0."""

MPIDR_RES1 = 1 << 31
SCTLR_KVM_RESET = 0x00C5_0078  # KVM's reset_val of SCTLR_EL1: the RES1 bits

SCTLR_EL1 = encoding_of("SCTLR_EL1")
SCTLR_NTWI, SCTLR_NTWE = field("SCTLR_EL1.nTWI"), field("SCTLR_EL1.nTWE")
SCTLR_E0E, SCTLR_EE = field("SCTLR_EL1.E0E"), field("SCTLR_EL1.EE")

MDSCR_EL1 = encoding_of("MDSCR_EL1")
MDSCR_SS = field("MDSCR_EL1.SS")
