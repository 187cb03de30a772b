"""A worker of ``armvirt test``: runs one case, given as JSON on standard input, and prints its outcome as JSON.

One process per guest: a crash, even of the engine's C code, is that guest's error and no other's.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict
from typing import Any

from armvirt.cli import printing
from armvirt.cli.outcome import Outcome, Tail, outcome_of
from armvirt.errors import ArmvirtError, UserError
from armvirt.suite import Case


def run_case(case: Case) -> Outcome:
    """Run one guest; whatever goes wrong is its outcome."""
    started = time.monotonic()
    try:
        tail = Tail()
        machine = case.machine(sinks=[tail])
        return outcome_of(case, machine, case.run(machine), tail, time.monotonic() - started)
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
    """A case as JSON."""
    return json.dumps(asdict(case))


def main() -> int:
    """Standard input: a case. Last line of standard output: its outcome."""
    data: dict[str, Any] = json.loads(sys.stdin.read())
    outcome = run_case(Case(**data))
    printing.line(json.dumps(outcome.data()))
    printing.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
