"""Formats a timeline: in colour with rich for a terminal, else as plain text. The functions return
strings or rich objects."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from armvirt.intids import IntidNames
from armvirt.tables import Table
from armvirt.trace.lifecycle import STEPS, Life, Statistics, Summary
from armvirt.trace.timeline import Row

if TYPE_CHECKING:
    from rich.text import Text

Lookup = Callable[[int], "str | None"]
HEADER = f"{'time ns':>13} {'delta':>12} cpu event    (at eoi: ns to deliver + ack + eoi)"
STYLES = {
    "program": "cyan",
    "fire": "bold yellow",
    "lower": "dim yellow",
    "its": "cyan",
    "list": "magenta",
    "deliver": "bold green",
    "ack": "green",
    "eoi": "bold blue",
    "console": "dim",
}
INDENT = 4
"""The second and further lines of a row normally start in the column where the text of the row
begins. If a word of the text is too long for this, these lines are indented by this number of
columns instead."""
STAGES_WITH_PC = ("program", "deliver")


def location(row: Row, lookup: Lookup | None) -> str:
    """The address in the guest's code for the event of a row: a symbol if the address has one, else
    the number. The result is "" for a row that shows no address."""
    if row.stage not in STAGES_WITH_PC or row.vcpu < 0:
        return ""
    return (lookup(row.pc) if lookup else None) or f"{row.pc:#x}"


def latencies(life: Life) -> str:
    """The latencies of an interrupt as text: ``12 + 328 + 680 = 1,020 ns, 1,005 insns``. The three
    summands are the times from fire to deliver, from deliver to ack, and from ack to eoi, in ns. If
    one of these stages is missing, the text has one time: from fire to eoi, or from ack
    to eoi if there is no fire. The text is "" if the interrupt has not ended."""
    steps = [latency for start, end in STEPS[:3] if (latency := life.latency(start, end))]
    total = life.latency("fire", "eoi") or life.latency("ack", "eoi")
    if total is None:
        return ""
    insns = "" if total.insns is None else f", {total.insns:,} insns"
    if len(steps) < 3:
        return f"{total.ns:,} ns since {'fire' if life.fire else 'ack'}{insns}"
    return f"{' + '.join(f'{latency.ns:,}' for latency in steps)} = {total.ns:,} ns{insns}"


def plain(row: Row, lookup: Lookup | None = None) -> str:
    """One row of the timeline as plain text."""
    cpu = str(row.vcpu) if row.vcpu >= 0 else "-"
    tail = location(row, lookup)
    if row.life is not None and (text := latencies(row.life)):
        tail = f"[{text}]"
    stage = "|" if row.stage == "console" else row.stage
    head = f"{row.ns:>13,} {f'+{row.delta:,}':>12} {cpu:>3} {stage:<8}"
    return f"{head} {row.text} {tail}".rstrip()


def coloured(row: Row, lookup: Lookup | None = None, width: int = 80) -> Text:
    """One row of the timeline for a terminal. A text that is too long continues on the next line,
    in the column where it began. A word is broken only if it is longer than the width of the
    terminal."""
    from rich.text import Text

    style = STYLES.get(row.stage, "")
    cpu = str(row.vcpu) if row.vcpu >= 0 else "-"
    stage = "│" if row.stage == "console" else row.stage
    head = Text.assemble(
        (f"{row.ns:>13,} ", "" if row.delta else "dim"),
        (f"{f'+{row.delta:,}':>12} ", "dim"),
        (f"{cpu:>3} ", "dim"),
        (f"{stage:<8} ", style),
    )
    body = Text(row.text, style if row.stage in ("fire", "console") else "")
    if row.life is not None and (text := latencies(row.life)):
        body.append(f"  {text}", "blue")
    elif where := location(row, lookup):
        body.append(f" {where}", "italic dim")
    return _under(head, body, width)


def _under(head: Text, body: Text, width: int) -> Text:
    """Append the text ``body`` to ``head``, in lines of at most ``width`` characters. The second
    and further lines of ``body`` start in the column where ``body`` begins. If a word would not fit
    there, these lines start further to the left."""
    from rich.console import Console
    from rich.text import Text

    if len(head) + len(body) <= width:
        return head.append_text(body)
    longest = max(map(len, body.plain.split()), default=0)
    indent = len(head) if len(head) + longest <= width else max(min(INDENT, width - longest), 0)
    lines = body.wrap(Console(width=width), width - indent, overflow="fold")
    below = Text("\n" + " " * indent)
    first = head if indent == len(head) else head.append_text(below)
    for line in lines:
        line.rstrip()
    return first.append_text(below.join(lines))


COLUMNS = ("", "count", "min ns", "median ns", "max ns", "min insns", "median", "max")


def summary_rows(summary: Summary) -> list[tuple[str, ...]]:
    """The rows of the summary table of one INTID. The columns are `COLUMNS`."""
    rows = [_cells(f"{start} → {end}", *summary.steps[start, end]) for start, end in STEPS]
    return [*rows, _cells("fire → next fire", summary.period_ns, None)]


def _cells(name: str, ns: Statistics | None, insns: Statistics | None) -> tuple[str, ...]:
    def three(values: Statistics | None) -> tuple[str, ...]:
        return tuple(f"{value:,}" for value in values[1:]) if values else ("-", "-", "-")

    return (name, str(ns.total if ns else 0), *three(ns), *three(insns))


def title(summary: Summary, names: IntidNames) -> str:
    return (
        f"{names.described(summary.intid)}: fired {summary.fired:,}, "
        f"acknowledged {summary.acknowledged:,}, ended {summary.ended:,}"
    )


#: Up to this number of INTIDs, each INTID has its own table. More INTIDs share one table.
DETAILED = 4
OVERVIEW = ("INTID", "fired", "taken", "ended", "→ deliver", "→ ack", "→ eoi", "all", "longest")
OVERVIEW_TITLE = "median ns from each step to the next, and from fire to eoi"


def overview_row(summary: Summary, names: IntidNames) -> tuple[str, ...]:
    """The row of one INTID in the table that all INTIDs share. The columns are `OVERVIEW`."""
    counts = (f"{count:,}" for count in (summary.fired, summary.acknowledged, summary.ended))
    steps = [summary.steps[step][0] for step in STEPS]
    middles = (f"{ns.middle:,}" if ns else "-" for ns in steps)
    return (
        names.short(summary.intid),
        *counts,
        *middles,
        f"{steps[-1].greatest:,}" if steps[-1] else "-",
    )


def plain_summary(summaries: Sequence[Summary], names: IntidNames) -> str:
    """The tables of the summary as text."""
    if len(summaries) > DETAILED:
        blocks = [
            _plain_table(
                OVERVIEW_TITLE, [OVERVIEW, *(overview_row(each, names) for each in summaries)]
            )
        ]
    else:
        blocks = [
            _plain_table(title(summary, names), [COLUMNS, *summary_rows(summary)])
            for summary in summaries
        ]
    return "\n\n".join(blocks).replace("→", "->") or NOTHING


def _plain_table(heading: str, rows: Sequence[tuple[str, ...]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows
    ]
    return "\n".join([heading, *("  " + line for line in lines)])


NOTHING = "no interrupt was raised"


def summary_tables(summaries: Sequence[Summary], names: IntidNames) -> list[Table]:
    """The tables of the summary for a terminal."""
    if len(summaries) > DETAILED:
        return [_table(OVERVIEW_TITLE, OVERVIEW, (overview_row(each, names) for each in summaries))]
    return [_table(title(summary, names), COLUMNS, summary_rows(summary)) for summary in summaries]


def _table(heading: str, columns: Sequence[str], rows: Iterable[tuple[str, ...]]) -> Table:
    styles = (
        "bold" if n == 0 else "cyan" if 2 <= n <= 4 else "blue" if n > 4 else ""
        for n in range(len(columns))
    )
    return Table(heading, tuple(columns), tuple(rows), styles=tuple(styles), numbers=True)
