"""``armvirt list``: print the bundled guests."""

from __future__ import annotations

import argparse
import json

from armvirt.bundled import Guest, guests
from armvirt.cli import printing


def _row(guest: Guest) -> dict[str, object]:
    row: dict[str, object] = {
        ("path" if key == "file" else key): value for key, value in guest._asdict().items()
    }
    return {**row, "script": bool(guest.script)}


def execute(arguments: argparse.Namespace) -> int:
    """Print the name, the number of CPUs, the GIC versions, the expected verdict and the summary of
    each bundled guest."""
    known = list(guests().values())
    if arguments.json:
        rows = [_row(guest) for guest in known]
        printing.lines(json.dumps(rows, indent=1).split("\n"), fold=False)
        return 0
    width = max((len(guest.name) for guest in known), default=0)
    for guest in known:
        cpus = f"{guest.cpus} CPU{'s' if guest.cpus > 1 else ' '}"
        gics = f"GICv{','.join(map(str, guest.gics))}"
        head = f"{guest.name:{width}}  {cpus}  {gics:7}  {guest.expect:5}  "
        printing.line(head + guest.summary, indent=len(head))
    return 0
