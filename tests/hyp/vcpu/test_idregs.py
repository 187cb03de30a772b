"""Which ID registers a guest reads, and with which values."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from armvirt.arch.encoding import SysReg
from armvirt.arch.sysregs import BY_NAME, ID_REGISTERS, is_id_space
from armvirt.hyp.vcpu import idregs
from armvirt.hyp.vcpu.idregs import mpidr_of, visible

#: The Cortex-A72's values, as the engine gives them.
A72 = {
    "ID_AA64PFR0_EL1": 0x2222,
    "ID_AA64DFR0_EL1": 0x1030_5106,
    "ID_AA64ISAR0_EL1": 0x1_1120,
    "ID_AA64MMFR0_EL1": 0x1124,
    "ID_PFR0_EL1": 0x131,
    "ID_DFR0_EL1": 0x301_0066,
    "MVFR0_EL1": 0x1011_0222,
}
U64 = st.integers(0, (1 << 64) - 1)


def seen(name: str, field: str, native: int | None = None, gicv3: bool = True) -> int:
    row = BY_NAME[name]
    value = visible(row.encoding, A72.get(name, 0) if native is None else native, gicv3)
    return next(f for f in row.fields if f.name == field).get(value)


def test_el0_and_el1_in_aarch64_only() -> None:
    assert [seen("ID_AA64PFR0_EL1", f"EL{n}") for n in range(4)] == [1, 1, 0, 0]


def test_gic_field_follows_the_machine() -> None:
    assert seen("ID_AA64PFR0_EL1", "GIC") == 1
    assert seen("ID_AA64PFR0_EL1", "GIC", gicv3=False) == 0


@pytest.mark.parametrize("field", ["FP", "AdvSIMD"])
def test_floating_point_stays_present_or_absent(field: str) -> None:
    assert seen("ID_AA64PFR0_EL1", field) == 0
    assert seen("ID_AA64PFR0_EL1", field, 0x00FF_2222) == 0xF


ALL_ONES = (1 << 64) - 1


@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("ID_AA64PFR0_EL1", "SVE"),
        ("ID_AA64PFR0_EL1", "RAS"),
        ("ID_AA64PFR0_EL1", "AMU"),
        ("ID_AA64PFR1_EL1", "MTE"),
        ("ID_AA64PFR1_EL1", "BT"),
        ("ID_AA64DFR0_EL1", "PMUVer"),
        ("ID_AA64DFR0_EL1", "PMSVer"),
        ("ID_AA64DFR0_EL1", "TraceVer"),
        ("ID_AA64ISAR0_EL1", "RNDR"),
        ("ID_AA64ISAR0_EL1", "TME"),
        ("ID_AA64ISAR1_EL1", "APA"),
        ("ID_AA64ISAR1_EL1", "API"),
        ("ID_AA64ISAR1_EL1", "GPA"),
        ("ID_AA64MMFR0_EL1", "ECV"),
        ("ID_AA64MMFR0_EL1", "FGT"),
        ("ID_AA64MMFR1_EL1", "VH"),
        ("ID_AA64MMFR2_EL1", "NV"),
    ],
)
def test_hidden_whatever_the_cpu_says(name: str, field: str) -> None:
    assert seen(name, field, ALL_ONES) == 0


def test_debug_is_the_cpus() -> None:
    assert [seen("ID_AA64DFR0_EL1", f) for f in ("DebugVer", "BRPs", "WRPs", "CTX_CMPs")] == [
        6,
        5,
        3,
        1,
    ]


def test_crypto_and_memory_model_are_the_cpus() -> None:
    assert [seen("ID_AA64ISAR0_EL1", f) for f in ("AES", "SHA1", "SHA2", "CRC32", "Atomic")] == [
        2,
        1,
        1,
        1,
        0,
    ]
    assert [seen("ID_AA64MMFR0_EL1", f) for f in ("PARange", "ASIDBits", "BigEnd")] == [4, 2, 1]


@pytest.mark.parametrize(
    "name", [row.name for row in ID_REGISTERS if row.name.startswith(("ID_", "MVFR", "s3_"))]
)
def test_aarch32_and_reserved_registers_read_as_zero(name: str) -> None:
    row = BY_NAME[name]
    if not name.startswith("ID_AA64"):
        assert visible(row.encoding, ALL_ONES, True) == 0


@given(U64)
def test_registers_outside_the_block_are_the_cpus(value: int) -> None:
    for row in ID_REGISTERS:
        if not is_id_space(row.encoding):
            assert visible(row.encoding, value, True) == value


@given(st.sampled_from(ID_REGISTERS), U64, U64, st.booleans())
def test_only_kept_fields_depend_on_the_cpu(row: SysReg, one: int, other: int, gicv3: bool) -> None:
    if is_id_space(row.encoding):
        kept = next((rule.keep for r, rule in idregs.rules() if r is row), ())
        mask = sum(field.mask for field in row.fields if field.name in kept)
        assert (visible(row.encoding, one, gicv3) ^ visible(row.encoding, other, gicv3)) == (
            one ^ other
        ) & mask


def test_rules_name_fields_that_exist_each_once() -> None:
    for row, rule in idregs.rules():
        names = [*rule.keep, *(field for field, _ in rule.fixed)]
        assert len(set(names)) == len(names)
        assert set(names) <= {field.name for field in row.fields}


@pytest.mark.parametrize(
    ("vcpu", "affinity"),
    [
        (0, 0),
        (1, 1),
        (15, 15),
        (16, 0x100),
        (0x123, 0x1203),
        (0x1000, 0x1_0000),
        (0xABCDE, 0xAB_CD0E),
    ],
)
def test_mpidr(vcpu: int, affinity: int) -> None:
    assert mpidr_of(vcpu) == 1 << 31 | affinity


def test_mpidrs_are_unique() -> None:
    assert len({mpidr_of(vcpu) for vcpu in range(1024)}) == 1024
