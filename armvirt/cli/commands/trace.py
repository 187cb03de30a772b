"""``armvirt trace``: boot a guest and show a timeline of its interrupts."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

from armvirt import __version__
from armvirt.board.boards import BOARDS
from armvirt.cli import printing, session
from armvirt.cli.outputs import STANDARD_OUTPUT, open_text
from armvirt.cli.terminal import piped_input
from armvirt.errors import UserError
from armvirt.intids import IntidNames
from armvirt.settings import native
from armvirt.trace import render
from armvirt.trace.files import TraceFile
from armvirt.trace.lifecycle import Summary
from armvirt.trace.timeline import Row, Timeline


class Plain:
    """Prints the timeline row by row, and then the tables of its summary, as plain text. ``names``
    has the names of the board's INTIDs."""

    def __init__(self, names: IntidNames) -> None:
        self.names = names
        self.lookup: render.Lookup | None = None

    def start(self) -> None:
        printing.line(render.HEADER)

    def row(self, row: Row) -> None:
        printing.line(render.plain(row, self.lookup))

    def end(self, summaries: list[Summary], left_out: int) -> None:
        if left_out:
            printing.line(f"... {left_out:,} more rows (--rows)")
        printing.lines(["", *render.plain_summary(summaries, self.names).split("\n")])


class Coloured(Plain):
    """Like `Plain`, but prints in colour with the library rich. Prints the timeline row by row, and
    then the tables of its summary."""

    def __init__(self, names: IntidNames) -> None:
        super().__init__(names)
        from rich.console import Console

        self._console = Console(highlight=False, soft_wrap=False)

    def start(self) -> None:
        printing.rich(self._console, render.HEADER, style="bold underline")

    def row(self, row: Row) -> None:
        text = render.coloured(row, self.lookup, self._console.width)
        printing.rich(self._console, text, soft_wrap=True)

    def end(self, summaries: list[Summary], left_out: int) -> None:
        if left_out:
            printing.rich(self._console, f"... {left_out:,} more rows (--rows)", style="dim")
        if not summaries:
            printing.rich(self._console, render.NOTHING)
        for table in render.summary_tables(summaries, self.names):
            printing.rich(self._console)
            printing.rich(self._console, table)


class Shower:
    """A function that gets the rows of the timeline and passes them to another function, ``write``.
    At most ``most`` rows are passed; None means no maximum. All further rows are not passed, but
    counted in ``left_out``. If ``console`` is False, rows with output of the guest's console are
    dropped and not counted."""

    def __init__(self, write: Callable[[Row], None], most: int | None, console: bool) -> None:
        self._write, self._most, self._console = write, most, console
        self._shown = self.left_out = 0

    def __call__(self, row: Row) -> None:
        if row.stage == "console" and not self._console:
            return
        if self._most is not None and self._shown >= self._most:
            self.left_out += 1
            return
        self._shown += 1
        self._write(row)


def execute(arguments: argparse.Namespace) -> int:
    """Run the guest, print its timeline, and return the exit status of the run."""
    if arguments.trace == STANDARD_OUTPUT:
        raise UserError(
            "--trace -: the timeline is on standard output; name a file, or use armvirt run --trace -"
        )
    names = IntidNames(BOARDS[native("board", arguments.board)].memmap)
    kind = Plain if arguments.plain or not sys.stdout.isatty() else Coloured
    writer = kind(names)
    shower = Shower(writer.row, arguments.rows, not arguments.no_console)
    # With a CNTVOFF from the user, the virtual count at time 0 is not known here.
    timeline = Timeline(
        shower, arguments.cntfrq, names, 0 if arguments.cntvoff is None else None, arguments.gic
    )
    trace = TraceFile(arguments.trace)
    machine = session.build_machine(arguments, sinks=[timeline, *trace.sinks], trace_hash=False)
    writer.lookup = machine.symbols.lookup if machine.symbols else None
    with trace.writing(open_text, armvirt=__version__, guest=arguments.guest):
        if not arguments.script and (data := piped_input()):
            machine.console.feed(data)
        writer.start()
        try:
            result = session.run(machine, arguments)
        finally:
            # After Ctrl-C, too, the rows so far are printed.
            timeline.flush()
            writer.end(timeline.summaries(), shower.left_out)
    session.say_ending(result, "", arguments)
    return result.exit_status
