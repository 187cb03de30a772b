"""``armvirt explain`` and ``armvirt gic``: boot a guest, stop the guest, and show the state of its
interrupts.

The option ``--at`` says where the guest stops: a time, SYMBOL[+OFFSET], FILE:LINE or an address.
Without ``--at`` the guest runs to its end, and the commands show the state at the end.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING

from armvirt import places
from armvirt.cli import printing, session
from armvirt.cli.interrupt import report_begins
from armvirt.cli.terminal import piped_input
from armvirt.errors import UserError
from armvirt.places import Place

if TYPE_CHECKING:
    from armvirt.machine import Machine, Result
    from armvirt.views.explain import Explanation
    from armvirt.views.gic import GicView


def explain(arguments: argparse.Namespace) -> int:
    """Print why an interrupt is not taken. Returns 0, even if the guest failed or is stuck."""
    from armvirt.intids import IntidNames
    from armvirt.trace.writers import LastWriters
    from armvirt.views.explain import check

    if arguments.intid is None:
        raise UserError("armvirt explain needs --intid N, the interrupt that does not come")
    machine = session.build_machine(arguments, sinks=[LastWriters()], trace_hash=False)
    names = IntidNames(machine.board.memmap)
    for text in (arguments.intid, arguments.versus):
        if text is not None:
            # An unknown interrupt or vCPU is reported before the guest runs.
            check(machine, names.parse(text), arguments.vcpu)
    echo_console(machine, arguments)
    result = run_to(machine, arguments)
    explanation = machine.explain(arguments.intid, arguments.vcpu, arguments.versus)
    show(explanation, arguments, result, machine)
    return 0


def gic(arguments: argparse.Namespace) -> int:
    """Print the state of the interrupt controller. Returns 0, even if the guest failed or is
    stuck."""
    from armvirt.views.gic import GicView

    machine = session.build_machine(arguments, trace_hash=False)
    GicView(machine, arguments.vcpu)  # an unknown vCPU is reported before the guest runs
    echo_console(machine, arguments)
    result = run_to(machine, arguments)
    view = GicView(machine, arguments.vcpu, everything=arguments.all)
    show(view, arguments, result, machine)
    return 0


# The place at which the guest is stopped


def parse(text: str, machine: Machine) -> Place:
    """Convert the text of ``--at`` to a time or an address. Raises UserError for a name that the
    guest does not have. The message lists similar names."""
    try:
        return places.parse(text, machine)
    except UserError as error:
        raise UserError(f"--at {error}") from None


def run_to(machine: Machine, arguments: argparse.Namespace) -> Result | None:
    """Run the guest to the point that ``--at`` gives. Returns None if the guest reached this point.
    If the guest ended first, or reached a limit first, returns the `Result` of the run. Without
    ``--at``, the guest runs to its end or to a limit."""
    if arguments.at is None:
        return session.run(machine, arguments)
    place = parse(arguments.at, machine)
    limits = session.limits(arguments)
    ns = [limit for limit in (place.ns, limits["max_time_ns"]) if limit is not None]
    ended = machine.run_until(ns=min(ns, default=None), pc=place.pc, insns=limits["max_insns"])
    if ended is None and not _reached(machine, place):
        ended = machine.run(**limits)  # a limit was reached first: get its result
    report_begins(arguments.watch)
    return ended


def _reached(machine: Machine, place: Place) -> bool:
    if place.ns is not None:
        return machine.ns >= place.ns
    return place.pc is not None and bool(places.marks(place.pc, machine).reached(machine))


def remark(result: Result | None, arguments: argparse.Namespace, machine: Machine) -> str:
    """How the run ended, as text. The text is "" if the run stopped at the point that ``--at``
    gives."""
    if result is None:
        return ""
    if arguments.at is None:
        return session.ending(result)
    also = places.elsewhere(arguments.at, machine)
    return f"--at {arguments.at} was not reached{f' ({also})' if also else ''}: {session.ending(result)}"


# Output


def show(
    what: Explanation | GicView, arguments: argparse.Namespace, result: Result | None, machine: Machine
) -> None:  # fmt: skip
    """Print an explanation or the state of the GIC (``what``) on standard output: as JSON with
    ``--json``, otherwise as tables. If the run did not stop at the point that ``--at`` gives, print
    on standard error how the run ended."""
    if arguments.json:
        printing.lines(json.dumps(what.data(), indent=2).split("\n"), fold=False)
    else:
        _print_tables(what, plain=arguments.plain)
    if text := remark(result, arguments, machine):
        printing.remark(text)


def _print_tables(what: Explanation | GicView, *, plain: bool) -> None:
    """Print tables: with rich on a terminal, otherwise as plain text."""
    if plain or not sys.stdout.isatty():
        printing.lines(what.lines())
        return
    from rich.console import Console

    printing.rich(Console(highlight=False), what)


def echo_console(machine: Machine, arguments: argparse.Namespace) -> None:
    """Connect the guest's console. With ``--console``, the output of the console is printed on
    standard error. Without ``--console``, the output is dropped. Data from a pipe on standard input
    become input of the guest. With ``--script``, the pipe is not read."""
    if arguments.console:
        machine.console.listeners.append(printing.raw_error)
    if not arguments.script and (data := piped_input()):
        machine.console.feed(data)
