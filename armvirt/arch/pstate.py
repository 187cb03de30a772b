"""PSTATE in the format of SPSR_EL1 and SPSR_EL2, and the exception levels (DDI 0487 C5.2.19,
D1.4)."""

from __future__ import annotations

from enum import IntEnum

from armvirt.arch.sysregs import field

PSTATE_N = field("SPSR_EL1.N")
PSTATE_Z = field("SPSR_EL1.Z")
PSTATE_C = field("SPSR_EL1.C")
PSTATE_V = field("SPSR_EL1.V")
PSTATE_UAO = field("SPSR_EL1.UAO")
PSTATE_PAN = field("SPSR_EL1.PAN")
PSTATE_SS = field("SPSR_EL1.SS")
PSTATE_IL = field("SPSR_EL1.IL")
PSTATE_D = field("SPSR_EL1.D")
PSTATE_A = field("SPSR_EL1.A")
PSTATE_I = field("SPSR_EL1.I")
PSTATE_F = field("SPSR_EL1.F")
PSTATE_DAIF = PSTATE_D | PSTATE_A | PSTATE_I | PSTATE_F
PSTATE_NRW = field("SPSR_EL1.nRW")  # AArch32
PSTATE_MODE = field("SPSR_EL1.M")  # M[3:0] of an AArch64 state
PSTATE_SP = 1 << 0  # M[0]: SP_ELx is in use
PSTATE_EL = 3 << 2  # M[3:2]: the exception level
PSTATE_NZCV_SHIFT = 28
PSTATE_NZCV = PSTATE_N | PSTATE_Z | PSTATE_C | PSTATE_V


class Mode(IntEnum):
    """SPSR_ELx.M[3:0]: bits 3:2 are the exception level, bit 0 is SPSel."""

    EL0T = 0x0
    EL1T = 0x4
    EL1H = 0x5
    EL2T = 0x8
    EL2H = 0x9
    EL3T = 0xC
    EL3H = 0xD


#: PSTATE at a CPU's reset and after every exception to EL1: EL1h with D, A, I and F masked (DDI
#: 0487 D1.3, D1.4.1).
PSTATE_EL1_ENTRY = PSTATE_DAIF | Mode.EL1H
#: EL2h with D, A, I and F masked. Stage 1 of EL2 is off, so a virtual address is a physical
#: address.
PSTATE_EL2_ENTRY = PSTATE_DAIF | Mode.EL2H

#: An ERET is illegal if SPSR_EL1 has one of these bits: IL, nRW (guests have no AArch32), M[3]
#: (EL2 and EL3), M[1] (reserved). The mode M = 0b0001 is reserved, too.
ILLEGAL_IN_SPSR = PSTATE_IL | PSTATE_NRW | 0b1010
RESERVED_MODE = 0b0001


def illegal_return(spsr: int) -> bool:
    """Return whether ERET with this value of SPSR_EL1 sets PSTATE.IL."""
    return bool(spsr & ILLEGAL_IN_SPSR) or spsr & PSTATE_MODE == RESERVED_MODE


#: The offset from VBAR_ELx of each group of four vectors (DDI 0487 D1.3.1.1). The group depends on
#: the state from which the exception is taken.
VECTOR_CURRENT_SP0 = 0x000
VECTOR_CURRENT_SPX = 0x200
VECTOR_LOWER_A64 = 0x400
VECTOR_LOWER_A32 = 0x600


VECTOR_END = 0x800  # the size in bytes of the vector table
VECTOR_BYTES = 0x80  # the size in bytes of one vector


class Vector(IntEnum):
    """The offset in bytes of a vector in its group of four vectors, by the kind of exception."""

    SYNC = 0x000
    IRQ = 0x080
    FIQ = 0x100
    SERROR = 0x180


def exception_level(pstate: int) -> int:
    """Return the exception level in ``pstate``, 0 to 3. The result is 0 if ``pstate`` says AArch32
    state (nRW = 1), because EL1 is always in AArch64 state, and then only EL0 can be in AArch32
    state."""
    return 0 if pstate & PSTATE_NRW else pstate >> 2 & 3


def uses_sp_elx(pstate: int) -> bool:
    """Return whether the stack pointer in use is SP_ELx (EL1h, EL2h, EL3h). At EL0 the stack
    pointer is always SP_EL0."""
    return exception_level(pstate) > 0 and bool(pstate & 1)


def vector_offset(pstate: int, kind: Vector) -> int:
    """Return the offset in bytes from VBAR_EL1 to the vector of an exception to EL1. ``pstate`` is
    PSTATE before the exception."""
    if exception_level(pstate) == 0:
        group = VECTOR_LOWER_A32 if pstate & PSTATE_NRW else VECTOR_LOWER_A64
    else:
        group = VECTOR_CURRENT_SPX if pstate & 1 else VECTOR_CURRENT_SP0
    return group + kind


def entry_pstate(pstate: int, span: bool = True) -> int:
    """Return PSTATE after an exception to EL1 (DDI 0487 D1.4.1, AArch64.TakeException). ``pstate``
    is PSTATE before the exception.

    N, Z, C and V keep their values. D, A, I and F are set. SS, IL and UAO are cleared. PAN is set
    if ``span`` (SCTLR_EL1.SPAN) is False, and otherwise keeps its value. ``span`` may be False only
    for a CPU with FEAT_PAN.
    """
    kept = pstate & (PSTATE_NZCV | PSTATE_PAN)
    return kept | PSTATE_EL1_ENTRY | (0 if span else PSTATE_PAN)


def describe(pstate: int) -> str:
    """Return PSTATE as text, such as ``EL1h nzCv DaIF``. A capital letter means that the bit is
    set. IL and SS are in the text only if they are set."""
    mode = (
        "AArch32"
        if pstate & PSTATE_NRW
        else f"EL{exception_level(pstate)}{'h' if pstate & 1 else 't'}"
    )
    flags = _letters(pstate, "NZCV", 31)
    masks = _letters(pstate, "DAIF", 9)
    extra = "".join(
        f" {name}" for name, bit in (("IL", PSTATE_IL), ("SS", PSTATE_SS)) if pstate & bit
    )
    return f"{mode} {flags} {masks}{extra}"


def _letters(pstate: int, names: str, top: int) -> str:
    return "".join(n if pstate >> top - i & 1 else n.lower() for i, n in enumerate(names))
