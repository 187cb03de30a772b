"""The output of `make demo`, one screen: a timer interrupt from its cause to its end, and an
interrupt that never comes.

All numbers are those of runs that are made now; only the texts between them are in this file.
"""

from __future__ import annotations

import sys
import textwrap

from armvirt import Machine
from armvirt.board.virt import memmap
from armvirt.intids import IntidNames
from armvirt.trace.lifecycle import STEPS, Summary
from armvirt.trace.render import Lookup, location
from armvirt.trace.timeline import Row, Timeline
from armvirt.views.explain import LastWriters

COLUMNS = 80
TICKING, STUCK, INTID = "vtimer-tick", "wfi-forever", 27
CNTFRQ = 62_500_000


def ticks() -> tuple[list[str], Summary, str]:
    """The timeline up to the end of the first interrupt, the summary of all interrupts, and the
    trace hash of the run."""
    rows: list[Row] = []
    timeline = Timeline(rows.append, CNTFRQ, IntidNames(memmap))
    with Machine(TICKING, cntfrq=CNTFRQ, sinks=[timeline]) as machine:
        result, lookup = machine.run(), machine.symbols.lookup if machine.symbols else None
    last = next(number for number, row in enumerate(rows) if row.stage == "eoi")
    shown = [line(row, lookup) for row in rows[: last + 1] if row.stage != "console"]
    (summary,) = timeline.summaries()
    return shown, summary, str(result.trace_hash)


def stuck() -> tuple[str, str]:
    """How the guest ended that waits in vain, and why its interrupt does not come."""
    with Machine(STUCK, sinks=[LastWriters()]) as machine:
        result = machine.run()
        return result.verdict, machine.explain(INTID).verdict


def line(row: Row, lookup: Lookup | None) -> str:
    """One row of the timeline, as `armvirt trace` prints it. The code location is left out if the
    row is too long."""
    shown = f"{row.ns:>11,} {f'+{row.delta:,}':>10} {row.stage:<8} {row.text}"
    where = f"{shown} {location(row, lookup)}".rstrip()
    return where if len(where) <= COLUMNS else shown


def command(words: str, remark: str) -> str:
    """The command that the user can type, and a comment on it."""
    return f"$ armvirt {words:<{40}}{remark}"


def story() -> list[str]:
    """The lines of the screen: at most 24, as make and pip print a line each, of at most `COLUMNS`
    characters."""
    rows, summary, trace_hash = ticks()
    verdict, why = stuck()
    latency, period = summary.steps[STEPS[-1]][0], summary.period_ns
    assert latency is not None and period is not None
    return [
        command(f"trace {TICKING}", f"the first of {summary.fired} timer ticks"),
        f"{'time ns':>11} {'delta':>10} event",
        *rows,
        f"  fire to eoi: {latency.least} to {latency.greatest} ns"
        f"     fire to next fire: {period.least:,} to {period.greatest:,} ns",
        "",
        command(f"explain {STUCK} --intid {INTID}", f"why it is {verdict}"),
        *textwrap.wrap(why, COLUMNS - 2, initial_indent="  ", subsequent_indent="  "),
        "",
        command(f"run {TICKING} --trace-hash", "the same on every machine"),
        f"  {trace_hash}",
        "",
        "Next: armvirt list; armvirt run hello; armvirt run YOUR.elf; README.md",
    ]


def main() -> int:
    """Print the screen."""
    print("\n".join(story()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
