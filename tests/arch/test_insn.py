"""The instruction decoders recognise their instructions and no others."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from armvirt.arch import decode, insn
from armvirt.arch.decode import Op, Scope
from armvirt.arch.encoding import sysreg

WORDS = st.integers(0, 0xFFFF_FFFF)


@given(st.integers(2, 3), st.integers(0, 0x3FFF), st.integers(0, 31), st.booleans())
def test_msr_mrs_round_trip(op0: int, rest: int, rt: int, is_read: bool) -> None:
    encoding = op0 << 14 | rest
    word = insn.mrs(encoding, rt) if is_read else insn.msr(encoding, rt)
    assert decode.is_msr_mrs(word) == (encoding, is_read, rt)
    assert decode.is_sys(word) is None


@given(WORDS)
def test_a_word_is_at_most_one_thing(word: int) -> None:
    kinds = [decode.is_msr_mrs(word), decode.is_sys(word), decode.decode(word)]
    assert sum(kind is not None for kind in kinds) <= 1


def test_ordinary_instructions_are_none_of_these() -> None:
    for word in (0x9100_0400, 0xF940_0000, 0x1400_0000, 0xD65F_03C0, 0):  # add, ldr, b, ret, udf
        assert [decode.decode(word), decode.is_msr_mrs(word), decode.is_sys(word)] == [None] * 3


def test_unallocated_hints_are_not_waits() -> None:
    assert decode.decode(0xD503_233F) is None  # PACIASP: a hint of FEAT_PAuth
    decoded = decode.decode(0xD503_207F)
    assert decoded is not None and decoded.op is Op.WFI


def test_daif_operand_names_pstate_bits() -> None:
    assert decode.daif_bits(0b0010) == 1 << 7
    assert decode.daif_bits(0b1111) == 0x3C0
    assert decode.daif_bits(0) == 0


def test_sys_operations_are_unique_and_known_by_name() -> None:
    assert len(decode.SYS_BY_ENCODING) == len(decode.SYS_BY_NAME) == len(decode.SYS_OPERATIONS)
    assert decode.sys_name(sysreg(1, 0, 8, 3, 1)) == "TLBI VAE1IS"
    assert decode.sys_name(sysreg(1, 3, 7, 11, 1)) == "DC CVAU"
    assert decode.sys_name(sysreg(1, 7, 7, 15, 7)) == "s1_7_c7_c15_7"


def test_tlbi_attributes() -> None:
    row = decode.SYS_BY_NAME["TLBI VALE1IS"]
    assert (row.kind, row.scope, row.broadcast, row.last_level) == ("TLBI", Scope.VA, True, True)
    assert not decode.SYS_BY_NAME["TLBI VMALLE1"].broadcast


def test_tlbi_operand() -> None:
    value = 0x0042 << 48 | 0xFFFF_FF80_0000_1000 >> 12 & (1 << 44) - 1
    assert decode.tlbi_address(value) == 0xFFFF_FF80_0000_1000
    assert decode.tlbi_asid(value) == 0x42
    assert decode.tlbi_address(0x4_0000) == 0x4000_0000
