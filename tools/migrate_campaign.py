"""Moves of a guest to another host at critical moments: does the rest of the run differ?

    python tools/migrate_campaign.py                    every bundled guest on its machines, on 1 and 2 physical CPUs
    python tools/migrate_campaign.py --guests psci,wfi --moments 20
    python tools/migrate_campaign.py --linux --uboot    also the fetched guests (make guests)
    python tools/migrate_campaign.py --random 201       only random guests of timers and interrupts

The moments are found in a run without a move: just before, at and just after the rise of a timer's
line (``deadline``), between acknowledge and end of an interrupt (``active``), while a vCPU sleeps
in WFI (``wfi``), and anywhere (``random``). ``--seed`` selects ``--moments`` of each kind. At each
moment the guest is saved through the KVM API and continues in a new machine with another physical
count, as in ``armvirt migrate-test``. One line is printed for each machine and kind; the exit
status is 1 if the end of a run differs.
"""

from __future__ import annotations

import argparse
import random
import re
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import random_guests
from campaign import (
    BENCHMARKS,
    MEMORY,
    Subject,
    add_guests,
    bundled,
    check_guests,
    linux,
    names,
    uboot,
)

from armvirt.bundled import guests
from armvirt.errors import UserError
from armvirt.events import Acknowledge, EndOfInterrupt, Event, Schedule, Stamp, TimerLine
from armvirt.hyp.kvm import VgicGroup
from armvirt.machine import Machine, migrate

KINDS = ("deadline", "active", "wfi", "random")
AROUND = (-1, 0, 1)
NUMBER = re.compile(r"\d+")
RANDOM_LIMIT_NS = 20_000_000
MAX_LISTED = 3  # moments with differences that a line names


class Moments:
    """A sink that records the moments for moves, in ns: the rises of timer lines, and for each
    other kind the spans in which the guest is in this state."""

    def __init__(self) -> None:
        self.rises: list[int] = []
        self.spans: dict[str, list[tuple[int, int]]] = {"active": [], "wfi": []}
        self._since: dict[tuple[str, int], int] = {}

    def __call__(self, stamp: Stamp, event: Event) -> None:
        if isinstance(event, TimerLine):
            if event.level:
                self.rises.append(stamp.ns)
        elif isinstance(event, Acknowledge):
            self._since["active", stamp.vcpu] = stamp.ns
        elif isinstance(event, EndOfInterrupt):
            self._end("active", stamp.vcpu, stamp.ns)
        elif isinstance(event, Schedule):
            if event.what == "blocked":
                self._since["wfi", event.target] = stamp.ns
            else:
                self._end("wfi", event.target, stamp.ns)

    def _end(self, kind: str, vcpu: int, ns: int) -> None:
        start = self._since.pop((kind, vcpu), None)
        if start is not None and ns > start:
            self.spans[kind].append((start, ns))

    def choose(self, kind: str, count: int, end: int, source: random.Random) -> list[int]:
        """At most ``count`` times before ``end``; for deadlines, three times as many."""
        if kind == "random":
            found = [source.randrange(1, end) for _ in range(count)]
        elif kind == "deadline":
            found = [ns + by for ns in _some(self.rises, count, source) for by in AROUND]
        else:
            found = [
                source.randrange(start + 1, stop + 1)
                for start, stop in _some(self.spans[kind], count, source)
            ]
        return sorted({ns for ns in found if 0 < ns < end})


def _some(values: Sequence, count: int, source: random.Random) -> list:  # type: ignore[type-arg]
    return source.sample(values, min(count, len(values)))


class Result(NamedTuple):
    """The number of moves of a kind, and the differences by the time of the move."""

    moves: int
    differs: list[tuple[int, list[str]]]


class Traveller:
    """One guest on one machine: its run without a move, and its moves."""

    def __init__(self, subject: Subject, pcpus: int, seed: int) -> None:
        self.subject, self.pcpus = subject, pcpus
        self.source, self.moments = random.Random(seed), Moments()
        with self.make(sinks=[self.moments]) as machine:
            self.straight = migrate.finish(machine, max_time_ns=subject.limit_ns)
            self.tolerance = migrate.tolerance_of(machine)

    @property
    def name(self) -> str:
        return f"{self.subject.name}/{self.pcpus}"

    def make(self, **more: object) -> Machine:
        subject = self.subject
        return Machine(
            subject.image,
            script=subject.script,
            trace_hash=False,
            pcpus=self.pcpus,
            **{**subject.options, **more},
        )

    def moves(self, kind: str, count: int) -> Result:
        """Save at each moment of a run, and continue from each saved state in a new machine."""
        times = self.moments.choose(kind, count, self.straight.result.ns, self.source)
        differs = []
        machine = self.make()
        for at in times:
            if machine.run_until(ns=at) is not None:
                differs.append((at, ["the guest ended before: saving it has changed it"]))
                break
            moved = migrate.go_on(
                self.make, migrate.save(machine), max_time_ns=self.subject.limit_ns
            )
            if found := self.differences(moved):
                differs.append((at, found))
            if its_is_on(
                machine
            ):  # it has written its tables into guest memory: the next move is of another run
                machine.close()
                machine = self.make()
        machine.close()
        return Result(len(times), differs)

    def differences(self, moved: migrate.Ending) -> list[str]:
        """Like `migrate.differences`, but the numbers that a guest with several CPUs prints may
        differ: they depend on the turns of the CPUs."""
        ours, theirs = self.straight.result.console, moved.result.console
        if self.tolerance and NUMBER.sub("#", ours) == NUMBER.sub("#", theirs):
            moved = moved._replace(result=moved.result._replace(console=ours))
        return migrate.differences(self.straight, moved, self.tolerance)


def its_is_on(machine: Machine) -> bool:
    its = machine.board.its
    return its is not None and bool(its.get_attr(VgicGroup.ITS_REGS, 0) & 1)


def random_subject(seed: int, folder: Path) -> Subject:
    """A random guest, see `random_guests`."""
    machine = random_guests.options(seed)
    image = random_guests.write(seed, machine["gic"], folder)
    options = {**machine, "memory": MEMORY, "load_addr": random_guests.BASE}
    return Subject(f"random-{seed}", image, RANDOM_LIMIT_NS, None, options)


def subjects(options: argparse.Namespace, folder: Path) -> Iterable[Subject]:
    if options.random:
        yield from (random_subject(options.seed + n, folder) for n in range(options.random))
        return
    known = guests()
    names = (
        [name for name in known if not name.startswith(BENCHMARKS)]
        if options.guests is None
        else options.guests
    )
    for name in names:
        for setup in known[name].setups:
            yield bundled(known[name], setup)
    if options.linux:
        yield from (linux(1), linux(2))
    if options.uboot:
        yield uboot()


def examine(traveller: Traveller, options: argparse.Namespace) -> tuple[int, int]:
    """All moves of one guest on one machine, with a line for each kind; returns (moves, moves with
    differences)."""
    moves = differing = 0
    for kind in options.kinds:
        started = time.monotonic()
        result = traveller.moves(kind, options.moments)
        moves, differing = moves + result.moves, differing + len(result.differs)
        if result.moves:
            text = f"{len(result.differs)} DIFFER" if result.differs else "same"
            print(
                f"{traveller.name:32} {kind:9} {result.moves:4} moves  {text}  ({time.monotonic() - started:.1f} s)"
            )
        for at, found in result.differs[:MAX_LISTED]:
            print(f"    at {at} ns: {'; '.join(found)}")
        sys.stdout.flush()
    return moves, differing


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    add_guests(parser)
    parser.add_argument(
        "--moments", type=int, default=5, help="moments of each kind (default: %(default)s)"
    )
    parser.add_argument(
        "--kinds", type=names, default=list(KINDS), help=f"of {','.join(KINDS)} (default: all)"
    )
    parser.add_argument(
        "--pcpus", type=names, default=["1", "2"], help="physical CPUs (default: 1,2)"
    )
    parser.add_argument(
        "--seed", type=int, default=1, help="seed of the choice of moments (default: %(default)s)"
    )
    parser.add_argument(
        "--random",
        type=int,
        default=0,
        help="number of random guests to run instead, with seeds from --seed on",
    )
    options = parser.parse_args(arguments)
    if unknown := set(options.kinds) - set(KINDS):
        parser.error(f"no such kind: {', '.join(unknown)}")
    check_guests(parser, options)
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    moves = differing = 0
    try:
        with tempfile.TemporaryDirectory() as folder:
            for subject in subjects(options, Path(folder)):
                for pcpus in options.pcpus:
                    done = examine(Traveller(subject, int(pcpus), options.seed), options)
                    moves, differing = moves + done[0], differing + done[1]
    except UserError as error:
        print(f"{error} (is it fetched? make guests)", file=sys.stderr)
        return 2
    print(f"{moves} moves, {differing} differ")
    return int(bool(differing))


if __name__ == "__main__":
    sys.exit(main())
