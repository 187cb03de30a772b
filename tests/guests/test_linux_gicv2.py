"""Linux on a GICv2: its driver (irq-gic.c), IPIs between CPUs, the GICv2m frame."""

from __future__ import annotations

import re

import pytest
from conftest import require_guest
from guest_runs import campaign

from armvirt.machine import Machine

pytestmark = [pytest.mark.linux, pytest.mark.long]

TIMEOUT_S = 600


@pytest.mark.parametrize("cpus", [1, 4])
def test_passes_its_own_test(cpus: int) -> None:
    """Stopped, saved and loaded at its first line of user space."""
    options = {
        "initrd": require_guest("initramfs.cpio"),
        "append": "console=ttyAMA0 autorun",
        "gic": 2,
        "cpus": cpus,
    }
    with Machine(require_guest("Image"), **options) as machine:  # type: ignore[arg-type]
        assert (
            machine.run_until(
                console="AUTORUN: begin", ns=campaign.LINUX_LIMIT_NS, timeout_s=TIMEOUT_S
            )
            is None
        )
        machine.load(machine.state())
        result = machine.run(max_time_ns=campaign.LINUX_LIMIT_NS, timeout_s=TIMEOUT_S)
    assert result.verdict == "pass", result.diagnosis + result.console[-2000:]
    assert "FAIL - " not in result.console and f"AUTORUN: {cpus} cpu(s)" in result.console
    assert "GICv2m: range[mem 0x08020000-0x08020fff], SPI[80:143]" in result.console
    row = re.search(
        r"^ *\d+: +((?:\d+ +)+)GIC-0 +27 Level +arch_timer", result.console, re.MULTILINE
    )
    assert (
        row is not None
        and len(row[1].split()) == cpus
        and all(int(count) > 10 for count in row[1].split())
    )
