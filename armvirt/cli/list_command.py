"""``armvirt list``: the bundled guests."""

from __future__ import annotations

import argparse
import json
import sys

from armvirt.bundled import Guest, guests


def _row(guest: Guest) -> dict[str, object]:
    row: dict[str, object] = {("path" if key == "file" else key): value for key, value in guest._asdict().items()}
    return {**row, "script": bool(guest.script)}


def execute(arguments: argparse.Namespace) -> int:
    """Print name, CPUs, GICs, expected ending and summary of each bundled guest."""
    known = list(guests().values())
    if arguments.json:
        rows = [_row(guest) for guest in known]
        print(json.dumps(rows, indent=1))
        return 0
    width = max((len(guest.name) for guest in known), default=0)
    for guest in known:
        cpus = f"{guest.cpus} CPU{'s' if guest.cpus > 1 else ' '}"
        gics = f"GICv{','.join(map(str, guest.gics))}"
        head = f"{guest.name:{width}}  {cpus}  {gics:7}  {guest.expect:5}  "
        print(head + _wrapped(guest.summary, len(head)))
    return 0


def _wrapped(text: str, indent: int) -> str:
    """On a terminal, at its width, each line under the first; else as it is, for grep."""
    if not sys.stdout.isatty():
        return text
    import shutil
    import textwrap

    width = max(shutil.get_terminal_size().columns - indent, 20)
    return ("\n" + " " * indent).join(textwrap.wrap(text, width))
