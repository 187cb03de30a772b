"""Decoders for the few A64 instructions that armvirt recognises (DDI 0487 C4, C5.3).

A decoder takes a 32-bit instruction word. Bits 20:5 of an MSR, MRS or SYS are the encoding of the
register or operation, packed as in `armvirt.arch.encoding`.
"""

from __future__ import annotations

from enum import Enum

from armvirt.arch.bits import MASK64, sign_extend
from armvirt.arch.encoding import generic_name, sysreg
from armvirt.arch.insn import (
    AT_S1E1R,
    BRK,
    DC_CVAU,
    ERET,
    EXCEPTION_MASK,
    HLT,
    HVC,
    IC_IALLU,
    IC_IALLUIS,
    IC_IVAU,
    IMM16_SHIFT,
    MSR_DAIFCLR,
    MSR_DAIFSET,
    MSR_SPSEL,
    NOP,
    PSTATE_IMM_MASK,
    SEV,
    SEVL,
    SMC,
    SVC,
    SYSTEM_READ,
    SYSTEM_REGISTER,
    SYSTEM_REGISTER_MASK,
    TLBI_ASID_SHIFT,
    TLBI_VA_BITS,
    WFE,
    WFI,
    YIELD,
)
from armvirt.arch.pstate import PSTATE_A, PSTATE_D, PSTATE_F, PSTATE_I
from armvirt.arch.translation import PAGE_SHIFT
from armvirt.records import NamedTuple

_SYSTEM_OPERATION = 0xD508_0000  # SYS/SYSL: op0 = 1
_SYSTEM_OPERATION_MASK = 0xFFD8_0000


class SysregAccess(NamedTuple):
    """A decoded MSR, MRS, SYS or SYSL. ``encoding`` is the packed encoding of the system register
    or operation, ``is_read`` is True for MRS and SYSL, ``rt`` is the general register (31 is
    XZR)."""

    encoding: int
    is_read: bool
    rt: int


def is_msr_mrs(insn: int) -> SysregAccess | None:
    """Decode an MSR or MRS (register form). Returns None for any other instruction."""
    if insn & SYSTEM_REGISTER_MASK != SYSTEM_REGISTER:
        return None
    return SysregAccess(insn >> 5 & 0xFFFF, bool(insn & SYSTEM_READ), insn & 31)


def is_sys(insn: int) -> SysregAccess | None:
    """Decode a SYS or SYSL (TLBI, IC, DC, AT). Returns None for any other instruction."""
    if insn & _SYSTEM_OPERATION_MASK != _SYSTEM_OPERATION:
        return None
    return SysregAccess(insn >> 5 & 0xFFFF, bool(insn & SYSTEM_READ), insn & 31)


class Op(Enum):
    """The instructions that `decode` recognises, by mnemonic."""

    NOP = "nop"
    YIELD = "yield"
    WFE = "wfe"
    WFI = "wfi"
    SEV = "sev"
    SEVL = "sevl"
    CLREX = "clrex"
    DSB = "dsb"
    DMB = "dmb"
    ISB = "isb"
    SVC = "svc"
    HVC = "hvc"
    SMC = "smc"
    BRK = "brk"
    HLT = "hlt"
    ERET = "eret"
    MSR_DAIFSET = "msr daifset"
    MSR_DAIFCLR = "msr daifclr"
    MSR_SPSEL = "msr spsel"


class Insn(NamedTuple):
    """A decoded instruction. ``imm`` is its immediate, or 0 if the instruction has no immediate."""

    op: Op
    imm: int


class _Pattern(NamedTuple):
    """A pattern for `decode`. It matches if ``insn & mask == value``. The immediate of the
    instruction is ``insn >> shift & field``."""

    mask: int
    value: int
    op: Op
    shift: int = 0
    field: int = 0


_PATTERNS: tuple[_Pattern, ...] = (
    # Hints: CRm:op2 in bits 11:5 (C6.2 HINT)
    _Pattern(0xFFFF_FFFF, NOP, Op.NOP),
    _Pattern(0xFFFF_FFFF, YIELD, Op.YIELD),
    _Pattern(0xFFFF_FFFF, WFE, Op.WFE),
    _Pattern(0xFFFF_FFFF, WFI, Op.WFI),
    _Pattern(0xFFFF_FFFF, SEV, Op.SEV),
    _Pattern(0xFFFF_FFFF, SEVL, Op.SEVL),
    # Barriers: CRm is the option
    _Pattern(0xFFFF_F0FF, 0xD503_305F, Op.CLREX, 8, 0xF),
    _Pattern(0xFFFF_F0FF, 0xD503_309F, Op.DSB, 8, 0xF),
    _Pattern(0xFFFF_F0FF, 0xD503_30BF, Op.DMB, 8, 0xF),
    _Pattern(0xFFFF_F0FF, 0xD503_30DF, Op.ISB, 8, 0xF),
    # Exception generation: imm16 in bits 20:5
    _Pattern(EXCEPTION_MASK, SVC, Op.SVC, IMM16_SHIFT, 0xFFFF),
    _Pattern(EXCEPTION_MASK, HVC, Op.HVC, IMM16_SHIFT, 0xFFFF),
    _Pattern(EXCEPTION_MASK, SMC, Op.SMC, IMM16_SHIFT, 0xFFFF),
    _Pattern(EXCEPTION_MASK, BRK, Op.BRK, IMM16_SHIFT, 0xFFFF),
    _Pattern(EXCEPTION_MASK, HLT, Op.HLT, IMM16_SHIFT, 0xFFFF),
    _Pattern(0xFFFF_FFFF, ERET, Op.ERET),
    # MSR (immediate): CRm is the operand
    _Pattern(PSTATE_IMM_MASK, MSR_DAIFSET, Op.MSR_DAIFSET, 8, 0xF),
    _Pattern(PSTATE_IMM_MASK, MSR_DAIFCLR, Op.MSR_DAIFCLR, 8, 0xF),
    _Pattern(PSTATE_IMM_MASK, MSR_SPSEL, Op.MSR_SPSEL, 8, 0xF),
)


def decode(insn: int) -> Insn | None:
    """Decode an instruction of `Op`. Returns None for any other instruction."""
    for pattern in _PATTERNS:
        if insn & pattern.mask == pattern.value:
            return Insn(pattern.op, insn >> pattern.shift & pattern.field)
    return None


def daif_bits(imm: int) -> int:
    """Return the PSTATE bits that the 4-bit operand of MSR DAIFSet or DAIFClr selects. Bit 3 of the
    operand is D, bit 2 is A, bit 1 is I and bit 0 is F."""
    return sum(
        bit for i, bit in enumerate((PSTATE_F, PSTATE_I, PSTATE_A, PSTATE_D)) if imm >> i & 1
    )


# System operations ------------------------------------------------------------------------------


class Scope(Enum):
    """The TLB entries, cache lines or address to which a TLBI, IC, DC or AT applies."""

    ALL = "all"
    VA = "va"  # the VA and, for a TLBI, the ASID
    ASID = "asid"
    VA_ANY_ASID = "va, any asid"
    IPA = "ipa"
    SET_WAY = "set/way"


class SysOp(NamedTuple):
    """A TLBI, IC, DC or AT operation.

    If ``broadcast`` is True, the operation applies to every PE of the Inner Shareable domain. If
    ``last_level`` is True, a TLBI needs to invalidate only entries of the last level of a table
    walk.
    """

    name: str
    encoding: int
    scope: Scope
    broadcast: bool = False
    last_level: bool = False

    @property
    def kind(self) -> str:
        """The kind of the operation: TLBI, IC, DC or AT."""
        return self.name.split()[0]


def _tlbi(
    op1: int,
    suffix: str,
    op2: int,
    scope: Scope,
    last: bool = False,
    crms: tuple[int, int] = (3, 7),
) -> list[SysOp]:
    """Return two rows of the table of operations for one TLBI: its Inner Shareable form, and its
    form for one PE. ``crms`` are the CRm fields of the two forms."""
    shared, local = crms
    return [
        SysOp(f"TLBI {suffix}IS", sysreg(1, op1, 8, shared, op2), scope, True, last),
        SysOp(f"TLBI {suffix}", sysreg(1, op1, 8, local, op2), scope, False, last),
    ]


SYS_OPERATIONS: tuple[SysOp, ...] = (
    SysOp("IC IALLUIS", IC_IALLUIS, Scope.ALL, True),
    SysOp("IC IALLU", IC_IALLU, Scope.ALL),
    # IC IVAU works to the point of unification, so it applies to every PE in the Inner Shareable
    # domain (D7.5.9).
    SysOp("IC IVAU", IC_IVAU, Scope.VA, True),
    SysOp("DC IVAC", sysreg(1, 0, 7, 6, 1), Scope.VA, True),
    SysOp("DC ISW", sysreg(1, 0, 7, 6, 2), Scope.SET_WAY),
    SysOp("DC CSW", sysreg(1, 0, 7, 10, 2), Scope.SET_WAY),
    SysOp("DC CISW", sysreg(1, 0, 7, 14, 2), Scope.SET_WAY),
    SysOp("DC ZVA", sysreg(1, 3, 7, 4, 1), Scope.VA),
    SysOp("DC CVAC", sysreg(1, 3, 7, 10, 1), Scope.VA, True),
    SysOp("DC CVAU", DC_CVAU, Scope.VA, True),
    SysOp("DC CVAP", sysreg(1, 3, 7, 12, 1), Scope.VA, True),
    SysOp("DC CIVAC", sysreg(1, 3, 7, 14, 1), Scope.VA, True),
    SysOp("AT S1E1R", AT_S1E1R, Scope.VA),
    SysOp("AT S1E1W", sysreg(1, 0, 7, 8, 1), Scope.VA),
    SysOp("AT S1E0R", sysreg(1, 0, 7, 8, 2), Scope.VA),
    SysOp("AT S1E0W", sysreg(1, 0, 7, 8, 3), Scope.VA),
    SysOp("AT S12E1R", sysreg(1, 4, 7, 8, 4), Scope.VA),
    SysOp("AT S12E1W", sysreg(1, 4, 7, 8, 5), Scope.VA),
    SysOp("AT S12E0R", sysreg(1, 4, 7, 8, 6), Scope.VA),
    SysOp("AT S12E0W", sysreg(1, 4, 7, 8, 7), Scope.VA),
    *_tlbi(0, "VMALLE1", 0, Scope.ALL),
    *_tlbi(0, "VAE1", 1, Scope.VA),
    *_tlbi(0, "ASIDE1", 2, Scope.ASID),
    *_tlbi(0, "VAAE1", 3, Scope.VA_ANY_ASID),
    *_tlbi(0, "VALE1", 5, Scope.VA, last=True),
    *_tlbi(0, "VAALE1", 7, Scope.VA_ANY_ASID, last=True),
    *_tlbi(4, "IPAS2E1", 1, Scope.IPA, crms=(0, 4)),
    *_tlbi(4, "IPAS2LE1", 5, Scope.IPA, last=True, crms=(0, 4)),
    *_tlbi(4, "ALLE2", 0, Scope.ALL),
    *_tlbi(4, "VAE2", 1, Scope.VA),
    *_tlbi(4, "ALLE1", 4, Scope.ALL),
    *_tlbi(4, "VALE2", 5, Scope.VA, last=True),
    *_tlbi(4, "VMALLS12E1", 6, Scope.ALL),
)

SYS_BY_ENCODING: dict[int, SysOp] = {row.encoding: row for row in SYS_OPERATIONS}
SYS_BY_NAME: dict[str, SysOp] = {row.name: row for row in SYS_OPERATIONS}


def sys_name(encoding: int) -> str:
    """Return the mnemonic of an operation, or the assembler's generic name if the operation is not
    in the table."""
    row = SYS_BY_ENCODING.get(encoding)
    return row.name if row is not None else generic_name(encoding)


def tlbi_address(value: int) -> int:
    """Return the VA that a TLBI by address invalidates. ``value`` is the operand of the TLBI. Its
    bits 43:0 are VA[55:12]. The VA is sign-extended from bit 55 (DDI 0487 C5.5)."""
    return sign_extend(value, TLBI_VA_BITS) << PAGE_SHIFT & MASK64


def tlbi_asid(value: int) -> int:
    """Return the ASID that a TLBI invalidates. ``value`` is the operand of the TLBI. Its bits 63:48
    are the ASID."""
    return value >> TLBI_ASID_SHIFT & 0xFFFF
