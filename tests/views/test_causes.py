"""The rules of `armvirt.views.causes` accuse no correct guest, change no state, and are true at any
moment."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from armvirt.machine import Machine
from armvirt.views.causes import RULES, Evidence
from armvirt.views.explain import Explanation, LastWriters

VTIMER, UART = 27, 33

#: Of these the text says what is so; a right guest may be there on its way. All others call
#: something a mistake.
FACTS = {
    None, "served", "never-raised", "timer-off", "other-timer", "sgi-never-sent", "sgi-to-another", "line-fell",
    "latch-lost", "mask", "priority", "active-by-hand", "no-deactivation", "not-ended",
}  # fmt: skip
RIGHT = [
    ("vtimer-tick", 3, 1), ("oneshot", 3, 1), ("wfi", 3, 1), ("timer-el0", 3, 1), ("mmu-el0", 3, 1), ("sgi-smp", 3, 2),
    ("gic-active", 2, 2), ("gic-eoimode", 3, 2), ("gic-lpi", 3, 2), ("gic-priority", 3, 1), ("gic-spi", 2, 2),
    ("gic-ppi", 3, 2), ("gic-sgi", 2, 2), ("gic-overflow", 3, 1),
]  # fmt: skip
STOPS = 12


def stops(name: str, gic: int, cpus: int) -> Iterator[Machine]:
    """The guest at random moments, and at its end."""
    with Machine(name, gic=gic, cpus=cpus, trace_hash=False) as whole:
        end = whole.run(max_insns=1_500_000).ns
    moments = random.Random(f"{name}{gic}{cpus}")
    with Machine(name, gic=gic, cpus=cpus, sinks=[LastWriters()], trace_hash=False) as machine:
        for ns in sorted(moments.randrange(end) for _ in range(STOPS)):
            machine.run_until(ns=ns)
            yield machine
        machine.run(max_insns=1_500_000)
        yield machine


@pytest.mark.parametrize(("name", "gic", "cpus"), RIGHT)
def test_no_right_guest_is_accused(name: str, gic: int, cpus: int) -> None:
    for machine in stops(name, gic, cpus):
        for vcpu in range(cpus):
            for intid in (0, 1, VTIMER, 30, UART, 40, *((8192, 8193) if gic == 3 else ())):
                found = machine.explain(intid, vcpu)
                assert found.cause is None or found.cause.name in FACTS, (
                    f"at {machine.ns} ns: {found.verdict}"
                )


def test_rules_change_nothing() -> None:
    for machine in stops("gic-ppi", 3, 2):
        before = machine.state()
        recorder = next(sink for sink in machine.sinks if isinstance(sink, LastWriters))
        for vcpu in range(2):
            for intid in (1, VTIMER, UART):
                evidence = Evidence(
                    machine, intid, vcpu, machine.board.vm.diagnose(vcpu, intid), recorder
                )
                for rule in RULES:
                    rule(evidence)
        assert machine.state() == before


# The instant at which a timer fires


@pytest.mark.parametrize("engine", ["native", "portable"])
@pytest.mark.parametrize("gic", [2, 3])
def test_the_instant_of_firing(engine: str, gic: int) -> None:
    """The vCPU sleeps in WFI, and is on no CPU yet when its timer fires: it waits for nobody's
    turn."""
    times: list[int] = []
    with Machine("driver-bugs", gic=gic, engine=engine, sinks=[lambda stamp, event: (
        times.append(stamp.ns) if event.kind == "timer-line" and event._asdict()["level"] else None
    )], trace_hash=False) as machine:  # fmt: skip
        machine.run()
    for fire in times[:3]:
        with Machine(
            "driver-bugs", gic=gic, engine=engine, sinks=[LastWriters()], trace_hash=False
        ) as machine:
            assert machine.run_until(ns=fire) is None
            found = machine.explain(VTIMER)
            steps = {step.station: step for step in found.steps}
            assert (
                found.verdict == "INTID 27 (vtimer) is taken by vCPU 0 before its next instruction."
            ), fire
            assert (
                steps["pending"].written == "raised at this moment"
                and "turn" not in steps["loaded"].text
            )


# What is not known


def test_without_a_recorder_it_says_so() -> None:
    with Machine("driver-bugs", append="cval-not-moved", trace_hash=False) as machine:
        machine.run(max_insns=100_000)
        found = machine.explain(VTIMER)
        assert found.cause is None and not found.recorded and not found.data()["recorded"]
        assert (
            str(found)
            .splitlines()[-1]
            .startswith("Nothing was recorded: who wrote what, and how often")
        )


# At any moment


def explained(append: str, ns: int, intid: int = VTIMER, **options: object) -> Explanation:
    with Machine(
        "driver-bugs", append=append, sinks=[LastWriters()], trace_hash=False, **options
    ) as machine:  # type: ignore[arg-type]
        machine.run_until(ns=ns)
        return machine.explain(intid)


def test_a_storm_is_one_at_every_moment() -> None:
    """In the handler, before its end, between two interrupts."""
    for ns in range(150_000, 152_000, 97):
        found = explained("cval-not-moved", ns)
        assert found.cause is not None and found.cause.name == "storm", ns


def test_a_handler_that_runs_is_not_accused() -> None:
    """Of a missing end nothing is known while its handler may still write it."""
    ends = []
    with Machine(
        "driver-bugs", append="right:eoi-missing", sinks=[LastWriters()], trace_hash=False
    ) as machine:
        while machine.run_until(ns=machine.ns + 53) is None:
            found = machine.explain(VTIMER)
            assert found.cause is None or found.cause.name != "no-end", machine.ns
            ends.append(found.state)
    assert "handled" in ends


# What was before


def test_a_reset_begins_a_new_record() -> None:
    """What was written before SYSTEM_RESET says nothing of the registers after it."""
    recorder = LastWriters()
    with Machine("driver-bugs", append="pmr-low", sinks=[recorder], trace_hash=False) as machine:
        machine.run(max_insns=70_000)
        assert "last written" in machine.explain(VTIMER).verdict
        machine.board.reset()
        machine._restarted()
        assert recorder.since == machine.ns and "last written" not in str(
            machine.explain(VTIMER).rows()
        )
        assert f"not written since {machine.ns:,} ns" in machine.explain(VTIMER).verdict


def test_a_loaded_state_has_a_past_that_nobody_knows() -> None:
    with Machine("driver-bugs", append="uart-imsc", trace_hash=False) as first:
        first.run(max_insns=70_000)
        with Machine(
            "driver-bugs", append="uart-imsc", sinks=[LastWriters()], trace_hash=False
        ) as second:
            second.load(first.state())
            found = second.explain(UART)
            assert found.cause is None and f"not raised since {first.ns:,} ns" in found.verdict
