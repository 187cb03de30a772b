"""EL2 and EL3 system registers by name: encodings and masks as plain integers.

The values come from the table in `armvirt.arch.sysregs` when this module is imported.
"""

from __future__ import annotations

from armvirt.arch.sysregs import encoding_of, field

HPFAR_EL2 = encoding_of("HPFAR_EL2")
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
