"""Showing an object that has tables: with rich on a terminal, as plain text elsewhere; and the guest's console."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from armvirt.cli.terminal import piped_input

if TYPE_CHECKING:
    from armvirt.machine import Machine
    from armvirt.tables import Showable


def show(what: Showable, *, plain: bool = False) -> None:
    """On standard output."""
    if plain or not sys.stdout.isatty():
        print(what)
        return
    from rich.console import Console

    Console(highlight=False).print(what)


def echo_console(machine: Machine, arguments: argparse.Namespace) -> None:
    """What the guest prints goes nowhere, or with ``--console`` to standard error; what is piped in goes to it."""
    if arguments.console:
        machine.console.on_output = _to_stderr
    if not arguments.script and (data := piped_input()):
        machine.console.feed(data)


def _to_stderr(data: bytes) -> None:
    sys.stderr.buffer.write(data)
    sys.stderr.buffer.flush()
