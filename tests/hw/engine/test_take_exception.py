"""`take_exception` in Python and `enter_el1` in native.c enter an exception in the same way."""

from __future__ import annotations

import ctypes as C
from collections.abc import Callable

import pytest

from armvirt.arch.esr import EC, build
from armvirt.arch.pstate import PSTATE_DAIF, PSTATE_IL, PSTATE_NZCV, PSTATE_PAN, PSTATE_SS, Vector
from armvirt.hw.exception import take_exception
from engine.bench import EL0T, EL1H, EL1T, RAM, Bench
from engine.conftest import make_factory

ESR = build(EC.DABT_CURRENT, 0x10)
FAR = 0xFFFF_8000_1234_5678
VBAR = RAM + 0x1_0000
Enter = Callable[[Bench], None]


def bench(mode: int, flags: int) -> Bench:
    made = Bench(make_factory("native"), pstate=mode | flags)
    made.set_system("VBAR_EL1", VBAR)
    for name in ("SPSR_EL1", "ELR_EL1", "ESR_EL1", "FAR_EL1"):
        made.set_system(name, 0x5EED)
    made.engine.sp = 0x1111_0000
    if mode == EL1H:
        made.engine.sp_el0 = 0x2222_0000
    else:
        made.engine.sp_el1 = 0x2222_0000
    made.engine.pc = RAM + 0x40
    return made


def in_python(kind: Vector, esr: int | None, far: int | None) -> Enter:
    return lambda made: take_exception(made.engine, kind, esr, far) and None


def in_c(kind: Vector, esr: int | None, far: int | None) -> Enter:
    def enter(made: Bench) -> None:
        state, native = made.engine.state, made.factory.native
        assert native is not None
        address = C.c_void_p(C.addressof(state))
        state.virq, state.vfiq = int(kind is Vector.IRQ), int(kind is Vector.FIQ)
        state.enter_esr, state.enter_has_far, state.enter_far = esr or 0, far is not None, far or 0
        state.trace = 0
        (native.lib.av_enter if kind is Vector.SYNC else native.lib.av_apply_lines)(address)
        state.virq = state.vfiq = 0
        native.lib.av_apply_lines(address)  # lower the lines
        state.count = 0

    return enter


def after(made: Bench, enter: Enter) -> dict[str, object]:
    enter(made)
    saved = made.engine.save()
    made.close()
    return {key: value for key, value in saved.items() if key != "last_vector_elr"}


@pytest.mark.parametrize("mode", [EL0T, EL1T, EL1H], ids=["EL0", "EL1t", "EL1h"])
@pytest.mark.parametrize(
    "flags", [0, PSTATE_NZCV, PSTATE_SS, PSTATE_PAN, PSTATE_IL, 1 << 31 | 1 << 9]
)
@pytest.mark.parametrize("far", [None, FAR], ids=["no FAR", "FAR"])
def test_a_synchronous_exception(mode: int, flags: int, far: int | None) -> None:
    ours = after(bench(mode, flags), in_python(Vector.SYNC, ESR, far))
    assert ours == after(bench(mode, flags), in_c(Vector.SYNC, ESR, far))
    assert ours["pstate"] == EL1H | PSTATE_DAIF | flags & PSTATE_NZCV


@pytest.mark.parametrize("mode", [EL0T, EL1T, EL1H], ids=["EL0", "EL1t", "EL1h"])
@pytest.mark.parametrize("kind", [Vector.IRQ, Vector.FIQ], ids=["IRQ", "FIQ"])
def test_an_interrupt(mode: int, kind: Vector) -> None:
    ours = after(bench(mode, PSTATE_NZCV), in_python(kind, None, None))
    assert ours == after(bench(mode, PSTATE_NZCV), in_c(kind, None, None))
    assert ours["system"]["ESR_EL1"] == ours["system"]["FAR_EL1"] == 0x5EED  # type: ignore[index]
