"""Runs of the programs that `make bench` compares: time and memory, and their medians."""

from __future__ import annotations

import os
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import differential
from bench_rows import Command

from armvirt import script

ROOT = Path(__file__).resolve().parent.parent
PATIENCE_S = 300.0  # the maximum time of a run


class Sample(NamedTuple):
    """One run: wall-clock seconds, and the peak resident set in MB (10**6 bytes; 0 if it was not
    measured)."""

    seconds: float
    megabytes: float


class Figures(NamedTuple):
    """The median of several runs, and their quartiles."""

    median: float
    low: float
    high: float

    @property
    def spread(self) -> float:
        """Half the distance of the quartiles, as a part of the median."""
        return (self.high - self.low) / 2 / abs(self.median) if self.median else 0.0


def figures(values: Sequence[float]) -> Figures:
    """The median and the quartiles of ``values``; one value is its own quartile."""
    if len(values) == 1:
        return Figures(values[0], values[0], values[0])
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return Figures(median, low, high)


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


def run(command: Command) -> Sample:
    """Run one program to its end. RuntimeError if the program fails or hangs, or if the text that
    the command names is not in its output."""
    return run_quiet(command) if command.script is None else converse(command)


def run_quiet(command: Command) -> Sample:
    """`run` for a program without input.

    The peak of resident memory that the kernel reports is at least that of this process (about 20
    MB), because the child shares its memory until the child executes the program.
    """
    with tempfile.TemporaryFile() as output:
        begin = time.perf_counter()
        child = subprocess.Popen(
            command.words,
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
    if child.returncode or command.says not in said:
        raise _failure(command, f"ended with {child.returncode}", said.decode("utf-8", "replace"))
    return Sample(seconds, usage.ru_maxrss * 1024 / 1e6)


def converse(command: Command) -> Sample:
    """`run` for a program whose input is a script: each text is sent when the text before it has
    been printed."""
    assert command.script is not None
    steps = script.load(command.script)
    ended = differential.Conversation(command.words, steps, PATIENCE_S).run()
    if ended.timed_out or command.says.decode() not in ended.output:
        raise _failure(command, "did not end as expected", ended.output)
    return Sample(ended.seconds, 0.0)


def _failure(command: Command, how: str, said: str) -> RuntimeError:
    last = said.strip().splitlines()[-1:] or ["no output"]
    return RuntimeError(f"{Path(command.words[0]).name} {how}: {last[0]}")


def measure(commands: Sequence[Command], runs: int) -> list[list[Sample]]:
    """Run the programs in turn, ``runs`` times. Returns the samples of each program."""
    rounds = [[run(command) for command in commands] for _ in range(runs)]
    return [list(samples) for samples in zip(*rounds, strict=True)]
