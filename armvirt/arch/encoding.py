"""System-register encodings as one integer, in the layout of KVM's ONE_REG ids (uapi/asm/kvm.h)."""

from __future__ import annotations


def sysreg(op0: int, op1: int, crn: int, crm: int, op2: int) -> int:
    """Pack an (op0, op1, CRn, CRm, op2) encoding: op0<<14 | op1<<11 | CRn<<7 | CRm<<3 | op2."""
    return op0 << 14 | op1 << 11 | crn << 7 | crm << 3 | op2


def unpack(encoding: int) -> tuple[int, int, int, int, int]:
    """The (op0, op1, CRn, CRm, op2) fields of a packed encoding."""
    return (
        encoding >> 14 & 3,
        encoding >> 11 & 7,
        encoding >> 7 & 15,
        encoding >> 3 & 15,
        encoding & 7,
    )


def generic_name(encoding: int) -> str:
    """The assembler's generic spelling, such as ``s3_0_c12_c8_3``."""
    op0, op1, crn, crm, op2 = unpack(encoding)
    return f"s{op0}_{op1}_c{crn}_c{crm}_{op2}"
