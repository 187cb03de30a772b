"""Guests with several CPUs on hosts with several CPUs pass. Both engines agree, and stops do not
change a run."""

from __future__ import annotations

import campaign
import pytest

from armvirt.bundled import find
from armvirt.machine import Machine

GUESTS = ("psci4", "spinlock", "atomics", "tlbi-smp", "sgi-smp", "gic-sgi")
LIMIT_NS = 200_000_000


def run(guest: str, **options: int | str) -> tuple[str, int, str | None]:
    with Machine(guest, memory="64M", **options) as machine:  # type: ignore[arg-type]
        result = machine.run(max_time_ns=LIMIT_NS)
    return result.verdict, result.ns, result.trace_hash


@pytest.mark.parametrize(("cpus", "pcpus"), [(4, 1), (4, 2), (4, 4), (8, 1), (8, 2)])
@pytest.mark.parametrize("guest", GUESTS)
def test_passes(guest: str, cpus: int, pcpus: int) -> None:
    assert run(guest, cpus=cpus, pcpus=pcpus)[0] == "pass"


@pytest.mark.parametrize("guest", GUESTS[:4])
def test_the_engines_agree(guest: str) -> None:
    native, portable = (run(guest, cpus=4, pcpus=2, engine=kind) for kind in ("native", "portable"))
    assert native == portable and native[0] == "pass"


@pytest.mark.parametrize("way", ["plain", "load", "fresh", "engines"])
@pytest.mark.parametrize("guest", ["spinlock", "tlbi-smp", "gic-ppi"])
def test_stops_change_nothing(guest: str, way: str) -> None:
    known = campaign.bundled(find(guest))
    subject = campaign.Subject(
        guest, known.image, known.limit_ns, known.script, {**known.options, "pcpus": 2}
    )
    reference = campaign.whole(subject)
    engines = ("native", "portable") if way == "engines" else ("auto",)
    stops = campaign.Stops(12, reference, seed=3)
    assert (
        campaign.stopped(subject, stops, "fresh" if way == "engines" else way, engines) == reference
    )


def test_short_turns() -> None:
    assert run("spinlock", cpus=4, pcpus=2, quantum_ns=1000)[0] == "pass"


def test_as_many_cpus_as_a_gicv3_board_has() -> None:
    assert run("psci4", cpus=123, pcpus=4)[0] == "pass"
