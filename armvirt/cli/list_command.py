"""``armvirt list``: the bundled guests."""

from __future__ import annotations

import argparse
import json

from armvirt.bundled import Guest, guests


def _row(guest: Guest) -> dict[str, object]:
    row: dict[str, object] = {("path" if key == "file" else key): value for key, value in guest._asdict().items()}
    return {**row, "script": bool(guest.script)}


def execute(arguments: argparse.Namespace) -> int:
    """Print name, CPUs, expected ending and summary of each bundled guest."""
    known = list(guests().values())
    if arguments.json:
        rows = [_row(guest) for guest in known]
        print(json.dumps(rows, indent=1))
        return 0
    width = max((len(guest.name) for guest in known), default=0)
    for guest in known:
        cpus = f"{guest.cpus} CPU{'s' if guest.cpus > 1 else ' '}"
        print(f"{guest.name:{width}}  {cpus}  {guest.expect:5}  {guest.summary}")
    return 0
