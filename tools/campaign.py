"""Long campaigns: does stopping change a guest, and are all runs equal?

    python tools/campaign.py                           every bundled guest: 10 runs, 1,000 stops in each way
    python tools/campaign.py --guests psci,wfi         only these guests
    python tools/campaign.py --setups                  on GICv2 and GICv3, with 1 to 8 CPUs, as the manifest says
    python tools/campaign.py --linux --uboot           also Linux with one and with two CPUs, and U-Boot (make guests)
    python tools/campaign.py --portable-linux          Linux on the portable engine, compared with the native one (slow)

A stop is at a random instruction or a random time (``--seed``). The ways to stop are: ``plain``
(stop and continue), ``load`` (save, and load into the same machine), ``fresh`` (save, and load into
a new machine; memory is copied) and ``engines`` (like ``fresh``, with the native and the portable
engine in turn). ``portable`` is a run without stops on the portable engine. Trace hash, verdict,
time and instructions must be equal to those of a run without stops. One line is printed for each
result; the exit status is 1 if one differs.
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
    """A guest to run: the image (None: only a ROM), the arguments of `Machine`, and the guest time
    after which the run is ended."""

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
    """The results that must not depend on stops, on the engine or on the day."""

    verdict: str
    ns: int
    insns: int
    trace_hash: str

    def __str__(self) -> str:
        return f"{self.verdict} {self.ns} ns {self.insns} instructions {self.trace_hash[:16]}"


class Recorder:
    """A trace hash that continues when the guest moves to another machine."""

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
    """A bundled guest on one of its machines (default: the newest GIC for which it is made, and as
    many CPUs as it needs).

    A guest without an end is ended early.
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
    """The fetched U-Boot, which a console script controls."""
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
    """A run without stops."""
    recorder = Recorder()
    machine = subject.machine(engine, recorder)
    outcome = recorder.outcome(machine, machine.run(max_time_ns=subject.limit_ns))
    machine.close()
    return outcome


def stopped(
    subject: Subject, stops: Places, way: str, engines: Sequence[str] = ("auto",)
) -> Outcome:
    """A run with many stops. If the way is ``fresh``, the ``engines`` are used in turn."""
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
    """The points at which a run is stopped."""

    def next(self) -> tuple[int | None, int | None] | None:
        """The next point as (instructions, ns): the run stops at the one that comes first. None
        after the last point."""

    def reached(self, insns: int, ns: int) -> None:
        """Remove the points that have been reached."""


class Stops:
    """``count`` random points of a run. Half of them are instruction counts, half are times: a
    guest may be idle for a long time."""

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
    """The state in the form in which a file would contain it."""
    state: dict[str, object] = json.loads(json.dumps(machine.state()))
    return state


def moved(subject: Subject, machine: Machine, engine: str, recorder: Recorder) -> Machine:
    """The guest in a new machine; the old machine is closed."""
    recorder.deaf = True  # the new machine is not reset: it continues the run
    fresh = subject.machine(engine, recorder)
    recorder.deaf = False
    fresh.board.ram.discard()
    for ipa, page in machine.board.vm.populated_pages():
        fresh.board.vm.write_memory(ipa, page)
    fresh.load(saved(machine))
    machine.board.ram.discard()  # now, not at the next garbage collection
    machine.close()
    return fresh


# -- the campaign --


class Report:
    """Prints one line for each result, and remembers whether a result differed."""

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
    """A run in one of the ways in the module's docstring."""
    if way == "portable":
        return whole(subject, "portable")
    stops = Stops(options.stops, reference, options.seed)
    if way == "engines":
        return stopped(subject, stops, "fresh", ("native", "portable"))
    return stopped(subject, stops, way)


def portable_linux(cpus: int, report: Report) -> None:
    """Linux on the portable engine, compared with the native engine."""
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
    """The names in a text that separates them by commas."""
    return [name for name in text.split(",") if name]


def add_guests(parser: argparse.ArgumentParser) -> None:
    """Add the options that select the guests of a campaign."""
    parser.add_argument(
        "--guests", type=names, help="bundled guests, comma-separated (default: all; '-' for none)"
    )
    parser.add_argument("--linux", action="store_true", help="also Linux with 1 and 2 CPUs")
    parser.add_argument("--uboot", action="store_true", help="also U-Boot")


def check_guests(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """The guests with these names. The program ends for a name that is unknown."""
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
        "--seed", type=int, default=1, help="seed of the random stops (default: %(default)s)"
    )
    parser.add_argument(
        "--setups",
        action="store_true",
        help="each guest on every machine of its row in the manifest",
    )
    parser.add_argument(
        "--portable-linux",
        action="store_true",
        help="compare Linux on the portable engine with the native one",
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
