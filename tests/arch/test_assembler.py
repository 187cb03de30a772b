"""Encodings and decoders against GNU as, an oracle that shares nothing with the tables."""

from __future__ import annotations

from pathlib import Path

from gnu_as import words_of

from armvirt.arch import decode, insn
from armvirt.arch.decode import Insn, Op
from armvirt.arch.sysregs import SYSREGS

#: Registers that are younger than the assembler of Debian 12.
YOUNG = {
    "ID_PFR2_EL1",
    "ID_AA64PFR2_EL1",
    "ID_AA64ZFR0_EL1",
    "ID_AA64SMFR0_EL1",
    "ID_AA64FPFR0_EL1",
    "ID_AA64DFR2_EL1",
    "ID_AA64ISAR3_EL1",
    "ID_AA64MMFR3_EL1",
    "ID_AA64MMFR4_EL1",
    "CNTPCTSS_EL0",
    "CNTVCTSS_EL0",
    "CNTPOFF_EL2",
}

INSTRUCTIONS: dict[str, Insn] = {
    "nop": Insn(Op.NOP, 0),
    "yield": Insn(Op.YIELD, 0),
    "wfe": Insn(Op.WFE, 0),
    "wfi": Insn(Op.WFI, 0),
    "sev": Insn(Op.SEV, 0),
    "sevl": Insn(Op.SEVL, 0),
    "clrex": Insn(Op.CLREX, 15),
    "dsb ish": Insn(Op.DSB, 11),
    "dmb ishld": Insn(Op.DMB, 9),
    "isb": Insn(Op.ISB, 15),
    "svc #5": Insn(Op.SVC, 5),
    "hvc #0x1234": Insn(Op.HVC, 0x1234),
    "smc #0xffff": Insn(Op.SMC, 0xFFFF),
    "brk #0x800": Insn(Op.BRK, 0x800),
    "hlt #0xf000": Insn(Op.HLT, 0xF000),
    "eret": Insn(Op.ERET, 0),
    "msr daifset, #2": Insn(Op.MSR_DAIFSET, 2),
    "msr daifclr, #15": Insn(Op.MSR_DAIFCLR, 15),
    "msr spsel, #1": Insn(Op.MSR_SPSEL, 1),
}


def assemble(lines: list[str], folder: Path) -> list[int]:
    """The instruction words of ``lines``, one each."""
    words = words_of([".arch armv8.2-a+profile", *lines], folder)
    assert len(words) == len(lines)
    return words


def test_decoder(tmp_path: Path) -> None:
    words = assemble(list(INSTRUCTIONS), tmp_path)
    assert {
        text: decode.decode(word) for text, word in zip(INSTRUCTIONS, words, strict=True)
    } == INSTRUCTIONS


def test_every_system_register(tmp_path: Path) -> None:
    rows = [row for row in SYSREGS if row.name not in YOUNG and not row.name.startswith("s3_")]
    lines = [f"msr {row.name}, x7" if row.access == "wo" else f"mrs x7, {row.name}" for row in rows]
    for row, word in zip(rows, assemble(lines, tmp_path), strict=True):
        access = decode.is_msr_mrs(word)
        assert access == (row.encoding, row.access != "wo", 7), row.name
        assert (insn.mrs if row.access != "wo" else insn.msr)(row.encoding, 7) == word, row.name


def _without_register(row: decode.SysOp) -> bool:
    return row.kind in ("TLBI", "IC") and row.scope is decode.Scope.ALL


def test_every_system_operation(tmp_path: Path) -> None:
    rows = decode.SYS_OPERATIONS
    lines = [
        row.name.lower() if _without_register(row) else f"{row.name.lower()}, x3" for row in rows
    ]
    for row, word in zip(rows, assemble(lines, tmp_path), strict=True):
        assert decode.is_sys(word) == (row.encoding, False, 31 if _without_register(row) else 3), (
            row.name
        )
        assert decode.is_msr_mrs(word) is None
