"""Runs the bundled guests under QEMU and under armvirt, and compares their output.

    python tools/differential.py                  every guest of the manifest with ``qemu = true``
    python tools/differential.py wfi oneshot      only these guests
    python tools/differential.py --gic 3 --cpus 2 only these machines
    python tools/differential.py --qemu-only      only QEMU: the verdict of each guest

A guest runs once on each machine of its row: with each GIC version and each number of CPUs. Only
the lines of the judgement (``ok``, ``FAIL``, ``VERDICT``) are compared; other lines, with measured
values, are not. A guest with ``differs`` in its row of the manifest must differ. Exit status: 0 as
expected, 1 not as expected, 2 no comparison was possible.
"""

from __future__ import annotations

import argparse
import difflib
import os
import re
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from armvirt.bundled import FOLDER, Guest, Setup, guests, parse_toml
from armvirt.script import Expect, Script, Send

ROOT = Path(__file__).resolve().parent.parent
QEMU = "qemu-system-aarch64"
QEMU_ARGUMENTS = "-cpu cortex-a72 -icount shift=0,sleep=off -nographic".split()
JUDGEMENT = re.compile(r"(ok - |FAIL - |VERDICT: )")


@dataclass(frozen=True)
class Run:
    """One guest on one machine: its console output, the seconds of the host, and whether the time
    limit ended the run."""

    output: str
    seconds: float
    timed_out: bool

    @property
    def judgement(self) -> list[str]:
        """The lines that are compared."""
        return [line for line in self.output.splitlines() if JUDGEMENT.match(line)]

    @property
    def verdict(self) -> str:
        """The verdict in short: ``PASS (7 checks)``, or the reason why there is none."""
        last = self.judgement[-1] if self.judgement else ""
        if last.startswith("VERDICT: "):
            return last.removeprefix("VERDICT: ")
        return "timed out" if self.timed_out else "no verdict"


class Conversation:
    """A process whose console is connected to pipes. The script answers the texts for which it
    waits; all output is collected."""

    def __init__(self, command: Sequence[str], script: Script | None, timeout: float) -> None:
        self._steps = list(script or ())
        self._started = time.monotonic()
        self._deadline = self._started + timeout
        self._output = b""
        self._seen = 0
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=ROOT,
        )

    def run(self) -> Run:
        """Run until the process closes its output, or the time limit is reached."""
        try:
            while self._receive():
                self._answer()
            timed_out = time.monotonic() >= self._deadline
        finally:
            self._process.kill()
            self._process.communicate()
        text = self._output.decode(errors="replace").replace("\r", "")
        return Run(text, time.monotonic() - self._started, timed_out)

    def _receive(self) -> bool:
        assert self._process.stdout is not None
        left = self._deadline - time.monotonic()
        if left <= 0 or not select.select([self._process.stdout], [], [], left)[0]:
            return False
        chunk = os.read(self._process.stdout.fileno(), 65536)
        self._output += chunk
        return bool(chunk)

    def _answer(self) -> None:
        while self._steps and self._step(self._steps[0]):
            self._steps.pop(0)

    def _step(self, step: Expect | Send) -> bool:
        """Perform one step of the script; False if the step has to wait."""
        if isinstance(step, Send):
            assert self._process.stdin is not None
            self._process.stdin.write(step.text)
            self._process.stdin.flush()
            return True
        at = self._output.find(step.text, self._seen)
        if at < 0:
            return False
        self._seen = at + len(step.text)
        return True


def run_qemu(guest: Guest, setup: Setup, timeout: float) -> Run:
    """Run ``guest`` under QEMU, where each instruction takes the same guest time."""
    board = f"virt,gic-version={setup.gic}{',its=on' if guest.its else ''}"
    command = [
        QEMU,
        "-M",
        board,
        *QEMU_ARGUMENTS,
        "-smp",
        str(setup.cpus),
        "-kernel",
        str(guest.path),
    ]
    return Conversation(command, guest.script, timeout).run()


def run_armvirt(guest: Guest, setup: Setup, timeout: float, extra: Sequence[str] = ()) -> Run:
    """Run ``guest`` under armvirt, with the command of a user; ``extra`` are further options of
    ``armvirt run``."""
    machine = ["--gic", str(setup.gic), "--cpus", str(setup.cpus)]
    command = [sys.executable, "-m", "armvirt", "run", guest.name, *machine, "--no-pace", *extra]
    if guest.script is None:
        return Conversation(command, None, timeout).run()
    with tempfile.NamedTemporaryFile("w", suffix=".script", encoding="utf-8") as file:
        file.write(script_text(guest.script))
        file.flush()
        return Conversation([*command, "--script", file.name], None, timeout).run()


def script_text(script: Script) -> str:
    """``script`` in the form of a file for --script."""
    verbs = {Expect: "expect", Send: "send"}
    return "".join(f'{verbs[type(step)]} "{_escaped(step.text)}"\n' for step in script)


def _escaped(text: bytes) -> str:
    return "".join(chr(b) if 32 <= b < 127 and b not in b'"\\' else f"\\x{b:02x}" for b in text)


def differences(qemu: Run, ours: Run) -> list[str]:
    """The unified diff of the two judgements; empty if they are equal and there is a verdict."""
    if qemu.judgement == ours.judgement:
        return [] if qemu.judgement else ["neither machine printed a judgement"]
    diff = difflib.unified_diff(qemu.judgement, ours.judgement, "qemu", "armvirt", lineterm="", n=1)
    tail = ours.output.splitlines()[-5:] if "VERDICT" not in ours.output else []
    return [*diff, *(f"  armvirt's last lines: {line}" for line in tail)]


def known_differences() -> dict[str, str]:
    """The guests whose judgement under armvirt differs from QEMU's, with the reason in the
    manifest."""
    manifest = parse_toml(Path(FOLDER, "guests.toml").read_text(encoding="utf-8"))
    return {row["name"]: row["differs"] for row in manifest["guest"] if "differs" in row}


def as_expected(guest: Guest, run: Run) -> bool:
    """Whether QEMU's verdict is that of the manifest; a guest with a known difference has to pass
    under QEMU."""
    expect = "pass" if guest.name in known_differences() else guest.expect
    return run.verdict.startswith(expect.upper())


def label(guest: Guest, setup: Setup) -> str:
    """The name of a run: the guest's name, with the machine if there are several."""
    return guest.name if len(guest.setups) == 1 else f"{guest.name}[{setup}]"


def _row(name: str, *cells: str) -> None:
    print(f"{name:28}" + "".join(f"{cell:32}" for cell in cells), flush=True)


def _cell(run: Run) -> str:
    return f"{run.verdict}  {run.seconds:.2f}s"


def compare(selected: Sequence[tuple[Guest, Setup]], timeout: float, extra: Sequence[str]) -> int:
    """Run each guest under both programs; returns the number of results that are not as
    expected."""
    bad = 0
    known = known_differences()
    _row("guest", "qemu", "armvirt", "")
    for guest, setup in selected:
        with ThreadPoolExecutor(2) as pool:
            theirs = pool.submit(run_qemu, guest, setup, timeout)
            ours = pool.submit(run_armvirt, guest, setup, timeout, extra)
        lines = differences(theirs.result(), ours.result())
        outcome = _outcome(bool(lines), guest.name in known)
        _row(label(guest, setup), _cell(theirs.result()), _cell(ours.result()), outcome)
        for line in [known[guest.name]] if guest.name in known else lines:
            print(f"    {line}")
        bad += bool(lines) != (guest.name in known)
    return bad


def _outcome(different: bool, known: bool) -> str:
    if known:
        return "known difference" if different else "SAME, the manifest says it differs"
    return "DIFFERENT" if different else "same"


def qemu_only(selected: Sequence[tuple[Guest, Setup]], timeout: float) -> int:
    """Run each guest under QEMU; returns the number of runs that do not end as the manifest
    expects."""
    bad = 0
    _row("guest", "qemu", "")
    for guest, setup in selected:
        run = run_qemu(guest, setup, timeout)
        good = as_expected(guest, run)
        _row(label(guest, setup), _cell(run), "as expected" if good else "NOT AS EXPECTED")
        for line in run.judgement:
            if line.startswith("FAIL") and guest.expect == "pass":
                print(f"    {line}")
        bad += not good
    return bad


def _select(
    names: Sequence[str], gics: Sequence[int], cpus: Sequence[int]
) -> list[tuple[Guest, Setup]]:
    known = guests()
    unknown = [name for name in names if name not in known]
    if unknown:
        raise SystemExit(f"differential: no bundled guest {', '.join(unknown)}")
    return [
        (guest, setup)
        for guest in known.values()
        if (guest.name in names if names else guest.qemu)
        for setup in guest.setups
        if (not gics or setup.gic in gics) and (not cpus or setup.cpus in cpus)
    ]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        description="Compare the bundled guests under QEMU and armvirt."
    )
    parser.add_argument(
        "names", nargs="*", metavar="GUEST", help="bundled guests (default: all that apply)"
    )
    parser.add_argument(
        "--gic", type=int, action="append", default=[], help="only this GIC version; repeatable"
    )
    parser.add_argument(
        "--cpus", type=int, action="append", default=[], help="only this number of CPUs; repeatable"
    )
    parser.add_argument("--qemu-only", action="store_true", help="run only QEMU")
    parser.add_argument(
        "--timeout",
        type=float,
        default=120.0,
        help="time limit of each run in seconds of the host (default 120)",
    )
    parser.add_argument("--engine", choices=("native", "portable"), help="armvirt's engine")
    options = parser.parse_args(argv)
    selected = _select(options.names, options.gic, options.cpus)
    if shutil.which(QEMU) is None:
        print(
            f"{QEMU} is not installed; on Debian: apt-get install qemu-system-arm", file=sys.stderr
        )
        return 2
    if options.qemu_only:
        bad = qemu_only(selected, options.timeout)
    else:
        extra = ["--engine", options.engine] if options.engine else []
        bad = compare(selected, options.timeout, extra)
    print(f"{len(selected)} runs, {bad} {'unexpected' if options.qemu_only else 'different'}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
