"""How many Python calls the vGIC makes for a register access and before an entry. The numbers may
only fall."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from types import FrameType

import pytest
from vgic_rig import SGI_BASE, VTIMER, Rig

ISENABLER = 0x100


def calls(function: Callable[[], object]) -> int:
    """The Python calls in ``function``, without its own. A garbage collection may call hooks of
    other tests."""
    count = -1

    def profile(frame: FrameType, event: str, argument: object) -> None:
        nonlocal count
        count += event == "call"

    gc.disable()
    sys.setprofile(profile)
    try:
        function()
    finally:
        sys.setprofile(None)
        gc.enable()
    return count


class TimerRig(Rig):
    """One vCPU with a mapped timer interrupt, which is enabled; ``high`` is its line."""

    high = False


@pytest.fixture
def rig() -> TimerRig:
    rig = TimerRig()
    rig.vgic.map_phys_irq(0, VTIMER, VTIMER, lambda: rig.high)
    rig.enable(VTIMER)
    rig.settle()
    return rig


def test_an_access_to_the_distributor(rig: TimerRig) -> None:
    assert calls(lambda: rig.dist.read(0, ISENABLER + 4, 4)) <= 5
    assert calls(lambda: rig.dist.write(0, ISENABLER + 4, 4, 2)) <= 8


def test_an_access_to_a_redistributor(rig: TimerRig) -> None:
    assert calls(lambda: rig.redist.read(0, SGI_BASE + ISENABLER, 4)) <= 4
    assert calls(lambda: rig.redist.write(0, SGI_BASE + ISENABLER, 4, 1 << 20)) <= 7


def test_an_entry_without_a_change_is_one_look(rig: TimerRig) -> None:
    assert calls(lambda: rig.vgic.refresh(0)) == 1


def test_an_entry_with_a_timer_interrupt(rig: TimerRig) -> None:
    rig.high = True
    rig.vgic.inject(0, VTIMER, True)
    assert calls(lambda: rig.vgic.refresh(0)) <= 18
