"""What the commands that look at a stopped guest have in common: the view they print, and the
guest's console."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING

from armvirt.cli import printing, stopping
from armvirt.cli.terminal import piped_input

if TYPE_CHECKING:
    from armvirt.machine import Machine, Result
    from armvirt.views.explain import Explanation
    from armvirt.views.gic import GicView


def show(
    what: Explanation | GicView, arguments: argparse.Namespace, result: Result | None, machine: Machine
) -> None:  # fmt: skip
    """``what`` on standard output, and on standard error what is to be said of a run that ended
    short of ``--at``."""
    if arguments.json:
        printing.lines(json.dumps(what.data(), indent=2).split("\n"), fold=False)
    else:
        _print_tables(what, plain=arguments.plain)
    if remark := stopping.remark(result, arguments, machine):
        printing.remark(remark)


def _print_tables(what: Explanation | GicView, *, plain: bool) -> None:
    """With rich on a terminal, as plain text elsewhere."""
    if plain or not sys.stdout.isatty():
        printing.lines(what.lines())
        return
    from rich.console import Console

    printing.rich(Console(highlight=False), what)


def echo_console(machine: Machine, arguments: argparse.Namespace) -> None:
    """What the guest prints goes nowhere, or with ``--console`` to standard error; what is piped in
    goes to it."""
    if arguments.console:
        machine.console.listeners.append(printing.raw_error)
    if not arguments.script and (data := piped_input()):
        machine.console.feed(data)
