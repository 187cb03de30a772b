"""What is said of an interrupt in flight is what a fold finds, whatever happened before."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vgic_rig import SPURIOUS, VTIMER, Rig

from armvirt.arch import gic as arch
from armvirt.hyp.diagnosis import present_state as present

INTIDS = (VTIMER, 40, 41, 42, 43)
ISPENDR, ISACTIVER, ICACTIVER = 0x200, 0x300, 0x380


class Driven:
    """One vCPU, two list registers: 40 and 41 are edges, 42 and 43 levels, the timer's is mapped to
    a host one."""

    def __init__(self) -> None:
        self.rig = Rig(list_registers=2)
        self.high = False
        self.rig.vgic.map_phys_irq(0, VTIMER, VTIMER, lambda: self.high)
        for n, intid in enumerate(INTIDS):
            if intid >= 32:
                self.rig.configure(intid, level=intid >= 42)
            self.rig.set_priority(intid, 0x40 + 0x20 * n)
            self.rig.enable(intid)
        self.running: list[int] = []

    def line(self, intid: int, level: bool) -> None:
        if intid == VTIMER:
            self.high = level
        self.rig.vgic.inject(0 if intid == VTIMER else None, intid, level)

    def ack(self) -> None:
        intid = self.rig.ack()
        if intid != SPURIOUS:
            self.running.append(intid)

    def eoi(self) -> None:
        """The guest's last word before the next exit: nothing is folded after it."""
        if self.running:
            outcome = self.rig.vif(0).icc_access(
                arch.ICC_REGISTERS["ICC_EOIR1_EL1"], True, self.running.pop(), 1, True, True
            )
            assert outcome.action.value == "done"

    def word(self, base: int, intid: int) -> None:
        frame, offset = self.rig._bit_register(base, intid, 0)
        frame.write(0, offset, 4, 1 << intid % 32)


STEPS: dict[str, Callable[[Driven, int], None]] = {
    "raise": lambda d, intid: d.line(intid, True),
    "lower": lambda d, intid: d.line(intid, False),
    "ispendr": lambda d, intid: d.word(ISPENDR, intid),
    "isactiver": lambda d, intid: d.word(ISACTIVER, intid),
    "icactiver": lambda d, intid: d.word(ICACTIVER, intid),
    "settle": lambda d, _: d.rig.settle(),
    "ack": lambda d, _: d.ack(),
    "eoi": lambda d, _: d.eoi(),
}


@settings(max_examples=400, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.sampled_from(sorted(STEPS)), st.sampled_from(INTIDS)), max_size=25))
def test_a_fold_finds_what_was_said(steps: list[tuple[str, int]]) -> None:
    driven = Driven()
    vgic = driven.rig.vgic
    for name, intid in steps:
        STEPS[name](driven, intid)
        irqs = [vgic.dist.irq(0, n) for n in INTIDS]
        before = vgic.state()
        said = [
            (irq.intid, present.pending(vgic.dist, irq), present.active(vgic.dist, irq))
            for irq in irqs
        ]
        assert vgic.state() == before
    frames = {intid: driven.rig._bit_register(0, intid, 0) for intid in INTIDS}

    def read(base: int, intid: int) -> bool:
        frame, offset = frames[intid]
        return bool(frame.read(0, offset + base, 4) >> intid % 32 & 1)

    if steps:
        assert said == [(intid, read(ISPENDR, intid), read(ISACTIVER, intid)) for intid in INTIDS]


def test_what_was_ended_outside_the_list_registers() -> None:
    """Three nested ones for two list registers: EOIcount alone says that the guest has ended the
    third."""
    driven = Driven()
    vgic = driven.rig.vgic
    for intid in (43, 42, 41):
        driven.line(intid, True)
        driven.rig.settle()
        driven.ack()
    (outside,) = vgic.dist.cpu(0).outside
    assert outside.intid == 43 and present.active(vgic.dist, outside)
    driven.line(43, False)
    for _ in range(3):
        assert present.active(vgic.dist, outside)
        driven.eoi()
    assert not present.active(vgic.dist, outside) and outside.active, "said, and not folded"
    vgic.sync_all()
    assert not outside.active


@pytest.mark.parametrize("loaded", [True, False])
def test_the_running_priority_and_binary_points(loaded: bool) -> None:
    driven = Driven()
    rig, cpu = driven.rig, driven.rig.vgic.dist.cpu(0)
    rig.icc(0, "BPR1", 5)
    rig.pulse(41)
    assert rig.ack() == 41
    if not loaded:
        rig.put(0)
    assert present.running_priority(cpu) == 0x80
    assert (present.binary_point(cpu, 0), present.binary_point(cpu, 1)) == (2, 5)
    assert (
        present.group_priority(cpu, 1, 0x98) == 0x80
        and present.group_priority(cpu, 0, 0x98) == 0x98
    )
    assert present.running(rig.vgic.dist, cpu) is rig.vgic.dist.irq(0, 41)
