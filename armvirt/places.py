"""Where a guest is stopped to be looked at: a time, a symbol with an offset, or an address, from the text of each."""

from __future__ import annotations

import re
from difflib import get_close_matches
from typing import TYPE_CHECKING, NamedTuple

from armvirt import units
from armvirt.errors import UserError

if TYPE_CHECKING:
    from armvirt.machine import Machine

NEAR = 3
ZERO = re.compile("0+[a-z]*")


class Place(NamedTuple):
    """A time (ns of guest time) or a virtual address; None for the one it is not."""

    ns: int | None = None
    pc: int | None = None


def parse(text: str, machine: Machine) -> Place:
    """UserError for what is neither a time, nor an address, nor a symbol of the guest."""
    if ZERO.fullmatch(text):
        return Place(ns=0)  # before the first instruction
    if text[:1].isdigit() and text[:2].lower() != "0x":
        return Place(ns=units.parse_time(text))
    return Place(pc=address_of(text, machine))


def address_of(text: str, machine: Machine) -> int:
    """The virtual address of ``0x40080000``, ``main`` or ``main+0x10``; UserError says what there is."""
    if text[:2].lower() == "0x":
        return units.parse_count(text, what="address")
    name, _, offset = text.partition("+")
    return _symbol(name, machine) + (units.parse_count(offset, what="offset") if offset else 0)


def _symbol(name: str, machine: Machine) -> int:
    symbols = machine.symbols
    names = [] if symbols is None else list(symbols.names())
    if symbols is None or not names:
        raise UserError(f"{name}: the guest has no symbols; give a time or an address")
    address = symbols.address_of(name)
    if address is not None:
        return address
    near = get_close_matches(name, names, NEAR)
    hint = f"did you mean {', '.join(near)}?" if near else "give a function of the guest, an address or a time"
    raise UserError(f"{name}: the guest has no such symbol; {hint}")
