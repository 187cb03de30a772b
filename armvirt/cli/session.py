"""Shared code of the commands that run one guest: make a Machine from the arguments, run the
machine, and report how the run ended."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from armvirt.bundled import Guest, find
from armvirt.cli import outputs, printing
from armvirt.cli.options import board_words, settings
from armvirt.errors import UserError
from armvirt.units import human_time

if TYPE_CHECKING:
    from armvirt.events import Sink
    from armvirt.machine import Machine, Result
    from armvirt.script import Script

ENDINGS = {
    "pass": "the guest passed",
    "fail": "the guest says fail",
    "off": "the guest powered off",
    "stuck": "stuck",
    "limit": "limit reached",
    "reset": "the guest asked for a reset",
}


def guest_of(arguments: argparse.Namespace) -> Guest | None:
    """The guest that the arguments name. The result is None if no guest is needed: with ``--bios``
    only the firmware runs, and with ``--dump-dtb`` only the device tree is written."""
    if arguments.guest is not None:
        return find(arguments.guest)
    if arguments.bios or getattr(arguments, "dump_dtb", None):
        return None
    raise UserError("no GUEST given; name a file or a bundled guest (armvirt list shows them)")


def build_machine(
    arguments: argparse.Namespace, sinks: Iterable[Sink] = (), **more: Any
) -> Machine:
    """Check all inputs and the names of the outputs, then make the machine. The caller opens the
    outputs afterwards, so no file is changed if an input is wrong."""
    guest = guest_of(arguments)
    outputs.check(arguments, [guest.file if guest else None])
    script = _script(arguments, guest)
    from armvirt.machine import Machine

    chosen = {**settings(arguments), "watch": arguments.watch}
    if guest is not None:
        chosen["cpus"] = guest.cpus_or(arguments.cpus)
    return Machine(
        guest.file if guest else None, sinks=sinks, **{**chosen, "script": script}, **more
    )


def _script(arguments: argparse.Namespace, guest: Guest | None) -> Script | None:
    """The console script that the arguments name, else the script of the bundled guest. The result
    is None if there is neither script."""
    if arguments.script:
        from armvirt.script import load

        return load(arguments.script)
    return guest.script if guest else None


def limits(arguments: argparse.Namespace) -> dict[str, Any]:
    """The limits of virtual time and of instructions (``--max-time`` and ``--max-insns``), as
    arguments of `Machine.run`. The limit of host time (``--timeout``) is not included: the `Watch`
    object of the command checks it."""
    return {"max_insns": arguments.max_insns, "max_time_ns": arguments.max_time}


def run(machine: Machine, arguments: argparse.Namespace) -> Result:
    """Run the guest until it ends or reaches a limit. Ctrl-C raises KeyboardInterrupt."""
    from armvirt.cli.interrupt import report_begins

    result = machine.run(**limits(arguments))
    report_begins(arguments.watch)
    return result


def ending(result: Result, skipped: int = 0) -> str:
    """How a run ended, as one line of text. ``skipped`` is the number of instructions that were
    counted but not executed, because the guest only polled (`Machine.skipped`)."""
    words = ENDINGS.get(result.verdict, result.verdict)
    reason = f": {result.diagnosis}" if result.diagnosis else ""
    percent = round(100 * skipped / result.insns) if skipped else 0
    waits = f", {percent} % of them in polled waits" if percent else ""
    return (
        f"{words}{reason} ({human_time(result.ns)} of guest time, "
        f"{result.insns:,} instructions{waits})"
    )


def _hint(result: Result, arguments: argparse.Namespace) -> str:
    """The advice that is printed after the result of a guest that did not pass; "" if there is no
    advice."""
    if arguments.guest and result.verdict == "stuck":
        return _explain_hint(result, arguments)
    if arguments.guest and result.verdict == "fail":
        guest = find(arguments.guest)
        if guest.summary and arguments.gic not in guest.gics:
            made_for = " or ".join(f"GICv{gic}" for gic in guest.gics)
            return f"; {guest.name} is made for a {made_for}, this is a GICv{arguments.gic}"
    return ""


def _explain_hint(result: Result, arguments: argparse.Namespace) -> str:
    """The advice to run ``armvirt explain`` for a stuck guest. The advice is a command line with
    the board options of this run, and the INTID of the interrupt that has fired but cannot wake the
    guest. The result is "" if ``result`` has no such INTID."""
    if result.intid is None:
        return ""
    import shlex

    board = board_words(arguments.words)
    words = ["armvirt", "explain", arguments.guest, *board, "--intid", str(result.intid)]
    return f"; see {shlex.join(words)}"


def say_ending(
    result: Result, console_tail: str, arguments: argparse.Namespace, skipped: int = 0
) -> None:
    """Print on standard error, on a line of its own, how a run ended. ``console_tail`` is the last
    part of the guest's console output. ``skipped`` is the number of instructions that were counted
    but not executed, because the guest only polled (`Machine.skipped`)."""
    # A line that the guest left unfinished needs a line feed only if both streams go to the
    # terminal.
    unfinished = console_tail and not console_tail.endswith("\n")
    lead = "\n" if unfinished and sys.stderr is not None and sys.stderr.isatty() else ""
    printing.remark(f"{ending(result, skipped)}{_hint(result, arguments)}", lead)
