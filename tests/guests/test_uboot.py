"""Debian's U-Boot as firmware: its prompt, scripted and typed commands, sleep, power off."""

from __future__ import annotations

import pytest
from conftest import require_guest

from armvirt.machine import Machine, Result
from armvirt.script import Script

pytestmark = [pytest.mark.linux, pytest.mark.long]

SECOND = 1_000_000_000
TIMEOUT_S, LIMIT_NS = 600, 60 * SECOND
PROMPT = "=> "
NAP_S = 0.2
"""It polls the counter all the time. `tools/campaign.py --uboot` sleeps longer."""


def boot(**options: object) -> Machine:
    return Machine(bios=require_guest("u-boot.bin"), **options)


def finish(machine: Machine) -> Result:
    return machine.run(max_time_ns=LIMIT_NS, timeout_s=TIMEOUT_S)


def reach(machine: Machine, text: str) -> int:
    """Run until ``text`` appears; the ns at which it did."""
    assert machine.run_until(console=text, ns=LIMIT_NS, timeout_s=TIMEOUT_S) is None
    assert text in machine.console.output.decode()
    return machine.ns


def command(machine: Machine, text: str) -> str:
    start = len(machine.console.output)
    machine.console.send(text + "\n")
    reach(machine, PROMPT)
    return machine.console.output[start:].decode()


def test_by_hand() -> None:
    """With an image that U-Boot finds nowhere: it stops at its prompt because a key is pressed."""
    with boot() as machine:
        reach(machine, "Hit any key to stop autoboot")
        machine.console.send("\n")
        reach(machine, PROMPT)
        assert "U-Boot 20" in command(machine, "version")
        about = command(machine, "bdinfo")
        assert "start    = 0x0000000040000000" in about and "size     = 0x0000000020000000" in about
        before = machine.ns
        command(machine, f"sleep {NAP_S}")
        assert (
            NAP_S - 0.001 <= (machine.ns - before) / SECOND < NAP_S + 0.05
        )  # its clock counts in ms
        machine.console.send("poweroff\n")
        result = finish(machine)
    assert (result.verdict, result.diagnosis) == ("off", "")


def test_by_script() -> None:
    """Text acts where the expected text ends, so two runs are one, and a stop in between changes
    nothing."""
    steps = [
        ("autoboot", "\n"),
        (PROMPT, "version\n"),
        (PROMPT, "bdinfo\n"),
        (PROMPT, "poweroff\n"),
    ]
    with boot(script=Script.from_pairs(steps)) as machine:
        first = finish(machine)
    assert first.verdict == "off" and "relocaddr" in first.console
    with boot() as machine:
        machine.console.expect("autoboot").send("\n").expect(PROMPT).send("version\n")
        machine.console.expect(PROMPT).send("bdinfo\n").expect(PROMPT).send("poweroff\n")
        machine.run_until(ns=first.ns // 2)
        machine.load(machine.state())
        assert finish(machine) == first


def test_an_image_beside_the_rom() -> None:
    """The ROM is entered; the image lies in memory, where `md` shows its first word."""
    with boot(image="hello") as machine:
        machine.console.expect("autoboot").send("\n").expect(PROMPT)
        start = machine.board.loaded[0].segments[0]
        word = int.from_bytes(start.data[:4], "little")
        reach(machine, PROMPT)
        assert f"{start.address:08x}: {word:08x}" in command(machine, f"md.l {start.address:#x} 1")
