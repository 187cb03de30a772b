"""PSTATE: exception levels, vectors, entry."""

from __future__ import annotations

import pytest

from armvirt.arch import pstate
from armvirt.arch.pstate import Mode, Vector


@pytest.mark.parametrize(
    ("mode", "level", "own_stack"),
    [
        (Mode.EL0T, 0, False),
        (Mode.EL1T, 1, False),
        (Mode.EL1H, 1, True),
        (Mode.EL2H, 2, True),
        (0x10, 0, False),
    ],
)
def test_levels(mode: int, level: int, own_stack: bool) -> None:
    assert pstate.exception_level(mode) == level
    assert pstate.uses_sp_elx(mode) is own_stack


@pytest.mark.parametrize(
    ("origin", "kind", "offset"),
    [
        (Mode.EL1T, Vector.SYNC, 0x000),
        (Mode.EL1T, Vector.SERROR, 0x180),
        (Mode.EL1H, Vector.IRQ, 0x280),
        (Mode.EL1H, Vector.FIQ, 0x300),
        (Mode.EL0T, Vector.SYNC, 0x400),
        (Mode.EL0T, Vector.IRQ, 0x480),
        (0x10, Vector.IRQ, 0x680),
    ],
)
def test_vectors(origin: int, kind: Vector, offset: int) -> None:
    assert pstate.vector_offset(origin, kind) == offset


def test_entry_masks_and_keeps_flags() -> None:
    before = pstate.PSTATE_N | pstate.PSTATE_C | pstate.PSTATE_SS | pstate.PSTATE_IL | Mode.EL0T
    assert pstate.entry_pstate(before) == pstate.PSTATE_N | pstate.PSTATE_C | 0x3C5
    assert pstate.entry_pstate(Mode.EL1T, span=False) == pstate.PSTATE_PAN | 0x3C5


def test_text() -> None:
    assert pstate.describe(0x3C5) == "EL1h nzcv DAIF"
    assert (
        pstate.describe(pstate.PSTATE_Z | pstate.PSTATE_I | pstate.PSTATE_SS) == "EL0t nZcv daIf SS"
    )
    assert pstate.describe(0x10) == "AArch32 nzcv daif"
