"""Where a guest is stopped to be looked at: ``--at TIME``, ``--at SYMBOL[+OFFSET]``, ``--at
0xADDRESS``, or its end."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from armvirt import places
from armvirt.errors import UserError
from armvirt.places import Place

if TYPE_CHECKING:
    from armvirt.machine import Machine, Result


def parse(text: str, machine: Machine) -> Place:
    """The place that ``--at`` names; UserError says what there is."""
    try:
        return places.parse(text, machine)
    except UserError as error:
        raise UserError(f"--at {error}") from None


def run_to(machine: Machine, arguments: argparse.Namespace) -> Result | None:
    """Run to ``--at``, or to the guest's end, or to a limit; None if ``--at`` was reached."""
    from armvirt.cli import session
    from armvirt.cli.interrupt import report_begins

    if arguments.at is None:
        return session.run(machine, arguments)
    place = parse(arguments.at, machine)
    limits = session.limits(arguments)
    ns = [limit for limit in (place.ns, limits["max_time_ns"]) if limit is not None]
    ended = machine.run_until(ns=min(ns, default=None), pc=place.pc, insns=limits["max_insns"])
    if ended is None and not _reached(machine, place):
        ended = machine.run(**limits)  # a limit came first: it says so
    report_begins(arguments.watch)
    return ended


def _reached(machine: Machine, place: Place) -> bool:
    if place.ns is not None:
        return machine.ns >= place.ns
    return place.pc is not None and bool(places.marks(place.pc, machine).reached(machine))


def remark(result: Result | None, arguments: argparse.Namespace, machine: Machine) -> str:
    """What is to be said of a run that did not come to where it was asked to go; "" if it did."""
    from armvirt.cli import session

    if result is None:
        return ""
    if arguments.at is None:
        return session.ending(result)
    also = places.elsewhere(arguments.at, machine)
    return f"--at {arguments.at} was not reached{f' ({also})' if also else ''}: {session.ending(result)}"
