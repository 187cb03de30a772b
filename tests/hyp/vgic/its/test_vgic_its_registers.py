"""The registers and the command queue of the ITS. `test_vgic_its_commands.py` has the commands."""

from __future__ import annotations

import pytest
from its_rig import (
    BASER0,
    BASER1,
    CBASER,
    COLLECTIONS,
    CREADR,
    CTLR,
    CWRITER,
    DEVICES,
    DOORBELL,
    GITS,
    IIDR,
    LPI,
    QUEUE,
    RAM,
    RAM_SIZE,
    TYPER,
    ItsRig,
)

from armvirt.arch import its as arch
from armvirt.arch.gic import GITS_ROWS, GITS_TRANSLATER
from armvirt.events import Event, GicAccess, ItsCommand, Stamp, VgicInject
from armvirt.hyp.vgic.its import registers as its_regs

VALID = 1 << 63
BASER_RESET = 7 << 48 | 5 << 59 | 1 << 10 | 2 << 8


@pytest.fixture
def rig() -> ItsRig:
    return ItsRig()


@pytest.fixture
def bare() -> ItsRig:
    return ItsRig(ready=False)


@pytest.mark.parametrize(
    ("offset", "size", "value"),
    [
        (CTLR, 4, 1 << 31),
        (IIDR, 4, 0x4B00043B),
        (TYPER, 8, 1 | 7 << 4 | 15 << 8 | 15 << 13),
        (CBASER, 8, 5 << 59),  # as a write of 0 leaves it
        (CWRITER, 8, 0),
        (CREADR, 8, 0),
        (BASER0, 8, 1 << 56 | BASER_RESET),
        (BASER1, 8, 4 << 56 | BASER_RESET),
        (0x110, 8, 0),
        (0x138, 8, 0),
        (0xFFE0, 4, 0x92),
        (0xFFE4, 4, 0xB4),
        (0xFFE8, 4, 0x3B),
        (0xFFD0, 4, 0x40),
        (0xFFF0, 4, 0x0D),
        (0xFFFC, 4, 0xB1),
        (0x18, 4, 0),
        (0x1_0040, 4, 0),
        (0x2000, 4, 0),
    ],
)
def test_reset_values(bare: ItsRig, offset: int, size: int, value: int) -> None:
    assert bare.get(offset, size) == value


def test_every_row_is_bound_and_no_other() -> None:
    assert {b.row.name for b in its_regs.REGISTERS.values()} == {row.name for row in GITS_ROWS}
    with pytest.raises(ValueError, match="bound twice"):
        its_regs.bind(GITS_ROWS, [*its_regs.BINDINGS, its_regs.BINDINGS[0]])
    with pytest.raises(ValueError, match="without a binding: ..GITS_CTLR"):
        its_regs.bind(GITS_ROWS, its_regs.BINDINGS[1:])
    with pytest.raises(ValueError, match="without a register"):
        its_regs.bind(GITS_ROWS[1:], its_regs.BINDINGS)


@pytest.mark.parametrize(
    ("offset", "size"), [(CTLR, 8), (CTLR, 2), (CTLR, 1), (TYPER + 1, 4), (CBASER + 4, 8), (2, 4)]
)
def test_a_wrong_access_reads_zero_and_writes_nothing(rig: ItsRig, offset: int, size: int) -> None:
    before = rig.its.state()
    assert rig.get(offset, size) == 0
    rig.set(offset, 0, size)
    assert rig.its.state() == before


def test_halves_of_a_register(bare: ItsRig) -> None:
    bare.set(CBASER + 4, 0x8000_0001, 4)
    bare.set(CBASER, 0x4000_0003, 4)
    assert bare.get(CBASER) == VALID | 5 << 59 | 0x1_4000_0003
    assert (bare.get(CBASER, 4), bare.get(CBASER + 4, 4)) == (
        0x4000_0003,
        VALID >> 32 | 5 << 27 | 1,
    )


@pytest.mark.parametrize("missing", [CBASER, BASER0, BASER1])
def test_it_cannot_be_enabled_without_its_memory(bare: ItsRig, missing: int) -> None:
    for offset, base in ((CBASER, QUEUE), (BASER0, DEVICES), (BASER1, COLLECTIONS)):
        bare.set(offset, base | (0 if offset == missing else VALID))
    bare.set(CTLR, 1, 4)
    assert bare.get(CTLR, 4) == 1 << 31
    bare.set(missing, {CBASER: QUEUE, BASER0: DEVICES, BASER1: COLLECTIONS}[missing] | VALID)
    bare.set(CTLR, 1, 4)
    assert bare.get(CTLR, 4) == 1 << 31 | 1


def test_memory_registers_are_read_only_while_enabled(rig: ItsRig) -> None:
    before = [rig.get(offset) for offset in (CBASER, BASER0, BASER1, CREADR)]
    for offset in (CBASER, BASER0, BASER1, CREADR):
        rig.set(offset, 0)
    assert [rig.get(offset) for offset in (CBASER, BASER0, BASER1, CREADR)] == before


def test_read_only_fields_of_baser(bare: ItsRig) -> None:
    for offset, kind, indirect in ((BASER0, 1, 1 << 62), (BASER1, 4, 0)):
        bare.set(offset, (1 << 64) - 1)
        value = bare.get(offset)
        assert value >> 56 & 7 == kind and value >> 48 & 31 == 7 and value >> 8 & 3 == 2
        assert value & 1 << 62 == indirect
    bare.set(0x110, VALID)
    assert bare.get(0x110) == 0


def test_cbaser_restarts_the_queue(rig: ItsRig) -> None:
    rig.do("SYNC")
    assert rig.get(CREADR) != 0
    rig.set(CTLR, 0, 4)
    rig.set(CBASER, QUEUE | VALID | 0x0100_0000_0000_0300)
    assert (rig.get(CREADR), rig.get(CWRITER)) == (0, 0)
    assert rig.get(CBASER) == QUEUE | VALID | 5 << 59


def test_the_queue_waits_for_the_enable(rig: ItsRig) -> None:
    rig.set(CTLR, 0, 4)
    rig.push("MAPD", device=1, size=3, itt=0x4000_0000, valid=1)
    assert rig.get(CTLR, 4) == 0 and rig.its.devices == {}
    rig.set(CTLR, 1, 4)
    assert rig.get(CTLR, 4) == 1 << 31 | 1 and list(rig.its.devices) == [1]


def test_the_queue_wraps(rig: ItsRig) -> None:
    size = arch.queue_size(rig.its.cbaser)
    for n in range(size // 32 + 5):
        rig.push("MAPD", device=n, size=3, itt=0x4000_0000, valid=1)
    assert len(rig.its.devices) == size // 32 + 5
    assert rig.get(CREADR) == rig.get(CWRITER) < size


def test_cwriter_beyond_the_queue_is_ignored(rig: ItsRig) -> None:
    before = rig.get(CWRITER)
    rig.set(CWRITER, 0x1000)
    assert rig.get(CWRITER) == before == rig.get(CREADR)


def test_only_the_offset_of_cwriter_is_kept(rig: ItsRig) -> None:
    rig.set(CWRITER, 0xFFF0_0000_001F | rig.get(CWRITER))
    assert rig.get(CWRITER) == rig.get(CREADR) and rig.get(CREADR) & 0x1F == 0


def test_a_queue_outside_memory_runs_through(rig: ItsRig) -> None:
    rig.set(CTLR, 0, 4)
    rig.set(CBASER, RAM + RAM_SIZE | VALID | 0xFF)
    rig.set(CTLR, 1, 4)
    rig.commands.clear()
    rig.set(CWRITER, 0xF_FFE0)
    while rig.get(CREADR) != 0xF_FFE0:
        pass
    assert rig.commands == []


def test_a_long_queue_is_done_in_parts(rig: ItsRig) -> None:
    """No store keeps the host busy for long, and whoever polls CREADR sees the end."""
    rig.vgic.dist.backlog.limit = 10
    start = rig.get(CREADR)
    rig.set(CWRITER, start + 32 * 25)
    assert rig.its.creadr == start + 32 * 10
    assert (
        rig.its_device.get_attr(8, CREADR) == start + 32 * 10
    )  # user space looks, and moves nothing
    assert rig.get(CREADR) == start + 32 * 20
    assert rig.get(CTLR, 4) >> 31 == 1


def test_a_command_that_touches_many_lpis_is_done_in_parts(rig: ItsRig) -> None:
    for n in range(8):
        rig.map(LPI + n, prop=0xA3)
        rig.configure_lpi(LPI + n, 0xB3)
    rig.vgic.dist.backlog.limit = 6
    at = rig.get(CWRITER)
    for n in range(2):
        rig.memory.write(QUEUE + at + 32 * n, arch.encode_command("INVALL", icid=0))
    rig.set(CWRITER, at + 32 * 2)
    priorities = [rig.vgic.dist.lpis[LPI + n].priority for n in range(8)]
    assert priorities == [0xB0] * 5 + [0xA0] * 3, "the command is a step, and each LPI"
    assert rig.its.creadr == at, "it is not done yet"
    assert rig.get(CREADR) == at + 32
    assert rig.get(CREADR) == at + 64 and rig.vgic.dist.lpis[LPI + 7].priority == 0xB0


@pytest.mark.parametrize("opcode", [0x00, 0x02, 0x07, 0x21, 0x25, 0x29, 0xFF])
def test_an_unknown_command_is_skipped(rig: ItsRig, opcode: int) -> None:
    """VSYNC and other commands of GICv4 are unknown."""
    rig.push_raw(bytes([opcode]) + bytes(31))
    assert rig.get(CREADR) == rig.get(CWRITER)
    assert (rig.commands[-1].op, rig.commands[-1].error) == (f"{opcode:#04x}", arch.E_UNKNOWN)


def test_a_cpus_store_to_translater_has_device_0(rig: ItsRig) -> None:
    rig.map_device(0, 15)
    rig.configure_lpi(LPI, 0xA1)
    rig.do("MAPTI", device=0, event=0x1203, intid=LPI, icid=0)
    rig.set(GITS_TRANSLATER, 0x1203, 4)
    assert rig.taken() == [LPI]
    rig.set(GITS_TRANSLATER, 0x1203, 2)
    assert rig.taken() == [LPI]
    rig.set(GITS_TRANSLATER, 0x03, 1)
    rig.set(GITS_TRANSLATER, 0x1203, 8)
    assert rig.taken() == []


def test_what_a_guest_does_is_in_the_trace(rig: ItsRig) -> None:
    events: list[Event] = []

    def keep(_: Stamp, event: Event) -> None:
        events.append(event)

    rig.map(LPI + 4)
    rig.bus.subscribe(keep)
    rig.do("INT", device=0, event=4)
    frames = [e.frame for e in events if isinstance(e, GicAccess)]
    assert frames and set(frames) == {"GITS"}
    assert VgicInject(LPI + 4, 1, 0) in events
    assert rig.commands[-1] == ItsCommand("INT", device=0, event=4, intid=LPI + 4, error=0)


def test_the_frames_address(rig: ItsRig) -> None:
    placed = [frame for frame in rig.vgic.mmio_frames() if frame.frame.name == "GITS"]
    assert [(frame.base, frame.size) for frame in placed] == [(GITS, 0x2_0000)]
    assert rig.its.doorbell == DOORBELL == 0x0809_0040


@pytest.mark.parametrize("name", sorted(arch.FIELDS))
def test_command_fields_survive_encoding(name: str) -> None:
    first, width, scale = arch.FIELDS[name]
    for number in (0, 1 << scale, (1 << width) - 1 << scale):
        if name == "opcode":
            continue
        command = int.from_bytes(arch.encode_command("SYNC", **{name: number}), "little")
        assert arch.command_field(command, name) == number
        assert command & ~((1 << width) - 1 << first) == 5
