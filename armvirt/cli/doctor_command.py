"""``armvirt doctor``: is this installation fit for use, and what is it made of?"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from typing import NamedTuple

from armvirt import __version__
from armvirt.bundled import guests
from armvirt.cli import printing

GOOD, NOTE, BAD = "ok", "note", "BAD"
TOOLS = (
    ("aarch64-linux-gnu-gcc", "to build guests"),
    ("qemu-system-aarch64", "to compare with QEMU"),
    ("dtc", "to read device trees"),
    ("gdb-multiarch", "to debug guests"),
)
PYTHON = (3, 10)


class Finding(NamedTuple):
    """One line of the report."""

    state: str
    subject: str
    text: str


def python() -> Iterator[Finding]:
    state = GOOD if sys.version_info >= PYTHON else BAD
    yield Finding(state, "python", f"{platform.python_version()} ({sys.executable})")


def engine() -> Iterator[Finding]:
    """Loads Unicorn and calibrates the engine: the whole of what a run needs."""
    try:
        from armvirt.hw.engine import describe

        facts = dict(describe())
    except Exception as error:  # a broken installation can fail in any way
        yield Finding(BAD, "engine", f"{type(error).__name__}: {error}")
        return
    kind = facts.pop("engine", "?")
    yield Finding(GOOD, "engine", "native" if kind == "native" else f"{kind} (same results as native, slower)")
    if kind != "native":
        yield Finding(NOTE, "engine", "for the native one: install a C compiler, then install armvirt again")
    for name, value in facts.items():
        yield Finding(GOOD, name, value)


def compiler() -> Iterator[Finding]:
    name = os.environ.get("CC") or next((name for name in ("cc", "gcc", "clang") if shutil.which(name)), "")
    yield Finding(GOOD if name else NOTE, "compiler", name or "none; only needed to build the native engine")


def tools() -> Iterator[Finding]:
    for name, purpose in TOOLS:
        path = shutil.which(name)
        yield Finding(GOOD if path else NOTE, name, path or f"not found; only needed {purpose}")


def bundled() -> Iterator[Finding]:
    known = guests()
    missing = [guest.name for guest in known.values() if not guest.path.is_file()]
    if missing or not known:
        yield Finding(BAD, "guests", f"missing: {', '.join(missing) or 'all'}; install armvirt again")
    else:
        yield Finding(GOOD, "guests", f"{len(known)} bundled (armvirt list)")


CHECKS: tuple[Callable[[], Iterator[Finding]], ...] = (python, engine, compiler, tools, bundled)


def execute(_arguments: argparse.Namespace) -> int:
    """0: fit for use; 1: something is broken."""
    findings = [Finding(GOOD, "armvirt", __version__), *(finding for check in CHECKS for finding in check())]
    width = max(len(finding.subject) for finding in findings)
    for finding in findings:
        printing.line(f"{finding.state:<4}  {finding.subject:<{width}}  {finding.text}", indent=width + 8)
    broken = any(finding.state == BAD for finding in findings)
    printing.line("something is broken" if broken else "armvirt is fit for use")
    return 1 if broken else 0
