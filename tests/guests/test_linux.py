"""Debian's Linux boots, passes its self-test and sleeps in guest time. Every run is the same,
however it is stopped."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from conftest import require_guest
from guest_runs import campaign

from armvirt.machine import Machine, Result

pytestmark = [pytest.mark.linux, pytest.mark.long]

SECOND = 1_000_000_000
TIMEOUT_S = 600
PROMPT = "guest# "
CPUS = (1, 2)


def boot(**options: object) -> Machine:
    images = {"initrd": require_guest("initramfs.cpio"), "append": "console=ttyAMA0"}
    return Machine(require_guest("Image"), **{**images, **options})


def reach(machine: Machine, text: str) -> int:
    """Run until ``text`` appears on the console; the ns at which it did."""
    ended = machine.run_until(console=text, ns=campaign.LINUX_LIMIT_NS, timeout_s=TIMEOUT_S)
    assert ended is None and text in machine.console.output.decode(), ended
    return machine.ns


@pytest.fixture(scope="module", params=CPUS, ids=["1-cpu", "2-cpus"])
def self_test(request: pytest.FixtureRequest) -> tuple[int, Result, int]:
    """(CPUs, the run of the guest's own test, ns between the lines before and after its ``sleep
    1``)."""
    with boot(append="console=ttyAMA0 autorun", cpus=request.param) as machine:
        before = reach(machine, "ok - the architected timer is the tick")
        after = reach(machine, "ok - sleep 1")
        return (
            request.param,
            machine.run(max_time_ns=campaign.LINUX_LIMIT_NS, timeout_s=TIMEOUT_S),
            after - before,
        )


def test_passes_its_own_test(self_test: tuple[int, Result, int]) -> None:
    cpus, result, _ = self_test
    assert result.verdict == "pass", result.diagnosis + result.console[-2000:]
    assert "FAIL - " not in result.console
    assert f"AUTORUN: {cpus} cpu(s)" in result.console


def test_interrupts(self_test: tuple[int, Result, int]) -> None:
    """/proc/interrupts: the virtual timer's PPI is a level of the GICv3, and every CPU has taken
    some."""
    cpus, result, _ = self_test
    row = re.search(
        r"^ *\d+: +((?:\d+ +)+)GICv3 +27 Level +arch_timer", result.console, re.MULTILINE
    )
    assert row is not None
    counts = [int(count) for count in row[1].split()]
    assert len(counts) == cpus and all(count > 10 for count in counts)


def test_the_its_comes_up(self_test: tuple[int, Result, int]) -> None:
    """Linux finds the ITS, gives it tables of both kinds and a queue, and every CPU a pending
    table."""
    cpus, result, _ = self_test
    assert "ITS [mem 0x08080000-0x0809ffff]" in result.console
    for table in (
        r"Devices @\w+ \(indirect, esz 8, psz 64K",
        r"Interrupt Collections @\w+ \(flat, esz 8, psz 64K",
    ):
        assert re.search(rf"ITS@0x0000000008080000: allocated 8192 {table}", result.console), table
    assert result.console.count("using allocated LPI pending table") == cpus
    assert "ITS queue timeout" not in result.console


def test_sleeps_in_guest_time(self_test: tuple[int, Result, int]) -> None:
    _, _, ns = self_test
    assert SECOND <= ns < 1.2 * SECOND


def test_runs_are_one(self_test: tuple[int, Result, int]) -> None:
    """The second run is saved and loaded now and then. The first one was stopped at its marks."""
    cpus, result, _ = self_test
    expected = campaign.Outcome(result.verdict, result.ns, result.insns, str(result.trace_hash))
    stops = campaign.Stops(8, expected, seed=cpus)
    assert campaign.stopped(campaign.linux(cpus), stops, "load") == expected


def test_moves_to_another_machine(self_test: tuple[int, Result, int]) -> None:
    """The campaign does it a thousand times."""
    cpus, result, _ = self_test
    expected = campaign.Outcome(result.verdict, result.ns, result.insns, str(result.trace_hash))
    assert (
        campaign.stopped(campaign.linux(cpus), campaign.Stops(3, expected, seed=0), "fresh")
        == expected
    )


def kaslr(**options: object) -> tuple[str, str]:
    """What the kernel says of KASLR, and where it has put the begin of its code."""
    with boot(append="console=ttyAMA0 quiet", **options) as machine:
        reach(machine, PROMPT)
        said = re.search(r"KASLR .*", command(machine, "dmesg | grep KASLR"))
        assert said is not None
        return said[0], command(machine, "grep -w _stext /proc/kallsyms")


def test_the_kernel_is_where_the_seed_puts_it() -> None:
    """Debian's kernel takes /chosen/kaslr-seed; without one it runs where it is linked."""
    said, linked = kaslr(kaslr_seed=False)
    assert (said, linked) == ("KASLR disabled due to lack of seed", "ffff800008010000 T _stext\n")
    one, again, other = (kaslr(seed=seed) for seed in (1, 1, 2))
    assert one == again
    assert {one[0], other[0]} == {"KASLR enabled"}
    assert len({linked, one[1], other[1]}) == 3


@pytest.fixture(scope="module")
def shell() -> Iterator[Machine]:
    with boot() as machine:
        reach(machine, PROMPT)
        yield machine


def command(machine: Machine, text: str) -> str:
    """What a command printed, after its echo and before the next prompt."""
    start = len(machine.console.output)
    machine.console.send(text + "\n")
    reach(machine, PROMPT)
    seen = machine.console.output[start:].decode().replace("\r", "")
    return seen.partition(text + "\n")[2].removesuffix(PROMPT)


def test_shell(shell: Machine) -> None:
    """Commands typed when the prompt is there; the last one powers off, without a verdict."""
    assert command(shell, "echo $((6 * 7))") == "42\n"
    assert command(shell, "uname -m") == "aarch64\n"
    assert "arch_sys_counter" in command(
        shell, "cat /sys/devices/system/clocksource/clocksource0/current_clocksource"
    )
    assert command(shell, "cat /proc/cpuinfo | grep -c processor") == "1\n"
    before = shell.ns
    command(shell, "sleep 2")
    assert 2 * SECOND <= shell.ns - before < 2.2 * SECOND
    shell.console.send("poweroff -f\n")
    result = shell.run(max_time_ns=campaign.LINUX_LIMIT_NS, timeout_s=TIMEOUT_S)
    assert (result.verdict, result.exit_status, result.diagnosis) == ("off", 0, "")
