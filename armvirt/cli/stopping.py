"""Where a guest is stopped to be looked at: ``--at TIME``, ``--at SYMBOL[+OFFSET]``, ``--at 0xADDRESS``, or its end."""

from __future__ import annotations

import argparse
import re
from difflib import get_close_matches
from typing import TYPE_CHECKING, NamedTuple

from armvirt import units
from armvirt.errors import UserError

if TYPE_CHECKING:
    from armvirt.machine import Machine, Result

NEAR = 3
ZERO = re.compile("0+[a-z]*")


class Place(NamedTuple):
    """A time (ns of guest time) or a virtual address; None for the one it is not."""

    ns: int | None = None
    pc: int | None = None


def parse(text: str, machine: Machine) -> Place:
    """UserError for what is neither a time, nor an address, nor a symbol of the guest."""
    if text[:2].lower() == "0x":
        return Place(pc=units.parse_count(text, what="address"))
    if ZERO.fullmatch(text):
        return Place(ns=0)  # before the first instruction
    if text[:1].isdigit():
        return Place(ns=units.parse_time(text))
    name, _, offset = text.partition("+")
    address = _address(name, machine)
    return Place(pc=address + (units.parse_count(offset, what="offset") if offset else 0))


def _address(name: str, machine: Machine) -> int:
    symbols = machine.symbols
    names = [] if symbols is None else list(symbols.names())
    if symbols is None or not names:
        raise UserError(f"--at {name}: the guest has no symbols; give a time or an address")
    address = symbols.address_of(name)
    if address is not None:
        return address
    near = get_close_matches(name, names, NEAR)
    hint = f"did you mean {', '.join(near)}?" if near else "give a function of the guest, an address or a time"
    raise UserError(f"--at {name}: the guest has no such symbol; {hint}")


def run_to(machine: Machine, arguments: argparse.Namespace) -> Result | None:
    """Run to ``--at``, or to the guest's end, or to a limit; None if ``--at`` was reached."""
    from armvirt.cli import session
    from armvirt.cli.interrupt import interruptible

    if arguments.at is None:
        return session.run(machine, arguments)
    place = parse(arguments.at, machine)
    limits = session.limits(arguments)
    ns = [limit for limit in (place.ns, limits["max_time_ns"]) if limit is not None]
    with interruptible(machine):
        ended = machine.run_until(
            ns=min(ns, default=None), pc=place.pc, insns=limits["max_insns"], timeout_s=limits["timeout_s"]
        )
    if ended is not None or _reached(machine, place):
        return ended
    return machine.run(**limits)  # a limit came first: it says so


def _reached(machine: Machine, place: Place) -> bool:
    if place.ns is not None:
        return machine.ns >= place.ns
    return any(vcpu.context.pc == place.pc for vcpu in machine.board.vcpus)


def remark(result: Result | None, arguments: argparse.Namespace) -> str:
    """What is to be said of a run that did not come to where it was asked to go; "" if it did."""
    from armvirt.cli import session

    if result is None:
        return ""
    before = f"--at {arguments.at} was not reached: " if arguments.at is not None else ""
    return before + session.ending(result)
