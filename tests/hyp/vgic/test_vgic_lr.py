"""One interrupt at a time is written to a list register and folded back."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from vgic_rig import VTIMER, Rig

from armvirt.arch import gic as arch
from armvirt.arch.gic import LR_ACTIVE, LR_PENDING, ListRegister
from armvirt.events import ListRegisterWrite
from armvirt.hyp.vgic import list_registers as lr
from armvirt.hyp.vgic.irq import VgicIrq, accepts, target_oracle


def irq(intid: int = 40, **fields: object) -> VgicIrq:
    made = VgicIrq(intid, 0)
    made.enabled = True
    for name, value in fields.items():
        setattr(made, name, value)
    return made


def populated(subject: VgicIrq, may_pend: bool = True) -> ListRegister:
    return ListRegister.decode(lr.populate(subject, may_pend))


def test_the_latch_of_an_edge_moves_into_the_list_register() -> None:
    edge = irq(pending_latch=True, priority=0x80, group=0)
    assert populated(edge) == ListRegister(40, 0x80, 0, True, False)
    assert not edge.pending_latch


def test_only_a_software_edge_is_pending_and_active() -> None:
    again = irq(pending_latch=True, active=True)
    again.running = lr.priority_and_group(again)
    assert populated(again).state_name == "pending+active"
    assert populated(irq(level=True, line_level=True, active=True)).state_name == "active"
    assert populated(irq(pending_latch=True, active=True, hw=True)).state_name == "active"


def test_an_active_interrupt_keeps_its_priority_and_group() -> None:
    edge = irq(pending_latch=True, priority=0x80, group=1)
    lr.fold(edge, lr.populate(edge, True) ^ (1 << 62 | 1 << 63))
    edge.priority, edge.group, edge.pending_latch = 0x40, 0, True
    assert populated(edge) == ListRegister(40, 0x80, 1, False, True, eoi=True), (
        "what pends waits for its turn"
    )
    lr.fold(edge, 0)
    assert populated(edge) == ListRegister(40, 0x40, 0, True, False)


def test_software_levels_ask_for_maintenance_and_hardware_names_its_interrupt() -> None:
    assert populated(irq(level=True, line_level=True)).eoi
    mapped = populated(irq(level=True, line_level=True, hw=True, hwintid=30))
    assert mapped.pintid == 30 and not mapped.eoi


def test_a_mapped_line_is_lowered_when_it_goes_in() -> None:
    mapped, plain = irq(level=True, line_level=True, hw=True), irq(level=True, line_level=True)
    assert populated(mapped).pending and populated(plain).pending
    assert not mapped.line_level and plain.line_level
    active = irq(level=True, line_level=True, hw=True, active=True)
    assert not populated(active).pending and active.line_level


def test_what_may_not_pend_keeps_its_latch_and_comes_back() -> None:
    edge = irq(pending_latch=True, active=True)
    fields = populated(edge, may_pend=False)
    assert fields.state_name == "active" and fields.eoi and edge.pending_latch


def test_an_edge_that_was_not_taken_gets_its_latch_back() -> None:
    edge = irq()
    lr.fold(edge, LR_PENDING | LR_ACTIVE | 40)
    assert edge.pending_latch and edge.active
    lr.fold(edge, 40)
    assert edge.pending_latch and not edge.active, "a latch that was set meanwhile stays"


@pytest.mark.parametrize(("state", "latch"), [(0, False), (LR_PENDING, True), (LR_ACTIVE, False)])
def test_the_latch_of_a_level_dies_when_it_is_acknowledged(state: int, latch: bool) -> None:
    level = irq(level=True, pending_latch=True)
    assert populated(level).pending
    lr.fold(level, state | 40)
    assert level.pending_latch is latch


def test_a_latch_set_while_a_level_is_active_outlives_the_end_of_interrupt() -> None:
    level = irq(level=True, pending_latch=True, active=True)
    assert populated(level).state_name == "active"
    lr.fold(level, 40)
    assert level.pending_latch and not level.active


@pytest.mark.parametrize("level", [False, True])
def test_the_end_of_a_latched_mapped_interrupt_comes_to_the_hypervisor(level: bool) -> None:
    """HW = 1 has no maintenance interrupt: nobody would say that the latch may pend now."""
    mapped = irq(
        level=level,
        pending_latch=True,
        active=True,
        hw=True,
        hwintid=30,
        get_input_level=lambda: False,
    )
    value = lr.populate(mapped, True)
    assert not value & arch.LR_HW and value & arch.LR_EOI and value & arch.LR_STATE == LR_ACTIVE
    assert lr.fold(mapped, value & ~arch.LR_STATE), "the host interrupt is active still"
    assert (
        mapped.pending_latch
        and lr.populate(mapped, True) & (arch.LR_HW | arch.LR_STATE) == arch.LR_HW | LR_PENDING
    )


@pytest.mark.parametrize(
    ("value", "was_active", "reported", "line", "sampled", "release"),
    [
        (LR_PENDING, False, False, True, True, False),  # not taken yet, line still high
        (
            LR_PENDING,
            False,
            False,
            False,
            False,
            True,
        ),  # not taken yet, line fell: the host interrupt is free
        (LR_ACTIVE, False, False, True, False, False),  # being handled: left alone
        (0, True, True, False, False, False),  # ended: hardware fires again by itself
        (0, True, True, True, False, False),
        (0, True, False, True, False, False),
        (0, False, False, True, False, False),  # taken and ended
    ],
)
def test_when_a_mapped_line_is_sampled(
    value: int, was_active: bool, reported: bool, line: bool, sampled: bool, release: bool
) -> None:
    mapped = irq(
        level=True, hw=True, active=was_active, line_level=reported, get_input_level=lambda: line
    )
    assert lr.fold(mapped, value | arch.LR_HW) is release
    assert mapped.line_level is sampled


@pytest.mark.parametrize(
    ("fields", "enables", "expected"),
    [
        ({"pending_latch": True}, 2, 0),
        ({"pending_latch": True}, 1, None),
        ({"pending_latch": True, "group": 0}, 1, 0),
        ({"pending_latch": True, "group": 0}, 2, None),
        ({"pending_latch": True, "enabled": False}, 3, None),
        ({"pending_latch": True, "target": None}, 3, None),
        ({"line_level": True}, 3, None),  # edge: a line means nothing
        ({"line_level": True, "level": True}, 3, 0),
        ({"active": True, "vcpu": 3, "enabled": False}, 0, 3),
        ({"active": True, "vcpu": None}, 0, 0),
        ({}, 3, None),
    ],
)
def test_the_oracle(fields: dict[str, object], enables: int, expected: int | None) -> None:
    assert target_oracle(irq(**fields), enables) == expected


def test_what_an_injection_changes() -> None:
    edge, level, owner = irq(), irq(level=True), object()
    assert accepts(edge, True, None) and not accepts(edge, False, None)
    assert accepts(level, True, None) and not accepts(level, False, None)
    owned = irq(owner=owner)
    assert (
        accepts(owned, True, owner)
        and not accepts(owned, True, None)
        and not accepts(edge, True, owner)
    )


def test_who_gets_a_list_register_first() -> None:
    order = lr.by_urgency(
        [
            irq(1, group=0, pending_latch=True),
            irq(2, active=True),
            irq(3, priority=0x80),
            irq(4, priority=0x40),
            irq(5, priority=0x80, hw=True),
            irq(6, priority=0x40),
        ],
        arch.VMCR_VENG1,
    )
    assert [i.intid for i in order] == [4, 6, 3, 5, 2, 1]


@pytest.mark.parametrize(
    ("left", "list_registers", "foreign", "expected"),
    [
        (lr.Overflow(False, False, False), 4, False, 0),
        (lr.Overflow(False, False, False), 4, True, arch.ICH_HCR_TDIR),
        (lr.Overflow(True, False, True), 4, False,
         arch.ICH_HCR_NPIE | arch.ICH_HCR_UIE | arch.ICH_HCR_VGRP1DIE | arch.ICH_HCR_VGRP0EIE),
        (lr.Overflow(False, True, True), 1, False,
         arch.ICH_HCR_LRENPIE | arch.ICH_HCR_TDIR | arch.ICH_HCR_VGRP1DIE | arch.ICH_HCR_VGRP0EIE),
    ],
)  # fmt: skip
def test_maintenance_that_an_entry_asks_for(
    left: lr.Overflow, list_registers: int, foreign: bool, expected: int
) -> None:
    assert (
        lr.configure_hcr(left, arch.VMCR_VENG1, list_registers, foreign)
        == arch.ICH_HCR_EN | expected
    )


@pytest.mark.parametrize(
    "provoke", [lambda rig: rig.enable(VTIMER), lambda rig: rig.set_bit(0x280, VTIMER)]
)
def test_a_line_that_fell_unseen_does_not_reach_a_list_register(
    provoke: Callable[[Rig], None],
) -> None:
    rig = Rig()
    rig.vgic.map_phys_irq(0, VTIMER, VTIMER, lambda: False)
    mapped = rig.vgic.dist.cpu(0).private[VTIMER]
    mapped.line_level = True
    rig.gic.set_active(0, VTIMER, True)
    writes: list[object] = []
    rig.bus.subscribe(
        lambda stamp, event: writes.append(event) if isinstance(event, ListRegisterWrite) else None
    )
    provoke(rig)
    assert not writes and not rig.gic.is_active(0, VTIMER) and not mapped.line_level
