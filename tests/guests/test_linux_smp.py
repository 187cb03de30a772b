"""Debian's Linux with more CPUs than physical CPUs: self-test, load, hotplug, stolen time, the
PL031.

`make linux-matrix` boots it on more machines, with more load.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import linux_matrix
import pytest
from conftest import require_guest
from guest_runs import campaign

from armvirt.machine import Result

pytestmark = [pytest.mark.linux, pytest.mark.long]

CPUS, PCPUS, RUNS = 4, 2, 10
LOAD = 1
LEAP_DAY = 1_709_209_800  # 2024-02-29T12:30:00Z


@pytest.fixture(scope="module")
def initrd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With the scripts as they are now: the fetched archive may be older."""
    for name in ("Image", "initramfs.cpio"):
        require_guest(name)
    return linux_matrix.initramfs(tmp_path_factory.mktemp("smp"))


@pytest.fixture(scope="module")
def options(initrd: Path) -> dict[str, Any]:
    """The machine on which most is looked at."""
    return {**linux_matrix.options(CPUS, PCPUS, initrd, LOAD), "rtc_base": LEAP_DAY}


@pytest.fixture(scope="module")
def result(options: dict[str, Any]) -> Result:
    return linux_matrix.boot(options)


def passes(result: Result, cpus: int) -> None:
    assert linux_matrix.wrong_with(result, cpus) == [], result.console[-2000:]
    assert result.verdict == "pass"


def test_passes_its_own_test(result: Result) -> None:
    passes(result, CPUS)


@pytest.mark.parametrize(("cpus", "pcpus"), [(1, 1), (8, 4)])
def test_passes_on_less_and_on_more(initrd: Path, cpus: int, pcpus: int) -> None:
    passes(linux_matrix.boot(linux_matrix.options(cpus, pcpus, initrd, LOAD)), cpus)


def test_ten_runs_are_one(result: Result, options: dict[str, Any]) -> None:
    seen = {result[:5]}
    for _ in range(RUNS - 1):
        seen.add(linux_matrix.boot(options)[:5])
        assert len(seen) == 1


def test_moves_to_another_machine(result: Result, options: dict[str, Any]) -> None:
    """Six times in its run, with whatever is on the physical CPUs then."""
    expected = campaign.Outcome(result.verdict, result.ns, result.insns, str(result.trace_hash))
    subject = campaign.Subject(
        "linux-smp", linux_matrix.FETCHED / "Image", linux_matrix.LIMIT_NS, None, options
    )
    assert campaign.stopped(subject, campaign.Stops(6, expected, seed=1), "fresh") == expected


def test_time_is_stolen(result: Result) -> None:
    """Four CPUs work on two: Linux finds the structures by hypercall, and /proc/stat has what they
    say."""
    assert "arm-pv: using stolen time PV" in result.console
    found = re.search(r"^AUTORUN: stolen (\d+) ticks", result.console, re.MULTILINE)
    assert found is not None and int(found[1]) > 10


def test_the_date_is_the_one_that_was_asked_for(result: Result) -> None:
    assert "setting system clock to 2024-02-29T12:30:00 UTC" in result.console
    assert "AUTORUN: date 2024-02-29T12:30" in result.console


def test_the_alarm_rings(result: Result) -> None:
    assert "ok - the alarm of the real-time clock is not early" in result.console
    assert "ok - the alarm of the real-time clock rings once" in result.console
