"""Every bundled guest ends as its manifest says, on both engines and at other counter frequencies, always the same."""

from __future__ import annotations

import pytest
from guest_runs import (
    BENCHMARKS,
    BUNDLED,
    DEAR,
    GUESTS,
    campaign,
    guest,
    machine,
    reference,
    require_native,
    subject,
)

RUNS = 10
TIMER_GUESTS = ("vtimer-tick", "oneshot", "ptimer", "wfi", "cntvoff")
FREQUENCIES = (24_000_000, 1_000_000_000)
TIMEOUT_S = 300
SLOW_ON_PORTABLE = ("sgi-smp",)

slow_portable = [pytest.param(name, marks=pytest.mark.slow) if name in SLOW_ON_PORTABLE else name for name in BUNDLED]


@pytest.mark.parametrize("name", BUNDLED)
def test_ends_as_the_manifest_says(name: str) -> None:
    """By name, as a user starts it: CPUs come from the manifest."""
    with machine(name, script=guest(name).script) as started:
        assert len(started.board.vcpus) == guest(name).cpus
        limit = campaign.LIMIT_OF_RUNAWAY_NS if guest(name).expect == "limit" else campaign.LIMIT_NS
        result = started.run(max_time_ns=limit, timeout_s=TIMEOUT_S)
    assert result.verdict == guest(name).expect, result.console + result.diagnosis
    if guest(name).expect == "pass":
        assert "ok - " in result.console
        assert "FAIL - " not in result.console
        assert not result.diagnosis


@pytest.mark.parametrize("name", slow_portable)
def test_engines_agree(name: str) -> None:
    """Verdict, time, instructions, every event and the final state."""
    require_native()
    assert campaign.whole(subject(name), "portable") == reference(name)
    assert reference(name).verdict == guest(name).expect


@pytest.mark.parametrize("name", [name for name in BUNDLED if name not in DEAR])
def test_ten_runs_are_one(name: str) -> None:
    assert {campaign.whole(subject(name)) for _ in range(RUNS - 1)} == {reference(name)}


@pytest.mark.parametrize("name", DEAR)
def test_two_runs_are_one(name: str) -> None:
    """The guests of several CPUs; `tools/campaign.py` runs them ten times."""
    assert campaign.whole(subject(name)) == reference(name)


@pytest.mark.parametrize("hz", FREQUENCIES)
@pytest.mark.parametrize("name", TIMER_GUESTS)
def test_other_counter_frequencies(name: str, hz: int) -> None:
    with machine(name, cntfrq=hz) as started:
        result = started.run(max_time_ns=campaign.LIMIT_NS, timeout_s=TIMEOUT_S)
    assert result.verdict == "pass", result.console + result.diagnosis


@pytest.mark.parametrize("cntvoff", [0, 0x1000_0000, (1 << 64) - 62_500_000])
def test_other_virtual_offsets(cntvoff: int) -> None:
    """No offset, the usual one, and one that makes the virtual count larger than the physical one."""
    with machine("cntvoff", cntvoff=cntvoff) as started:
        assert started.board.vm.timer_data.voffset == cntvoff
        result = started.run(max_time_ns=campaign.LIMIT_NS, timeout_s=TIMEOUT_S)
    if cntvoff:
        assert result.verdict == "pass", result.console + result.diagnosis
    else:  # the guest wants its two counters apart, and says so
        assert result.verdict == "fail" and "FAIL - " in result.console


@pytest.mark.slow
@pytest.mark.parametrize("name", BENCHMARKS)
def test_benchmarks_pass(name: str) -> None:
    with machine(name, trace_hash=False) as started:
        assert started.run(timeout_s=TIMEOUT_S).verdict == "pass"


def test_the_manifest_names_every_file() -> None:
    folder = guest("hello").path.parent
    assert {entry.path for entry in GUESTS.values()} == set(folder.glob("*.elf"))
