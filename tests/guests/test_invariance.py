"""Stops do not change a run: go on, save and load, or move to another machine or engine, at any
instruction."""

from __future__ import annotations

import json

import pytest
from conftest import require_native, sampled
from guest_runs import BUNDLED, ELSEWHERE, HEAVY, campaign, reference, subject

from armvirt.machine import Machine

STOPS = 25
SEED = 20
BOTH_ENGINES = (
    "hello", "vtimer-tick", "wfi", "cntvoff", "mmu-el0", "faults", "mmio-forms", "atomics", "tlbi-smp", "console-echo",
)  # fmt: skip


class Every:
    """Stops at consecutive instructions, for `campaign.stopped`."""

    def __init__(self, first: int, count: int) -> None:
        self.ahead = list(range(first, first + count))

    def next(self) -> tuple[int | None, int | None] | None:
        return (self.ahead[0], None) if self.ahead else None

    def reached(self, insns: int, ns: int) -> None:
        self.ahead = [value for value in self.ahead if value > insns]


#: Of a heavy guest saving and loading alone, of the others one way in turn; all in a long run.
STOPPED = [
    pytest.param(name, way, marks=[] if way == chosen else [pytest.mark.long])
    for number, name in enumerate(BUNDLED)
    for chosen in ["load" if name in HEAVY else campaign.WAYS[number % len(campaign.WAYS)]]
    for way in campaign.WAYS
]


@pytest.mark.parametrize(("name", "way"), STOPPED)
def test_stopping(name: str, way: str) -> None:
    stops = campaign.Stops(STOPS, reference(name), SEED)
    assert campaign.stopped(subject(name), stops, way) == reference(name)


@pytest.mark.parametrize("name", sampled(ELSEWHERE))
def test_stopping_on_another_machine(name: str) -> None:
    stops = campaign.Stops(STOPS, reference(name), SEED)
    assert campaign.stopped(subject(name), stops, "load") == reference(name)


@pytest.mark.parametrize("name", BOTH_ENGINES)
def test_changing_the_engine(name: str) -> None:
    """Saved in one engine, loaded in the other, to and fro."""
    require_native()
    stops = campaign.Stops(STOPS // 2, reference(name), SEED)
    assert campaign.stopped(subject(name), stops, "fresh", ("native", "portable")) == reference(
        name
    )


@pytest.mark.parametrize("way", ["plain", "load"])
@pytest.mark.parametrize("name", ["vtimer-tick", "sgi-spi", "atomics"])
def test_stopping_at_each_instruction(name: str, way: str) -> None:
    """The ones in the middle of the run: interrupts, list registers, exclusives."""
    stops = Every(reference(name).insns // 2, 400)
    assert campaign.stopped(subject(name), stops, way) == reference(name)


def test_loading_before_the_start() -> None:
    recorder = campaign.Recorder()
    started = subject("vtimer-tick").machine("auto", recorder)
    started.load(campaign.saved(started))
    outcome = recorder.outcome(started, started.run(max_time_ns=campaign.LIMIT_NS))
    started.close()
    assert outcome == reference("vtimer-tick")


def test_going_back() -> None:
    """Time goes back with the state: what was done after it was saved happens again, the same."""
    with Machine("hello", memory="64M") as started:
        assert started.run_until(console="EL1") is None
        state, memory = json.dumps(started.state()), bytes(started.board.ram.map)
        moment = started.ns, started.insns
        first = (
            started.run_until(insns=started.insns + 5000),
            started.ns,
            started.console.output[:],
            started.state(),
        )
        started.board.ram.map[:] = memory
        started.load(json.loads(state))
        assert (started.ns, started.insns) == moment
        again = (
            started.run_until(insns=started.insns + 5000),
            started.ns,
            started.console.output[:],
            started.state(),
        )
    assert first == again


def test_stopping_at_a_limit_is_no_end() -> None:
    with Machine("vtimer-tick", memory="64M") as started:
        result = started.run(max_insns=10_000)
        assert (result.verdict, result.insns) == ("limit", 10_000)
        assert started.run(max_time_ns=50_000_000).verdict == "limit"
        assert started.run(max_time_ns=campaign.LIMIT_NS).verdict == "pass"
