"""Fuzzes everything that armvirt reads: ELF files, Images, device trees, suites, console scripts,
options.

Each mutant is a complete command in its own process, forked from a process that has loaded all
modules of a run. The command must end with a documented status other than 70 (internal error), with
at most one line about an error of the user, in `LOAD_S` + `LOAD_S_PER_100_MIB` of CPU time, and
with at most `RSS_MIB` + `RSS_FACTOR` times the size of its file of memory (for a compressed file,
the size of its content). The mutants are functions of their numbers: a mutant has the name
TARGET:NUMBER, and ``--only elf:17`` runs it again.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from random import Random
from typing import NamedTuple

from fuzz_inputs import TARGETS, Mutant

STATUSES = {0, 1, 2, 3, 4}
RSS_MIB, RSS_FACTOR = 60, 4
CPU_MIB = 4  # each CPU of a guest has its own engine of 3 to 4 MiB
LOAD_S, LOAD_S_PER_100_MIB = 1.0, 1.0
GUESTS_S = 1.0  # CPU time of the guests of a suite, in addition to the time of loading


class Run(NamedTuple):
    """How a mutant ended: status (negative: a signal), CPU seconds, maximum RSS in bytes, standard
    error."""

    status: int
    seconds: float
    rss: int
    said: str


class Server:
    """The process that runs the commands (`fuzz_server`). ``folder`` contains the file of the
    mutant and its messages."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        command = [sys.executable, str(Path(__file__).with_name("fuzz_server.py"))]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def run(self, mutant: Mutant) -> Run:
        words = list(mutant.words)
        for n, word in enumerate(words):
            if mutant.content is not None and word.startswith("{}"):
                path = self.folder / f"mutant{word[2:]}"
                path.write_bytes(mutant.content)
                words[n] = str(path)
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None and stdout is not None
        stdin.write(json.dumps([words, str(self.folder)]) + "\n")
        stdin.flush()
        status, seconds, rss = json.loads(stdout.readline())
        return Run(
            status, seconds, rss, (self.folder / "stderr").read_bytes().decode("utf-8", "replace")
        )

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()


def problem(mutant: Mutant, done: Run) -> str:
    """The error in the way a mutant ended; "" if there is none."""
    mib = mutant.size / (1 << 20)
    seconds = (
        LOAD_S + LOAD_S_PER_100_MIB * mib / 100 + (GUESTS_S if mutant.words[0] == "test" else 0)
    )
    if done.status not in STATUSES:
        return f"status {done.status}: {done.said[-300:].strip()}"
    if done.status == 2 and len(done.said.strip().split("\n")) > 1:
        return f"more than one line: {done.said[:300]!r}"
    if any(not line.isprintable() for line in done.said.splitlines()):
        return f"not printable: {done.said[:300]!r}"
    if done.seconds > seconds:
        return f"{done.seconds:.2f} s of CPU time, {seconds:.2f} allowed for {mib:.2f} MiB"
    most = RSS_MIB + CPU_MIB * mutant.cpus + RSS_FACTOR * mib
    if done.rss > most * (1 << 20):
        return f"{done.rss >> 20} MiB of memory, {most:.0f} allowed for {mib:.2f} MiB"
    return ""


def mutant_of(target: str, number: int) -> Mutant:
    return TARGETS[target](Random(f"{target} {number}"))


class Tally:
    """The results of the mutants of one target."""

    def __init__(self, target: str) -> None:
        self.target, self.count = target, 0
        self.statuses: Counter[int] = Counter()
        self.problems: list[str] = []
        self.slowest, self.largest = (0.0, 0), (0, 0)

    def add(self, number: int, mutant: Mutant, done: Run) -> None:
        self.count += 1
        self.statuses[done.status] += 1
        self.slowest = max(self.slowest, (done.seconds, number))
        self.largest = max(self.largest, (done.rss, number))
        if text := problem(mutant, done):
            self.problems.append(f"{self.target}:{number}: {text}")

    def __str__(self) -> str:
        ends = ", ".join(f"{count} x {status}" for status, count in sorted(self.statuses.items()))
        return (
            f"{self.target:8} {self.count:6,} mutants: status {ends}; slowest {self.slowest[0]:.2f} s (number "
            f"{self.slowest[1]}), largest {self.largest[0] >> 20} MiB (number {self.largest[1]}); "
            f"{len(self.problems)} problems"
        )


def campaign(target: str, numbers: range) -> Tally:
    """Run the mutants of a target with these numbers."""
    tally = Tally(target)
    with tempfile.TemporaryDirectory() as folder, Server(Path(folder)) as server:
        for number in numbers:
            mutant = mutant_of(target, number)
            tally.add(number, mutant, server.run(mutant))
    return tally


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-n", type=int, default=5000, help="mutants of each target (default 5,000)")
    parser.add_argument("--first", type=int, default=0, help="number of the first mutant")
    parser.add_argument(
        "--targets", default=",".join(TARGETS), help=f"some of {', '.join(TARGETS)}"
    )
    parser.add_argument(
        "--only", help="run only this mutant, TARGET:NUMBER; its file is kept in /tmp"
    )
    arguments = parser.parse_args()
    if arguments.only:
        target, _, number = arguments.only.partition(":")
        return _again(target, int(number))
    began, bad = time.monotonic(), 0
    for target in arguments.targets.split(","):
        tally = campaign(target, range(arguments.first, arguments.first + arguments.n))
        print(tally, flush=True)
        for text in tally.problems[:20]:
            print(f"  {text}", flush=True)
        bad += len(tally.problems)
    print(f"{bad} problems in {time.monotonic() - began:.0f} s")
    return 1 if bad else 0


def _again(target: str, number: int) -> int:
    mutant = mutant_of(target, number)
    folder = Path(tempfile.mkdtemp(prefix=f"fuzz-{target}-{number}-"))
    with Server(folder) as server:
        done = server.run(mutant)
    print(
        f"armvirt {' '.join(word.encode('unicode_escape').decode()[:200] for word in mutant.words)}  in {folder}"
    )
    print(
        f"status {done.status}, {done.seconds:.2f} s, {done.rss >> 20} MiB, file {mutant.size} bytes"
    )
    print(done.said.encode("unicode_escape").decode()[:2000])
    print(problem(mutant, done) or "no problem")
    return 1 if problem(mutant, done) else 0


if __name__ == "__main__":
    sys.exit(main())
