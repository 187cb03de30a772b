"""Linux with 1 to 8 CPUs on 1 to 4 physical CPUs: its self-test, with a row for each machine.

    python tools/linux_matrix.py                               1, 2, 4 and 8 on 1, 2 and 4
    python tools/linux_matrix.py --cpus 4 --pcpus 2 --runs 10  one machine, ten runs, which must be equal
    python tools/linux_matrix.py --load 20                     more rounds of load
    python tools/linux_matrix.py --gic 2                       on a GICv2

The guest (`make guests`; tools/initramfs/autorun-smp.sh) switches all CPUs on, counts the timer
interrupts of each CPU, works under load, switches each CPU but the first off and on again, and
powers off. A row has the guest's verdict, its time, the instructions of all its CPUs, the seconds
of the host and the trace hash; the errors are printed below it. The exit status is 1 if a machine
fails, or if its runs differ.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import make_initramfs

from armvirt.errors import UserError
from armvirt.machine import Machine, Result

ROOT = Path(__file__).resolve().parent.parent
FETCHED = ROOT / ".cache" / "guests"
CPUS, PCPUS = (1, 2, 4, 8), (1, 2, 4)
LOAD = 2
LIMIT_NS = 60_000_000_000
HEADER = f"{'vCPUs':>5} {'pCPUs':>5} {'verdict':8} {'guest s':>8} {'instructions':>15} {'host s':>7}  trace hash"


class Row(NamedTuple):
    """The runs on one machine: the result of the first run, the seconds of the host for each run,
    and the errors."""

    cpus: int
    pcpus: int
    result: Result
    host_s: float
    wrong: tuple[str, ...]

    def __str__(self) -> str:
        result = self.result
        verdict = "fail" if self.wrong and result.verdict == "pass" else result.verdict
        figures = f"{result.ns / 1e9:8.3f} {result.insns:15,} {self.host_s:7.1f}"
        row = f"{self.cpus:5} {self.pcpus:5} {verdict:8} {figures}  {str(result.trace_hash)[:16]}"
        return "\n      ".join((row, *self.wrong))


def initramfs(folder: Path) -> Path:
    """The fetched initramfs with the present scripts, written to ``folder``."""
    path = folder / "initramfs.cpio"
    path.write_bytes(make_initramfs.renew((FETCHED / path.name).read_bytes()))
    return path


def options(cpus: int, pcpus: int, initrd: Path, load: int = LOAD, gic: int = 3) -> dict[str, Any]:
    """The arguments of `Machine` except the image."""
    append = f"console=ttyAMA0 autorun smp load={load}"
    return {"initrd": initrd, "append": append, "cpus": cpus, "pcpus": pcpus, "gic": gic}


def boot(machine: dict[str, Any]) -> Result:
    """A run from power-on to power-off."""
    with Machine(FETCHED / "Image", **machine) as linux:
        return linux.run(max_time_ns=LIMIT_NS)


def steps(cpus: int) -> list[str]:
    """The lines that the self-test prints with this number of CPUs. With this list, a test that
    leaves out a step does not pass."""
    lines = [f"AUTORUN: {cpus} cpu(s)", "ok - all CPUs are online"]
    lines += [f"ok - CPU {cpu} takes its own timer interrupts" for cpu in range(cpus)]
    lines += ["ok - two jobs a CPU of forks, pipes and sleeps side by side"]
    lines += ["ok - sleeps of a second on every CPU beside them take about a second"]
    lines += [f"ok - CPU {cpu} took timer interrupts under load" for cpu in range(cpus)]
    for cpu in range(1, cpus):
        lines += [f"psci: CPU{cpu} killed", f"ok - CPU {cpu} goes offline, and the others work on"]
        lines += [
            f"ok - CPU {cpu} comes back",
            f"ok - CPU {cpu} works again and takes its timer interrupts",
        ]
    return [*lines, "ok - a job a CPU beside it, all right", "VERDICT: PASS", "reboot: Power down"]


def wrong_with(result: Result, cpus: int) -> list[str]:
    """The errors of a run, one line each."""
    wrong = [result.diagnosis] if result.diagnosis else []
    wrong += [line for line in result.console.splitlines() if line.startswith("FAIL - ")]
    at = 0
    for step in steps(cpus):
        found = result.console.find(step, at)
        if found < 0:
            return [*wrong, f"not printed, or out of order: {step}"]
        at = found
    return wrong


def measure(machine: dict[str, Any], runs: int) -> Row:
    """One machine, ``runs`` times."""
    cpus, pcpus = machine["cpus"], machine["pcpus"]
    started = time.monotonic()
    result, *others = (boot(machine) for _ in range(runs))
    seconds = (time.monotonic() - started) / runs
    wrong = wrong_with(result, cpus)
    if any(other[:5] != result[:5] for other in others):
        hashes = {str(each.trace_hash)[:16] for each in (result, *others)}
        wrong.append(f"{runs} runs are not one: {', '.join(sorted(hashes))}")
    return Row(cpus, pcpus, result, seconds, tuple(wrong))


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    numbers = lambda text: [int(number) for number in text.split(",")]  # noqa: E731
    parser.add_argument(
        "--cpus",
        type=numbers,
        default=list(CPUS),
        help="numbers of CPUs of the guest (default: 1,2,4,8)",
    )
    parser.add_argument(
        "--pcpus",
        type=numbers,
        default=list(PCPUS),
        help="numbers of physical CPUs (default: 1,2,4)",
    )
    parser.add_argument(
        "--gic",
        type=int,
        choices=(2, 3),
        default=3,
        help="GIC version (default: %(default)s)",
    )
    parser.add_argument(
        "--load", type=int, default=LOAD, help="rounds of work of each job (default: %(default)s)"
    )
    parser.add_argument(
        "--runs", type=int, default=1, help="runs of each machine (default: %(default)s)"
    )
    parsed = parser.parse_args(arguments)
    if min(parsed.runs, parsed.load) < 1:
        parser.error("--runs and --load are 1 or more")
    return parsed


def main(arguments: Sequence[str] | None = None) -> int:
    parsed, failed = parse(arguments), False
    try:
        with tempfile.TemporaryDirectory() as folder:
            initrd = initramfs(Path(folder))
            print(HEADER, flush=True)
            for cpus in parsed.cpus:
                for pcpus in parsed.pcpus:
                    row = measure(
                        options(cpus, pcpus, initrd, parsed.load, parsed.gic), parsed.runs
                    )
                    failed |= bool(row.wrong)
                    print(row, flush=True)
    except (UserError, OSError) as error:
        print(f"{error} (is it fetched? make guests)", file=sys.stderr)
        return 2
    print("a machine fails" if failed else "every machine passes")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
