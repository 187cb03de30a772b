"""Every bundled guest ends as its manifest says, on both engines and at several counter
frequencies, with the same trace."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from conftest import require_native, sampled
from guest_runs import (
    BENCHMARKS,
    BUNDLED,
    GUESTS,
    campaign,
    guest,
    reference,
    subject,
)

from armvirt.bundled import Setup
from armvirt.errors import UserError
from armvirt.machine import Machine

RUNS_OF_SHORT, RUNS, RUNS_LONG = 10, 2, 3
TIMER_GUESTS = (
    "vtimer-tick",
    "oneshot",
    "ptimer",
    "wfi",
    "cntvoff",
    "smp-timers",
    "timer-steal",
    "timer-el0",
)
FREQUENCIES = (24_000_000, 1_000_000_000)
TIMEOUT_S = 300
SHORT_INSNS = 100_000
COMPARED_INSNS, COMPARED_NS = 300_000, 300_000
"""The engines are compared to the end of a guest of so many instructions, and after so many ns of
one with more."""
CUT_ON_PORTABLE = {"sgi-smp": 3_000_000, "smp-ipi": 1_500_000}
"""ns after which the engines are compared, where the whole run takes a minute (`campaign.py --ways
portable`)."""


ON_MANY_MACHINES = [
    pytest.param(
        name, setup, id=f"{name}[{setup}]", marks=[pytest.mark.long] if setup.cpus == 8 else []
    )
    for name in BUNDLED
    for setup in guest(name).setups
    if len(guest(name).setups) > 1
]
NOTED = re.compile(r"^  (.+): (\d+) of (\d+)\r?$", re.MULTILINE)
"""What a guest does not judge, as QEMU falls short of the specification there: on so many of so
many CPUs it holds."""


@pytest.mark.parametrize("name", BUNDLED)
def test_ends_as_the_manifest_says(name: str) -> None:
    """By name, as a user starts it: CPUs come from the manifest."""
    with Machine(name, script=guest(name).script) as started:
        assert len(started.board.vcpus) == guest(name).cpus
        limit = campaign.LIMIT_OF_RUNAWAY_NS if guest(name).expect == "limit" else campaign.LIMIT_NS
        result = started.run(max_time_ns=limit, timeout_s=TIMEOUT_S)
    assert result.verdict == guest(name).expect, result.console + result.diagnosis
    if guest(name).expect == "pass":
        assert "ok - " in result.console
        assert "FAIL - " not in result.console
        assert not result.diagnosis


@pytest.mark.parametrize(("name", "setup"), ON_MANY_MACHINES)
def test_ends_so_on_every_machine(name: str, setup: Setup) -> None:
    """With each GIC and each number of CPUs of its row; what it only notes must hold here on every
    CPU."""
    with Machine(name, gic=setup.gic, cpus=setup.cpus) as started:
        result = started.run(max_time_ns=campaign.LIMIT_NS, timeout_s=TIMEOUT_S)
    assert result.verdict == guest(name).expect, result.console + result.diagnosis
    assert f"GICv{setup.gic}, {setup.cpus} CPUs" in result.console
    assert [noted for noted in NOTED.findall(result.console) if noted[1] != noted[2]] == []


def is_compared_whole(name: str) -> bool:
    return reference(name).insns <= COMPARED_INSNS


def engines_agree(name: str, limit_ns: int) -> None:
    """Verdict, time, instructions, every event and the final state, at the end or at the limit."""
    require_native()
    begin = replace(subject(name), limit_ns=min(subject(name).limit_ns, limit_ns))
    assert campaign.whole(begin, "portable") == campaign.whole(begin, "native")


@pytest.mark.parametrize("name", [name for name in GUESTS if GUESTS[name].cpu_counts])
def test_a_guest_says_how_many_cpus_it_was_made_for(name: str) -> None:
    most = max(guest(name).cpu_counts)
    with pytest.raises(
        UserError, match=f"{name} was made for 1 to {most} CPUs, not for {most + 1}"
    ):
        Machine(name, cpus=most + 1)


@pytest.mark.parametrize(
    "name", [name for name in BUNDLED if not GUESTS[name].cpu_counts and name != "runaway"]
)
def test_any_number_of_cpus_is_no_matter_for_the_others(name: str) -> None:
    """They leave the CPUs that they do not know switched off."""
    with Machine(name, cpus=16, script=guest(name).script) as started:
        result = started.run(max_time_ns=campaign.LIMIT_NS, timeout_s=TIMEOUT_S)
    assert result.verdict == guest(name).expect, result.console + result.diagnosis


@pytest.mark.parametrize("name", sampled(BUNDLED))
def test_engines_agree(name: str) -> None:
    """To the end of a short guest; the begin of the others."""
    engines_agree(name, campaign.LIMIT_NS if is_compared_whole(name) else COMPARED_NS)


@pytest.mark.long
@pytest.mark.parametrize("name", BUNDLED)
def test_engines_agree_to_the_end(name: str) -> None:
    """Of those that are not short."""
    assert reference(name).verdict == guest(name).expect
    if not is_compared_whole(name):
        engines_agree(name, CUT_ON_PORTABLE.get(name, campaign.LIMIT_NS))


@pytest.mark.parametrize("name", BUNDLED)
def test_runs_are_one(name: str) -> None:
    """The short ones ten times, the others twice."""
    runs = RUNS_OF_SHORT if reference(name).insns < SHORT_INSNS else RUNS
    assert {campaign.whole(subject(name)) for _ in range(runs - 1)} == {reference(name)}


@pytest.mark.long
@pytest.mark.parametrize("name", BUNDLED)
def test_more_runs_are_one(name: str) -> None:
    """`tools/campaign.py` does so ten times with all."""
    assert {campaign.whole(subject(name)) for _ in range(RUNS_LONG - 1)} == {reference(name)}


@pytest.mark.parametrize("hz", FREQUENCIES)
@pytest.mark.parametrize("name", TIMER_GUESTS)
def test_other_counter_frequencies(name: str, hz: int) -> None:
    with Machine(name, cntfrq=hz) as started:
        result = started.run(max_time_ns=campaign.LIMIT_NS, timeout_s=TIMEOUT_S)
    assert result.verdict == "pass", result.console + result.diagnosis


@pytest.mark.parametrize("cntvoff", [0, 0x1000_0000, (1 << 64) - 62_500_000])
def test_other_virtual_offsets(cntvoff: int) -> None:
    """No offset, the usual one, and one that makes the virtual count larger than the physical
    one."""
    with Machine("cntvoff", cntvoff=cntvoff) as started:
        assert started.board.vm.timer_data.voffset == cntvoff
        result = started.run(max_time_ns=campaign.LIMIT_NS, timeout_s=TIMEOUT_S)
    assert result.verdict == "pass", result.console + result.diagnosis


@pytest.mark.long
@pytest.mark.parametrize("name", BENCHMARKS)
def test_benchmarks_pass(name: str) -> None:
    with Machine(name, trace_hash=False) as started:
        assert started.run(timeout_s=TIMEOUT_S).verdict == "pass"


def test_the_manifest_names_every_file() -> None:
    folder = guest("hello").path.parent
    assert {entry.path for entry in GUESTS.values()} == set(folder.glob("*.elf"))
