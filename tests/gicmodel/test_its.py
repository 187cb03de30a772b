"""LPIs and the ITS: IHI 0069 chapter 5."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from .support import eoi, iar, v3

CONFIG, PENDING, QUEUE, DEVICES, COLLECTIONS = 0x10000, 0x40000, 0x80000, 0x90000, 0xA0000
LPI = 8200
VALID = 1 << 63
PRIO, ENABLE = 0xA0, 1


class Ram:
    """Sparse guest memory."""

    def __init__(self) -> None:
        self.bytes: dict[int, int] = {}

    def read(self, addr: int, size: int, /) -> int:
        return sum(self.bytes.get(addr + i, 0) << 8 * i for i in range(size))

    def write(self, addr: int, size: int, value: int, /) -> None:
        for i in range(size):
            self.bytes[addr + i] = value >> 8 * i & 0xFF


def mapd(device: int, bits: int = 5, valid: bool = True) -> Sequence[int]:
    return 0x08 | device << 32, bits - 1, VALID if valid else 0, 0


def mapc(icid: int, cpu: int, valid: bool = True) -> Sequence[int]:
    return 0x09, 0, (VALID if valid else 0) | cpu << 16 | icid, 0


def mapti(device: int, event: int, intid: int, icid: int) -> Sequence[int]:
    return 0x0A | device << 32, intid << 32 | event, icid, 0


def on_event(op: int, device: int, event: int, icid: int = 0) -> Sequence[int]:
    """MOVI 0x01, INT 0x03, CLEAR 0x04, MAPI 0x0B, INV 0x0C, DISCARD 0x0F."""
    return op | device << 32, event, icid, 0


class Bench:
    """A GICv3 with an ITS, two CPUs with LPIs enabled, device 1 and collections 0 and 1 on CPUs 0
    and 1."""

    def __init__(self, enable: bool = True) -> None:
        self.ram = Ram()
        self.gic = v3(2, memory=self.ram)
        for cpu in (0, 1):
            self.gic.redist_write(cpu, cpu, 0x70, 8, CONFIG | 15)
            self.gic.redist_write(cpu, cpu, 0x78, 8, PENDING + 0x10000 * cpu)
        self.gic.its_write(0x80, 8, VALID | QUEUE)
        self.gic.its_write(0x100, 8, VALID | DEVICES)
        self.gic.its_write(0x108, 8, VALID | COLLECTIONS)
        self.gic.its_write(0, 4, 1)
        for intid in range(8192, 8224):
            self.ram.write(CONFIG + intid - 8192, 1, PRIO | ENABLE)
        if enable:
            self.enable()
        self.run(mapc(0, 0), mapc(1, 1), mapd(1), mapti(1, 0, LPI, 0))

    def enable(self, cpus: Sequence[int] = (0, 1), on: int = 1) -> None:
        for cpu in cpus:
            self.gic.redist_write(cpu, cpu, 0, 4, on)

    def run(self, *commands: Sequence[int]) -> None:
        at = self.gic.its_read(0x88, 8)
        for words in commands:
            for index, word in enumerate(words):
                self.ram.write(QUEUE + at + 8 * index, 8, word)
            at = (at + 32) % 4096
        self.gic.its_write(0x88, 8, at)
        assert self.gic.its_read(0x90, 8) == self.gic.its_read(0x88, 8)


def test_its_registers() -> None:
    gic = v3(2, memory=Ram())
    assert gic.its_read(8, 8) == 1 | 7 << 4 | 15 << 8 | 15 << 13 and gic.its_read(12, 4) == 0
    assert gic.dist_read(0, 4, 4) == 2 | 15 << 19 | 1 << 17
    assert gic.redist_read(0, 0, 0, 4) == 0b110 and gic.redist_read(0, 1, 8, 4) & 1
    gic.its_write(0, 4, 1)
    assert gic.its_read(0, 4) == 1 << 31, "not without valid tables"
    gic.its_write(0x88, 8, 0x20)
    assert gic.its_read(0x88, 8) == 0x20
    gic.its_write(0x88, 4, 0x1000)
    assert gic.its_read(0x88, 8) == 0x20, "beyond the queue"
    gic.its_write(0x84, 4, VALID >> 32)
    assert gic.its_read(0x80, 8) == VALID and gic.its_read(0x88, 8) == 0, (
        "a CBASER write resets the pointers"
    )
    gic.its_write(0x100, 8, ~0)
    assert gic.its_read(0x100, 8) >> 56 & 7 == 1 and gic.its_read(0x100, 8) >> 48 & 31 == 7
    gic.its_write(0x108, 8, ~0)
    assert not gic.its_read(0x108, 8) >> 62 & 1 and gic.its_read(0x108, 8) >> 56 & 7 == 4
    gic.its_write(0, 4, 1)
    assert gic.its_read(0, 4) & 1
    gic.its_write(0x100, 8, 0)
    assert gic.its_read(0x100, 8) & VALID and gic.unpredictable


def test_lpi_life_cycle() -> None:
    bench = Bench()
    gic = bench.gic
    assert gic.msi(1, 0) and gic.irq(0) and gic.pending(LPI) and gic.priority(LPI) == PRIO
    assert (
        iar(gic) == LPI
        and not gic.pending(LPI)
        and not gic.active(LPI)
        and gic.running_priority(0) == PRIO
    )
    assert gic.msi(1, 0) and not gic.irq(0)
    eoi(gic, LPI)
    assert gic.running_priority(0) == 0xFF and gic.irq(0) and gic.unpredictable == ""


def test_dropped_msis() -> None:
    bench = Bench()
    gic = bench.gic
    assert not gic.msi(1, 1) and not gic.msi(2, 0) and not gic.msi(1, 32)
    bench.enable((0,), 0)
    assert not gic.msi(1, 0)
    bench.enable((0,))
    gic.its_write(0, 4, 0)
    assert not gic.msi(1, 0) and not gic.pending(LPI)


def test_commands_wait_until_the_its_is_enabled() -> None:
    bench = Bench()
    bench.gic.its_write(0, 4, 0)
    at = bench.gic.its_read(0x88, 8)
    for index, word in enumerate(on_event(0x03, 1, 0)):
        bench.ram.write(QUEUE + at + 8 * index, 8, word)
    bench.gic.its_write(0x88, 8, at + 32)
    assert bench.gic.its_read(0x90, 8) == at and not bench.gic.pending(LPI)
    bench.gic.its_write(0, 4, 1)
    assert bench.gic.its_read(0x90, 8) == at + 32 and bench.gic.pending(LPI)


def test_configuration_is_cached() -> None:
    bench = Bench()
    gic = bench.gic
    gic.msi(1, 0)
    bench.ram.write(CONFIG + LPI - 8192, 1, 0x40)
    assert gic.irq(0) and gic.priority(LPI) == PRIO
    bench.run(on_event(0x0C, 1, 0))
    assert not gic.irq(0) and gic.priority(LPI) == 0x40 and gic.pending(LPI)
    bench.ram.write(CONFIG + LPI - 8192, 1, 0x7D)
    bench.run((0x0D, 0, 1, 0))
    assert not gic.irq(0), "INVALL of a collection on the other CPU"
    bench.run((0x0D, 0, 0, 0))
    assert gic.irq(0) and gic.priority(LPI) == 0x78
    for offset, value in ((0xA0, LPI), (0xB0, 0)):
        bench.ram.write(CONFIG + LPI - 8192, 1, 0x10)
        gic.redist_write(0, 0, offset, 8, value)
        assert gic.priority(LPI) == 0x10
        bench.ram.write(CONFIG + LPI - 8192, 1, 0x20)
        gic.redist_write(0, 0, offset, 4, value)
        assert gic.priority(LPI) == 0x20
    assert gic.unpredictable == ""


def test_movi_and_mapc_move_the_pending_state() -> None:
    bench = Bench()
    gic = bench.gic
    gic.msi(1, 0)
    bench.run(on_event(0x01, 1, 0, 1))
    assert gic.irq(1) and not gic.irq(0)
    bench.run(on_event(0x01, 1, 0, 2))
    assert gic.irq(1), "MOVI to an unmapped collection is an error"
    bench.run(mapc(1, 0))
    assert gic.irq(0) and not gic.irq(1)
    bench.run(mapc(1, 2))
    assert gic.irq(0), "no such CPU"
    bench.run(mapc(1, 0, valid=False))
    assert gic.pending(LPI) and not gic.irq(0) and not gic.msi(1, 0)
    assert "MAPC" in gic.unpredictable
    bench.run(mapc(1, 1))
    assert gic.irq(1)


def test_movall_moves_the_pending_state_only() -> None:
    bench = Bench()
    gic = bench.gic
    gic.msi(1, 0)
    bench.run((0x0E, 0, 0 << 16, 1 << 16))
    assert gic.irq(1) and not gic.irq(0)
    assert iar(gic, 1) == LPI
    eoi(gic, LPI, 1)
    gic.redist_write(1, 1, 0xA0, 8, LPI)
    assert gic.unpredictable, "once acknowledged it has left the Redistributor of CPU 1"
    gic.unpredictable = ""
    assert gic.msi(1, 0) and gic.irq(0) and gic.unpredictable == "", (
        "the collection still names CPU 0"
    )
    assert iar(gic) == LPI
    gic.redist_write(1, 1, 0xA0, 8, LPI)
    assert gic.unpredictable, "the LPI is in the Redistributor of CPU 0 again"
    gic.unpredictable = ""
    bench.run((0x0E, 0, 0 << 16, 1 << 16))
    gic.redist_write(1, 1, 0xA0, 8, LPI)
    assert gic.unpredictable, "an LPI that is not pending has not moved"


def test_int_clear_discard() -> None:
    bench = Bench()
    gic = bench.gic
    bench.run(on_event(0x03, 1, 0))
    assert gic.irq(0)
    bench.run(on_event(0x04, 1, 0))
    assert not gic.irq(0) and gic.msi(1, 0)
    bench.run(on_event(0x0F, 1, 0))
    assert not gic.irq(0) and not gic.msi(1, 0) and not gic.pending(LPI)
    bench.run(mapti(1, 0, LPI, 0))
    assert not gic.pending(LPI) and gic.msi(1, 0) and gic.unpredictable == ""


@pytest.mark.parametrize(
    "command",
    [
        mapti(1, 32, 8201, 0),
        mapti(2, 1, 8201, 0),
        mapti(1, 1, 8191, 0),
        mapti(1, 1, 65536, 0),
        mapti(1, 1, 8201, 8192),
        mapd(8192),
        mapd(1 << 16),
        mapd(3, 17),
        on_event(0x0B, 1, 8),
        (0xFF, 0, 0, 0),
    ],
)
def test_commands_in_error_are_skipped(command: Sequence[int]) -> None:
    bench = Bench()
    before = bench.gic.snapshot()["lpis"], bench.gic._its and bench.gic._its.map.snapshot()
    bench.run(command)
    assert before == (
        bench.gic.snapshot()["lpis"],
        bench.gic._its and bench.gic._its.map.snapshot(),
    )


def test_mapi_uses_the_event_as_intid() -> None:
    bench = Bench()
    bench.run(mapd(5, 16), on_event(0x0B, 5, 8210, 1))
    assert bench.gic.msi(5, 8210) and bench.gic.hppi(1) == 8210


def test_existing_event_is_left_alone() -> None:
    bench = Bench()
    bench.run(mapti(1, 0, 8201, 1))
    assert bench.gic.msi(1, 0) and bench.gic.hppi(0) == LPI


def test_mapti_before_mapc_is_inert() -> None:
    bench = Bench()
    gic = bench.gic
    bench.run(mapti(1, 3, 8203, 7))
    assert not gic.msi(1, 3)
    bench.run(mapc(7, 1))
    assert gic.msi(1, 3) and gic.hppi(1) == 8203


def test_mapd_frees_the_events() -> None:
    bench = Bench()
    bench.run(mapd(1))
    assert not bench.gic.msi(1, 0) and bench.gic.unpredictable == ""
    bench.run(mapti(1, 0, LPI, 0))
    assert bench.gic.msi(1, 0)
    bench.run(mapd(1, valid=False))
    assert not bench.gic.pending(LPI) and not bench.gic.irq(0) and "MAPD" in bench.gic.unpredictable


def test_two_events_of_one_lpi() -> None:
    bench = Bench()
    bench.run(mapti(1, 1, LPI, 0))
    assert "two events" in bench.gic.unpredictable
    bench.run(on_event(0x0F, 1, 1))
    assert bench.gic.msi(1, 0) and bench.gic.irq(0)


def test_two_level_device_table() -> None:
    bench = Bench()
    gic = bench.gic
    gic.its_write(0, 4, 0)
    gic.its_write(0x100, 8, 1 << 62 | VALID | DEVICES)
    gic.its_write(0, 4, 1)
    bench.ram.write(DEVICES + 8, 8, VALID)
    bench.run(mapd(8192 + 5), mapti(8192 + 5, 0, 8204, 0), mapd(9), mapti(9, 0, 8205, 0))
    assert gic.msi(8192 + 5, 0) and not gic.msi(9, 0)


def test_pending_table_is_loaded_at_the_first_enable() -> None:
    bench = Bench(enable=False)
    gic = bench.gic
    bench.ram.write(PENDING + LPI // 8, 1, 1 << LPI % 8)
    bench.enable((0,))
    assert gic.irq(0) and gic.unpredictable == ""
    zero = Bench(enable=False)
    zero.ram.write(PENDING + LPI // 8, 1, 1 << LPI % 8)
    zero.gic.redist_write(0, 0, 0x78, 8, 1 << 62 | PENDING)
    assert zero.gic.redist_read(0, 0, 0x78, 8) == PENDING, "PTZ reads 0"
    zero.enable((0,))
    assert not zero.gic.irq(0)
    unmapped = Bench(enable=False)
    unmapped.ram.write(PENDING + 8300 // 8, 1, 1 << 8300 % 8)
    unmapped.enable((0,))
    assert "not mapped" in unmapped.gic.unpredictable


def test_pending_state_is_held_while_lpis_are_disabled() -> None:
    bench = Bench()
    gic = bench.gic
    gic.msi(1, 0)
    gic.redist_write(0, 0, 0x70, 8, 0)
    assert gic.redist_read(0, 0, 0x70, 8) == CONFIG | 15, "read-only while enabled"
    bench.enable((0,), 0)
    assert not gic.irq(0) and gic.pending(LPI)
    bench.ram.write(CONFIG + LPI - 8192, 1, 0x08 | ENABLE)
    bench.ram.write(PENDING + LPI // 8, 1, 1 << LPI % 8)
    bench.enable((0,))
    assert gic.irq(0) and gic.priority(LPI) == 8 and gic.unpredictable == ""
    bench.enable((0,), 0)
    bench.ram.write(PENDING + LPI // 8, 1, 0)
    bench.enable((0,))
    assert gic.irq(0) and "pending table" in gic.unpredictable


def test_lpis_out_of_range() -> None:
    bench = Bench()
    gic = bench.gic
    bench.enable((0, 1), 0)
    for cpu in (0, 1):
        gic.redist_write(cpu, cpu, 0x70, 4, CONFIG | 12)
    bench.enable()
    assert not gic.msi(1, 0), "2^13 INTIDs hold no LPI"
    bench.enable((0, 1), 0)
    for cpu in (0, 1):
        gic.redist_write(cpu, cpu, 0x70, 4, CONFIG | 13)
    bench.enable()
    assert gic.msi(1, 0)


def test_the_queue_wraps_at_its_size() -> None:
    bench = Bench()
    for index, word in enumerate(on_event(0x03, 1, 0)):
        bench.ram.write(QUEUE + 4096 + 8 * index, 8, word)
    bench.run(*[(0x05, 0, 0, 0)] * 127)
    assert bench.gic.its_read(0x90, 8) == 3 * 32 and not bench.gic.pending(LPI)


def test_lpis_need_group_1() -> None:
    bench = Bench()
    bench.gic.msi(1, 0)
    bench.gic.dist_write(0, 0, 4, 1)
    assert not bench.gic.irq(0)


def test_clearing_baser_valid_frees_the_tables() -> None:
    bench = Bench()
    gic = bench.gic
    gic.its_write(0, 4, 0)
    gic.its_write(0x108, 8, 0)
    gic.its_write(0x108, 8, VALID | COLLECTIONS)
    gic.its_write(0, 4, 1)
    assert not gic.msi(1, 0)
    bench.run(mapc(0, 0))
    assert gic.msi(1, 0), "the event is still mapped"
    gic.its_write(0, 4, 0)
    gic.its_write(0x100, 8, 0)
    gic.its_write(0x100, 8, VALID | DEVICES)
    gic.its_write(0, 4, 1)
    assert not gic.msi(1, 0) and not gic.pending(LPI)


def test_snapshot_is_plain_and_repeatable() -> None:
    bench = Bench()
    bench.gic.msi(1, 0)
    first = bench.gic.snapshot()
    assert first == bench.gic.snapshot()
    iar(bench.gic)
    assert first != bench.gic.snapshot()
