"""Loads and stores that give no syndrome are decoded as a table of words says. GNU as checks the
table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pytest
from gnu_as import words_of
from hypothesis import given
from hypothesis import strategies as st

from armvirt.arch.load_store import UNKNOWN, Access, Element, Form, decode_access

SP = 31


class Case(NamedTuple):
    """``registers`` are in the order of memory; ``writeback`` is (register, offset)."""

    word: int
    text: str
    is_write: bool
    size: int
    registers: Sequence[int]
    writeback: tuple[int, int] | None = None
    simd: bool = False
    signed: bool = False
    wide: bool = True


def load(word: int, text: str, size: int, *registers: int, **more: object) -> Case:
    return Case(word, text, False, size, registers, **more)  # type: ignore[arg-type]


def store(word: int, text: str, size: int, *registers: int, **more: object) -> Case:
    return Case(word, text, True, size, registers, **more)  # type: ignore[arg-type]


PAIRS = [
    store(0xA9010BE1, "stp x1, x2, [sp, #16]", 8, 1, 2),
    store(0xA9BF0BE1, "stp x1, x2, [sp, #-16]!", 8, 1, 2, writeback=(SP, -16)),
    load(0xA8C10BE1, "ldp x1, x2, [sp], #16", 8, 1, 2, writeback=(SP, 16)),
    load(0xA9E009A1, "ldp x1, x2, [x13, #-512]!", 8, 1, 2, writeback=(13, -512)),
    load(0x295F8861, "ldp w1, w2, [x3, #252]", 4, 1, 2),
    store(0x29200861, "stp w1, w2, [x3, #-256]", 4, 1, 2),
    load(0x28C10861, "ldp w1, w2, [x3], #8", 4, 1, 2, writeback=(3, 8)),
    load(0x69400861, "ldpsw x1, x2, [x3]", 4, 1, 2, signed=True),
    load(0x68C10861, "ldpsw x1, x2, [x3], #8", 4, 1, 2, writeback=(3, 8), signed=True),
    load(0x69FF0861, "ldpsw x1, x2, [x3, #-8]!", 4, 1, 2, writeback=(3, -8), signed=True),
    store(0xA8010861, "stnp x1, x2, [x3, #16]", 8, 1, 2),
    load(0x28410861, "ldnp w1, w2, [x3, #8]", 4, 1, 2),
    store(0xA9007C1F, "stp xzr, xzr, [x0]", 8, 31, 31),
    store(0x2D010861, "stp s1, s2, [x3, #8]", 4, 1, 2, simd=True),
    store(0x6D810861, "stp d1, d2, [x3, #16]!", 8, 1, 2, writeback=(3, 16), simd=True),
    load(0xACC10861, "ldp q1, q2, [x3], #32", 16, 1, 2, writeback=(3, 32), simd=True),
    load(0xAD7F0861, "ldp q1, q2, [x3, #-32]", 16, 1, 2, simd=True),
]

SINGLES = [
    load(0x38401441, "ldrb w1, [x2], #1", 1, 1, writeback=(2, 1)),
    load(0x785FEC41, "ldrh w1, [x2, #-2]!", 2, 1, writeback=(2, -2)),
    load(0xB8404441, "ldr w1, [x2], #4", 4, 1, writeback=(2, 4)),
    load(0xF85F8C41, "ldr x1, [x2, #-8]!", 8, 1, writeback=(2, -8)),
    load(0xF84FF441, "ldr x1, [x2], #255", 8, 1, writeback=(2, 255)),
    store(0xF8100C41, "str x1, [x2, #-256]!", 8, 1, writeback=(2, -256)),
    store(0x381FF7E3, "strb w3, [sp], #-1", 1, 3, writeback=(SP, -1)),
    store(0xB9000441, "str w1, [x2, #4]", 4, 1),
    store(0xF93FFC41, "str x1, [x2, #32760]", 8, 1),
    load(0xF8408041, "ldur x1, [x2, #8]", 8, 1),
    load(0xF8636841, "ldr x1, [x2, x3]", 8, 1),
    store(0xB8237841, "str w1, [x2, x3, lsl #2]", 4, 1),
    load(0xF8408841, "ldtr x1, [x2, #8]", 8, 1),
    load(0x38801C41, "ldrsb x1, [x2, #1]!", 1, 1, writeback=(2, 1), signed=True),
    load(0x38C01C41, "ldrsb w1, [x2, #1]!", 1, 1, writeback=(2, 1), signed=True, wide=False),
    load(0x78802441, "ldrsh x1, [x2], #2", 2, 1, writeback=(2, 2), signed=True),
    load(0x78C02441, "ldrsh w1, [x2], #2", 2, 1, writeback=(2, 2), signed=True, wide=False),
    load(0xB8804441, "ldrsw x1, [x2], #4", 4, 1, writeback=(2, 4), signed=True),
    load(0xB9800441, "ldrsw x1, [x2, #4]", 4, 1, signed=True),
    load(0x3D400441, "ldr b1, [x2, #1]", 1, 1, simd=True),
    load(0x7C402441, "ldr h1, [x2], #2", 2, 1, writeback=(2, 2), simd=True),
    store(0xBD000441, "str s1, [x2, #4]", 4, 1, simd=True),
    store(0xFC1F8C41, "str d1, [x2, #-8]!", 8, 1, writeback=(2, -8), simd=True),
    load(0x3DC00441, "ldr q1, [x2, #16]", 16, 1, simd=True),
    store(0x3C810441, "str q1, [x2], #16", 16, 1, writeback=(2, 16), simd=True),
    store(0x3CA36841, "str q1, [x2, x3]", 16, 1, simd=True),
    load(0x3CC01041, "ldur q1, [x2, #1]", 16, 1, simd=True),
]

ORDERED = [
    load(0x08DFFC41, "ldarb w1, [x2]", 1, 1),
    load(0xC8DFFC41, "ldar x1, [x2]", 8, 1),
    store(0x489FFC41, "stlrh w1, [x2]", 2, 1),
    store(0x889FFC41, "stlr w1, [x2]", 4, 1),
]

MULTIPLES = [
    load(0x4C407041, "ld1 {v1.16b}, [x2]", 16, 1, simd=True),
    load(0x0C407041, "ld1 {v1.8b}, [x2]", 8, 1, simd=True),
    load(0x4CDFA441, "ld1 {v1.8h, v2.8h}, [x2], #32", 16, 1, 2, writeback=(2, 32), simd=True),
    store(0x4C006841, "st1 {v1.4s, v2.4s, v3.4s}, [x2]", 16, 1, 2, 3, simd=True),
    store(
        0x4C9F2FFE,
        "st1 {v30.2d, v31.2d, v0.2d, v1.2d}, [sp], #64",
        16,
        30,
        31,
        0,
        1,
        writeback=(SP, 64),
        simd=True,
    ),
    store(
        0x0C9F2041,
        "st1 {v1.8b, v2.8b, v3.8b, v4.8b}, [x2], #32",
        8,
        1,
        2,
        3,
        4,
        writeback=(2, 32),
        simd=True,
    ),
]

PLAIN = [*PAIRS, *SINGLES, *ORDERED, *MULTIPLES]


class Special(NamedTuple):
    word: int
    text: str
    form: Form
    is_write: bool


SPECIAL = [
    Special(0xC85F7C41, "ldxr x1, [x2]", Form.EXCLUSIVE, False),
    Special(0x085F7C41, "ldxrb w1, [x2]", Form.EXCLUSIVE, False),
    Special(0xC803FC41, "stlxr w3, x1, [x2]", Form.EXCLUSIVE, True),
    Special(0xC87F0861, "ldxp x1, x2, [x3]", Form.EXCLUSIVE, False),
    Special(0x88240861, "stxp w4, w1, w2, [x3]", Form.EXCLUSIVE, True),
    Special(0x885FFC41, "ldaxr w1, [x2]", Form.EXCLUSIVE, False),
    Special(0xF8210043, "ldadd x1, x3, [x2]", Form.EXCLUSIVE, True),
    Special(0xB8E18043, "swpal w1, w3, [x2]", Form.EXCLUSIVE, True),
    Special(0x38213043, "ldsetb w1, w3, [x2]", Form.EXCLUSIVE, True),
    Special(0xD50B7423, "dc zva, x3", Form.ZVA, True),
]

OTHERS = {
    0xD503201F: "nop", 0x91000421: "add x1, x1, #1", 0xF8A36840: "prfm pldl1keep, [x2, x3]",
    0xF9800040: "prfm pldl1keep, [x2]", 0xD50B7523: "ic ivau, x3", 0xD50B7B23: "dc cvau, x3",
    0x4C408041: "ld2 {v1.16b, v2.16b}, [x2]", 0x4CC37041: "ld1 {v1.16b}, [x2], x3", 0x00000000: "udf #0",
    0xD4000001: "svc #0",
}  # fmt: skip


def expected(case: Case) -> Access:
    elements = (
        Element(register, i * case.size, case.size, case.simd, case.signed, case.wide)
        for i, register in enumerate(case.registers)
    )
    return Access(Form.PLAIN, case.is_write, tuple(elements), case.writeback)


@pytest.mark.parametrize("case", PLAIN, ids=[case.text for case in PLAIN])
def test_plain_accesses(case: Case) -> None:
    assert decode_access(case.word) == expected(case)


@pytest.mark.parametrize("case", SPECIAL, ids=[case.text for case in SPECIAL])
def test_accesses_that_a_device_refuses(case: Special) -> None:
    access = decode_access(case.word)
    assert (access.form, access.is_write) == (case.form, case.is_write) and not access.elements


@pytest.mark.parametrize("word", OTHERS, ids=OTHERS.values())
def test_what_is_not_described(word: int) -> None:
    assert decode_access(word) == UNKNOWN


@pytest.mark.parametrize(
    ("word", "text"), [(0xC8A17C43, "cas x1, x3, [x2]"), (0x48207C82, "casp x0, x1, x2, x3, [x4]")]
)
def test_compare_and_swap_is_exclusive(word: int, text: str) -> None:
    """CAS writes if it compares equal: to memory that is a device it is an exclusive access, never
    an ordered load."""
    assert decode_access(word).form is Form.EXCLUSIVE


def test_words_are_those_of_gnu_as(tmp_path: Path) -> None:
    """The table was written with an assembler; this repeats it."""
    words = {case.text: case.word for case in (*PLAIN, *SPECIAL)} | {
        text: word for word, text in OTHERS.items()
    }
    words |= {"cas x1, x3, [x2]": 0xC8A17C43, "casp x0, x1, x2, x3, [x4]": 0x48207C82}
    found = words_of([".arch armv8.2-a", *words], tmp_path)
    assert {t: f"{w:08x}" for t, w in words.items()} == {
        t: f"{w:08x}" for t, w in zip(words, found, strict=True)
    }


@given(st.integers(0, 0xFFFF_FFFF))
def test_any_word_decodes_to_something_sound(word: int) -> None:
    """No word raises; registers, sizes and offsets are those that an instruction can have."""
    access = decode_access(word)
    for i, element in enumerate(access.elements):
        assert 0 <= element.register < 32 and element.size in (1, 2, 4, 8, 16)
        assert element.offset == i * element.size
    assert len(access.elements) <= 4 and (access.form is Form.PLAIN) == bool(access.elements)
    if access.writeback is not None:
        assert 0 <= access.writeback[0] < 32 and -1024 <= access.writeback[1] <= 1008
