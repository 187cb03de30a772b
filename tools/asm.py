"""An A64 assembler for the guests of tests and tools: one method for each instruction form, and
labels.

`tests/tools/test_asm.py` compares every form with GNU as. Encodings: DDI 0487 C6.2.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from armvirt.arch.decode import SYS_BY_NAME
from armvirt.arch.insn import mrs, msr
from armvirt.arch.sysregs import encoding_of

XZR = SP = 31
EQ, NE, HS, LO, MI, PL = range(6)


class Asm:
    """A program at address ``base``. A label may be used before its definition; `code` inserts its
    address."""

    def __init__(self, base: int = 0x4000_0000) -> None:
        self.base = base
        self.words: list[int] = []
        self.labels: dict[str, int] = {}
        self._fixups: list[tuple[int, str, Callable[[int], int]]] = []

    @property
    def here(self) -> int:
        return self.base + 4 * len(self.words)

    def label(self, name: str) -> None:
        assert name not in self.labels, name
        self.labels[name] = self.here

    def word(self, *words: int) -> None:
        self.words.extend(words)

    def align(self, size: int) -> None:
        while self.here % size:
            self.nop()

    def __getitem__(self, label: str) -> int:
        return self.labels[label]

    def code(self) -> bytes:
        words = list(self.words)
        for at, label, field in self._fixups:
            words[at] |= field(self.labels[label] - (self.base + 4 * at))
        return struct.pack(f"<{len(words)}I", *words)

    def _to(self, word: int, label: str, field: Callable[[int], int]) -> None:
        self._fixups.append((len(self.words), label, field))
        self.word(word)

    # -- constants and arithmetic, 64 bits --

    def movz(self, rd: int, imm: int, shift: int = 0) -> None:
        self.word(0xD280_0000 | shift // 16 << 21 | imm << 5 | rd)

    def movk(self, rd: int, imm: int, shift: int) -> None:
        self.word(0xF280_0000 | shift // 16 << 21 | imm << 5 | rd)

    def mov(self, rd: int, value: int) -> None:
        """Write a constant of 64 bits with one to four instructions."""
        self.movz(rd, value & 0xFFFF)
        for shift in (16, 32, 48):
            if part := value >> shift & 0xFFFF:
                self.movk(rd, part, shift)

    def movr(self, rd: int, rm: int) -> None:
        self.orr(rd, XZR, rm)

    def add_imm(self, rd: int, rn: int, imm: int) -> None:
        self.word(0x9100_0000 | imm << 10 | rn << 5 | rd)

    def sub_imm(self, rd: int, rn: int, imm: int) -> None:
        self.word(0xD100_0000 | imm << 10 | rn << 5 | rd)

    def subs_imm(self, rd: int, rn: int, imm: int) -> None:
        self.word(0xF100_0000 | imm << 10 | rn << 5 | rd)

    def cmp_imm(self, rn: int, imm: int) -> None:
        self.subs_imm(XZR, rn, imm)

    def add(self, rd: int, rn: int, rm: int) -> None:
        self.word(0x8B00_0000 | rm << 16 | rn << 5 | rd)

    def subs(self, rd: int, rn: int, rm: int) -> None:
        self.word(0xEB00_0000 | rm << 16 | rn << 5 | rd)

    def orr(self, rd: int, rn: int, rm: int) -> None:
        self.word(0xAA00_0000 | rm << 16 | rn << 5 | rd)

    def eor(self, rd: int, rn: int, rm: int) -> None:
        self.word(0xCA00_0000 | rm << 16 | rn << 5 | rd)

    def and_(self, rd: int, rn: int, rm: int) -> None:
        self.word(0x8A00_0000 | rm << 16 | rn << 5 | rd)

    def lsr(self, rd: int, rn: int, shift: int) -> None:
        self.word(0xD340_FC00 | shift << 16 | rn << 5 | rd)

    def mov_sp(self, rn: int) -> None:
        self.add_imm(SP, rn, 0)

    def from_sp(self, rd: int) -> None:
        self.add_imm(rd, SP, 0)

    def fmov_d(self, vd: int, rn: int) -> None:
        self.word(0x9E67_0000 | rn << 5 | vd)

    def fadd_d(self, vd: int, vn: int, vm: int) -> None:
        self.word(0x1E60_2800 | vm << 16 | vn << 5 | vd)

    # -- memory --

    def ldr(self, rt: int, rn: int, offset: int = 0) -> None:
        self.word(0xF940_0000 | offset // 8 << 10 | rn << 5 | rt)

    def str_(self, rt: int, rn: int, offset: int = 0) -> None:
        self.word(0xF900_0000 | offset // 8 << 10 | rn << 5 | rt)

    def ldr_w(self, rt: int, rn: int, offset: int = 0) -> None:
        self.word(0xB940_0000 | offset // 4 << 10 | rn << 5 | rt)

    def str_w(self, rt: int, rn: int, offset: int = 0) -> None:
        self.word(0xB900_0000 | offset // 4 << 10 | rn << 5 | rt)

    def ldr_post(self, rt: int, rn: int, step: int) -> None:
        self.word(0xF840_0400 | (step & 511) << 12 | rn << 5 | rt)

    def str_post(self, rt: int, rn: int, step: int) -> None:
        self.word(0xF800_0400 | (step & 511) << 12 | rn << 5 | rt)

    def stp_pre(self, rt: int, rt2: int, rn: int, offset: int) -> None:
        self.word(0xA980_0000 | (offset // 8 & 127) << 15 | rt2 << 10 | rn << 5 | rt)

    def ldp_post(self, rt: int, rt2: int, rn: int, offset: int) -> None:
        self.word(0xA8C0_0000 | (offset // 8 & 127) << 15 | rt2 << 10 | rn << 5 | rt)

    def ldxr(self, rt: int, rn: int) -> None:
        self.word(0xC85F_7C00 | rn << 5 | rt)

    def stxr(self, rs: int, rt: int, rn: int) -> None:
        self.word(0xC800_7C00 | rs << 16 | rn << 5 | rt)

    def ldxp(self, rt: int, rt2: int, rn: int) -> None:
        self.word(0xC87F_0000 | rt2 << 10 | rn << 5 | rt)

    def stxp(self, rs: int, rt: int, rt2: int, rn: int) -> None:
        self.word(0xC820_0000 | rs << 16 | rt2 << 10 | rn << 5 | rt)

    # -- branches --

    def b(self, label: str) -> None:
        self._to(0x1400_0000, label, lambda d: d // 4 & 0x3FF_FFFF)

    def bl(self, label: str) -> None:
        self._to(0x9400_0000, label, lambda d: d // 4 & 0x3FF_FFFF)

    def b_cond(self, condition: int, label: str) -> None:
        self._to(0x5400_0000 | condition, label, _imm19)

    def cbz(self, rt: int, label: str) -> None:
        self._to(0xB400_0000 | rt, label, _imm19)

    def cbnz(self, rt: int, label: str) -> None:
        self._to(0xB500_0000 | rt, label, _imm19)

    def adr(self, rd: int, label: str) -> None:
        self._to(0x1000_0000 | rd, label, lambda d: (d & 3) << 29 | (d >> 2 & 0x7FFFF) << 5)

    def br(self, rn: int) -> None:
        self.word(0xD61F_0000 | rn << 5)

    def blr(self, rn: int) -> None:
        self.word(0xD63F_0000 | rn << 5)

    def ret(self) -> None:
        self.word(0xD65F_03C0)

    def eret(self) -> None:
        self.word(0xD69F_03E0)

    # -- exceptions and hints --

    def svc(self, imm: int = 0) -> None:
        self.word(0xD400_0001 | imm << 5)

    def hvc(self, imm: int = 0) -> None:
        self.word(0xD400_0002 | imm << 5)

    def smc(self, imm: int = 0) -> None:
        self.word(0xD400_0003 | imm << 5)

    def brk(self, imm: int = 0) -> None:
        self.word(0xD420_0000 | imm << 5)

    def hlt(self, imm: int = 0) -> None:
        self.word(0xD440_0000 | imm << 5)

    def udf(self) -> None:
        self.word(0)

    def nop(self) -> None:
        self.word(0xD503_201F)

    def yield_(self) -> None:
        self.word(0xD503_203F)

    def wfe(self) -> None:
        self.word(0xD503_205F)

    def sev(self) -> None:
        self.word(0xD503_209F)

    def sevl(self) -> None:
        self.word(0xD503_20BF)

    def wfi(self) -> None:
        self.word(0xD503_207F)

    def isb(self) -> None:
        self.word(0xD503_3FDF)

    def dsb(self) -> None:
        self.word(0xD503_3F9F)

    def clrex(self) -> None:
        self.word(0xD503_3F5F)

    # -- system registers --

    def mrs(self, rt: int, register: str | int) -> None:
        self.word(mrs(_encoding(register), rt))

    def msr(self, register: str | int, rt: int) -> None:
        self.word(msr(_encoding(register), rt))

    def msr_const(self, register: str | int, value: int, scratch: int = 9) -> None:
        """Write a constant into a system register, with X<scratch> as scratch register."""
        self.mov(scratch, value)
        self.msr(register, scratch)

    def sys(self, name: str, rt: int = XZR) -> None:
        """IC, DC, AT or TLBI by its name in `armvirt.arch.insn.SYS_OPERATIONS`."""
        self.word(0xD500_0000 | SYS_BY_NAME[name].encoding << 5 | rt)

    def daifset(self, imm: int) -> None:
        self.word(0xD503_40DF | imm << 8)

    def daifclr(self, imm: int) -> None:
        self.word(0xD503_40FF | imm << 8)

    def spsel(self, imm: int) -> None:
        self.word(0xD500_40BF | imm << 8)

    # -- what many programs have --

    def vectors(self, handler: Callable[[Asm, int], None], name: str = "vectors") -> None:
        """A table of 16 vectors: ``handler(asm, offset)`` writes the code of the vector at this
        offset."""
        self.align(2048)
        self.label(name)
        start = self.here
        for offset in range(0, 2048, 128):
            handler(self, offset)
            assert self.here <= start + offset + 128, "a vector has room for 32 instructions"
            while self.here < start + offset + 128:
                self.udf()

    def set_vectors(self, name: str = "vectors") -> None:
        self.adr(9, name)
        self.msr("VBAR_EL1", 9)

    def drop_to(self, label: str, spsr: int) -> None:
        """ERET to a label with this SPSR; X9 is overwritten."""
        self.adr(9, label)
        self.msr("ELR_EL1", 9)
        self.msr_const("SPSR_EL1", spsr)
        self.eret()


def _imm19(distance: int) -> int:
    return (distance // 4 & 0x7FFFF) << 5


def _encoding(register: str | int) -> int:
    return register if isinstance(register, int) else encoding_of(register)
