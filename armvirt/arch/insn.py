"""A64 instruction words and patterns as plain integers (DDI 0487 C4, C5.3, C6.2).

`armvirt.arch.decode` decodes instructions into names and fields.
"""

from __future__ import annotations

from armvirt.arch.encoding import sysreg
from armvirt.arch.sysregs import encoding_of

INSTRUCTION_BYTES = 4
XZR = 31

NOP, YIELD, WFE, WFI = 0xD503_201F, 0xD503_203F, 0xD503_205F, 0xD503_207F
SEV, SEVL = 0xD503_209F, 0xD503_20BF
ISB = 0xD503_3FDF
ERET = 0xD69F_03E0
SVC, HVC, SMC, BRK, HLT = 0xD400_0001, 0xD400_0002, 0xD400_0003, 0xD420_0000, 0xD440_0000
EXCEPTION_MASK = 0xFFE0_001F  # the mask for SVC, HVC, SMC, BRK and HLT: all bits but imm16
IMM16_SHIFT = 5
HLT_SEMIHOSTING = HLT | 0xF000 << IMM16_SHIFT
PSTATE_IMM_MASK = 0xFFFF_F0FF  # the mask for MSR (immediate) of one field: all bits but CRm
MSR_DAIFSET, MSR_DAIFCLR, MSR_SPSEL = 0xD503_40DF, 0xD503_40FF, 0xD500_40BF
#: MSR (immediate) of any PSTATE field: op1 and op2 select the field, CRm is the operand.
MSR_IMM, MSR_IMM_MASK = 0xD500_401F, 0xFFF8_F01F
#: WFET and WFIT: bit 5 is 1 for WFIT, bits 4:0 are the register with the deadline.
WFXT, WFXT_MASK, WFXT_IS_WFIT = 0xD503_1000, 0xFFFF_FFC0, 1 << 5
#: MSR and MRS (register): bit 21 is the direction, bits 20:5 the encoding.
SYSTEM_REGISTER, SYSTEM_REGISTER_MASK, SYSTEM_READ = 0xD510_0000, 0xFFD0_0000, 1 << 21
SYSTEM_SHIFT, SYSTEM_ENCODING = 5, 0xFFFF
RT_MASK = 0x1F
WITHOUT_RT = 0xFFFF_FFE0
#: Loads and stores of one register with writeback: pre-index and post-index.
WRITEBACK, WRITEBACK_MASK = 0x3800_0400, 0x3B20_0400
#: BR, BLR and RET: bits 9:5 are the register, bits 22:21 distinguish them.
BR, BLR, RET, BRANCH_REGISTER_MASK = (
    0xD61F_0000, 0xD63F_0000, 0xD65F_0000, 0xFFFF_FC1F,
)  # fmt: skip
#: Hints (NOP, YIELD and so on) by CRm and op2, and barriers by op2, from bit 5 on.
HINT, BARRIER, HINT_MASK, HINT_SHIFT = 0xD503_201F, 0xD503_301F, 0xFFFF_F01F, 5
HINT_NUMBER, BARRIER_OP = 0x7F, 7  # CRm:op2 of a hint, op2 of a barrier: after the shift
#: MRS of any register.
MRS, MRS_MASK = 0xD530_0000, 0xFFF0_0000
#: LDAR and STLR of any size, which bits 31:30 give.
LDAR, STLR, LDAR_MASK = 0x08DF_FC00, 0x089F_FC00, 0x3FFF_FC00

_SYSTEM = 0xD500_0000
MSR_DAIF = _SYSTEM | encoding_of("DAIF") << SYSTEM_SHIFT
MRS_CNTPCTSS = _SYSTEM | SYSTEM_READ | encoding_of("CNTPCTSS_EL0") << SYSTEM_SHIFT
MRS_CNTVCTSS = _SYSTEM | SYSTEM_READ | encoding_of("CNTVCTSS_EL0") << SYSTEM_SHIFT

# System operations that the emulator uses; the complete table is in `armvirt.arch.decode`.
IC_IALLUIS = sysreg(1, 0, 7, 1, 0)
IC_IALLU = sysreg(1, 0, 7, 5, 0)
IC_IVAU = sysreg(1, 3, 7, 5, 1)
DC_CVAU = sysreg(1, 3, 7, 11, 1)
AT_S1E1R = sysreg(1, 0, 7, 8, 0)
# TLBI at EL1 (C5.5): CRn, CRm of the Inner Shareable operations, two bits of op2. The operand has
# VA[55:12] in its low bits and the ASID at TLBI_ASID_SHIFT.
TLBI_CRN, TLBI_CRM_IS, TLBI_BY_VA, TLBI_ANY_ASID = 8, 3, 1 << 0, 1 << 1
TLBI_VA_BITS, TLBI_ASID_SHIFT = 44, 48


def msr(encoding: int, rt: int) -> int:
    """Return the instruction word of MSR <encoding>, X<rt>."""
    return _SYSTEM | encoding << SYSTEM_SHIFT | rt


def mrs(encoding: int, rt: int) -> int:
    """Return the instruction word of MRS X<rt>, <encoding>."""
    return _SYSTEM | SYSTEM_READ | encoding << SYSTEM_SHIFT | rt


def hvc(imm: int) -> int:
    """Return the instruction word of HVC #imm."""
    return HVC | imm << IMM16_SHIFT


def unmasks_interrupts(insn: int) -> bool:
    """Return whether the instruction can clear PSTATE.I or PSTATE.F: ERET, MSR DAIFClr or MSR
    DAIF."""
    return insn == ERET or insn & PSTATE_IMM_MASK == MSR_DAIFCLR or insn & WITHOUT_RT == MSR_DAIF
