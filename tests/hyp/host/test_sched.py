"""The scheduler: which vCPU runs next, and how vCPUs that never sleep share a physical CPU."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest
from hyp_tools import DATA, NE, RAM, Asm, Rig, both_engines, power_off
from hypothesis import given
from hypothesis import strategies as st

from armvirt.events import Event, Schedule, Stamp
from armvirt.hw.engine.state import Stat
from armvirt.hyp.host.sched import QUANTUM_NS, donor, pick_next, place
from armvirt.hyp.kvm import Stop, SystemEventExit

runnables = st.lists(st.integers(0, 40), unique=True, max_size=12)


@given(runnables, st.integers(-1, 40))
def test_the_law(runnable: list[int], last: int) -> None:
    """Somebody if anybody can; nobody who can was passed over between the last one and the next, in
    a circle."""
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
def test_the_order_of_the_question_does_not_matter(
    runnable: list[int], last: int, source: object
) -> None:
    shuffled = list(runnable)
    source.shuffle(shuffled)  # type: ignore[attr-defined]
    assert pick_next(shuffled, last) == pick_next(runnable, last)


loads = st.lists(st.integers(0, 4), min_size=1, max_size=6)


@given(loads, st.data())
def test_where_it_queues(loads: list[int], data: st.DataObject) -> None:
    """At home if that is idle, else where it is idle, else at home; one that never ran at the least
    loaded PE."""
    home = data.draw(st.none() | st.integers(0, len(loads) - 1))
    pe = place(home, loads)
    if home is not None and not loads[home]:
        assert pe == home
    elif 0 in loads:
        assert not loads[pe]
    else:
        assert pe == home if home is not None else loads[pe] == min(loads)


@given(loads, st.data())
def test_where_it_queues_by_its_affinity(loads: list[int], data: st.DataObject) -> None:
    """The same law among the PEs that it may be on; a home that is none of them counts for
    nothing."""
    pes = range(len(loads))
    home = data.draw(st.none() | st.sampled_from(pes))
    allowed = data.draw(st.frozensets(st.sampled_from(pes), min_size=1))
    pe = place(home, loads, allowed)
    assert pe in allowed
    inside = sorted(allowed)
    assert (
        pe
        == inside[
            place(inside.index(home) if home in allowed else None, [loads[n] for n in inside])
        ]
    )
    assert place(home, loads, frozenset(pes)) == place(home, loads)


@given(loads, st.data())
def test_load_balancing_ends(loads: list[int], data: st.DataObject) -> None:
    """Whoever pulls, from wherever the law says: the loads meet, and nothing is pulled back and
    forth."""
    for _ in range(len(loads) * 4 * len(loads)):
        pe = data.draw(st.sampled_from(range(len(loads))))
        if (source := donor(pe, loads)) is not None:
            assert source != pe
            before = max(loads) - min(loads), sum(n * n for n in loads)
            loads[source] -= 1
            loads[pe] += 1
            assert (max(loads) - min(loads), sum(n * n for n in loads)) < before
    if all(donor(pe, loads) is None for pe in range(len(loads))):
        assert max(loads) - min(loads) <= 1


class Watch:
    """Who was loaded when."""

    def __init__(self, rig: Rig) -> None:
        self.loads: list[tuple[int, int]] = []
        rig.host.bus.subscribe(self)

    def __call__(self, stamp: Stamp, event: Event) -> None:
        if isinstance(event, Schedule) and event.what == "load":
            self.loads.append((stamp.ns, event.target))


def busy(vcpus: int, kind: str = "auto", **options: int) -> tuple[Rig, Watch]:
    """As many vCPUs that count for ever."""
    rig = Rig(vcpus=vcpus, kind=kind, **options)
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
    assert all(QUANTUM_NS <= turn < QUANTUM_NS + 4 for turn in turns), (
        "a turn ends at an exact count"
    )
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


# -- several physical CPUs --


@both_engines
@pytest.mark.parametrize(("vcpus", "pcpus"), [(2, 2), (3, 4), (4, 2), (8, 2), (8, 4)])
def test_fair_on_several_pes(kind: str, vcpus: int, pcpus: int) -> None:
    rounds = 4
    rig, watch = busy(vcpus, kind, pcpus=pcpus)
    rig.run(rounds * vcpus * QUANTUM_NS)
    shares = [vcpu.context.insns for vcpu in rig.vcpus]
    assert max(shares) - min(shares) < 4 * vcpus * rounds
    assert sum(shares) == rig.host.clock.now
    assert sorted(vcpu.sched.home or 0 for vcpu in rig.vcpus) == sorted(
        n % pcpus for n in range(vcpus)
    )
    if vcpus <= pcpus:
        assert len(watch.loads) == vcpus, "who has a PE of its own keeps it"


def test_everybody_who_has_a_pe_stays_loaded() -> None:
    rig, _ = busy(4, pcpus=2)
    rig.run(7 * QUANTUM_NS)
    loaded = [vcpu for vcpu in rig.vcpus if vcpu.pe is not None]
    assert len(loaded) == 2 and {vcpu.pe for vcpu in loaded} == {pcpu.pe for pcpu in rig.host.pcpus}


def test_an_idle_pe_takes_one_that_waits() -> None:
    """Three busy ones on two PEs; the one that is alone on its PE ends, and another comes over."""
    rig, _ = busy(3, pcpus=2)
    a = Asm(RAM + 0x1000)
    a.wfi()
    a.label("end")
    a.b("end")
    rig.start(a, 1)
    rig.run(20 * QUANTUM_NS)
    assert {rig.vcpus[0].sched.home, rig.vcpus[2].sched.home} == {0, 1}


def test_the_quantum_is_what_was_asked_for() -> None:
    rig, watch = busy(2, quantum_ns=12_345)
    rig.run(10 * 12_345)
    times = [ns for ns, _ in watch.loads]
    assert all(12_345 <= b - a < 12_345 + 4 for a, b in itertools.pairwise(times))


def test_a_host_that_cannot_be() -> None:
    with pytest.raises(ValueError, match="a host needs a CPU"):
        Rig(pcpus=0)
    with pytest.raises(ValueError, match="quantum of 1000 ns or more"):
        Rig(quantum_ns=999)


# -- run delay --


@pytest.mark.parametrize(("vcpus", "pcpus"), [(1, 1), (2, 2), (4, 4), (1, 4)])
def test_nobody_who_has_a_pe_is_delayed(vcpus: int, pcpus: int) -> None:
    """Turns stand for PEs that run at the same time."""
    rig, _ = busy(vcpus, pcpus=pcpus)
    rig.run(10 * QUANTUM_NS)
    assert [vcpu.run_delay_ns for vcpu in rig.vcpus] == [0] * vcpus


@pytest.mark.parametrize("vcpus", [2, 3, 8])
def test_the_delay_is_the_others_time(vcpus: int) -> None:
    """On one PE: whoever just got it has waited for all that it did not run itself."""
    rig, watch = busy(vcpus)
    rig.run(5 * vcpus * QUANTUM_NS + 1)
    now = rig.host.current
    assert now is rig.vcpus[0] and watch.loads[-1][1] == 0
    assert now.run_delay_ns == watch.loads[-1][0] - (now.context.insns - 1)


def test_the_delay_survives_a_save() -> None:
    whole, _ = busy(3)
    whole.run(20 * QUANTUM_NS)
    split, _ = busy(3)
    for ns in range(70_000, 20 * QUANTUM_NS, 70_000):
        split.run(ns)
        split.vm.load(split.vm.state())
    split.run(20 * QUANTUM_NS)
    assert (
        [v.run_delay_ns for v in whole.vcpus] == [v.run_delay_ns for v in split.vcpus] != [0, 0, 0]
    )


def test_who_asks_whether_a_cpu_is_off_gives_way_to_it() -> None:
    """CPU 0 polls AFFINITY_INFO; CPU 1 works for a while, then goes off. The poll takes no turns of
    CPU 1's time."""
    a, work = Asm(RAM), Asm(RAM + 0x1000)
    a.label("poll")
    a.add_imm(20, 20, 1)
    a.mov(0, 0xC400_0004)
    a.mov(1, 1)
    a.mov(2, 0)
    a.hvc(0)
    a.cbz(0, "poll")
    power_off(a)
    work.mov(20, 300_000)
    work.label("work")
    work.subs_imm(20, 20, 1)
    work.b_cond(NE, "work")
    work.mov(0, 0x8400_0002)
    work.hvc(0)
    rig = Rig(a, vcpus=2)
    rig.start(work, 1)
    rig.finish()
    assert rig.x(20) < 20 and rig.host.clock.now < 700_000


def test_cpus_that_all_wait_for_an_event_sleep_to_the_next_one() -> None:
    """Both wait in WFE for what a device's timer will write: their monitors lose the granule
    then."""
    a, other = Asm(RAM), Asm(RAM + 0x1000)
    for program in (a, other):
        program.mov(1, DATA)
        program.label("wait")
        program.wfe()
        program.ldxr(2, 1)
        program.cbz(2, "wait")
        power_off(program)
    rig = Rig(a, vcpus=2)
    rig.start(other, 1)
    rig.vm.timers.register("device", lambda kind: rig.vm.write_memory(DATA, b"\\1"))
    rig.vm.timers.arm(1_000_000, "device")
    rig.finish()
    assert 1_000_000 <= rig.host.clock.now < 1_001_000 and rig.host.insns < 100


@both_engines
def test_who_yields_has_had_a_hundred_microseconds(kind: str) -> None:
    """CPU 0 spins with YIELD for what CPU 1 will write after 1.5 ms of work, on one PE with slices
    of 1 ms."""
    a, work = Asm(RAM), Asm(RAM + 0x1000)
    for each in (a, work):
        each.mov(1, DATA)
    a.label("spin")
    a.yield_()
    a.ldr(2, 1)
    a.cbz(2, "spin")
    power_off(a)
    work.mov(20, 750_000)
    work.label("work")
    work.subs_imm(20, 20, 1)
    work.b_cond(NE, "work")
    work.mov(20, 1)
    work.str_(20, 1)
    work.label("end")
    work.b("end")
    rig = Rig(a, kind=kind, vcpus=2, quantum_ns=1_000_000)
    rig.start(work, 1)
    rig.finish()
    spun = rig.vcpus[0].context.insns
    assert 200_000 <= spun < 200_100 and rig.host.clock.now < 2_300_000, (
        "twice 100 us, beside two slices of 1 ms"
    )


@both_engines
def test_a_yield_without_anybody_else_is_a_hint(kind: str) -> None:
    def write(a: Asm) -> None:
        a.mov(20, 1000)
        a.label("spin")
        a.yield_()
        a.subs_imm(20, 20, 1)
        a.b_cond(NE, "spin")

    a = Asm(RAM)
    write(a)
    power_off(a)
    rig = Rig(a, kind=kind)
    rig.finish()
    assert rig.vcpu.context.engine.state.stats[Stat.RUN] < 5, "the engine was not left"


def test_who_waits_for_one_that_yields_is_at_no_dead_end() -> None:
    """CPU 2 was in WFE for long, as the others are now; it spins with YIELD before it writes what
    they wait for."""
    waiting, first, last = Asm(RAM), Asm(RAM + 0x1000), Asm(RAM + 0x2000)
    for each in (waiting, first, last):
        each.mov(1, DATA)
        each.add_imm(4, 1, 8)
    first.mov(20, 10_000_000)
    first.label("work")
    first.subs_imm(20, 20, 1)
    first.b_cond(NE, "work")
    first.str_(1, 1, 8)
    last.label("wfe")
    last.wfe()
    last.ldxr(3, 4)
    last.cbz(3, "wfe")
    last.mov(20, 5_000_000)
    last.label("spin")
    last.yield_()
    last.subs_imm(20, 20, 1)
    last.b_cond(NE, "spin")
    last.str_(1, 1)
    last.label("end")
    last.b("end")
    for each in (waiting, first):
        each.label("wait")
        each.wfe()
        each.ldxr(2, 1)
        each.cbz(2, "wait")
        power_off(each)
    rig = Rig(waiting, vcpus=3, quantum_ns=200_000)
    rig.start(first, 1)
    rig.start(last, 2)
    rig.finish()
    assert isinstance(rig.end, SystemEventExit)
