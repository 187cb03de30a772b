"""A worker process of ``armvirt test``. The worker reads one case (a guest with its settings and
its expected result) as JSON from standard input, runs the guest, and prints the outcome as JSON.

Each guest has its own process. A crash, even of the engine's C code, is an error of this guest
alone. A worker ends when its parent ends for any reason.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from dataclasses import asdict
from typing import Any

from armvirt.cli import printing
from armvirt.cli.interrupt import signals
from armvirt.errors import ArmvirtError, LimitError, UserError
from armvirt.machine.watch import Watch
from armvirt.suite.case import Case
from armvirt.suite.outcome import Outcome, Tail, outcome_of

PR_SET_PDEATHSIG = 1  # prctl(2)


def run_case(case: Case) -> Outcome:
    """Run the guest of one case and return the outcome. An error becomes an outcome, too.
    Exception: with ``debug`` in the case, an internal error is raised, so that its traceback is
    printed. The time to load the guest counts toward the timeout."""
    started = time.monotonic()
    watch = Watch(case.timeout_s)
    with signals(watch):
        try:
            return _run(case, watch, started)
        except LimitError as error:
            seconds = time.monotonic() - started
            return Outcome(
                case.name, case.expect, "limit", case.accepts("limit"), str(error), seconds=seconds
            )


def _run(case: Case, watch: Watch, started: float) -> Outcome:
    try:
        tail = Tail()
        machine = tail.attach(case.machine(sinks=[tail], watch=watch))
        return outcome_of(case, machine, case.run(machine), tail, time.monotonic() - started)
    except LimitError:
        raise
    except UserError as error:
        problem = str(error)
    except ArmvirtError as error:
        if case.debug:
            raise
        problem = f"internal error: {error}"
    except Exception as error:
        if case.debug:
            raise
        problem = f"internal error: {type(error).__name__}: {error}"
    return Outcome(case.name, case.expect, error=problem, seconds=time.monotonic() - started)


def encode(case: Case) -> str:
    """The case as JSON text."""
    return json.dumps(asdict(case))


def end_with_parent(parent: int) -> None:
    """Make the kernel kill this process when its parent process ends for any reason. ``parent`` is
    the process id of the parent process.

    Ctrl-C sends SIGINT to every process of the terminal. A worker ignores SIGINT, because its
    parent ends the worker.
    """
    import ctypes

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    libc = ctypes.CDLL(None)
    if hasattr(libc, "prctl"):
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # the parent ended before the call
        os._exit(1)


def main() -> int:
    """Read a case from standard input; print its outcome as the last line of standard output. The
    only argument is the parent's process id."""
    end_with_parent(int(sys.argv[1]))
    data: dict[str, Any] = json.loads(sys.stdin.read())
    outcome = run_case(Case(**data))
    printing.line(json.dumps(outcome.data()), fold=False)
    printing.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
