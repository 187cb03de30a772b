"""Measures how fast armvirt is, as a ratio to QEMU measured in the same minutes (never as seconds
alone).

    python tools/bench.py                      every row, 5 runs of each program
    python tools/bench.py --only hello         one row
    python tools/bench.py --runs 15 --json FILE

Runs of the two programs alternate, so that a busy host slows both. A time is wall-clock time from
the start of the process to its end; a row shows the medians. For a guest that repeats one action,
the row shows the time of one action in ns: the time of the guest minus the time of `hello`, divided
by the number of actions. The row `smp8` compares armvirt with itself: the same work on eight CPUs
and on one. The row `lock` does, too: a free lock that is taken with SEVL and WFE, and without them;
the guest times are 99 and 97 ns, the numbers of instructions. QEMU runs with ``-icount
shift=0,sleep=off``, so that its guest time is that of armvirt: 1 ns per instruction. Both programs
get the same CPU model, GIC and memory. The exit status is 1 if a ratio is above its limit.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
GUESTS = ROOT / "armvirt" / "guests"
FETCHED = ROOT / ".cache" / "guests"
QEMU = "qemu-system-aarch64"
QEMU_ARGUMENTS = "-M virt,gic-version=3,its=on -cpu cortex-a72 -icount shift=0,sleep=off -nographic -m 512M".split()
OUR_ARGUMENTS = "--gic 3 --cpu cortex-a72 --mem 512M".split()
RUNS = 5
PATIENCE_S = 300.0  # the maximum time of a run


class Guest(NamedTuple):
    """A guest that both programs run. A run counts only if the console output contains ``says``.

    If there is a guest ``beside``, armvirt runs this guest too, and QEMU does not run: the
    comparison is between the two guests.
    """

    image: Path
    says: bytes = b"VERDICT: PASS"
    initrd: Path | None = None
    append: str = ""
    cpus: int = 1
    beside: Guest | None = None

    @property
    def files(self) -> list[Path]:
        return [self.image] if self.initrd is None else [self.image, self.initrd]


HELLO = Guest(GUESTS / "hello.elf")
# Without KASLR, which would isolate page tables from EL0: both sides do the same work, and the row can be compared with
# what was measured before armvirt gave a kaslr-seed (QEMU has always given one).
LINUX = Guest(
    FETCHED / "Image",
    b"reboot: Power down",
    FETCHED / "initramfs.cpio",
    "console=ttyAMA0 nokaslr autorun",
)

SMP = Guest(GUESTS / "bench-smp8.elf")
LOCK = Guest(GUESTS / "bench-lock.elf", beside=Guest(GUESTS / "bench-lock.elf", append="plain"))


class Task(NamedTuple):
    """A row before the measurement. ``limit`` is the largest allowed ratio or, if ``unit`` is MB,
    the largest amount of memory; None: no limit.

    If ``unit`` is ns, ``times`` is the number of actions of the guest.
    """

    name: str
    what: str
    guest: Guest
    limit: float | None
    unit: str = "s"
    times: int = 1


TASKS = (
    Task("linux", "Linux to user space and power-off", LINUX, 1.8),
    Task("reg", "300 million instructions in registers", Guest(GUESTS / "bench-reg.elf"), 1.5),
    Task("mem", "200 million loads and stores", Guest(GUESTS / "bench-mem.elf"), 2.0),
    Task("hello", "hello, start to finish", HELLO, 3.0),
    Task("rss", "hello, peak resident memory", HELLO, 120.0, "MB"),
    Task(
        "sgi",
        "an SGI to itself, sent, taken and ended",
        Guest(GUESTS / "bench-sgi.elf"),
        15.0,
        "ns",
        200_000,
    ),
    Task(
        "eoi",
        "acknowledge and end; 1/4 distributor store",
        Guest(GUESTS / "bench-gic-eoi.elf"),
        None,
        "ns",
        400_000,
    ),
    Task(
        "gicd", "a read of GICD_ISENABLER1", Guest(GUESTS / "bench-gicd.elf"), None, "ns", 500_000
    ),
    Task(
        "lpi",
        "an LPI by INT: queue, acknowledge, end",
        Guest(GUESTS / "bench-lpi.elf"),
        None,
        "ns",
        30_000,
    ),
    Task("tick", "six minutes of 1 kHz ticks, asleep", Guest(GUESTS / "bench-tick.elf"), 0.25),
    Task("smp8", "3.2e9 instructions: 8 CPUs, and 1 CPU", SMP._replace(cpus=8, beside=SMP), 1.3),
    Task("lock", "a free lock: SEVL and WFE, and without", LOCK, 1.1, "ns", 2_000_000),
)


class Sample(NamedTuple):
    """One run: wall-clock seconds, and the peak resident set in MB (10**6 bytes)."""

    seconds: float
    megabytes: float


Pair = tuple[Sample, Sample]  # of armvirt, and of QEMU (or of armvirt with the guest beside)


class Row(NamedTuple):
    """One row of the table: medians in ``unit``, the ratio, the limit as text, and whether the row
    is within the limit.

    ``skipped`` is the reason for a row without values (its values are 0).
    """

    name: str
    what: str
    unit: str = "s"
    armvirt: float = 0.0
    qemu: float = 0.0
    ratio: float = 0.0
    wanted: str = ""
    holds: bool = True
    runs: int = 0
    skipped: str = ""


def medians(pairs: Sequence[Pair], megabytes: bool = False) -> tuple[float, float]:
    """The medians of armvirt and of QEMU, in seconds or megabytes."""
    ours, theirs = (
        [s.megabytes if megabytes else s.seconds for s in side] for side in zip(*pairs, strict=True)
    )
    return statistics.median(ours), statistics.median(theirs)


def row_of(task: Task, pairs: Sequence[Pair], hello: Sequence[Pair] = ()) -> Row:
    """The row for the samples of both programs. A row in ns also needs the samples of `hello`."""
    ours, theirs = medians(pairs, task.unit == "MB")
    if task.unit == "ns":
        starts = medians(hello) if task.guest.beside is None else medians(hello)[:1] * 2
        ours, theirs = (
            (s - start) / task.times * 1e9 for s, start in zip((ours, theirs), starts, strict=True)
        )
    ratio = ours / theirs
    judged, mark = (ours, " MB") if task.unit == "MB" else (ratio, "x")
    if task.limit is None:
        return Row(task.name, task.what, task.unit, ours, theirs, ratio, "-", True, len(pairs))
    wanted = f"<= {task.limit:g}{mark}"
    return Row(
        task.name,
        task.what,
        task.unit,
        ours,
        theirs,
        ratio,
        wanted,
        judged <= task.limit,
        len(pairs),
    )


def skipped(task: Task, reason: str) -> Row:
    return Row(task.name, task.what, task.unit, skipped=reason)


def missing(task: Task) -> str | None:
    """The reason why this row cannot be measured on this host; None if it can be measured."""
    if shutil.which(QEMU) is None:
        return f"{QEMU} is not installed"
    absent = [path for path in task.guest.files if not path.exists()]
    if not absent:
        return None
    cure = "; run make guests" if FETCHED in absent[0].parents else ""
    return f"{absent[0].relative_to(ROOT)} is missing{cure}"


# -- running --


def our_command(guest: Guest) -> list[str]:
    more = [] if guest.initrd is None else ["--initrd", str(guest.initrd)]
    more += ["--append", guest.append] if guest.append else []
    cpus = ["--cpus", str(guest.cpus)]
    return [sys.executable, "-m", "armvirt", "run", str(guest.image), *OUR_ARGUMENTS, *cpus, *more]


def qemu_command(guest: Guest) -> list[str]:
    more = [] if guest.initrd is None else ["-initrd", str(guest.initrd)]
    more += ["-append", guest.append] if guest.append else []
    return [QEMU, *QEMU_ARGUMENTS, "-smp", str(guest.cpus), "-kernel", str(guest.image), *more]


def other_command(guest: Guest) -> list[str]:
    """The command with which ``guest`` is compared."""
    return qemu_command(guest) if guest.beside is None else our_command(guest.beside)


def environment() -> dict[str, str]:
    """The environment of this process, with this source tree first on the path, and with compiled
    bytecode as in an installation."""
    environment = {
        name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"
    }
    environment["PYTHONPATH"] = os.pathsep.join(
        filter(None, (str(ROOT), os.environ.get("PYTHONPATH")))
    )
    return environment


def run(command: Sequence[str], says: bytes) -> Sample:
    """Run one program to its end. RuntimeError if it fails or hangs, or if ``says`` is not in its
    output.

    The peak of resident memory that the kernel reports is at least that of this process (about 20
    MB), because the child shares its memory until the child executes the program.
    """
    with tempfile.TemporaryFile() as output:
        begin = time.perf_counter()
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment(),
        )
        watchdog = threading.Timer(PATIENCE_S, child.kill)
        watchdog.start()
        _, status, usage = os.wait4(child.pid, 0)
        seconds = time.perf_counter() - begin
        watchdog.cancel()
        child.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        said = output.read()
    if child.returncode or says not in said:
        last = said.decode("utf-8", "replace").strip().splitlines()[-1:] or ["no output"]
        raise RuntimeError(f"{Path(command[0]).name} ended with {child.returncode}: {last[0]}")
    return Sample(seconds, usage.ru_maxrss * 1024 / 1e6)


def measure(guest: Guest, runs: int) -> list[Pair]:
    return [
        (run(our_command(guest), guest.says), run(other_command(guest), guest.says))
        for _ in range(runs)
    ]


def rows(tasks: Iterable[Task], runs: int) -> Iterator[Row]:
    """Measure each row that can be measured; tasks with the same guest share its runs."""
    measured: dict[Guest, list[Pair]] = {}
    for task in tasks:
        if reason := missing(task):
            yield skipped(task, reason)
            continue
        try:
            if not measured:
                measure(HELLO, 1)  # not counted: compiles the bytecode, fills the page cache
            for guest in (task.guest, HELLO) if task.unit == "ns" else (task.guest,):
                if guest not in measured:
                    measured[guest] = measure(guest, runs)
        except RuntimeError as error:
            yield skipped(task, str(error))._replace(holds=False)
        else:
            yield row_of(task, measured[task.guest], measured.get(HELLO, ()))


# -- the table --

HEADER = ("what", "armvirt", "qemu", "ratio", "wanted", "holds")
WIDTHS = (42, 10, 10, 7, 10, 5)


def line(cells: Sequence[str]) -> str:
    """A line of the table: the first column is left-aligned, the others are right-aligned."""
    first, *others = (f"{cell:{'<' if n == 0 else '>'}{WIDTHS[n]}}" for n, cell in enumerate(cells))
    return "  ".join([first, *others]).rstrip()


def cells(row: Row) -> tuple[str, ...]:
    """The texts of a row: seconds with three digits after the point, megabytes with one,
    nanoseconds with none."""
    digits = {"s": 3, "MB": 1, "ns": 0}[row.unit]
    ours, theirs = (f"{n:,.{digits}f} {row.unit}" for n in (row.armvirt, row.qemu))
    holds = "-" if row.wanted == "-" else "yes" if row.holds else "NO"
    return row.what, ours, theirs, f"{row.ratio:.2f}", row.wanted, holds


def table_line(row: Row) -> str:
    if row.skipped:
        return f"{row.what:{WIDTHS[0]}}  {'skipped' if row.holds else 'FAILED'}: {row.skipped}"
    return line(cells(row))


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Compare armvirt's speed with QEMU's.")
    parser.add_argument(
        "--runs", type=int, default=RUNS, metavar="N", help=f"runs of each program (default {RUNS})"
    )
    parser.add_argument("--only", choices=[task.name for task in TASKS], metavar="NAME", action="append",
                        help=f"measure only this row: {', '.join(task.name for task in TASKS)}")  # fmt: skip
    parser.add_argument("--json", metavar="FILE", help="also write the rows to FILE")
    options = parser.parse_args(argv)
    if options.runs < 1:
        parser.error("--runs must be at least 1")
    print(line(HEADER), flush=True)
    done = []
    for row in rows(
        (task for task in TASKS if not options.only or task.name in options.only), options.runs
    ):
        print(table_line(row), flush=True)
        done.append(row)
    if options.json:
        Path(options.json).write_text(
            json.dumps([row._asdict() for row in done], indent=1) + "\n", encoding="utf-8"
        )
    return 0 if all(row.holds for row in done) else 1


if __name__ == "__main__":
    sys.exit(main())
