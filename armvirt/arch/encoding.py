"""System-register encodings packed into one integer, and the row type of the register tables.

The layout of a packed encoding is the same as in KVM's ONE_REG ids (uapi/asm/kvm.h).
"""

from __future__ import annotations

from armvirt.arch.bits import Field, masks, parse_fields
from armvirt.records import NamedTuple

#: The fields of an encoding; op2 is at bit 0.
OP0_SHIFT, OP1_SHIFT, CRN_SHIFT, CRM_SHIFT = 14, 11, 7, 3
OP0_MASK, OP1_MASK, CRN_MASK, CRM_MASK, OP2_MASK = 3, 7, 15, 15, 7


def sysreg(op0: int, op1: int, crn: int, crm: int, op2: int) -> int:
    """Pack an (op0, op1, CRn, CRm, op2) encoding."""
    return op0 << OP0_SHIFT | op1 << OP1_SHIFT | crn << CRN_SHIFT | crm << CRM_SHIFT | op2


def unpack(encoding: int) -> tuple[int, int, int, int, int]:
    """Return the fields (op0, op1, CRn, CRm, op2) of a packed encoding."""
    return (
        encoding >> OP0_SHIFT & OP0_MASK,
        encoding >> OP1_SHIFT & OP1_MASK,
        encoding >> CRN_SHIFT & CRN_MASK,
        encoding >> CRM_SHIFT & CRM_MASK,
        encoding & OP2_MASK,
    )


def generic_name(encoding: int) -> str:
    """Return the assembler's generic name of an encoding, such as ``s3_0_c12_c8_3``."""
    op0, op1, crn, crm, op2 = unpack(encoding)
    return f"s{op0}_{op1}_c{crn}_c{crm}_{op2}"


class SysReg(NamedTuple):
    """One system register: a row of the tables in `armvirt.arch.sysregs` and `armvirt.arch.gic`.

    ``encoding`` is packed by `sysreg`. ``access`` is rw, ro or wo. ``reset`` is the value after a
    warm reset. If the architecture says that this value is UNKNOWN, ``reset`` is 0, because a run
    must be reproducible. ``layout`` is a text with the fields, "NAME:bit" or "NAME:high:low";
    `fields` parses this text.
    """

    name: str
    encoding: int
    width: int = 64
    access: str = "rw"
    reset: int = 0
    layout: str = ""

    @property
    def fields(self) -> tuple[Field, ...]:
        """The register's named fields, in the order of the table."""
        return tuple(parse_fields(self.layout))

    def mask(self, field: str) -> int:
        """Return the mask of the named field at its position in the register. Raises KeyError if
        the register has no such field."""
        return masks(self.layout)[field]

    @property
    def readable(self) -> bool:
        return self.access != "wo"

    @property
    def writable(self) -> bool:
        return self.access != "ro"

    def describe(self, value: int) -> str:
        """Return the fields of ``value`` that are not 0, as text. For a field of one bit the text
        is only its name: ``ENABLE IMASK``."""
        parts = (
            f"{f.name}={f.get(value):#x}" if f.high > f.low else f.name
            for f in self.fields
            if f.get(value)
        )
        return " ".join(parts)


def define(
    name: str,
    op: tuple[int, int, int, int, int],
    access: str = "rw",
    layout: str = "",
    reset: int = 0,
) -> SysReg:
    """Return the row of a 64-bit register. ``op`` is its encoding (op0, op1, CRn, CRm, op2)."""
    return SysReg(name, sysreg(*op), 64, access, reset, layout)
