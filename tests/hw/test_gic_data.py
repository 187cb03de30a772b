"""The GIC's tables: rows do not overlap, and encodings are correct."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from armvirt.arch import gic
from armvirt.arch.encoding import sysreg


@pytest.mark.parametrize(
    "rows", [gic.GICD_ROWS, gic.GICR_RD_ROWS, gic.GICR_SGI_ROWS, gic.GITS_ROWS]
)
def test_rows_of_a_frame_do_not_overlap(rows: tuple[gic.MmioRow, ...]) -> None:
    ordered = sorted(rows, key=lambda row: row.offset)
    assert all(low.end <= high.offset for low, high in pairwise(ordered))
    assert ordered[-1].end <= gic.GICD_SIZE
    assert len({row.name for row in rows}) == len(rows)


def test_encodings_are_distinct_and_right() -> None:
    registers = {**gic.ICC_REGISTERS, **gic.ICH_REGISTERS}
    assert len(set(registers.values())) == len(registers)
    assert registers["ICC_IAR1_EL1"] == sysreg(3, 0, 12, 12, 0)
    assert registers["ICC_AP0R2_EL1"] == sysreg(3, 0, 12, 8, 6)
    assert registers["ICC_DIR_EL1"] == sysreg(3, 0, 12, 11, 1)
    assert registers["ICH_LR9_EL2"] == sysreg(3, 4, 12, 13, 1)
    assert registers["ICH_VMCR_EL2"] == sysreg(3, 4, 12, 11, 7)


@pytest.mark.parametrize("row", [*gic.ICC_ROWS, *gic.ICH_ROWS], ids=lambda row: row.name)
def test_fields_of_a_register_do_not_overlap(row: object) -> None:
    seen = 0
    for field in row.fields:  # type: ignore[attr-defined]
        assert not seen & field.mask
        seen |= field.mask


@given(
    st.integers(0, 0xFFFF),
    st.integers(0, 255),
    st.booleans(),
    st.booleans(),
    st.booleans(),
    st.none() | st.integers(0, 1019),
    st.booleans(),
)
def test_list_register_fields_survive_encoding(
    vintid: int,
    priority: int,
    group: bool,
    pending: bool,
    active: bool,
    pintid: int | None,
    eoi: bool,
) -> None:
    fields = gic.ListRegister(
        vintid, priority, int(group), pending, active, pintid, eoi and pintid is None
    )
    assert gic.ListRegister.decode(fields.encode()) == fields
    assert fields.state_name in str(fields)


@given(st.integers(0, 0xFF_FFFF), st.integers(0, 255))
def test_affinity_packs_both_ways(low: int, aff3: int) -> None:
    mpidr = aff3 << 32 | 1 << 31 | low
    assert gic.packed_affinity(mpidr) == aff3 << 24 | low
    assert gic.unpacked_affinity(gic.packed_affinity(mpidr)) == mpidr & gic.MPIDR_AFFINITY


def test_sgi_request_fields() -> None:
    value = 0xAA << 48 | 2 << 44 | 0xBB << 32 | 5 << 24 | 0xCC << 16 | 0x8001
    assert gic.SgiRequest.decode(value) == gic.SgiRequest(5, 0xAA_00BB_CC00, 0x8001, 32, False)
    assert gic.SgiRequest.decode(1 << 40).all_others
