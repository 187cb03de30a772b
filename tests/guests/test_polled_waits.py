"""Skipping polled waits changes no run: bundled guests with and without it, and two CPUs that spin."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from asm import NE, Asm
from conftest import require_guest, require_native, sampled
from guest_runs import BUNDLED, ELSEWHERE, campaign, reference, subject
from waiting_guest import BASE, MS, image, power_off, waits

from armvirt.arch.timer import CNTVCT_EL0
from armvirt.events import Event, PolledWait, Stamp
from armvirt.machine import Machine

DATA = 0x4030_0000
CPU_ON = 0xC400_0003


def without(name: str) -> campaign.Subject:
    plain = subject(name)
    return replace(plain, options={**plain.options, "skip": False})


@pytest.mark.parametrize("name", [*sampled(BUNDLED), *sampled(ELSEWHERE)])
def test_the_same_run_without(name: str) -> None:
    assert campaign.whole(without(name)) == reference(name)


@pytest.mark.parametrize("pcpus", [1, 2])
@pytest.mark.parametrize("cpus", [2, 4])
@pytest.mark.parametrize(
    "name", sampled(("smp-lock", "spinlock", "smp-ipi", "smp-timers", "steal", "gic-sgi"))
)
def test_the_same_run_on_several_physical_cpus(name: str, cpus: int, pcpus: int) -> None:
    seen = []
    for skip in (False, True):
        with Machine(name, cpus=cpus, pcpus=pcpus, memory="64M", skip=skip) as machine:
            result = machine.run(max_time_ns=20_000_000, max_insns=3_000_000)
            seen.append((result.verdict, result.ns, result.insns, result.trace_hash))
    assert seen[0] == seen[1]


# -- guests of our own --


def spinning(rounds: int) -> Asm:
    """CPU 1 spins until CPU 0 has counted to ``rounds``, and then CPU 0 until CPU 1 has answered."""
    a = Asm(BASE)
    a.mov(28, DATA)
    a.mov(0, CPU_ON)
    a.mov(1, 1)
    a.adr(2, "second")
    a.mov(3, 0)
    a.hvc(0)
    a.mov(20, rounds)
    a.label("work")
    a.add(21, 21, 20)
    a.subs_imm(20, 20, 1)
    a.b_cond(NE, "work")
    a.str_(28, 28)
    a.label("answer")
    a.ldr(0, 28, 64)
    a.cbz(0, "answer")
    power_off(a)
    a.label("second")
    a.mov(28, DATA)
    a.label("spin")
    a.yield_()
    a.ldr(0, 28)
    a.cbz(0, "spin")
    a.str_(28, 28, 64)
    a.label("end")
    a.wfi()
    a.b("end")
    return a


def istatus(ticks: int) -> Asm:
    """Poll ISTATUS of a masked timer, then CNTV_CVAL_EL0 into RAM."""
    a = Asm(BASE)
    a.mov(28, DATA)
    a.mrs(2, CNTVCT_EL0)
    a.mov(3, ticks)
    a.add(3, 2, 3)
    a.msr("CNTV_CVAL_EL0", 3)
    a.mov(0, 3)
    a.msr("CNTV_CTL_EL0", 0)
    a.label("poll")
    a.mrs(0, "CNTV_CTL_EL0")
    a.word(0x36100000 | (-1 & 0x3FFF) << 5)  # TBZ X0, #2, poll
    a.mrs(4, CNTVCT_EL0)
    a.str_(4, 28)
    power_off(a)
    return a


def registers(machine: Machine) -> list[int]:
    return [machine.board.vcpus[0].context.x(n) for n in range(31)]


def machine_of(path: Path, **options: object) -> Machine:
    return Machine(path, load_addr=BASE, memory="64M", **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("pcpus", [1, 2])
def test_two_cpus_that_spin(tmp_path: Path, pcpus: int) -> None:
    path = image(spinning(2_000_000), tmp_path)
    with machine_of(path, cpus=2, pcpus=pcpus, skip=False) as plain:
        expected = plain.run()
    with machine_of(path, cpus=2, pcpus=pcpus) as machine:
        result = machine.run()
        assert machine.skipped > 500_000
    assert result.verdict == "off"
    assert result._replace(recent=()) == expected._replace(recent=())


@pytest.mark.parametrize("trace_hash", [True, False])
def test_istatus(tmp_path: Path, trace_hash: bool) -> None:
    """With and without a sink: comparators in Python, and their shadow copies."""
    path, seen = image(istatus(200_000), tmp_path), []
    for skip in (False, True):
        with machine_of(path, skip=skip, trace_hash=trace_hash) as machine:
            result = machine.run()
            seen.append((result.ns, result.insns, result.trace_hash, registers(machine)))
            assert machine.skipped > 3_000_000 if skip else machine.skipped == 0
    assert seen[0] == seen[1]


def test_a_stop_in_a_skipped_wait(tmp_path: Path) -> None:
    """Stop anywhere, save, and load in a machine that does not skip: the same run."""
    path = image(waits(3, 20_000), tmp_path)
    with machine_of(path, skip=False) as plain:
        expected = plain.run()
    for number, at in enumerate((1, 17, 1000, 160_123, 160_124, 320_002, 500_001, 900_000)):
        with machine_of(path) as machine:
            machine.run(max_insns=at)
            assert machine.insns == at
            saved = json.loads(json.dumps(machine.state()))
            with machine_of(path, skip=bool(number & 1)) as other:
                other.run(max_insns=at)
                assert json.loads(json.dumps(other.state())) == saved
                other.load(saved)
                moved = other.run()
            result = machine.run()
        for each in (result, moved):
            assert (each.ns, each.insns) == (expected.ns, expected.insns)
        assert result.trace_hash == expected.trace_hash


def test_the_trace_names_a_wait(tmp_path: Path) -> None:
    events: list[tuple[Stamp, Event]] = []
    guest = waits(1, MS)
    path, poll = image(guest, tmp_path), guest["poll"] + 4
    with machine_of(path, sinks=[lambda stamp, event: events.append((stamp, event))]) as machine:
        machine.run()
        skipped = machine.skipped
    found = [(s, e) for s, e in events if isinstance(e, PolledWait)]
    assert sum(e.rounds * e.length for _, e in found) == skipped > 990_000
    for stamp, event in found:
        assert stamp.pc == poll
        assert event.until == stamp.ns + event.rounds * event.length
    assert found[0][0].insns == found[0][0].ns


def test_a_loop_that_nothing_ends_is_executed(tmp_path: Path) -> None:
    """It polls memory, and no event is due: guest time does not run away under --timeout."""
    a = Asm(BASE)
    a.mov(28, DATA)
    a.label("spin")
    a.ldr(0, 28)
    a.cbz(0, "spin")
    with machine_of(image(a, tmp_path)) as machine:
        result = machine.run(timeout_s=0.2)
        assert result.verdict == "limit"
        assert machine.skipped < 100_000


# -- how much is skipped --


@pytest.mark.parametrize(("number", "ticks"), [(1, 160 * MS), (1600, MS // 10)])
def test_nearly_all_of_a_wait_is_skipped(number: int, ticks: int, tmp_path: Path) -> None:
    require_native()
    with machine_of(image(waits(number, ticks), tmp_path)) as machine:
        result = machine.run()
        assert result.verdict == "off"
        assert machine.skipped > 0.99 * result.insns


@pytest.mark.long
@pytest.mark.linux
def test_uboot_sleeps(tmp_path: Path) -> None:
    """A part of its sleep, both ways."""
    bios, seen = require_guest("u-boot.bin"), []
    for skip in (False, True):
        with Machine(bios=bios, skip=skip) as machine:
            assert machine.run_until(console="Hit any key", timeout_s=300) is None
            machine.console.send("x")
            assert machine.run_until(console="=> ", timeout_s=300) is None
            machine.console.send("sleep 1\n")
            result = machine.run(max_time_ns=machine.ns + 100_000_000)
            seen.append((result.ns, result.insns, result.trace_hash))
            assert machine.skipped > 90_000_000 if skip else not machine.skipped
    assert seen[0] == seen[1]
