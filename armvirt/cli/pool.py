"""Runs the cases of a suite in worker processes, a few at a time."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

from armvirt.cli.outcome import Outcome
from armvirt.cli.worker import encode
from armvirt.suite import Case

GRACE_S = 20.0  # on top of a guest's own timeout, before its process is ended from outside

Report = Callable[[Outcome], None]


def run_all(cases: Sequence[Case], jobs: int, started: Callable[[Case], None], finished: Report) -> list[Outcome]:
    """Run every case; ``started`` and ``finished`` are called in this thread. Outcomes in the order of the cases."""
    outcomes: dict[int, Outcome] = {}
    with ThreadPoolExecutor(jobs) as pool:
        waiting = list(enumerate(cases))[::-1]
        running: dict[Future[Outcome], int] = {}
        try:
            while waiting or running:
                while waiting and len(running) < jobs:
                    index, case = waiting.pop()
                    started(case)
                    running[pool.submit(run_one, case)] = index
                done, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    outcomes[running.pop(future)] = outcome = future.result()
                    finished(outcome)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return [outcomes[index] for index in range(len(cases))]


def run_one(case: Case) -> Outcome:
    """Run one case in a process of its own."""
    command = [sys.executable, "-m", "armvirt.cli.worker"]
    try:
        done = subprocess.run(
            command, input=encode(case), capture_output=True, text=True, timeout=case.timeout_s + GRACE_S
        )
    except subprocess.TimeoutExpired:
        return Outcome(case.name, case.expect, error=f"its process hung; ended after {case.timeout_s + GRACE_S:g} s")
    lines = done.stdout.splitlines()
    if done.returncode or not lines:
        trace = done.stderr.strip() if case.debug else ""
        return Outcome(case.name, case.expect, error=trace or _death(done))
    return Outcome(**json.loads(lines[-1]))


def _death(done: subprocess.CompletedProcess[str]) -> str:
    """How a worker died that gave no outcome."""
    if done.returncode < 0:
        try:
            name = signal.Signals(-done.returncode).name
        except ValueError:
            name = f"signal {-done.returncode}"
        return f"its process crashed ({name})"
    last = done.stderr.strip().splitlines()[-1:] or ["no message"]
    return f"its process ended with status {done.returncode}: {last[0]}"
