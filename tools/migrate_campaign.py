"""Moves of a guest to another host, at moments that matter: does the rest of the run differ?

    python tools/migrate_campaign.py                    every bundled guest on its machines, on 1 and 2 physical CPUs
    python tools/migrate_campaign.py --guests psci,wfi --moments 20
    python tools/migrate_campaign.py --linux --uboot    the fetched ones too (make guests)
    python tools/migrate_campaign.py --random 201       random guests of timers and interrupts, and nothing else

The moments are found in a run that nothing interrupts: just before, at and just after a timer's
line rises (``deadline``), between acknowledge and end of an interrupt (``active``), while a vCPU
sleeps in WFI (``wfi``), and anywhere (``random``). ``--moments`` of each kind are taken by
``--seed``. At each the guest is saved through the KVM API and goes on in a new machine whose
physical counter started elsewhere, as by ``armvirt migrate-test``. One line for each machine and
kind; exit status 1 if an end differs.
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
MAX_LISTED = 3  # differing moments that a line names


class Moments:
    """A sink that notes when to move: times in ns by kind, each a span in which the guest is in
    that state."""

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
        """``count`` times before ``end``, or as many as there are; for deadlines so many times
        three."""
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
    """How many moves of a kind there were, and what differed, by time."""

    moves: int
    differs: list[tuple[int, list[str]]]


class Traveller:
    """One guest on one machine: its run left alone, and its moves."""

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
        """Save at each moment of a run, and go on from each elsewhere."""
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
        """As `migrate.differences`; but what a guest with several CPUs measures and prints depends
        on their turns."""
        found = migrate.differences(self.straight, moved, self.tolerance)
        consoles = (ending.result.console for ending in (self.straight, moved))
        if self.tolerance and len({NUMBER.sub("#", console) for console in consoles}) == 1:
            found = [each for each in found if each != "the console differs"]
        return found


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
    """All moves of one guest on one machine, a line a kind: (moves, how many differ)."""
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
        "--moments", type=int, default=5, help="of each kind (default: %(default)s)"
    )
    parser.add_argument(
        "--kinds", type=names, default=list(KINDS), help=f"of {','.join(KINDS)} (default: all)"
    )
    parser.add_argument(
        "--pcpus", type=names, default=["1", "2"], help="physical CPUs (default: 1,2)"
    )
    parser.add_argument(
        "--seed", type=int, default=1, help="of the choice of moments (default: %(default)s)"
    )
    parser.add_argument(
        "--random", type=int, default=0, help="random guests instead, from --seed on"
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
