"""Where the board places the stolen-time structures, and which date its clocks show."""

from __future__ import annotations

from pathlib import Path

import pytest
from asm import Asm

from armvirt.board.board import PVTIME_SIZE
from armvirt.board.virt import memmap
from armvirt.errors import UserError
from armvirt.hyp.kvm import PVTIME_IPA, VcpuGroup
from armvirt.machine import Machine
from armvirt.units import parse_date

LEAP_DAY = 1_709_209_800  # 2024-02-29T12:30:00Z
RESULTS = 0x4010_0000
ENTRY = 0x4008_0000


def test_every_cpu_has_its_own_structure() -> None:
    with Machine("hello", cpus=4) as machine:
        places = [v.get_device_attr(VcpuGroup.PVTIME_CTRL, PVTIME_IPA) for v in machine.board.vcpus]
    assert places == [0x090A_0000 + 64 * n for n in range(4)]
    assert PVTIME_SIZE * memmap.MAX_CPUS <= memmap.PVTIME.size


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("2024-02-29T12:30:00", LEAP_DAY), ("2024-02-29T12:30:00Z", LEAP_DAY), ("1970-01-02", 86_400), ("77", 77),
     ("2024-02-29T13:30:00+01:00", LEAP_DAY)],
)  # fmt: skip
def test_dates(text: str, seconds: int) -> None:
    assert parse_date(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "yesterday", "2024-02-30", "2200-01-01", "1969-12-31", "-5", "4294967296"]
)
def test_dates_that_cannot_be(text: str) -> None:
    with pytest.raises(UserError):
        parse_date(text)


def alarm_guest() -> bytes:
    """Sets the clock chip's alarm two seconds ahead, waits for SPI 2 (INTID 34) in WFI, stores what
    it sees."""
    a = Asm(ENTRY)
    rtc, gicd, redist = 0x0901_0000, 0x0800_0000, 0x080A_0000

    def store(address: int, value: int) -> None:
        a.mov(5, address)
        a.mov(6, value)
        a.str_w(6, 5)

    store(gicd, 0x12)
    store(gicd + 0x84, 1 << 2)  # IGROUPR
    store(gicd + 0x104, 1 << 2)  # ISENABLER
    store(redist + 0x14, 0)
    for name, value in ((0xC230, 0xF0), (0xC667, 1)):  # ICC_PMR_EL1, ICC_IGRPEN1_EL1
        a.mov(1, value)
        a.msr(name, 1)
    a.mov(9, rtc)
    a.mov(20, RESULTS)
    a.ldr_w(1, 9)
    a.str_(1, 20)
    a.add_imm(1, 1, 2)
    a.str_w(1, 9, 4)
    store(rtc + 0x10, 1)
    a.wfi()
    a.ldr_w(1, 9)
    a.str_(1, 20, 8)
    a.mrs(1, "CNTVCT_EL0")
    a.str_(1, 20, 16)
    a.ldr_w(1, 9, 0x18)
    a.str_(1, 20, 24)
    store(rtc + 0x1C, 1)
    a.ldr_w(1, 9, 0x18)
    a.str_(1, 20, 32)
    a.mov(0, 0x8600_0001)  # PTP, virtual counter
    a.mov(1, 0)
    a.hvc(0)
    a.str_(0, 20, 40)
    a.str_(1, 20, 48)
    a.mov(0, 0x8400_0008)
    a.hvc(0)
    return a.code()


@pytest.mark.parametrize("engine", ["auto", "portable"])
def test_the_alarm_wakes_a_guest_at_its_second(tmp_path: Path, engine: str) -> None:
    image = tmp_path / "alarm.bin"
    image.write_bytes(alarm_guest())
    with Machine(image, load_addr=ENTRY, rtc_base=LEAP_DAY, engine=engine) as machine:
        assert machine.run(max_time_ns=10**10).verdict == "off"
        before, after, count, masked, cleared, high, low = (
            int.from_bytes(machine.board.vm.read_memory(RESULTS + 8 * n, 8), "little")
            for n in range(7)
        )
    assert (before, after, masked, cleared) == (LEAP_DAY, LEAP_DAY + 2, 1, 0)
    assert 0 <= count - 2 * 62_500_000 < 2, "it woke in the first ns of that second"
    assert (high << 32 | low) // 10**9 == LEAP_DAY + 2, (
        "the PTP call shows the same date as the chip"
    )
