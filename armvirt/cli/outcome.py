"""What came of one guest of a suite, as plain data that passes between processes."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from armvirt.trace.jsonl import record

if TYPE_CHECKING:
    from armvirt.machine import Machine, Result
    from armvirt.suite import Case

CONSOLE_LINES = 12
EVENTS = 12


@dataclass
class Outcome:
    """``ok``: as expected. ``error`` is set where there is no verdict: bad input, our own fault, a crash."""

    name: str
    expect: str
    verdict: str = "error"
    ok: bool = False
    diagnosis: str = ""
    error: str = ""
    ns: int = 0
    insns: int = 0
    seconds: float = 0.0
    console: list[str] = field(default_factory=list)
    events: list[str] = field(default_factory=list)

    def data(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def headline(self) -> str:
        """What is to be said in one line about a guest that is not as expected."""
        if self.error:
            return self.error
        reason = f": {self.diagnosis}" if self.diagnosis else ""
        return f"expected {self.expect}, got {self.verdict}{reason}"


def outcome_of(case: Case, machine: Machine, result: Result, seconds: float) -> Outcome:
    """The outcome of a run that came to a verdict."""
    ok = case.accepts(result.verdict)
    outcome = Outcome(
        case.name, case.expect, result.verdict, ok, result.diagnosis, "", result.ns, result.insns, seconds
    )
    if not ok:
        outcome.console = console_tail(result)
        outcome.events = event_tail(machine, result)
    return outcome


def console_tail(result: Result) -> list[str]:
    """The last lines of the guest's console, fit for a terminal."""
    lines = result.console.replace("\r", "").splitlines()[-CONSOLE_LINES:]
    return ["".join(c if c.isprintable() or c == "\t" else "?" for c in line) for line in lines]


def event_tail(machine: Machine, result: Result) -> list[str]:
    """The last events that are not console output, one line each."""
    lookup = machine.symbols.lookup if machine.symbols else None
    shown = [pair for pair in result.recent if pair[1].kind != "console"][-EVENTS:]
    lines = []
    for stamp, event in shown:
        data = record(stamp, event)
        fields = " ".join(f"{name}={value}" for name, value in list(data.items())[5:])
        where = (lookup(stamp.pc) if lookup else None) or data["pc"]
        lines.append(f"{stamp.ns:>14,} ns  cpu {stamp.vcpu}  {event.kind:<11} {fields}  {where}")
    return lines
