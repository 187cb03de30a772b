"""Ten guests move to another host in mid-run, on both GICs, at several times."""

from __future__ import annotations

import pytest
from conftest import FETCHED

from armvirt.board.virt import memmap
from armvirt.bundled import find
from armvirt.cli.main import main
from armvirt.errors import KvmError, UserError
from armvirt.hyp.kvm import PVTIME_IPA, MpState, VcpuGroup, VgicGroup
from armvirt.machine import Machine
from armvirt.machine.migrate import COUNTER_START, migrate_test, restore, save

VTIMER_CTL = 0x6030_0000_0013_DF19
PSCI_VERSION, STD_BITMAP = 0x6030_0000_0014_0000, 0x6030_0000_0016_0000
NOWHERE = (1 << 64) - 1
US, MS = 1000, 1_000_000
MOVES = [
    ("hello", (3, 2), (1 * US, 15 * US)),
    ("vtimer-tick", (3, 2), (1_234_567, 50 * MS)),
    ("oneshot", (3, 2), (7 * US, 801_003)),
    ("ptimer", (3, 2), (50 * US, 901_234)),
    ("wfi", (3,), (10 * US, 3 * MS)),
    ("cntvoff", (3, 2), (20 * US,)),
    ("mmu-el0", (3,), (10 * US, 40 * US)),
    ("sgi-spi", (3,), (5 * US, 20 * US)),
    ("psci", (3, 2), (50 * US,)),
    ("sgi-smp", (3,), (150 * US,)),
    ("gic-spi", (3, 2), (200 * US,)),
    ("gic-priority", (3, 2), (100 * US, 300 * US)),
    ("gic-eoimode", (3, 2), (100 * US,)),
    ("gic-sgi-source", (2,), (100 * US,)),
    ("gic-lpi", (3,), (400 * US, 5 * MS)),
    ("ptp", (3,), (5 * US,)),
]


@pytest.mark.parametrize(
    ("guest", "gic", "at"),
    [(g, gic, at) for g, gics, times in MOVES for gic in gics for at in times],
)
def test_a_guest_does_not_notice(guest: str, gic: int, at: int) -> None:
    report = migrate_test(guest, at, gic=gic)
    assert report.straight.verdict == "pass" and report.straight.ns > at
    assert report.same, report.differences
    if len(report.straight.console) and guest in ("hello", "vtimer-tick", "oneshot", "wfi"):
        assert report.moved.ns == report.straight.ns and report.moved.insns == report.straight.insns


@pytest.mark.parametrize("engine", ["native", "portable"])
@pytest.mark.parametrize("at", range(100, 20_000, 4_321))
def test_anywhere(engine: str, at: int) -> None:
    assert migrate_test("hello", at, engine=engine).same


@pytest.mark.parametrize("counter_start", [0, 1, (1 << 64) - 50_000])
def test_any_counter(counter_start: int) -> None:
    """Also one that rolls over while the guest runs."""
    assert migrate_test("ptimer", 300 * US, counter_start=counter_start).same


def test_the_other_host_is_another() -> None:
    """The physical counter really is elsewhere, and the guest's are not; who slept in WFI
    sleeps."""
    with (
        Machine("vtimer-tick", trace_hash=False) as old,
        Machine("vtimer-tick", counter_start=COUNTER_START) as new,
    ):
        old.run_until(ns=2_400_000)
        snapshot = save(old)
        restore(new, snapshot)
        assert new.host.pe.timer.count() - old.host.pe.timer.count() > 1 << 40
        assert save(new).vcpus == snapshot.vcpus
        assert snapshot.vcpus[0].mp_state is MpState.RUNNABLE and snapshot.vcpus[0].in_flight.asleep


def test_services_and_stolen_time_go_along(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the VMM took away or placed before the first run is so on the other host, whose board
    did nothing of it."""
    with Machine("hello") as old:
        cpu = old.board.vcpus[0]
        for register, value in ((PSCI_VERSION, 0x1_0000), (STD_BITMAP, 0), (STD_BITMAP + 2, 1)):
            cpu.set_one_reg(register, value)
        old.run_until(ns=2 * US)
        snapshot = save(old)
    monkeypatch.setattr("armvirt.board.board.Board._place_stolen_time", lambda board: None)
    with Machine("hello") as new:
        cpu = new.board.vcpus[0]
        assert cpu.get_device_attr(VcpuGroup.PVTIME_CTRL, PVTIME_IPA) == NOWHERE
        restore(new, snapshot)
        assert cpu.get_device_attr(VcpuGroup.PVTIME_CTRL, PVTIME_IPA) == memmap.PVTIME.base
        assert [cpu.get_one_reg(r) for r in (PSCI_VERSION, STD_BITMAP, STD_BITMAP + 2)] == [
            0x1_0000,
            0,
            1,
        ]
        assert save(new).vcpus == snapshot.vcpus


@pytest.mark.parametrize("place", [memmap.RAM_BASE, NOWHERE])
def test_another_place_of_stolen_time(place: int) -> None:
    """It cannot be moved, nor taken away."""
    with Machine("hello") as old, Machine("hello") as new:
        snapshot = save(old)
        vcpus = [each._replace(stolen_time=place) for each in snapshot.vcpus]
        with pytest.raises(KvmError):
            restore(new, snapshot._replace(vcpus=vcpus))


def test_saved_and_restored_is_the_same() -> None:
    for gic in (2, 3):
        with (
            Machine("gic-spi", gic=gic) as old,
            Machine("gic-spi", gic=gic, counter_start=5) as new,
        ):
            old.run_until(ns=300 * US)
            snapshot = save(old)
            restore(new, snapshot)
            again = save(new)
            assert again.vcpus == snapshot.vcpus and (again.gic, again.its) == (
                snapshot.gic,
                snapshot.its,
            )
            assert again.memory == snapshot.memory and again.devices == snapshot.devices


@pytest.mark.parametrize("gic", [2, 3])
def test_a_line_that_is_high_and_edge_triggered(gic: int) -> None:
    """The move is no edge of the UART's line, and the line counts where the guest makes it
    level-sensitive later."""
    group, word = VgicGroup.DIST_REGS, memmap.INTIDS["uart"] // 32 * 4
    config = 0xC00 + memmap.INTIDS["uart"] // 16 * 4
    with (
        Machine("hello", gic=gic) as old,
        Machine("hello", gic=gic, counter_start=COUNTER_START) as new,
    ):
        old.board.mmio.write(memmap.UART.base, 4, ord("x"))
        old.board.mmio.write(memmap.UART.base + 0x38, 4, 1 << 5)  # UARTIMSC.TXIM
        assert old.board.devices["uart"].state()["level"]
        old.board.gic.set_attr(group, 0x280 + word, 0xFFFF_FFFF)
        old.board.gic.set_attr(group, 0x200 + word, 0)
        old.board.gic.set_attr(group, config, 0xFFFF_FFFF)
        restore(new, save(old))
        irq = new.board.vm.vgic.dist.spi(memmap.INTIDS["uart"])
        assert irq is not None and not irq.level and not irq.pending
        new.board.gic.set_attr(group, config, 0)
        assert irq.pending
        assert save(new).gic != save(old).gic
        old.board.gic.set_attr(group, config, 0)
        assert save(new).gic == save(old).gic


@pytest.mark.parametrize(
    ("guest", "at"),
    [("gic-sgi", 167_752), ("gic-sgi", 320_856), ("gic-spi", 253_718), ("console-echo", 50_114)],
)
def test_moments_at_which_state_was_lost(guest: str, at: int) -> None:
    """GICv2: an active SGI whose sender no register says, one that pends from another CPU, a level
    SPI that is active with its line high; and a character on its way to the UART."""
    assert migrate_test(
        guest, at, gic=3 if guest == "console-echo" else 2, cpus=1, script=find(guest).script
    ).same


def test_a_guest_in_wfit_sleeps_until_then() -> None:
    """Its deadline goes along; a guest that only waits for that goes on at the same ns."""
    until = 100_000
    with (
        Machine("wfi", cpu_features="wfxt") as old,
        Machine("wfi", cpu_features="wfxt", counter_start=7) as new,
    ):
        while not old.board.vcpus[0].in_wfi:
            old.run_until(ns=old.ns + 500)
        cpu = old.board.vcpus[0]
        cpu.set_one_reg(VTIMER_CTL, 0)
        cpu.timer.wfit = until
        cpu.timer.blocking()
        restore(new, save(old))
        assert save(new).vcpus[0].in_flight == save(old).vcpus[0].in_flight
        ends = [first_awake(machine, until * 16 - 100) for machine in (old, new)]
        assert ends[0] == ends[1] == until * 16  # 62.5 MHz


def first_awake(machine: Machine, later_than: int) -> int:
    """The ns at which vCPU 0 wakes, which is ``later_than`` some ns, or an instruction later."""
    assert machine.run_until(ns=later_than) is None and machine.board.vcpus[0].in_wfi
    while machine.board.vcpus[0].in_wfi:
        assert machine.run_until(ns=machine.ns + 1) is None
    return machine.ns


@pytest.mark.parametrize("at", [37_534, 84_987, 109_000])
def test_wfi_ends_with_a_timer_whose_interrupt_is_masked(at: int) -> None:
    """As on the host that it left: there its guest goes on to a second WFI, and is stuck in
    that."""
    report = migrate_test("wfi-forever", at)
    assert report.same and report.straight.verdict == "stuck"
    assert (report.moved.ns, report.moved.insns) == (report.straight.ns, report.straight.insns)


def test_random_numbers_go_on() -> None:
    """They are the host's; only to be compared do both runs draw the same ones."""
    with Machine("hello") as old, Machine("hello", counter_start=COUNTER_START) as new:
        trng = old.board.vm.smccc.trng
        trng.random(64, 64)
        restore(new, save(old))
        assert new.board.vm.smccc.trng.random(192, 64) == trng.random(192, 64)


@pytest.mark.linux
@pytest.mark.long
@pytest.mark.parametrize("at", [300 * MS, 1200 * MS])
def test_linux_does_not_notice(at: int) -> None:
    """To the tick: the console has the kernel's own times."""
    folder = FETCHED
    if not (folder / "Image").exists():
        pytest.skip("make guests")
    report = migrate_test(
        folder / "Image", at, initrd=folder / "initramfs.cpio", append="console=ttyAMA0 autorun"
    )
    assert report.straight.verdict == "pass" and report.same, report.differences


def test_a_difference_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without its interrupt controller's state the guest waits for ever."""
    monkeypatch.setattr("armvirt.machine.vgic_save.restore", lambda device, rows: None)
    assert len(migrate_test("vtimer-tick", 50 * MS + 300).differences) == 3


def test_a_guest_that_has_ended() -> None:
    with pytest.raises(UserError, match="before"):
        migrate_test("hello", 10 * MS)


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["migrate-test", "oneshot", "--at", "1ms", "--gic", "2"]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("moved at 1 ms: the guest passed (") and err == ""
    assert main(["migrate-test", "hello"]) == 2
    assert main(["migrate-test", "hello", "--at", "1s"]) == 2
    assert main(["migrate-test", "psci", "--at", "50us", "--tolerance", "1ns"]) == 1
    assert "virtual counter differs" in capsys.readouterr().err
