"""Exception syndromes (DDI 0487 D23.2, ESR_ELx): exception classes, ISS fields, functions that
build a syndrome, and functions that describe a syndrome as text."""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from functools import lru_cache

from armvirt.arch.encoding import (
    CRM_MASK,
    CRN_MASK,
    OP0_MASK,
    OP1_MASK,
    OP2_MASK,
    sysreg,
    unpack,
)
from armvirt.arch.sysregs import field, name_of
from armvirt.records import NamedTuple

EC_SHIFT = 26
IL = field("ESR_EL1.IL")
ISS_MASK = field("ESR_EL1.ISS")
#: ISS of a data abort: ISV (the access fields are valid), SSE (sign extension), SF (64-bit
#: register), WnR (a write).
ISV, SSE, SF, WNR = 1 << 24, 1 << 21, 1 << 15, 1 << 6
SAS_SHIFT, SAS_MASK = 22, 3  # log2 of the access size in bytes
SRT_SHIFT = 16  # the register that is transferred
ACCESS_FIELDS = 0x7FF << 14  # ISV, SAS, SSE, SRT, SF and AR
#: ISS of an abort: CM (by cache maintenance), S1PTW (stage-2 fault on a stage-1 table walk).
CM, S1PTW = 1 << 8, 1 << 7
STEP_ISV = 1 << 24  # ISS of a software step exception: EX is valid
IFSC_DEBUG = 0x22  # ISS[5:0] of a software step exception: debug exception
TI_MASK = 3  # ISS of a trapped WFx: `WfxKind`
#: ISS of a trapped MSR, MRS or SYS.
ISS_OP0_SHIFT, ISS_OP2_SHIFT, ISS_OP1_SHIFT = 20, 17, 14
ISS_CRN_SHIFT, ISS_RT_SHIFT, ISS_CRM_SHIFT, ISS_IS_READ = 10, 5, 1, 1 << 0


class EC(IntEnum):
    """Exception class, ESR_ELx[31:26]."""

    UNKNOWN = 0x00
    WFX = 0x01
    CP15_32 = 0x03
    CP15_64 = 0x04
    CP14_32 = 0x05
    CP14_LS = 0x06
    FP_ACCESS = 0x07
    CP14_64 = 0x0C
    ILLEGAL_STATE = 0x0E
    SVC32 = 0x11
    HVC32 = 0x12
    SMC32 = 0x13
    SVC64 = 0x15
    HVC64 = 0x16
    SMC64 = 0x17
    SYSREG = 0x18
    SVE = 0x19
    ERET = 0x1A
    IABT_LOWER = 0x20
    IABT_CURRENT = 0x21
    PC_ALIGN = 0x22
    DABT_LOWER = 0x24
    DABT_CURRENT = 0x25
    SP_ALIGN = 0x26
    FP_EXCEPTION32 = 0x28
    FP_EXCEPTION64 = 0x2C
    SERROR = 0x2F
    BREAKPOINT_LOWER = 0x30
    BREAKPOINT_CURRENT = 0x31
    STEP_LOWER = 0x32
    STEP_CURRENT = 0x33
    WATCHPOINT_LOWER = 0x34
    WATCHPOINT_CURRENT = 0x35
    BKPT32 = 0x38
    VECTOR_CATCH32 = 0x3A
    BRK64 = 0x3C


#: Exceptions that write FAR_ELx (DDI 0487, FAR_EL1).
EC_WITH_FAR = frozenset(
    int(ec)
    for ec in (
        EC.IABT_LOWER,
        EC.IABT_CURRENT,
        EC.PC_ALIGN,
        EC.DABT_LOWER,
        EC.DABT_CURRENT,
        EC.WATCHPOINT_LOWER,
        EC.WATCHPOINT_CURRENT,
    )
)


class DFSC(IntEnum):
    """Fault status code, ISS[5:0] of an abort. In the first four codes and in ``*_ON_WALK``, the
    low two bits are the level of the translation table."""

    ADDRESS_SIZE = 0x00
    TRANSLATION = 0x04
    ACCESS_FLAG = 0x08
    PERMISSION = 0x0C
    EXTERNAL = 0x10
    EXTERNAL_ON_WALK = 0x14
    PARITY = 0x18
    PARITY_ON_WALK = 0x1C
    ALIGNMENT = 0x21
    TLB_CONFLICT = 0x30
    ATOMIC_UPDATE = 0x31
    LOCKDOWN = 0x34
    EXCLUSIVE = 0x35


class WfxKind(IntEnum):
    """ISS.TI of a trapped WFI, WFE, WFIT or WFET: the instruction that trapped."""

    WFI = 0
    WFE = 1
    WFIT = 2
    WFET = 3


def exception_class(esr: int) -> int:
    """Return the EC field of a syndrome as an integer. It can be a value that `EC` does not
    define."""
    return esr >> EC_SHIFT & 0x3F


def iss(esr: int) -> int:
    return esr & ISS_MASK


def build(ec: int, iss: int = 0, il: bool = True) -> int:
    """Build a syndrome from its exception class and ISS. ``il`` is ESR_ELx.IL: True means that the
    instruction has 32 bits, which is always the case in AArch64."""
    return ec << EC_SHIFT | (IL if il else 0) | iss & ISS_MASK


# Aborts -----------------------------------------------------------------------------------------


class DataAbort(NamedTuple):
    """The decoded ISS of a data abort. The fields from ``size`` (bytes) to ``acquire_release`` are
    valid only if ``isv`` is True."""

    isv: bool
    size: int
    sign_extend: bool
    register: int
    sixty_four: bool
    acquire_release: bool
    far_not_valid: bool
    external: bool
    cache_maintenance: bool
    s1ptw: bool
    is_write: bool
    dfsc: int


def decode_data_abort(esr: int) -> DataAbort:
    """Decode the syndrome of a data abort (DDI 0487, "ISS encoding for an exception from a Data
    Abort")."""
    return DataAbort(
        isv=bool(esr & ISV),
        size=1 << (esr >> SAS_SHIFT & SAS_MASK),
        sign_extend=bool(esr & SSE),
        register=esr >> SRT_SHIFT & 31,
        sixty_four=bool(esr & SF),
        acquire_release=bool(esr >> 14 & 1),
        far_not_valid=bool(esr >> 10 & 1),
        external=bool(esr >> 9 & 1),
        cache_maintenance=bool(esr & CM),
        s1ptw=bool(esr & S1PTW),
        is_write=bool(esr & WNR),
        dfsc=esr & 0x3F,
    )


def data_abort(
    dfsc: int,
    is_write: bool = False,
    same_el: bool = False,
    cache_maintenance: bool = False,
    s1ptw: bool = False,
) -> int:
    """Return the syndrome of a data abort without access information (ISV = 0). A stage-1 fault and
    an injected external abort have such a syndrome."""
    ec = EC.DABT_CURRENT if same_el else EC.DABT_LOWER
    flags = (WNR if is_write else 0) | (S1PTW if s1ptw else 0) | (CM if cache_maintenance else 0)
    return build(ec, dfsc | flags)


def instruction_abort(ifsc: int, same_el: bool = False, s1ptw: bool = False) -> int:
    """Return the syndrome of an instruction abort."""
    return build(EC.IABT_CURRENT if same_el else EC.IABT_LOWER, ifsc | (S1PTW if s1ptw else 0))


def fault_type(dfsc: int) -> int:
    """Return a fault status code with the level of the translation table cleared. A code that has
    no level is returned unchanged."""
    return (
        dfsc & 0x3C if dfsc < DFSC.EXTERNAL or 0x14 <= dfsc < 0x18 or 0x1C <= dfsc < 0x20 else dfsc
    )


# Traps ------------------------------------------------------------------------------------------


class SysregTrap(NamedTuple):
    """The decoded ISS of a trapped MSR, MRS or SYS (EC 0x18). ``encoding`` is packed as in
    `armvirt.arch.encoding`. ``rt`` is the general register; 31 is XZR."""

    encoding: int
    is_read: bool
    rt: int


@lru_cache(maxsize=1024)
def decode_sysreg(esr: int) -> SysregTrap:
    """Decode the syndrome of a trapped MSR, MRS or SYS."""
    op0, op1 = esr >> ISS_OP0_SHIFT & OP0_MASK, esr >> ISS_OP1_SHIFT & OP1_MASK
    crn, crm = esr >> ISS_CRN_SHIFT & CRN_MASK, esr >> ISS_CRM_SHIFT & CRM_MASK
    encoding = sysreg(op0, op1, crn, crm, esr >> ISS_OP2_SHIFT & OP2_MASK)
    return SysregTrap(encoding, bool(esr & ISS_IS_READ), esr >> ISS_RT_SHIFT & 31)


@lru_cache(maxsize=1024)
def sysreg_trap(encoding: int, is_read: bool, rt: int) -> int:
    """Return the syndrome of a trapped MSR, MRS or SYS."""
    op0, op1, crn, crm, op2 = unpack(encoding)
    return build(
        EC.SYSREG,
        op0 << ISS_OP0_SHIFT
        | op2 << ISS_OP2_SHIFT
        | op1 << ISS_OP1_SHIFT
        | crn << ISS_CRN_SHIFT
        | rt << ISS_RT_SHIFT
        | crm << ISS_CRM_SHIFT
        | is_read,
    )


class WfxTrap(NamedTuple):
    """The decoded ISS of a trapped WFI, WFE, WFIT or WFET (EC 0x01). ``register`` is the general
    register with the timeout of a WFIT or WFET; it is -1 for WFI and WFE."""

    kind: WfxKind
    register: int


def decode_wfx(esr: int) -> WfxTrap:
    """Decode the syndrome of a trapped WFI, WFE, WFIT or WFET."""
    return WfxTrap(WfxKind(esr & TI_MASK), esr >> 5 & 31 if esr & 4 else -1)


def wfx(kind: WfxKind, register: int = -1) -> int:
    """Return the syndrome of a trapped WFI, WFE, WFIT or WFET (CV = 1, COND = 0xE). For a WFIT or
    WFET, ``register`` is the general register with the timeout (RN, with RV = 1)."""
    timeout = register << 5 | 1 << 2 if register >= 0 else 0
    return build(EC.WFX, 1 << 24 | 0xE << 20 | timeout | kind)


def immediate(esr: int) -> int:
    """Return the 16-bit immediate (imm16) in the syndrome of SVC, HVC, SMC or BRK."""
    return esr & 0xFFFF


def undefined() -> int:
    """Return the syndrome of an UNDEFINED instruction: EC 0, ISS 0, IL 1."""
    return build(EC.UNKNOWN)


#: Syndromes that the engines use, as plain integers.
UNDEFINED, PC_ALIGNMENT, ILLEGAL_STATE = (
    build(ec) for ec in (EC.UNKNOWN, EC.PC_ALIGN, EC.ILLEGAL_STATE)
)


# Text -------------------------------------------------------------------------------------------

_LEVELED = {
    DFSC.ADDRESS_SIZE: "address size fault",
    DFSC.TRANSLATION: "translation fault",
    DFSC.ACCESS_FLAG: "access flag fault",
    DFSC.PERMISSION: "permission fault",
    DFSC.EXTERNAL_ON_WALK: "external abort on walk",
    DFSC.PARITY_ON_WALK: "parity error on walk",
}

_PLAIN = {
    DFSC.EXTERNAL: "external abort",
    DFSC.PARITY: "parity error",
    DFSC.ALIGNMENT: "alignment fault",
    DFSC.TLB_CONFLICT: "TLB conflict",
    DFSC.ATOMIC_UPDATE: "unsupported atomic update",
    DFSC.LOCKDOWN: "lockdown fault",
    DFSC.EXCLUSIVE: "unsupported exclusive access",
}


def describe_fault(dfsc: int) -> str:
    """Return a fault status code as text, such as ``translation fault, level 3``."""
    kind = fault_type(dfsc)
    if (leveled := _LEVELED.get(DFSC(kind)) if kind in _FAULTS else None) is not None:
        return f"{leveled}, level {dfsc & 3}"
    return _PLAIN[DFSC(kind)] if kind in _FAULTS else f"fault {dfsc:#x}"


_FAULTS = frozenset(int(code) for code in DFSC)


def _describe_data_abort(esr: int) -> str:
    abort = decode_data_abort(esr)
    text = f"{'write' if abort.is_write else 'read'}, {describe_fault(abort.dfsc)}"
    if abort.isv:
        register = f"{'x' if abort.sixty_four else 'w'}{abort.register}"
        text += f", {abort.size} bytes {'from' if abort.is_write else 'to'} {register}"
    return (
        text
        + (", stage-1 walk" if abort.s1ptw else "")
        + (", cache maintenance" if abort.cache_maintenance else "")
    )


def _describe_sysreg(esr: int) -> str:
    trap = decode_sysreg(esr)
    return f"{'read' if trap.is_read else 'write'} {name_of(trap.encoding)}, x{trap.rt}"


def _describe_immediate(esr: int) -> str:
    return f"#{immediate(esr):#x}"


_DETAILS: dict[int, Callable[[int], str]] = {
    EC.WFX: lambda esr: decode_wfx(esr).kind.name,
    EC.SVC64: _describe_immediate,
    EC.HVC64: _describe_immediate,
    EC.SMC64: _describe_immediate,
    EC.BRK64: _describe_immediate,
    EC.SYSREG: _describe_sysreg,
    EC.IABT_LOWER: lambda esr: describe_fault(esr & 0x3F),
    EC.IABT_CURRENT: lambda esr: describe_fault(esr & 0x3F),
    EC.DABT_LOWER: _describe_data_abort,
    EC.DABT_CURRENT: _describe_data_abort,
}

_TITLES: dict[int, str] = {
    EC.UNKNOWN: "undefined instruction",
    EC.WFX: "wait",
    EC.FP_ACCESS: "FP/SIMD access trap",
    EC.ILLEGAL_STATE: "illegal execution state",
    EC.SVC64: "SVC",
    EC.HVC64: "HVC",
    EC.SMC64: "SMC",
    EC.SYSREG: "system register",
    EC.IABT_LOWER: "instruction abort from a lower EL",
    EC.IABT_CURRENT: "instruction abort",
    EC.PC_ALIGN: "PC alignment fault",
    EC.DABT_LOWER: "data abort from a lower EL",
    EC.DABT_CURRENT: "data abort",
    EC.SP_ALIGN: "SP alignment fault",
    EC.SERROR: "SError",
    EC.BREAKPOINT_LOWER: "breakpoint from a lower EL",
    EC.BREAKPOINT_CURRENT: "breakpoint",
    EC.STEP_LOWER: "software step from a lower EL",
    EC.STEP_CURRENT: "software step",
    EC.WATCHPOINT_LOWER: "watchpoint from a lower EL",
    EC.WATCHPOINT_CURRENT: "watchpoint",
    EC.BRK64: "BRK",
}


def describe(esr: int) -> str:
    """Return a syndrome as text for traces, such as ``data abort: write, translation fault, level
    3``."""
    ec = exception_class(esr)
    title = _TITLES.get(ec, f"EC {ec:#x}")
    detail = _DETAILS.get(ec)
    return f"{title}: {detail(esr)}" if detail is not None else title
