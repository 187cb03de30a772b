"""Long campaigns: does stopping change a guest, and is one run like the next?

    python tools/campaign.py                           every bundled guest: 10 runs, 1,000 stops in each way
    python tools/campaign.py --guests psci,wfi         these only
    python tools/campaign.py --setups                  on GICv2 and GICv3, with 1 to 8 CPUs, as the manifest says
    python tools/campaign.py --linux --uboot           Linux with one and with two CPUs and U-Boot too (make guests)
    python tools/campaign.py --portable-linux          Linux on the portable engine against the native one (slow)

A stop is at a random instruction or a random time (``--seed``). The ways are: ``plain`` (stop and
go on), ``load`` (save, and load into the same machine), ``fresh`` (save, and load into a new
machine; memory is copied) and ``engines`` (as fresh, native and portable in turn). ``portable`` is
a run without stops on the portable engine. Trace hash, verdict, time and instructions must be those
of the run that nothing interrupted. One line a result; exit status 1 if one differs.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from armvirt.bundled import Guest, Setup, guests
from armvirt.errors import UserError
from armvirt.events import Event, Stamp
from armvirt.machine import Machine, Result
from armvirt.script import Script
from armvirt.trace.hash import HashSink

ROOT = Path(__file__).resolve().parent.parent
FETCHED = ROOT / ".cache" / "guests"
BENCHMARKS = "bench-"
MEMORY = "64M"
LIMIT_NS, LIMIT_OF_RUNAWAY_NS = 2_000_000_000, 1_000_000
LINUX_LIMIT_NS = 20_000_000_000
WAYS = ("plain", "load", "fresh")
ALL_WAYS = (*WAYS, "engines", "portable")


@dataclass(frozen=True)
class Subject:
    """What is run: an image (None: a ROM), arguments of `Machine`, the guest time after which it is
    cut off."""

    name: str
    image: Path | None
    limit_ns: int = LIMIT_NS
    script: Script | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    def machine(self, engine: str, recorder: Recorder) -> Machine:
        return Machine(
            self.image,
            engine=engine,
            script=self.script,
            trace_hash=False,
            sinks=[recorder],
            **self.options,
        )


class Outcome(NamedTuple):
    """What must not depend on stops, on the engine or on the day."""

    verdict: str
    ns: int
    insns: int
    trace_hash: str

    def __str__(self) -> str:
        return f"{self.verdict} {self.ns} ns {self.insns} instructions {self.trace_hash[:16]}"


class Recorder:
    """A trace hash that follows a guest from machine to machine."""

    def __init__(self) -> None:
        self.hash, self.deaf = HashSink(), False

    def __call__(self, stamp: Stamp, event: Event) -> None:
        if not self.deaf:
            self.hash(stamp, event)

    def outcome(self, machine: Machine, result: Result) -> Outcome:
        return Outcome(
            result.verdict, result.ns, result.insns, self.hash.finish(machine.board.final_state())
        )


def bundled(guest: Guest, setup: Setup | None = None) -> Subject:
    """A bundled guest on one of its machines (by default the newest GIC it is for, and as many CPUs
    as it wants).

    One that would run for ever is cut off early.
    """
    limit = LIMIT_OF_RUNAWAY_NS if guest.expect == "limit" else LIMIT_NS
    name = guest.name if setup is None else f"{guest.name}[{setup}]"
    gic, cpus = (max(guest.gics), guest.cpus) if setup is None else setup
    return Subject(
        name, guest.path, limit, guest.script, {"gic": gic, "cpus": cpus, "memory": MEMORY}
    )


def linux(cpus: int) -> Subject:
    """The fetched Linux, which tests itself and powers off."""
    options = {
        "initrd": FETCHED / "initramfs.cpio",
        "append": "console=ttyAMA0 autorun",
        "cpus": cpus,
    }
    return Subject(f"linux-{cpus}", FETCHED / "Image", LINUX_LIMIT_NS, None, options)


def uboot() -> Subject:
    """The fetched U-Boot, by its console."""
    pairs = (
        ("autoboot: ", "\n"),
        ("=> ", "version\n"),
        ("=> ", "sleep 2\n"),
        ("=> ", "poweroff\n"),
    )
    options = {"bios": FETCHED / "u-boot.bin"}
    return Subject("u-boot", None, LINUX_LIMIT_NS, Script.from_pairs(pairs), options)


# -- runs --


def whole(subject: Subject, engine: str = "auto") -> Outcome:
    """A run that nothing interrupts."""
    recorder = Recorder()
    machine = subject.machine(engine, recorder)
    outcome = recorder.outcome(machine, machine.run(max_time_ns=subject.limit_ns))
    machine.close()
    return outcome


def stopped(
    subject: Subject, stops: Places, way: str, engines: Sequence[str] = ("auto",)
) -> Outcome:
    """A run that is stopped again and again; ``engines`` take turns where the way is ``fresh``."""
    recorder, kinds = Recorder(), cycle(engines)
    machine = subject.machine(next(kinds), recorder)
    while (target := stops.next()) is not None:
        if machine.run_until(insns=target[0], ns=target[1]) is not None:
            break
        stops.reached(machine.insns, machine.ns)
        if way == "load":
            machine.load(saved(machine))
        elif way == "fresh":
            machine = moved(subject, machine, next(kinds), recorder)
    outcome = recorder.outcome(machine, machine.run(max_time_ns=subject.limit_ns))
    machine.close()
    return outcome


class Places(Protocol):
    """Where to stop."""

    def next(self) -> tuple[int | None, int | None] | None:
        """(instructions, ns) at which to stop, whichever comes first; None after the last."""

    def reached(self, insns: int, ns: int) -> None:
        """Drop what lies behind."""


class Stops:
    """``count`` random places in a run, half of them instructions, half of them times: a guest may
    be idle a lot."""

    def __init__(self, count: int, reference: Outcome, seed: int) -> None:
        source = random.Random(seed)
        self._insns = sorted(source.randrange(reference.insns) for _ in range(count - count // 2))
        self._ns = sorted(source.randrange(reference.ns) for _ in range(count // 2))

    def next(self) -> tuple[int | None, int | None] | None:
        targets = (self._insns[0] if self._insns else None, self._ns[0] if self._ns else None)
        return None if targets == (None, None) else targets

    def reached(self, insns: int, ns: int) -> None:
        self._insns = [value for value in self._insns if value > insns]
        self._ns = [value for value in self._ns if value > ns]


def saved(machine: Machine) -> dict[str, object]:
    """The state as a file would hold it."""
    state: dict[str, object] = json.loads(json.dumps(machine.state()))
    return state


def moved(subject: Subject, machine: Machine, engine: str, recorder: Recorder) -> Machine:
    """The guest in a new machine; the old one is closed."""
    recorder.deaf = True  # the new machine is not switched on: it takes over
    fresh = subject.machine(engine, recorder)
    recorder.deaf = False
    fresh.board.ram.discard()
    for ipa, page in machine.board.vm.populated_pages():
        fresh.board.vm.write_memory(ipa, page)
    fresh.load(saved(machine))
    machine.board.ram.discard()  # now, not when the garbage collector comes by
    machine.close()
    return fresh


# -- the campaign --


class Report:
    """Prints one line a result; remembers whether one differed."""

    def __init__(self) -> None:
        self.differs = False

    def line(self, name: str, what: str, got: Outcome, expected: Outcome, started: float) -> None:
        same = got == expected
        self.differs |= not same
        text = "same" if same else f"DIFFERS: {got}, expected {expected}"
        print(f"{name:14} {what:22} {text}  ({time.monotonic() - started:.1f} s)", flush=True)


def examine(subject: Subject, options: argparse.Namespace, report: Report) -> None:
    """All runs of one guest."""
    reference = whole(subject)
    print(f"{subject.name:14} {reference}", flush=True)
    if options.runs > 1:
        started = time.monotonic()
        others = {whole(subject) for _ in range(options.runs - 1)} - {reference}
        report.line(
            subject.name, f"{options.runs} runs", min(others, default=reference), reference, started
        )
    for way in options.ways:
        started = time.monotonic()
        what = "portable engine" if way == "portable" else f"{options.stops} stops, {way}"
        report.line(
            subject.name, what, one_way(subject, way, reference, options), reference, started
        )


def one_way(subject: Subject, way: str, reference: Outcome, options: argparse.Namespace) -> Outcome:
    """A run in one of the ways that the module's docstring lists."""
    if way == "portable":
        return whole(subject, "portable")
    stops = Stops(options.stops, reference, options.seed)
    if way == "engines":
        return stopped(subject, stops, "fresh", ("native", "portable"))
    return stopped(subject, stops, way)


def portable_linux(cpus: int, report: Report) -> None:
    """Linux on the portable engine."""
    reference, started = whole(linux(cpus)), time.monotonic()
    report.line(
        f"linux-{cpus}", "portable engine", whole(linux(cpus), "portable"), reference, started
    )


def subjects(options: argparse.Namespace) -> Iterable[Subject]:
    known = guests()
    everything = [name for name in known if not name.startswith(BENCHMARKS)]
    for name in everything if options.guests is None else options.guests:
        for setup in known[name].setups if options.setups else (None,):
            yield bundled(known[name], setup)
    if options.linux:
        yield from (linux(1), linux(2))
    if options.uboot:
        yield uboot()


def names(text: str) -> list[str]:
    """Names by commas."""
    return [name for name in text.split(",") if name]


def add_guests(parser: argparse.ArgumentParser) -> None:
    """The options that say which guests a campaign runs."""
    parser.add_argument(
        "--guests", type=names, help="bundled guests, comma-separated (default: all; '-' for none)"
    )
    parser.add_argument("--linux", action="store_true", help="Linux with 1 and 2 CPUs too")
    parser.add_argument("--uboot", action="store_true", help="U-Boot too")


def check_guests(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """The guests by name: those of ``add_guests`` that are none end the program."""
    if options.guests == ["-"]:
        options.guests = []
    if unknown := set(options.guests or ()) - set(guests()):
        parser.error(
            f"no such bundled guest: {', '.join(sorted(unknown))}; there are {', '.join(guests())}"
        )


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    add_guests(parser)
    parser.add_argument(
        "--stops", type=int, default=1000, help="stops in a run (default: %(default)s)"
    )
    parser.add_argument(
        "--runs", type=int, default=10, help="runs whose hashes are compared (default: %(default)s)"
    )
    ways = f"of {','.join(ALL_WAYS)} (default: the first three)"
    parser.add_argument("--ways", type=names, default=list(WAYS), help=ways)
    parser.add_argument(
        "--seed", type=int, default=1, help="of the random stops (default: %(default)s)"
    )
    parser.add_argument(
        "--setups", action="store_true", help="each guest on every machine that it is tested on"
    )
    parser.add_argument(
        "--portable-linux", action="store_true", help="Linux on the portable engine against native"
    )
    options = parser.parse_args(arguments)
    if unknown := set(options.ways) - set(ALL_WAYS):
        parser.error(f"no such way: {', '.join(unknown)}")
    check_guests(parser, options)
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    options, report = parse(arguments), Report()
    try:
        for subject in subjects(options):
            examine(subject, options, report)
        if options.portable_linux:
            for cpus in (1, 2):
                portable_linux(cpus, report)
    except UserError as error:
        print(f"{error} (is it fetched? make guests)", file=sys.stderr)
        return 2
    print("a result differs" if report.differs else "every result is the same")
    return int(report.differs)


if __name__ == "__main__":
    sys.exit(main())
