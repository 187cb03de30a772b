"""The assembler of tests and tools against GNU as."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

from asm import EQ, HS, NE, Asm
from gnu_as import words_of

FORMS: dict[str, Callable[[Asm], None]] = {
    "movz x3, #0xbeef, lsl #16": lambda a: a.movz(3, 0xBEEF, 16),
    "movk x4, #0x1234, lsl #48": lambda a: a.movk(4, 0x1234, 48),
    "mov x5, x6": lambda a: a.movr(5, 6),
    "add x1, x2, #0x123": lambda a: a.add_imm(1, 2, 0x123),
    "sub x1, x2, #4": lambda a: a.sub_imm(1, 2, 4),
    "subs x1, x2, #4": lambda a: a.subs_imm(1, 2, 4),
    "cmp x7, #100": lambda a: a.cmp_imm(7, 100),
    "add x1, x2, x3": lambda a: a.add(1, 2, 3),
    "subs x1, x2, x3": lambda a: a.subs(1, 2, 3),
    "orr x1, x2, x3": lambda a: a.orr(1, 2, 3),
    "eor x1, x2, x3": lambda a: a.eor(1, 2, 3),
    "and x1, x2, x3": lambda a: a.and_(1, 2, 3),
    "lsr x1, x2, #26": lambda a: a.lsr(1, 2, 26),
    "mov sp, x9": lambda a: a.mov_sp(9),
    "mov x9, sp": lambda a: a.from_sp(9),
    "fmov d3, x4": lambda a: a.fmov_d(3, 4),
    "fadd d1, d2, d3": lambda a: a.fadd_d(1, 2, 3),
    "ldr x1, [x2, #16]": lambda a: a.ldr(1, 2, 16),
    "str x1, [sp, #8]": lambda a: a.str_(1, 31, 8),
    "ldr w1, [x2, #4]": lambda a: a.ldr_w(1, 2, 4),
    "str w1, [x2, #4]": lambda a: a.str_w(1, 2, 4),
    "ldr x1, [x2], #-8": lambda a: a.ldr_post(1, 2, -8),
    "str x1, [x2], #8": lambda a: a.str_post(1, 2, 8),
    "stp x1, x2, [sp, #-16]!": lambda a: a.stp_pre(1, 2, 31, -16),
    "ldp x1, x2, [sp], #16": lambda a: a.ldp_post(1, 2, 31, 16),
    "ldxr x1, [x2]": lambda a: a.ldxr(1, 2),
    "stxr w3, x1, [x2]": lambda a: a.stxr(3, 1, 2),
    "ldxp x1, x2, [x3]": lambda a: a.ldxp(1, 2, 3),
    "stxp w4, x1, x2, [x3]": lambda a: a.stxp(4, 1, 2, 3),
    "b back": lambda a: a.b("back"),
    "bl ahead": lambda a: a.bl("ahead"),
    "b.eq back": lambda a: a.b_cond(EQ, "back"),
    "b.ne ahead": lambda a: a.b_cond(NE, "ahead"),
    "b.hs ahead": lambda a: a.b_cond(HS, "ahead"),
    "cbz x5, back": lambda a: a.cbz(5, "back"),
    "cbnz x5, ahead": lambda a: a.cbnz(5, "ahead"),
    "adr x6, back": lambda a: a.adr(6, "back"),
    "adr x6, ahead": lambda a: a.adr(6, "ahead"),
    "br x7": lambda a: a.br(7),
    "blr x7": lambda a: a.blr(7),
    "ret": lambda a: a.ret(),
    "eret": lambda a: a.eret(),
    "svc #3": lambda a: a.svc(3),
    "hvc #0x1234": lambda a: a.hvc(0x1234),
    "smc #1": lambda a: a.smc(1),
    "brk #1": lambda a: a.brk(1),
    "hlt #0xf000": lambda a: a.hlt(0xF000),
    "udf #0": lambda a: a.udf(),
    "nop": lambda a: a.nop(),
    "yield": lambda a: a.yield_(),
    "wfe": lambda a: a.wfe(),
    "sev": lambda a: a.sev(),
    "sevl": lambda a: a.sevl(),
    "wfi": lambda a: a.wfi(),
    "isb": lambda a: a.isb(),
    "dsb sy": lambda a: a.dsb(),
    "clrex": lambda a: a.clrex(),
    "mrs x3, esr_el1": lambda a: a.mrs(3, "ESR_EL1"),
    "msr vbar_el1, x4": lambda a: a.msr("VBAR_EL1", 4),
    "ic ivau, x5": lambda a: a.sys("IC IVAU", 5),
    "tlbi vmalle1": lambda a: a.sys("TLBI VMALLE1"),
    "msr daifset, #2": lambda a: a.daifset(2),
    "msr daifclr, #3": lambda a: a.daifclr(3),
    "msr spsel, #0": lambda a: a.spsel(0),
}


def test_every_form(tmp_path: Path) -> None:
    theirs = words_of(["back:", *FORMS, "ahead:"], tmp_path)
    program = Asm()
    program.label("back")
    for write in FORMS.values():
        write(program)
    program.label("ahead")
    words = zip(FORMS, struct.unpack(f"<{len(theirs)}I", program.code()), theirs, strict=True)
    assert not [text for text, ours, word in words if ours != word]


def test_constants() -> None:
    program = Asm()
    program.mov(1, 0x1234_0000_5678_9ABC)
    assert len(program.words) == 3
    program.mov(1, 0)
    assert len(program.words) == 4
