"""Runs every storm under every limit on both engines, and checks that the command ends in time
(``make limits``).

    make limits                                 the whole matrix, with a table
    make limits LIMITS_ARGS="its-mapc svc"      these storms only
    make limits LIMITS_ARGS="--jobs 2 --list"

A run under ``--timeout 2s`` has to end within 2.5 s of its start with status 4; one that gets SIGINT or SIGTERM has to
end within 0.5 s of the signal with status 130 or 143. Exit status 1 if one does not.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from command import ARMVIRT, interruptible
from storm_guests import STORMS

ENGINES = ("native", "portable")
SIGNALS = {"SIGINT": (signal.SIGINT, 130), "SIGTERM": (signal.SIGTERM, 143)}
LIMIT_S, LATE_S, SIGNAL_LATE_S = 2.0, 0.5, 0.5
RUNNING_S = 1.5  # after the start: the guest runs by then, on a busy machine too
PATIENCE_S = 60.0


class Run(NamedTuple):
    """One run of a storm. ``late`` is how many seconds after the limit or the signal the process had ended."""

    storm: str
    engine: str
    ending: str
    late: float
    status: int
    says: str

    @property
    def ended_right(self) -> bool:
        """Whether the status is right. A signal may come while Python itself still starts: a shell says the same."""
        if self.ending == "timeout":
            return self.status == 4
        number, status = SIGNALS[self.ending]
        return self.status in (status, -number)

    @property
    def problem(self) -> str:
        if not self.ended_right:
            return f"status {self.status}: {self.says}"
        most = LATE_S if self.ending == "timeout" else SIGNAL_LATE_S
        return "" if self.late <= most else f"{self.late:.2f} s late"


def write_guests(folder: Path, names: Iterable[str]) -> None:
    for name in names:
        (folder / f"{name}.elf").write_bytes(STORMS[name].image())


def run(folder: Path, name: str, engine: str, ending: str, limit_s: float = LIMIT_S) -> Run:
    """One storm under one limit: ``timeout``, or the name of a signal."""
    words = [
        *ARMVIRT,
        "run",
        str(folder / f"{name}.elf"),
        *STORMS[name].options,
    ]
    words += ["--engine", engine]
    if ending == "timeout":
        words += ["--timeout", f"{limit_s}s"]
    started = time.monotonic()
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            preexec_fn=interruptible,
        )
        due = started + limit_s
        if ending != "timeout":
            time.sleep(RUNNING_S)
            due = time.monotonic()
            process.send_signal(SIGNALS[ending][0])
        try:
            status = process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            status = process.wait()
        late = time.monotonic() - due
        errors.seek(0)
        lines = errors.read().decode("utf-8", "replace").strip().splitlines() or ["nothing"]
    return Run(name, engine, ending, late, status, lines[-1])


def table(names: Sequence[str], runs: Iterable[Run]) -> str:
    """A row for each storm, with the seconds that each run was late."""
    found = {(each.storm, each.engine, each.ending): each for each in runs}
    endings = ("timeout", *SIGNALS)
    lines = [f"{'':26}" + "".join(f"{engine:>24}" for engine in ENGINES)]
    lines.append(f"{'seconds late':26}" + 2 * "".join(f"{ending:>8}" for ending in endings))
    for name in names:
        cells = [found[name, engine, ending] for engine in ENGINES for ending in endings]
        marks = "".join(f"{cell.late:7.2f}{'!' if cell.problem else ' '}" for cell in cells)
        lines.append(f"{name:26}{marks}  {STORMS[name].what}")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("names", nargs="*", metavar="STORM")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--list", action="store_true")
    arguments = parser.parse_args()
    names = arguments.names or list(STORMS)
    if arguments.list:
        for name in names:
            print(f"{name:26} {STORMS[name].what}")
        return 0
    with tempfile.TemporaryDirectory() as text, ThreadPoolExecutor(arguments.jobs) as pool:
        folder = Path(text)
        write_guests(folder, names)
        jobs = [
            (name, engine, ending)
            for name in names
            for ending in ("timeout", *SIGNALS)
            for engine in ENGINES
        ]
        runs = list(pool.map(lambda job: run(folder, *job), jobs))
    print(table(names, runs))
    bad = [each for each in runs if each.problem]
    for each in bad:
        print(f"{each.storm}, {each.engine}, {each.ending}: {each.problem}")
    latest = {
        ending: max(each.late for each in runs if each.ending == ending)
        for ending in ("timeout", *SIGNALS)
    }
    worst = ", ".join(f"{ending} at most {late:.2f} s late" for ending, late in latest.items())
    print(f"{len(names)} storms, {len(runs)} runs, {len(bad)} too late or otherwise: {worst}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
