"""Debian's Linux on four CPUs that share a physical one: its test of them, hotplug, stolen time, the clock chip."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from conftest import require_guest
from guest_runs import campaign

from armvirt.machine import Machine, Result

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))
import make_initramfs

pytestmark = [pytest.mark.linux, pytest.mark.slow]

CPUS = 4
LEAP_DAY = 1_709_209_800  # 2024-02-29T12:30:00Z


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Result:
    """The run, with the scripts as they are now: the fetched archive may be older."""
    initrd = tmp_path_factory.mktemp("smp") / "initramfs.cpio"
    initrd.write_bytes(make_initramfs.renew(require_guest("initramfs.cpio").read_bytes()))
    append = "console=ttyAMA0 autorun smp"
    with Machine(require_guest("Image"), initrd=initrd, append=append, cpus=CPUS, rtc_base=LEAP_DAY) as machine:
        return machine.run(max_time_ns=campaign.LINUX_LIMIT_NS, timeout_s=600)


def test_passes_its_own_test(result: Result) -> None:
    assert result.verdict == "pass", result.diagnosis + result.console[-2000:]
    assert "FAIL - " not in result.console and f"AUTORUN: {CPUS} cpu(s)" in result.console


def test_every_cpu_went_off_and_came_back(result: Result) -> None:
    for cpu in range(1, CPUS):
        assert result.console.count(f"psci: CPU{cpu} killed") == 2
        assert f"ok - CPU {cpu} works again and takes its timer interrupts" in result.console


def test_time_is_stolen(result: Result) -> None:
    """Four CPUs work on one: Linux finds the structures by hypercall, and /proc/stat has what they say."""
    assert "arm-pv: using stolen time PV" in result.console
    found = re.search(r"^AUTORUN: stolen (\d+) ticks", result.console, re.MULTILINE)
    assert found is not None and int(found[1]) > 10


def test_the_date_is_the_one_that_was_asked_for(result: Result) -> None:
    assert "setting system clock to 2024-02-29T12:30:00 UTC" in result.console
    assert "AUTORUN: date 2024-02-29T12:30" in result.console


def test_the_alarm_rings(result: Result) -> None:
    assert "ok - the alarm of the real-time clock is not early" in result.console
    assert "ok - the alarm of the real-time clock rings once" in result.console
