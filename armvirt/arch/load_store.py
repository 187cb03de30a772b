"""Decode loads and stores that the syndrome does not describe (ISV = 0): pairs, writeback, SIMD&FP,
exclusives, atomics.

KVM does not emulate an access with ISV = 0. armvirt emulates it and decodes the instruction word
(DDI 0487 C4.1.94 "Loads and Stores"). The table has only the encodings that can cause a stage-2
abort with ISV = 0.
"""

from __future__ import annotations

from enum import Enum

from armvirt.arch.bits import sign_extend
from armvirt.records import NamedTuple


class Element(NamedTuple):
    """The transfer of one register: ``size`` bytes at the address of the access plus ``offset``
    bytes."""

    register: int
    offset: int
    size: int
    simd: bool
    signed: bool = False
    wide: bool = True  # the destination has 64 bits; used only if ``signed``


class Form(Enum):
    """The kind of an access. The result of an access to Device memory depends on this kind."""

    PLAIN = "plain"
    EXCLUSIVE = "exclusive"  # LDXR/STXR, LSE atomics: unsupported exclusive access, DFSC 0x35
    ZVA = "zva"  # DC ZVA: alignment fault, DFSC 0x21
    UNKNOWN = "unknown"


class Access(NamedTuple):
    """A decoded access. ``writeback`` is (base register, bytes to add), or None if the instruction
    does not write the base register. Base register 31 is SP."""

    form: Form
    is_write: bool = False
    elements: tuple[Element, ...] = ()
    writeback: tuple[int, int] | None = None


UNKNOWN = Access(Form.UNKNOWN)


def _pair(insn: int) -> Access:
    """Decode LDP, STP, LDPSW, LDNP and STNP of general or SIMD&FP registers."""
    opc, simd, index, load = insn >> 30, bool(insn >> 26 & 1), insn >> 23 & 3, bool(insn >> 22 & 1)
    if opc == 3 or (opc == 1 and not simd and not load):
        return UNKNOWN
    size = 4 << opc if simd else 8 if opc == 2 else 4
    signed = opc == 1 and not simd
    rt, rn, rt2 = insn & 31, insn >> 5 & 31, insn >> 10 & 31
    offset = sign_extend(insn >> 15 & 127, 7) * size
    elements = (Element(rt, 0, size, simd, signed), Element(rt2, size, size, simd, signed))
    return Access(Form.PLAIN, not load, elements, (rn, offset) if index in (1, 3) else None)


def _single(insn: int) -> Access:
    """Decode LDR, STR and their variants. The addressing modes are unsigned offset, unscaled
    offset, register offset, pre-index and post-index."""
    size_field, simd, opc = insn >> 30, bool(insn >> 26 & 1), insn >> 22 & 3
    if simd:
        scale = size_field | (opc & 2) << 1
        if scale > 4:
            return UNKNOWN
        element, load = Element(insn & 31, 0, 1 << scale, True), bool(opc & 1)
    else:
        if size_field == 3 and opc >= 2:
            return UNKNOWN  # PRFM: never aborts
        element = Element(insn & 31, 0, 1 << size_field, False, opc >= 2, opc != 3)
        load = opc != 0
    unsigned_offset, register_offset = bool(insn >> 24 & 1), insn >> 21 & 1
    index = insn >> 10 & 3
    writeback = None
    if not unsigned_offset and not register_offset and index in (1, 3):
        writeback = (insn >> 5 & 31, sign_extend(insn >> 12 & 511, 9))
    return Access(Form.PLAIN, not load, (element,), writeback)


def _exclusive(insn: int) -> Access:
    """Decode LDXR, STXR, their pair forms, and CAS. LDAR and STLR are decoded as ordinary
    accesses."""
    if insn >> 23 & 1 and not insn >> 21 & 1:
        load = bool(insn >> 22 & 1)
        return Access(Form.PLAIN, not load, (Element(insn & 31, 0, 1 << (insn >> 30), False),))
    return Access(Form.EXCLUSIVE, not insn >> 22 & 1)


def _multiple(insn: int) -> Access:
    """Decode LD1 and ST1 of one to four whole registers, with immediate post-index or without
    writeback. All other forms (LD2 to LD4, ST2 to ST4, register post-index) are `UNKNOWN`."""
    counts = {0b0111: 1, 0b1010: 2, 0b0110: 3, 0b0010: 4}
    count, size = counts.get(insn >> 12 & 15, 0), 16 if insn >> 30 & 1 else 8
    if not count:
        return UNKNOWN
    rt, rn, rm = insn & 31, insn >> 5 & 31, insn >> 16 & 31
    elements = tuple(Element((rt + i) & 31, i * size, size, True) for i in range(count))
    post = bool(insn >> 23 & 1)
    if post and rm != 31:
        return UNKNOWN
    return Access(Form.PLAIN, not insn >> 22 & 1, elements, (rn, count * size) if post else None)


_TABLE = (
    # mask, value, decoder
    (0x3A000000, 0x28000000, _pair),
    (0x3F000000, 0x08000000, _exclusive),
    (0x3B200C00, 0x38200000, lambda insn: Access(Form.EXCLUSIVE, True)),  # LDADD, SWP, ...
    (0x3A000000, 0x38000000, _single),
    (0xBF000000, 0x0C000000, _multiple),
    (0xFFFFFFE0, 0xD50B7420, lambda insn: Access(Form.ZVA, True)),
)  # fmt: skip


def decode_access(insn: int) -> Access:
    """Decode a load or store. The result has the form `Form.UNKNOWN` if the encoding is not in the
    table."""
    for mask, value, decoder in _TABLE:
        if insn & mask == value:
            return decoder(insn)
    return UNKNOWN
