"""The registers of the distributor and the redistributors, as the guest and user space read
them."""

from __future__ import annotations

import pytest
from vgic_rig import SGI_BASE, Rig

from armvirt.arch import gic as arch
from armvirt.errors import KvmError
from armvirt.events import GicAccess
from armvirt.hyp.vgic import flush
from armvirt.hyp.vgic.registers import mmio_v3
from armvirt.hyp.vgic.registers.frames import distributor_map
from armvirt.hyp.vgic.registers.register_map import Register, bind

EDGE = 40


@pytest.fixture
def rig() -> Rig:
    return Rig(vcpus=2, nr_irqs=288, enable=False)


# Tables -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "bindings"),
    [
        (arch.GICD_ROWS, mmio_v3.GICD_BINDINGS),
        (arch.GICR_RD_ROWS, mmio_v3.RD_BINDINGS),
        (arch.GICR_SGI_ROWS, mmio_v3.SGI_BINDINGS),
    ],
)
def test_every_row_is_bound_once(
    rows: tuple[arch.MmioRow, ...], bindings: tuple[Register, ...]
) -> None:
    assert len(bind(rows, bindings)) == len(rows)
    with pytest.raises(ValueError, match="bound twice"):
        bind(rows, [*bindings, bindings[0]])
    with pytest.raises(ValueError, match="without a binding"):
        bind(rows, bindings[1:])
    with pytest.raises(ValueError, match="without a register"):
        bind(rows, [*bindings, Register("GICD_NONSENSE")])


# Identification ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("offset", "value"),
    [
        (0x0, 0x50),
        (0x4, 1 << 26 | 9 << 19 | 8),
        (0x8, 0x4B00343B),
        (0xC, 0),
        (0x68, 0),
        (0xFFE8, 0x3B),
        (0xFFF0, 0),
        (0x80, 0),
    ],
)
def test_distributor_reset_values(rig: Rig, offset: int, value: int) -> None:
    assert rig.dist.read(0, offset, 4) == value


@pytest.mark.parametrize(
    ("offset", "value"),
    [
        (0x0, 6),
        (0x4, 0x4B00043B),
        (0x14, 0),
        (0x10, 0),
        (0xFFE8, 0x3B),
        (0x10080, 0xFFFF_FFFF),
        (0x10100, 0xFFFF),
        (0x10C00, 0xAAAA_AAAA),
        (0x10C04, 0),
        (0x10400, 0),
        (0x10200, 0),
        (0x10300, 0),
    ],
)
def test_redistributor_reset_values(rig: Rig, offset: int, value: int) -> None:
    for vcpu in (0, 1):
        assert rig.redist.read(0, vcpu * 0x2_0000 + offset, 4) == value


def test_typer_names_the_vcpu_and_the_last_one(rig: Rig) -> None:
    assert rig.redist.read(0, 8, 8) == 0
    assert rig.redist.read(0, 0x2_0008, 8) == 1 << 32 | 1 << 8 | 1 << 4
    assert rig.redist.read(0, 0x2_000C, 4) == 1, "the affinity is the upper half"


def test_waker_ignores_writes(rig: Rig) -> None:
    rig.redist.write(0, 0x14, 4, 2)
    assert rig.redist.read(0, 0x14, 4) == 0


@pytest.mark.parametrize(
    ("written", "read"), [(0xFFFF_FFFF, 0x53), (1, 0x51), (2, 0x52), (0, 0x50)]
)
def test_ctlr_keeps_the_two_group_enables(rig: Rig, written: int, read: int) -> None:
    rig.dist.write(0, 0, 4, written)
    assert rig.dist.read(0, 0, 4) == read


# Access rules -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("offset", "size"),
    [
        (0x0, 1),
        (0x0, 8),
        (0x2, 4),
        (0x104, 2),
        (0x104, 8),
        (0x401, 4),
        (0x3000, 4),
        (0x5F00, 4),
        (0x6100, 2),
        (0x8000, 4),
        (0xFFFC, 8),
    ],
)
def test_misuse_reads_as_zero_and_writes_nothing(rig: Rig, offset: int, size: int) -> None:
    before = rig.vgic.state()
    rig.dist.write(0, offset, size, (1 << 8 * size) - 1)
    assert rig.dist.read(0, offset, size) == 0
    assert rig.vgic.state() == before


def test_private_fields_of_the_distributor_are_zero(rig: Rig) -> None:
    for offset in (0x80, 0x100, 0x200, 0x300, 0x400, 0xC00):
        rig.dist.write(0, offset, 4, 0xFFFF_FFFF)
        assert rig.dist.read(0, offset, 4) == 0
    assert not rig.redist.read(0, 0x1_0300, 4)


def test_fields_beyond_the_last_interrupt_are_zero(rig: Rig) -> None:
    rig.dist.write(0, 0x100 + 4 * 9, 4, 0xFFFF_FFFF)
    assert rig.dist.read(0, 0x100 + 4 * 8, 4) == 0 == rig.dist.read(0, 0x100 + 4 * 9, 4)


@pytest.mark.parametrize(("set_at", "clear_at"), [(0x100, 0x180), (0x200, 0x280), (0x300, 0x380)])
def test_set_and_clear_registers_read_the_same(rig: Rig, set_at: int, clear_at: int) -> None:
    rig.dist.write(0, set_at + 4, 4, 0x0F0)
    rig.dist.write(0, clear_at + 4, 4, 0x030)
    assert rig.dist.read(0, set_at + 4, 4) == rig.dist.read(0, clear_at + 4, 4) == 0x0C0


def test_priorities_by_byte_and_by_word(rig: Rig) -> None:
    rig.dist.write(0, 0x400 + 40, 4, 0xFF_80_40_27)
    assert [rig.dist.read(0, 0x400 + 40 + n, 1) for n in range(4)] == [0x20, 0x40, 0x80, 0xF8]
    rig.dist.write(0, 0x400 + 41, 1, 0x99)
    assert rig.dist.read(0, 0x400 + 40, 4) == 0xF8_80_98_20


def test_configuration_of_spis_alone_can_be_changed(rig: Rig) -> None:
    rig.dist.write(0, 0xC08, 4, 0xFFFF_FFFF)
    assert rig.dist.read(0, 0xC08, 4) == 0xAAAA_AAAA
    for offset in (0xC00, 0xC04):
        before = rig.redist.read(0, SGI_BASE + offset, 4)
        rig.redist.write(0, SGI_BASE + offset, 4, ~before & 0xFFFF_FFFF)
        assert rig.redist.read(0, SGI_BASE + offset, 4) == before


def test_routing_keeps_three_affinity_levels(rig: Rig) -> None:
    rig.dist.write(0, 0x6000 + 8 * EDGE, 8, 0xAB << 32 | 0x010203)
    assert rig.dist.read(0, 0x6000 + 8 * EDGE, 8) == 0x010203
    rig.dist.write(0, 0x6000 + 8 * EDGE, 4, 1)
    rig.dist.write(0, 0x6000 + 8 * EDGE + 4, 4, 0xFF)
    assert (rig.dist.read(0, 0x6000 + 8 * EDGE, 4), rig.dist.read(0, 0x6004 + 8 * EDGE, 4)) == (
        1,
        0,
    )
    irq = rig.vgic.dist.spi(EDGE)
    assert irq is not None and irq.target == 1


def test_a_vcpu_may_use_another_ones_redistributor(rig: Rig) -> None:
    rig.redist.write(0, 0x2_0000 + SGI_BASE + 0x100, 4, 1 << 27)
    assert rig.vgic.dist.cpu(1).private[27].enabled and not rig.vgic.dist.cpu(0).private[27].enabled


def test_beyond_the_last_redistributor_there_is_nothing(rig: Rig) -> None:
    rig.redist.write(0, 0x4_0014, 4, 1)
    assert rig.redist.read(0, 0x4_0008, 8) == 0


def test_accesses_are_events(rig: Rig) -> None:
    events: list[object] = []
    rig.bus.subscribe(lambda stamp, event: events.append(event))
    rig.dist.write(1, 0, 4, 2)
    rig.redist.read(1, 0x2_0004, 4)
    assert events == [GicAccess("GICD", 0, 4, 2, 1), GicAccess("GICR", 0x2_0004, 4, 0x4B00043B, 0)]


def test_pending_and_active_state_is_folded_before_it_is_read(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    monkeypatch.setattr(flush, "sync_all", lambda dist: calls.append("fold"))
    for offset in (0x100, 0x400, 0xC08, 0x0):
        rig.dist.read(0, offset, 4)
        rig.dist.write(0, offset, 4, 0)
    assert not calls
    for offset in (0x204, 0x284, 0x304, 0x384):
        rig.dist.read(0, offset, 4)
        rig.dist.write(0, offset, 4, 0)
    assert len(calls) == 8


# User space -------------------------------------------------------------------------------------


def user(rig: Rig, offset: int, value: int | None = None) -> int:
    cpu = rig.vgic.dist.cpu(0)
    if value is not None:
        distributor_map(3).write(rig.vgic.dist, cpu, offset, 4, value, user=True)
    return distributor_map(3).read(rig.vgic.dist, cpu, offset, 4, user=True)


def test_user_space_sees_the_raw_latch(rig: Rig) -> None:
    irq = rig.vgic.dist.spi(EDGE)
    assert irq is not None
    irq.level = True
    rig.vgic.inject(None, EDGE, True)
    assert rig.dist.read(0, 0x204, 4) == 1 << 8 and user(rig, 0x204) == 0
    assert user(rig, 0x204, 0x0F) == 0x0F
    assert user(rig, 0x204, 0xF0) == 0xF0, "a write replaces the latches"
    assert user(rig, 0x284, 0xFF) == 0 and user(rig, 0x204) == 0xF0


def test_user_space_restores_active_state(rig: Rig) -> None:
    assert user(rig, 0x304, 3) == 3
    assert user(rig, 0x384, 1) == 2


def test_the_revision_can_be_lowered_and_nothing_else(rig: Rig) -> None:
    assert user(rig, 0x8, 0x4B00243B) == 0x4B00243B
    assert rig.redist.read(0, 0, 4) == 0, "the older revision has no invalidate registers"
    for value in (0x4B00143B, 0x4B00443B, 0x4B10343B, 0):
        with pytest.raises(KvmError, match="EINVAL"):
            user(rig, 0x8, value)
    with pytest.raises(KvmError, match="EINVAL"):
        user(rig, 0xC, 1)
    rig.dist.write(0, 0x8, 4, 0x4B00343B)
    assert rig.dist.read(0, 0x8, 4) == 0x4B00243B, "the guest cannot"
