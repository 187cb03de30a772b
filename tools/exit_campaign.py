"""Additional exits to EL2: can a guest see when its hypervisor is entered?

    python tools/exit_campaign.py                             every bundled guest that takes interrupts, 100 runs each
    python tools/exit_campaign.py --guests gic-ppi,oneshot --runs 1000
    python tools/exit_campaign.py --exits 1000000             as many runs as this number of exits needs, per guest
    python tools/exit_campaign.py --engine portable --ways exit
    python tools/exit_campaign.py --guests - --vgic 10000     only random use of vGICs (`tools/gic_fuzz_exits.py`)

A stop of the host's loop does not change list registers and comparators (`tools/campaign.py`). In
this campaign, the actions of a hypervisor at an exit follow each stop. The ways are: ``exit`` (vgic
sync and flush of the running vCPU: its list registers are folded, its mapped lines are sampled, and
its list registers are filled again), ``all`` (the same for every loaded vCPU), ``put`` (vcpu_put
and vcpu_load of the running vCPU: its timers and interrupts are removed from the CPU and restored;
the exclusive monitor, which a load clears, is restored) and ``put-all`` (the same for every loaded
vCPU).

A guest runs on the machines of its row in the manifest, alternately with an nVHE and a VHE host,
with 1 to 16 list registers, with one physical CPU for each vCPU and with fewer. On each machine the
guest first runs without additional exits. This run gives the moments near which exits are made:
acknowledges, ends of interrupts, timer and GIC accesses, changes of lines. Then the guest runs
``--runs-of-a-machine`` times with exits near these moments, with bursts of one exit after each
instruction, and with exits at random times; ``--seed`` decides all of them. Verdict, time,
instructions, console, registers and memory at the end must be equal to those of the first run. In
every second run a trace sink listens, and each event that the guest can see must also be equal,
with its time; the other runs use the shadow registers, which do not work while a sink listens. One
line is printed for each machine; the exit status is 1 if a run differs, and the line has its seed.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import sys
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from campaign import BENCHMARKS, Subject, bundled, names
from gic_fuzz_exits import compare as compare_vgics

from armvirt.bundled import guests
from armvirt.events import Event, Stamp
from armvirt.hyp.kvm import Vcpu
from armvirt.machine import Machine, Result
from armvirt.trace.hash import CANONICAL, HashSink

WAYS = ("exit", "all", "put", "put-all")
#: Events of EL2 itself, whose number and time may change: EL2 fills list registers, reports a line to
#: the vGIC, or removes the comparators from the CPU.
UNSEEN = frozenset({"lr", "vgic-inject", "timer-line"})
UNSEEN_SCHEDULING = frozenset({"put", "load"})
#: Events near which an exit is likely to have an effect.
MOMENTS = frozenset(
    {"ack", "eoi", "timer-write", "timer-line", "gic-mmio", "lr", "vgic-inject", "exception"}
)
NEAR_NS = 40
BURST = 40
LIST_REGISTERS = (4, 1, 2, 16, 3)
MAX_LISTED = 3
VGIC_STEPS = 1000


class Outcome(NamedTuple):
    """The results that must not depend on exits. ``seen`` is a digest of the events that the guest
    can see; "" without a trace sink."""

    verdict: str
    ns: int
    insns: int
    console: str
    final: str
    seen: str = ""

    @classmethod
    def of(cls, machine: Machine, result: Result, view: View | None) -> Outcome:
        console = hashlib.sha256(result.console.encode()).hexdigest()[:16]
        seen = "" if view is None else view.hash.finish()
        return cls(
            result.verdict,
            result.ns,
            result.insns,
            console,
            machine.board.final_state().hex()[:16],
            seen[:16],
        )

    def differences(self, other: Outcome) -> list[str]:
        """The differences as text. Events are compared only if both runs had a trace sink."""
        return [
            f"{name} {ours} instead of {theirs}"
            for name, ours, theirs in zip(self._fields, self, other, strict=True)
            if ours != theirs and (name != "seen" or (ours and theirs))
        ]


class View:
    """A sink that hashes the events that the guest can see, and records the moments near which
    exits are made."""

    def __init__(self) -> None:
        self.hash, self.moments, self.acknowledges = HashSink(), set[int](), 0

    def __call__(self, stamp: Stamp, event: Event) -> None:
        if event.kind in MOMENTS:
            self.moments.add(stamp.ns)
        self.acknowledges += event.kind == "ack"
        what = getattr(event, "what", None)
        if event.kind in CANONICAL - UNSEEN and not (
            event.kind == "sched" and what in UNSEEN_SCHEDULING
        ):
            self.hash(stamp, event)


class Host(NamedTuple):
    """The host of the guest's machine."""

    vhe: bool
    list_registers: int
    pcpus: int

    def __str__(self) -> str:
        return f"{'VHE' if self.vhe else 'nVHE'}, {self.list_registers} LRs, {self.pcpus} pCPUs"


class Case(NamedTuple):
    """One run: the guest's machine, its host, the engine and the seed of its exits; ``watched``:
    with a trace sink."""

    subject: Subject
    host: Host
    engine: str
    seed: int
    watched: bool

    def machine(self, view: View | None) -> Machine:
        return Machine(
            self.subject.image, engine=self.engine, script=self.subject.script, trace_hash=False, vhe=self.host.vhe,
            list_registers=self.host.list_registers, pcpus=self.host.pcpus, sinks=[] if view is None else [view],
            **self.subject.options,
        )  # fmt: skip


# -- exits --


def leave(vcpu: Vcpu) -> None:
    """Perform the actions of an exit and the next entry for a loaded vCPU."""
    vgic = vcpu.vm.vgic_of()
    vcpu.timer.sync()
    vgic.sync(vcpu.id)
    vgic.flush(vcpu.id)


def put_and_load(vcpu: Vcpu) -> None:
    """Put and load the vCPU at the same virtual time, as if the host had scheduled something else
    in between."""
    pe, engine = vcpu.pe, vcpu.context.engine
    assert pe is not None
    monitor = engine.exclusive
    vcpu.put()
    vcpu.load(pe)
    engine.exclusive = monitor


def force(machine: Machine, way: str) -> None:
    """Perform an exit of a stopped machine in one of the ways in the module's docstring."""
    current = machine.host.current
    for vcpu in machine.board.vcpus:
        if vcpu.pe is not None and (way.endswith("all") or vcpu is current):
            (put_and_load if way.startswith("put") else leave)(vcpu)


class Places:
    """The times of the exits in ns, sorted, each with its way."""

    def __init__(
        self, count: int, moments: Sequence[int], end: int, ways: Sequence[str], source: random.Random
    ) -> None:  # fmt: skip
        times: set[int] = set()
        while len(times) < min(count, end // 2):
            start = (
                source.choice(moments) + source.randrange(-2, NEAR_NS)
                if moments
                else source.randrange(end)
            )
            kind = source.random()
            if kind < 0.1:
                start = source.randrange(end)
            times.update(range(start, start + (source.randrange(2, BURST) if kind > 0.8 else 1)))
        self.places = [(ns, source.choice(ways)) for ns in sorted(times) if 0 < ns < end]


def run(
    case: Case, places: Sequence[tuple[int, str]] = (), view: View | None = None
) -> tuple[Outcome, int]:
    """A run with exits at these places; returns its outcome and the number of exits."""
    exits = 0
    with case.machine(view) as machine:
        for ns, way in places:
            if machine.run_until(ns=ns) is not None:
                break
            force(machine, way)
            exits += 1
        return Outcome.of(machine, machine.run(max_time_ns=case.subject.limit_ns), view), exits


# -- the campaign --


class Tally(NamedTuple):
    """The number of runs, of exits, and of runs that differ."""

    runs: int = 0
    exits: int = 0
    differ: int = 0

    def plus(self, other: Tally) -> Tally:
        return Tally(*(a + b for a, b in zip(self, other, strict=True)))


def machines(name: str, max_cpus: int, source: random.Random) -> Iterator[tuple[Subject, Host]]:
    """The machines of a guest, in an endless sequence: each setup in turn, with each host in
    turn."""
    guest, turn = guests()[name], 0
    setups = [setup for setup in guest.setups if setup.cpus <= max_cpus] or guest.setups[:1]
    while True:
        for setup in setups:
            pcpus = source.choice(sorted({1, setup.cpus, max(1, setup.cpus // 2)}))
            yield (
                bundled(guest, setup),
                Host(bool(turn & 1), LIST_REGISTERS[turn % len(LIST_REGISTERS)], pcpus),
            )
            turn += 1


def examine(
    subject: Subject, host: Host, source: random.Random, options: argparse.Namespace
) -> Tally:
    """The runs of a guest on one machine."""
    started, view, tally = time.monotonic(), View(), Tally()
    plain = Case(subject, host, options.engine, 0, True)
    expected, _ = run(plain, (), view)
    bad: list[str] = []
    for n in range(options.runs_of_a_machine):
        case = plain._replace(seed=source.getrandbits(32), watched=bool(n & 1))
        found, exits = compare(case, expected, sorted(view.moments), options)
        tally = tally.plus(Tally(1, exits, bool(found)))
        if found:
            bad.append(
                f"    seed {case.seed}, {'watched' if case.watched else 'lent'}: {'; '.join(found)}"
            )
    text = f"{len(bad)} DIFFER" if bad else "same"
    seconds = time.monotonic() - started
    print(
        f"{subject.name:30} {host!s:26} {tally.runs:4} runs {tally.exits:7} exits  {text}  ({seconds:.1f} s)"
    )
    print(*bad[:MAX_LISTED], sep="\n", end="\n" if bad else "", flush=True)
    return tally


def compare(
    case: Case, expected: Outcome, moments: Sequence[int], options: argparse.Namespace
) -> tuple[list[str], int]:
    """One run with exits; returns the differences and the number of exits."""
    places = Places(
        options.places, moments, expected.ns, options.ways, random.Random(case.seed)
    ).places
    got, exits = run(case, places, View() if case.watched else None)
    return got.differences(expected), exits


def guest_runs(name: str, options: argparse.Namespace) -> Tally:
    """All runs of one guest."""
    source, tally = random.Random(f"{options.seed} {name}"), Tally()
    for subject, host in machines(name, options.max_cpus, source):
        tally = tally.plus(examine(subject, host, source, options))
        if tally.exits >= options.exits if options.exits else tally.runs >= options.runs:
            return tally
    raise AssertionError("there is no end of machines")


def takes_interrupts(name: str) -> bool:
    view = View()
    with Case(bundled(guests()[name]), Host(False, 4, 1), "auto", 0, True).machine(view) as machine:
        machine.run(max_time_ns=bundled(guests()[name]).limit_ns)
    return view.acknowledges > 0


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument(
        "--guests",
        type=names,
        help="names separated by commas (default: all bundled guests that take interrupts)",
    )
    parser.add_argument(
        "--runs",
        type=int,
        default=100,
        help="minimum number of runs of each guest (default: %(default)s)",
    )
    parser.add_argument(
        "--exits", type=int, default=0, help="minimum number of exits of each guest"
    )
    parser.add_argument(
        "--places", type=int, default=100, help="exits in a run (default: %(default)s)"
    )
    parser.add_argument(
        "--runs-of-a-machine",
        type=int,
        default=10,
        help="runs on one machine (default: %(default)s)",
    )
    parser.add_argument(
        "--vgic",
        type=int,
        default=0,
        help="number of random vGICs before the guests (default: %(default)s)",
    )
    parser.add_argument(
        "--max-cpus",
        type=int,
        default=8,
        help="engine of the guests' machines (default: %(default)s)",
    )
    parser.add_argument(
        "--ways", type=names, default=list(WAYS), help=f"of {','.join(WAYS)} (default: all)"
    )
    parser.add_argument(
        "--engine", choices=("auto", "native", "portable"), default="auto", help="(default: auto)"
    )
    parser.add_argument(
        "--seed", type=int, default=1, help="seed of all random choices (default: %(default)s)"
    )
    options = parser.parse_args(arguments)
    if unknown := set(options.ways) - set(WAYS):
        parser.error(f"no such way: {', '.join(unknown)}")
    if options.guests == ["-"]:
        options.guests = []
    if unknown := set(options.guests or ()) - set(guests()):
        parser.error(
            f"no such bundled guest: {', '.join(sorted(unknown))}; there are {', '.join(guests())}"
        )
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    options, tally = parse(arguments), Tally()
    chosen = options.guests
    if chosen is None:
        chosen = [
            name for name in guests() if not name.startswith(BENCHMARKS) and takes_interrupts(name)
        ]
    for seed in range(options.vgic):
        compare_vgics(options.seed + seed, VGIC_STEPS)
    if options.vgic:
        print(f"{options.vgic} random vGICs of {VGIC_STEPS} steps: same", flush=True)
    for name in chosen:
        tally = tally.plus(guest_runs(name, options))
    print(f"{tally.runs} runs, {tally.exits} exits, {tally.differ} runs differ")
    return int(bool(tally.differ))


if __name__ == "__main__":
    sys.exit(main())
