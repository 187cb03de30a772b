"""Runs the cases of a suite in worker processes, several at a time. A case is one guest with its
settings and its expected result (`armvirt.suite.case`).

No worker runs longer than the command. `run_all` kills all workers when it ends, also after an
exception. If the command itself is killed, the kernel kills the workers (`armvirt.cli.worker`).
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from time import monotonic
from typing import IO

from armvirt.cli.worker import encode
from armvirt.suite.case import Case
from armvirt.suite.outcome import Outcome

GRACE_S = 5.0  # seconds after a guest's own timeout until its process is killed
READ = 1 << 16
LONGEST_WAIT_S = 3600.0  # seconds of one wait; epoll_wait(2) accepts at most 24 days

Report = Callable[[Outcome], None]


def command() -> list[str]:
    """The command line that starts a worker process."""
    return [sys.executable, "-m", "armvirt.cli.worker", str(os.getpid())]


class Worker:
    """A worker process that runs one case, which is a guest with its settings and its expected
    result. ``index`` is the position of the case in the suite."""

    def __init__(self, index: int, case: Case) -> None:
        self.index, self.case = index, case
        self.patience_s = case.timeout_s + GRACE_S
        self.deadline = monotonic() + self.patience_s
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command(), stdin=pipe, stdout=pipe, stderr=pipe)
        self._said: dict[IO[bytes], bytearray] = {stream: bytearray() for stream in self.streams}

    @property
    def streams(self) -> tuple[IO[bytes], IO[bytes]]:
        """Standard output and standard error of the worker process."""
        process = self.process
        assert process.stdout is not None and process.stderr is not None
        return process.stdout, process.stderr

    def begin(self) -> None:
        """Send the case to the worker process."""
        stdin = self.process.stdin
        assert stdin is not None
        try:
            with stdin:
                stdin.write(encode(self.case).encode())
        except BrokenPipeError:
            pass  # the process has ended already; the outcome says why

    def read(self, stream: IO[bytes]) -> bool:
        """Read output of the worker process from ``stream``, which has data or is at its end.
        Returns False at the end of the stream."""
        data = os.read(stream.fileno(), READ)
        self._said[stream] += data
        return bool(data)

    def kill(self) -> None:
        """Kill the worker process if it has not exited, wait for it, and close its pipes."""
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, *self.streams):
            if stream is not None:
                stream.close()

    def outcome(self) -> Outcome:
        """End the worker process and return the outcome of its case. This method is called after
        both streams have ended, or after the deadline has passed."""
        case, hung = self.case, monotonic() >= self.deadline
        if hung:
            self.kill()
            return Outcome(
                case.name, case.expect, error=f"its process hung; ended after {self.patience_s:g} s"
            )
        status = self.process.wait()
        self.kill()
        out, err = (bytes(self._said[stream]).decode("utf-8", "replace") for stream in self.streams)
        lines = out.splitlines()
        if status or not lines:
            trace = err.strip() if case.debug else ""
            return Outcome(case.name, case.expect, error=trace or _death(status, err))
        return Outcome(**json.loads(lines[-1]))


def run_all(
    cases: Sequence[Case], jobs: int, started: Callable[[Case], None], finished: Report
) -> list[Outcome]:
    """Run all cases, at most ``jobs`` at a time. Returns the outcomes in the order of the cases.
    The function ``started`` is called with each case when the case starts. The function
    ``finished`` is called with the outcome of each case when the case has ended."""
    outcomes: dict[int, Outcome] = {}
    waiting = list(enumerate(cases))[::-1]
    running: list[Worker] = []
    with selectors.DefaultSelector() as selector:
        try:
            while waiting or running:
                while waiting and len(running) < jobs:
                    running.append(_start(selector, *waiting.pop()))
                    started(running[-1].case)
                for worker in _ended(selector, running):
                    running.remove(worker)
                    outcomes[worker.index] = outcome = worker.outcome()
                    finished(outcome)
        finally:
            for worker in running:
                worker.kill()
    return [outcomes[index] for index in range(len(cases))]


def run_one(case: Case) -> Outcome:
    """Run one case in its own process, and return the outcome."""
    return run_all([case], 1, lambda _: None, lambda _: None)[0]


def _start(selector: selectors.BaseSelector, index: int, case: Case) -> Worker:
    worker = Worker(index, case)
    try:
        for stream in worker.streams:
            selector.register(stream, selectors.EVENT_READ, (worker, stream))
        worker.begin()
    except BaseException:
        worker.kill()
        raise
    return worker


def _ended(selector: selectors.BaseSelector, running: Sequence[Worker]) -> list[Worker]:
    """Wait until a worker prints output or a worker's deadline passes, and read the output. Returns
    the workers that have ended or whose deadline has passed."""
    patience = min(worker.deadline for worker in running) - monotonic()
    for key, _ in selector.select(min(max(0.0, patience), LONGEST_WAIT_S)):
        worker, stream = key.data
        if not worker.read(stream):
            selector.unregister(stream)
    open_streams = {id(key.data[0]) for key in selector.get_map().values()}
    now = monotonic()
    ended = [
        worker for worker in running if id(worker) not in open_streams or now >= worker.deadline
    ]
    for worker in ended:
        for stream in worker.streams:
            if stream in selector.get_map():
                selector.unregister(stream)
    return ended


def _death(status: int, err: str) -> str:
    """The reason, as text, why a worker ended without an outcome. ``status`` is its exit status, or
    the negative number of the signal that ended it. ``err`` is its standard error."""
    if status < 0:
        try:
            name = signal.Signals(-status).name
        except ValueError:
            name = f"signal {-status}"
        return f"its process crashed ({name})"
    last = err.strip().splitlines()[-1:] or ["no message"]
    return f"its process ended with status {status}: {last[0]}"
