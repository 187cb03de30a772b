"""ESR_EL2 syndromes: values are built, decoded and printed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from armvirt.arch import esr
from armvirt.arch.encoding import sysreg
from armvirt.arch.esr import DFSC, EC, WfxKind


@given(st.integers(0, 0xFFFF), st.booleans(), st.integers(0, 31))
def test_sysreg_trap_round_trip(encoding: int, is_read: bool, rt: int) -> None:
    syndrome = esr.sysreg_trap(encoding, is_read, rt)
    assert esr.exception_class(syndrome) == EC.SYSREG
    assert esr.decode_sysreg(syndrome) == (encoding, is_read, rt)


def test_data_abort_fields_of_a_known_syndrome() -> None:
    # LDRH w3 from a device without a mapping at level 2: EC 0x24, ISV, SAS=1, SRT=3.
    abort = esr.decode_data_abort(0x9343_0006)
    assert (abort.isv, abort.size, abort.register) == (True, 2, 3)
    assert (abort.sign_extend, abort.sixty_four, abort.is_write) == (False, False, False)
    assert abort.dfsc == DFSC.TRANSLATION + 2


@given(st.integers(0, 63), st.booleans(), st.booleans(), st.booleans())
def test_data_abort_without_syndrome_has_no_access(
    dfsc: int, write: bool, same_el: bool, walk: bool
) -> None:
    syndrome = esr.data_abort(dfsc, write, same_el, s1ptw=walk)
    abort = esr.decode_data_abort(syndrome)
    assert (abort.isv, abort.dfsc, abort.is_write, abort.s1ptw) == (False, dfsc, write, walk)
    assert esr.exception_class(syndrome) == (EC.DABT_CURRENT if same_el else EC.DABT_LOWER)


def test_instruction_abort() -> None:
    assert (
        esr.instruction_abort(DFSC.EXTERNAL, same_el=True) == EC.IABT_CURRENT << 26 | esr.IL | 0x10
    )


def test_undefined_is_class_zero_with_a_long_instruction() -> None:
    assert esr.undefined() == 0x0200_0000


def test_wfx() -> None:
    assert esr.wfx(WfxKind.WFE) == 0x07E0_0001
    assert esr.decode_wfx(esr.wfx(WfxKind.WFI)) == (WfxKind.WFI, -1)
    assert esr.decode_wfx(esr.build(EC.WFX, 5 << 5 | 1 << 2 | WfxKind.WFIT)) == (WfxKind.WFIT, 5)


@pytest.mark.parametrize(
    ("dfsc", "kind"),
    [
        (0x07, DFSC.TRANSLATION),
        (0x0F, DFSC.PERMISSION),
        (0x10, 0x10),
        (0x21, 0x21),
        (0x16, DFSC.EXTERNAL_ON_WALK),
    ],
)
def test_fault_type_drops_the_level(dfsc: int, kind: int) -> None:
    assert esr.fault_type(dfsc) == kind


@pytest.mark.parametrize(
    ("syndrome", "text"),
    [
        (0x5600_0000, "SVC: #0x0"),
        (esr.build(EC.HVC64, 0x12), "HVC: #0x12"),
        (esr.undefined(), "undefined instruction"),
        (esr.wfx(WfxKind.WFI), "wait: WFI"),
        (
            esr.sysreg_trap(sysreg(3, 3, 14, 2, 1), False, 4),
            "system register: write CNTP_CTL_EL0, x4",
        ),
        (esr.data_abort(0x07, True, True), "data abort: write, translation fault, level 3"),
        (
            0x9343_0006,
            "data abort from a lower EL: read, translation fault, level 2, 2 bytes to w3",
        ),
        (
            esr.data_abort(0x10, s1ptw=True),
            "data abort from a lower EL: read, external abort, stage-1 walk",
        ),
        (
            esr.instruction_abort(0x0E),
            "instruction abort from a lower EL: permission fault, level 2",
        ),
        (esr.build(0x3F), "EC 0x3f"),
    ],
)
def test_text(syndrome: int, text: str) -> None:
    assert esr.describe(syndrome) == text


@given(st.integers(0, 0xFFFF_FFFF))
def test_every_syndrome_has_a_text(syndrome: int) -> None:
    assert esr.describe(syndrome)
