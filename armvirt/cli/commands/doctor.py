"""``armvirt doctor``: checks whether this installation works, and prints a report."""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import site
import sys
from collections.abc import Callable, Iterator

import armvirt
from armvirt import __version__
from armvirt.bundled import guests
from armvirt.cli import printing
from armvirt.printable import printable
from armvirt.records import NamedTuple

GOOD, NOTE, BAD = "ok", "note", "BAD"
TOOLS = (
    ("aarch64-linux-gnu-gcc", "to build guests"),
    ("qemu-system-aarch64", "to compare with QEMU"),
    ("dtc", "to read device trees"),
    ("gdb-multiarch", "to debug guests"),
)
PYTHON = (3, 10)
DOCUMENTS = os.path.join("share", "doc", "armvirt")
LOG_LINES = 12  # maximum number of lines from the compiler's output


class Finding(NamedTuple):
    """One line of the report of ``armvirt doctor``. ``state`` is `GOOD`, `NOTE` (something optional
    is missing) or `BAD` (the installation does not work)."""

    state: str
    subject: str
    text: str


def python() -> Iterator[Finding]:
    state = GOOD if sys.version_info >= PYTHON else BAD
    yield Finding(state, "python", f"{platform.python_version()} ({sys.executable})")


def engine() -> Iterator[Finding]:
    """Report whether armvirt can run guests. This check loads Unicorn and measures how Unicorn
    behaves (the calibration). Also report which engine is in use: native (compiled C code) or
    portable."""
    try:
        from armvirt.hw.engine import describe

        facts = dict(describe())
    except Exception as error:  # a broken installation can raise any exception
        yield Finding(BAD, "engine", f"{type(error).__name__}: {error}")
        return
    kind = facts.pop("engine", "?")
    yield Finding(
        GOOD, "engine", "native" if kind == "native" else f"{kind} (same results as native, slower)"
    )
    if kind != "native":
        yield from why_not_native()
    for name, value in facts.items():
        yield Finding(GOOD, name, value)


def why_not_native() -> Iterator[Finding]:
    """Report why the native engine (compiled C code) is missing, and how the user can get it. The
    report has at most `LOG_LINES` lines from the log of the failed build."""
    from armvirt.hw.engine.native import BUILD_LOG, build_log

    log = build_log()
    if log:
        yield Finding(NOTE, "native", f"not built: {printable(log[0])}")
    for line in log[1 : LOG_LINES + 1]:
        yield Finding(NOTE, "native", f"| {printable(line)}")
    if len(log) > LOG_LINES + 1:
        yield Finding(NOTE, "native", f"| ... ({len(log)} lines in {printable(BUILD_LOG)})")
    yield Finding(
        NOTE,
        "native",
        "to have it: see that a C compiler works, then install armvirt again from its source",
    )


def documentation() -> Iterator[Finding]:
    """Report the folder that holds the README, the changelog and the docs: ``share/doc/armvirt`` of
    an installation, or the root of a source tree."""
    source = os.path.dirname(os.path.dirname(os.path.abspath(armvirt.__file__)))
    roots = [os.path.join(base, DOCUMENTS) for base in (sys.prefix, site.getuserbase())] + [source]
    found = next(
        (root for root in roots if os.path.isfile(os.path.join(root, "CHANGELOG.md"))), None
    )
    if found is not None:
        yield Finding(GOOD, "documents", printable(found))


def compiler() -> Iterator[Finding]:
    name = os.environ.get("CC") or next(
        (name for name in ("cc", "gcc", "clang") if shutil.which(name)), ""
    )
    yield Finding(
        GOOD if name else NOTE, "compiler", name or "none; only needed to build the native engine"
    )


def tools() -> Iterator[Finding]:
    for name, purpose in TOOLS:
        path = shutil.which(name)
        yield Finding(GOOD if path else NOTE, name, path or f"not found; only needed {purpose}")


def bundled() -> Iterator[Finding]:
    known = guests()
    missing = [guest.name for guest in known.values() if not guest.path.is_file()]
    if missing or not known:
        yield Finding(
            BAD, "guests", f"missing: {', '.join(missing) or 'all'}; install armvirt again"
        )
    else:
        yield Finding(GOOD, "guests", f"{len(known)} bundled (armvirt list)")


CHECKS: tuple[Callable[[], Iterator[Finding]], ...] = (
    python,
    engine,
    compiler,
    tools,
    bundled,
    documentation,
)


def execute(_arguments: argparse.Namespace) -> int:
    """Print the report. Returns 0 if the installation works, 1 if a line of the report is `BAD`."""
    findings = [
        Finding(GOOD, "armvirt", __version__),
        *(finding for check in CHECKS for finding in check()),
    ]
    width = max(len(finding.subject) for finding in findings)
    for finding in findings:
        printing.line(
            f"{finding.state:<4}  {finding.subject:<{width}}  {finding.text}", indent=width + 8
        )
    broken = any(finding.state == BAD for finding in findings)
    printing.line("something is broken" if broken else "armvirt is fit for use")
    return 1 if broken else 0
