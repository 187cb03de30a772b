"""Extra exits to EL2: does a guest notice when its hypervisor looks?

    python tools/exit_campaign.py                             every bundled guest that takes interrupts, 100 runs each
    python tools/exit_campaign.py --guests gic-ppi,oneshot --runs 1000
    python tools/exit_campaign.py --exits 1000000             as many runs as it takes for so many exits, for each guest
    python tools/exit_campaign.py --engine portable --ways exit
    python tools/exit_campaign.py --guests - --vgic 10000     random use of vGICs (`tools/gic_fuzz_exits.py`), no guests

A stop of the host's loop leaves list registers and comparators where they are
(`tools/campaign.py`). Here each stop is followed by what a hypervisor does around an exit. The ways
are: ``exit`` (the list registers of the vCPU that runs are folded, its mapped lines sampled, and
the list registers filled again: vgic sync and flush), ``all`` (the same for every vCPU that is
loaded), ``put`` (vcpu_put and vcpu_load of the one that runs, which take its timers and its
interrupts off the CPU and put them back; the exclusive monitor, which a load clears, is restored)
and ``put-all``.

The machines of a guest are those that it is tested on, by turns with an nVHE and a VHE host, with 1
to 16 list registers, with one physical CPU for each vCPU and with fewer. On each the guest runs
once without extra exits; from that run come the moments near which exits are wanted: acknowledges,
ends of interrupts, timer and GIC accesses, lines that change. Then it runs ``--runs-of-a-machine``
times with exits near them, in bursts of one exit after each instruction, and anywhere, all by
``--seed``. Verdict, time, instructions, console, registers and memory at the end must be those of
the run that had none; in every second run also each event that the guest can see, with its time
(the others use the lent registers, which nobody may watch). One line a machine; exit status 1 if a
run differs, with its seed.
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
#: What EL2 does by itself, and may do more often or at another time: it fills list registers, tells
#: the vGIC a line, takes the comparators off the CPU.
UNSEEN = frozenset({"lr", "vgic-inject", "timer-line"})
UNSEEN_SCHEDULING = frozenset({"put", "load"})
#: Events near which an exit may matter.
MOMENTS = frozenset(
    {"ack", "eoi", "timer-write", "timer-line", "gic-mmio", "lr", "vgic-inject", "exception"}
)
NEAR_NS = 40
BURST = 40
LIST_REGISTERS = (4, 1, 2, 16, 3)
MAX_LISTED = 3
VGIC_STEPS = 1000


class Outcome(NamedTuple):
    """What must not depend on exits. ``seen`` is a digest of the events that the guest can see, ""
    unwatched."""

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
        """What differs, in words; events only where both runs were watched."""
        return [
            f"{name} {ours} instead of {theirs}"
            for name, ours, theirs in zip(self._fields, self, other, strict=True)
            if ours != theirs and (name != "seen" or (ours and theirs))
        ]


class View:
    """A sink that hashes what the guest can see, and notes the moments near which exits are
    wanted."""

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
    """What is under the guest's machine."""

    vhe: bool
    list_registers: int
    pcpus: int

    def __str__(self) -> str:
        return f"{'VHE' if self.vhe else 'nVHE'}, {self.list_registers} LRs, {self.pcpus} pCPUs"


class Case(NamedTuple):
    """One run: the guest's machine, its host, engine and the seed of its exits; ``watched``: with a
    trace sink."""

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
    """What an exit and the next entry do to a loaded vCPU."""
    vgic = vcpu.vm.vgic_of()
    vcpu.timer.sync()
    vgic.sync(vcpu.id)
    vgic.flush(vcpu.id)


def put_and_load(vcpu: Vcpu) -> None:
    """As if the host had had something else to do on this CPU for no time."""
    pe, engine = vcpu.pe, vcpu.context.engine
    assert pe is not None
    monitor = engine.exclusive
    vcpu.put()
    vcpu.load(pe)
    engine.exclusive = monitor


def force(machine: Machine, way: str) -> None:
    """Make an exit of a machine that has stopped, in one of the ways that the module's docstring
    lists."""
    current = machine.host.current
    for vcpu in machine.board.vcpus:
        if vcpu.pe is not None and (way.endswith("all") or vcpu is current):
            (put_and_load if way.startswith("put") else leave)(vcpu)


class Places:
    """Times in ns at which to exit, in order, and the way of each."""

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
    """A run with exits at these places, and how many there were."""
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
    """What has been done, and how many runs differed."""

    runs: int = 0
    exits: int = 0
    differ: int = 0

    def plus(self, other: Tally) -> Tally:
        return Tally(*(a + b for a, b in zip(self, other, strict=True)))


def machines(name: str, max_cpus: int, source: random.Random) -> Iterator[tuple[Subject, Host]]:
    """The machines of a guest, without end: each setup in turn, on one host after the other."""
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
    """One run with exits: what differs, and how many exits there were."""
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
        "--guests", type=names, help="by commas (default: all bundled ones that take interrupts)"
    )
    parser.add_argument(
        "--runs", type=int, default=100, help="of each guest, at least (default: %(default)s)"
    )
    parser.add_argument(
        "--exits", type=int, default=0, help="of each guest, at least, however many runs that takes"
    )
    parser.add_argument(
        "--places", type=int, default=100, help="exits in a run (default: %(default)s)"
    )
    parser.add_argument(
        "--runs-of-a-machine", type=int, default=10, help="on one machine (default: %(default)s)"
    )
    parser.add_argument(
        "--vgic", type=int, default=0, help="random vGICs first (default: %(default)s)"
    )
    parser.add_argument(
        "--max-cpus", type=int, default=8, help="of the guests' machines (default: %(default)s)"
    )
    parser.add_argument(
        "--ways", type=names, default=list(WAYS), help=f"of {','.join(WAYS)} (default: all)"
    )
    parser.add_argument(
        "--engine", choices=("auto", "native", "portable"), default="auto", help="(default: auto)"
    )
    parser.add_argument(
        "--seed", type=int, default=1, help="of everything random (default: %(default)s)"
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
