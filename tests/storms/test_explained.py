"""The explanation of an interrupt storm: how often the interrupt was taken and ended, and what
keeps its line high."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from storm_guests import STORMS

from armvirt.machine import Machine
from armvirt.views.explain import Explanation, LastWriters

VTIMER, PTIMER, UART = 27, 30, 33
COUNTS = re.compile(
    r"taken ([\d,]+) times and ended ([\d,]+) times, and its line is high still, since"
)


def explained(folder: Path, name: str, intid: int, **options: object) -> Explanation:
    guest = folder / "storm.elf"
    guest.write_bytes(STORMS[name].image())
    with Machine(guest, sinks=[LastWriters()], trace_hash=False, **options) as machine:  # type: ignore[arg-type]
        assert machine.run(max_insns=20_000).verdict == "limit"
        return machine.explain(intid)


@pytest.mark.parametrize("engine", ["native", "portable"])
@pytest.mark.parametrize(("name", "intid", "why", "options"), [
    ("timer-level", VTIMER, "CNTV_CVAL_EL0 was not moved since", {}),
    ("timer-level-v2", VTIMER, "CNTV_CVAL_EL0 was not moved since", {"gic": 2}),
    ("timer-level-vhe", VTIMER, "CNTV_CVAL_EL0 was not moved since", {"vhe": True}),
    ("fiq-level", VTIMER, "CNTV_CVAL_EL0 was not moved since", {}),
    ("uart-irq", UART, r"the UART \(PL011\) was not served, and asserts it", {}),
])  # fmt: skip
def test_a_level_that_stays_high(
    tmp_path: Path, name: str, intid: int, why: str, options: dict[str, object], engine: str
) -> None:
    found = explained(tmp_path, name, intid, engine=engine, **options)
    counts = COUNTS.search(found.verdict)
    assert (
        found.cause is not None and found.cause.name == "storm" and re.search(why, found.verdict)
    ), found.verdict
    assert counts is not None
    taken, ended = (int(each.replace(",", "")) for each in counts.groups())
    assert taken > 2_000 and taken - ended in (0, 1)


@pytest.mark.parametrize(("name", "intid", "options"), [
    ("timer-rearmed", VTIMER, {}), ("timer-naps", VTIMER, {}), ("ptimer-rearmed", PTIMER, {}), ("sgi-self", 0, {}),
    ("sgi-ping-pong", 0, {"cpus": 2}), ("spi-overflow", 143, {"list_registers": 1}), ("spi-dir", 64, {}),
])  # fmt: skip
def test_many_interrupts_are_no_storm_of_a_level(
    tmp_path: Path, name: str, intid: int, options: dict[str, object]
) -> None:
    """Each of them was raised again by the guest itself."""
    found = explained(tmp_path, name, intid, **options)
    assert found.cause is None or found.cause.name in ("served", "not-ended"), found.verdict
