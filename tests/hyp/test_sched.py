"""Who runs next: the law of the decision, and what it makes of guests that want the CPU all the time."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest
from hyp_tools import RAM, Asm, Rig, both_engines
from hypothesis import given
from hypothesis import strategies as st

from armvirt.events import Event, Schedule, Stamp
from armvirt.hyp.host.sched import QUANTUM_NS, pick_next
from armvirt.hyp.kvm import Stop

runnables = st.lists(st.integers(0, 40), unique=True, max_size=12)


@given(runnables, st.integers(-1, 40))
def test_the_law(runnable: list[int], last: int) -> None:
    """Somebody if anybody can; nobody who can was passed over between the last one and the next, in a circle."""
    chosen = pick_next(runnable, last)
    if not runnable:
        assert chosen is None
        return
    assert chosen in runnable
    turns = 41

    def distance(vcpu: int) -> int:
        return (vcpu - last - 1) % turns

    assert distance(chosen) == min(map(distance, runnable))


@given(runnables.filter(bool), st.integers(-1, 40))
def test_everybody_gets_a_turn(runnable: list[int], last: int) -> None:
    turns = []
    for _ in runnable:
        last = pick_next(runnable, last)  # type: ignore[assignment]
        turns.append(last)
    assert sorted(turns) == sorted(runnable)


@given(runnables, st.integers(-1, 40), st.randoms())
def test_the_order_of_the_question_does_not_matter(runnable: list[int], last: int, source: object) -> None:
    shuffled = list(runnable)
    source.shuffle(shuffled)  # type: ignore[attr-defined]
    assert pick_next(shuffled, last) == pick_next(runnable, last)


class Watch:
    """Who was loaded when."""

    def __init__(self, rig: Rig) -> None:
        self.loads: list[tuple[int, int]] = []
        rig.host.bus.subscribe(self)

    def __call__(self, stamp: Stamp, event: Event) -> None:
        if isinstance(event, Schedule) and event.what == "load":
            self.loads.append((stamp.ns, event.target))


def busy(vcpus: int, kind: str = "auto") -> tuple[Rig, Watch]:
    """As many vCPUs that count for ever."""
    rig = Rig(vcpus=vcpus, kind=kind)
    watch = Watch(rig)
    for n in range(vcpus):
        a = Asm(RAM + 0x1000 * n)
        a.label("loop")
        a.add_imm(1, 1, 1)
        a.nop()
        a.nop()
        a.b("loop")
        rig.start(a, n)
    return rig, watch


@both_engines
@pytest.mark.parametrize("vcpus", [2, 4])
def test_fair(kind: str, vcpus: int) -> None:
    """Everybody gets the same time, in turns of a quantum, in order."""
    rounds = 5
    rig, watch = busy(vcpus, kind)
    assert rig.run(rounds * vcpus * QUANTUM_NS) is Stop.UNTIL
    assert [vcpu for _, vcpu in watch.loads] == list(range(vcpus)) * rounds
    times = [ns for ns, _ in watch.loads]
    turns = [after - before for before, after in itertools.pairwise(times)]
    assert all(QUANTUM_NS <= turn < QUANTUM_NS + 4 for turn in turns), "a turn ends at an exact count"
    shares = [vcpu.context.insns for vcpu in rig.vcpus]
    assert max(shares) - min(shares) < 4 * vcpus * rounds
    assert sum(shares) == rig.host.clock.now == rounds * vcpus * QUANTUM_NS


def test_one_alone_is_never_switched() -> None:
    rig, watch = busy(1)
    rig.run(10 * QUANTUM_NS)
    assert watch.loads == [(0, 0)]


def test_one_that_sleeps_is_passed_over() -> None:
    rig, watch = busy(3)
    a = Asm(RAM + 0x1000)
    a.wfi()
    a.b_cond(14, "end")  # always
    a.label("end")
    rig.start(a, 1)
    rig.run(9 * QUANTUM_NS)
    turns = Counter(vcpu for _, vcpu in watch.loads)
    assert turns[1] == 1 and abs(turns[0] - turns[2]) <= 1
    assert rig.vcpus[1].context.insns == 1


def test_stops_do_not_change_the_turns() -> None:
    """Also where they lie within a turn, and at its end."""
    whole, first = busy(2)
    whole.run(10 * QUANTUM_NS)
    split, second = busy(2)
    for ns in (1, 99_999, 100_000, 100_001, 100_004, 250_000, 777_777):
        assert split.run(ns) is Stop.UNTIL and split.host.clock.now == ns
        split.vm.load(split.vm.state())
    split.run(10 * QUANTUM_NS)
    assert first.loads == second.loads
    assert [v.context.state() for v in whole.vcpus] == [v.context.state() for v in split.vcpus]
