"""Constants of the Generic Timer, the arithmetic of TVAL, and the function ids of PSCI."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from armvirt.arch import psci, timer
from armvirt.arch.bits import MASK64
from armvirt.arch.psci import PsciFunction, SmcccFunction
from armvirt.arch.sysregs import BY_NAME

U64 = st.integers(0, MASK64)
I32 = st.integers(-(1 << 31), (1 << 31) - 1)


@pytest.mark.parametrize(
    "name", [name for name in vars(timer) if name.startswith("CNT") and "_EL" in name]
)
def test_encodings_agree_with_the_register_table(name: str) -> None:
    assert vars(timer)[name] == BY_NAME[name].encoding


@given(U64, I32)
def test_tval_reads_back_what_was_written(now: int, tval: int) -> None:
    cval = timer.cval_from_tval(tval & 0xFFFF_FFFF, now)
    assert cval == (now + tval) % (1 << 64)
    assert timer.tval_of(cval, now) == tval % (1 << 32)


def test_tval_ignores_high_bits_when_written() -> None:
    assert timer.cval_from_tval(0xDEAD_BEEF_0000_0001, 100) == 101


@pytest.mark.parametrize(
    ("value", "extended"), [(0x7FFF_FFFF, 0x7FFF_FFFF), (0x8000_0000, MASK64 ^ 0x7FFF_FFFF)]
)
def test_sign_extension(value: int, extended: int) -> None:
    assert timer.sign_extend_32(value) == extended


def test_condition_is_unsigned() -> None:
    assert timer.condition_met(0, 0) and timer.condition_met(5, MASK64)
    assert not timer.condition_met(MASK64, 5)


def test_psci_ids_say_their_width() -> None:
    for function in PsciFunction:
        assert psci.is_64bit(function) is function.name.endswith("_64")
        assert psci.owner(function) == 4


def test_function_names() -> None:
    assert psci.function_name(0xC400_0003) == "PSCI_CPU_ON_64"
    assert psci.function_name(SmcccFunction.TRNG_RND32) == "SMCCC_TRNG_RND32"
    assert psci.function_name(0x8600_1234) == "0x86001234"
