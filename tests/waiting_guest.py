"""A guest that polls the counter, for the tests of polled waits."""

from __future__ import annotations

from pathlib import Path

from asm import NE, XZR, Asm

from armvirt.arch.timer import CNTVCT_EL0

BASE = 0x4020_0000
LO = 3
MS = 62_500  # ticks
SYSTEM_OFF = 0x8400_0008


def image(a: Asm, tmp_path: Path) -> Path:
    path = tmp_path / "guest.bin"
    path.write_bytes(a.code())
    return path


def power_off(a: Asm) -> None:
    a.mov(0, SYSTEM_OFF)
    a.hvc(0)


def waits(number: int, ticks: int) -> Asm:
    """``number`` times: poll the counter for ``ticks``."""
    a = Asm(BASE)
    a.mov(20, number)
    a.label("again")
    a.mrs(2, CNTVCT_EL0)
    a.mov(3, ticks)
    a.add(3, 2, 3)
    a.label("poll")
    a.isb()
    a.mrs(0, CNTVCT_EL0)
    a.subs(XZR, 0, 3)
    a.b_cond(LO, "poll")
    a.subs_imm(20, 20, 1)
    a.b_cond(NE, "again")
    power_off(a)
    return a
