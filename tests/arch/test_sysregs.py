"""The table of system registers has one row for each register, and the rows agree with each
other."""

from __future__ import annotations

import pytest

from armvirt.arch import sysregs
from armvirt.arch.bits import Field
from armvirt.arch.encoding import SysReg, sysreg, unpack
from armvirt.arch.gic import ICC_REGISTERS, ICH_REGISTERS
from armvirt.arch.sysregs import CONTEXT_REGISTERS, ID_REGISTERS, SYSREGS


def test_names_and_encodings_are_unique() -> None:
    assert len({row.name for row in SYSREGS}) == len(SYSREGS)
    assert len({row.encoding for row in SYSREGS}) == len(SYSREGS)


@pytest.mark.parametrize("row", SYSREGS, ids=lambda row: row.name)
def test_fields_fit_and_do_not_overlap(row: SysReg) -> None:
    taken = 0
    for field in row.fields:
        assert 0 <= field.low <= field.high < row.width, field
        assert not taken & field.mask, f"{row.name}.{field.name} overlaps another field"
        taken |= field.mask


@pytest.mark.parametrize("row", SYSREGS, ids=lambda row: row.name)
def test_row_values_are_in_range(row: SysReg) -> None:
    assert row.access in ("rw", "ro", "wo")
    assert 0 <= row.reset < 1 << row.width
    assert unpack(row.encoding)[0] in (2, 3)


def test_the_gics_table_is_another() -> None:
    gic = {**ICC_REGISTERS, **ICH_REGISTERS}
    assert not set(gic) & set(sysregs.BY_NAME) and not set(gic.values()) & set(sysregs.BY_ENCODING)


def test_lookup_by_name_encoding_and_case() -> None:
    sctlr = sysregs.lookup("SCTLR_EL1")
    assert sctlr is not None and sctlr.encoding == sysreg(3, 0, 1, 0, 0)
    assert sysregs.lookup("sctlr_el1") is sctlr
    assert sysregs.lookup(sctlr.encoding) is sctlr
    assert sysregs.lookup("NO_SUCH_EL1") is None
    assert sysregs.lookup(sysreg(3, 7, 15, 15, 7)) is None


def test_name_of_falls_back_to_the_assemblers_spelling() -> None:
    assert sysregs.name_of(sysreg(3, 3, 14, 3, 1)) == "CNTV_CTL_EL0"
    assert sysregs.name_of(sysreg(3, 0, 12, 12, 0)) == "ICC_IAR1_EL1"
    assert sysregs.name_of(sysreg(3, 1, 15, 2, 7)) == "s3_1_c15_c2_7"


def test_encoding_of_an_unknown_name_is_an_error() -> None:
    with pytest.raises(KeyError):
        sysregs.encoding_of("SCTLR_EL9")


def test_the_id_block_is_complete() -> None:
    block = {row.encoding for row in ID_REGISTERS if sysregs.is_id_space(row.encoding)}
    assert block == {sysreg(3, 0, 0, crm, op2) for crm in range(1, 8) for op2 in range(8)}


def test_identity_registers_are_outside_the_trapped_block() -> None:
    for name in (
        "MIDR_EL1",
        "MPIDR_EL1",
        "REVIDR_EL1",
        "CTR_EL0",
        "DCZID_EL0",
        "CLIDR_EL1",
        "CCSIDR_EL1",
        "AIDR_EL1",
    ):
        row = sysregs.BY_NAME[name]
        assert row in ID_REGISTERS and not sysregs.is_id_space(row.encoding)
        assert row.access == "ro"


def test_context_registers_are_rows_each_once() -> None:
    assert len(set(CONTEXT_REGISTERS)) == len(CONTEXT_REGISTERS)
    assert set(CONTEXT_REGISTERS) <= set(SYSREGS)


def test_context_enables_come_after_what_they_enable() -> None:
    order = [row.name for row in CONTEXT_REGISTERS]
    for name in ("TTBR0_EL1", "TTBR1_EL1", "TCR_EL1", "MAIR_EL1"):
        assert order.index(name) < order.index("SCTLR_EL1")
    assert order[-1] == "MDSCR_EL1"


def test_context_has_the_debug_registers_of_a_cortex_a72() -> None:
    names = {row.name for row in CONTEXT_REGISTERS}
    assert {"DBGBVR5_EL1", "DBGBCR5_EL1", "DBGWVR3_EL1", "DBGWCR3_EL1"} <= names
    assert not {"DBGBVR6_EL1", "DBGWVR4_EL1"} & names


def test_context_leaves_timers_and_interrupts_to_their_owners() -> None:
    assert not [
        r.name for r in CONTEXT_REGISTERS if r.name.startswith(("CNTV_", "CNTP_", "ICC_", "PM"))
    ]


def test_field_get_and_put() -> None:
    field = Field("EVNTI", 7, 4)
    assert field.mask == 0xF0
    assert field.get(0xABC) == 0xB
    assert field.put(0xABC, 5) == 0xA5C
    assert field.put(0, 0x1F) == 0xF0


def test_describe_names_what_is_set() -> None:
    ctl = sysregs.BY_NAME["CNTV_CTL_EL0"]
    assert ctl.describe(5) == "ENABLE ISTATUS"
    assert sysregs.BY_NAME["ID_AA64PFR0_EL1"].describe(0x11) == "EL0=0x1 EL1=0x1"
    assert ctl.describe(0) == ""


def test_access_properties() -> None:
    assert not sysregs.BY_NAME["OSLAR_EL1"].readable
    assert not sysregs.BY_NAME["CNTVCT_EL0"].writable
    assert sysregs.BY_NAME["VBAR_EL1"].readable and sysregs.BY_NAME["VBAR_EL1"].writable
