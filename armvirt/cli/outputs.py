"""The outputs of a command: files (`armvirt.outputs`), or standard output for ``-``.

No output is opened before all input has been checked.
"""

from __future__ import annotations

import argparse
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from armvirt import outputs
from armvirt.cli import printing
from armvirt.errors import UserError
from armvirt.inputs import STDIN
from armvirt.outputs import STANDARD_OUTPUT

if TYPE_CHECKING:
    from _typeshed import SupportsWrite

__all__ = ["STANDARD_OUTPUT", "check", "open_text", "write_bytes"]

OPTIONS = ("trace", "dump_dtb", "junit")
INPUTS = ("initrd", "dtb", "bios", "script")


def check(arguments: argparse.Namespace, more: Iterable[str | None] = ()) -> None:
    """Check the outputs that ``arguments`` name. Raises UserError if an output cannot be written.
    Also raises UserError if an output would overwrite an input, another output, or the file to
    which standard output is redirected. The inputs are the files that ``arguments`` name and the
    paths in ``more``."""
    named = {f"--{name.replace('_', '-')}": getattr(arguments, name, None) for name in OPTIONS}
    given = [getattr(arguments, name, None) for name in INPUTS]
    outputs.check(
        named, [*given, *more, STDIN]
    )  # a file that is standard input is the guest's input
    for option, path in named.items():
        if path and path != STANDARD_OUTPUT and _is_standard_output(path):
            raise UserError(
                f"{option} {path}: standard output goes there; name another file, or - for standard output"
            )


def _is_standard_output(path: str) -> bool:
    try:
        ours, other = os.fstat(1), os.stat(path)
    except OSError:
        return False
    return stat.S_ISREG(ours.st_mode) and (ours.st_dev, ours.st_ino) == (other.st_dev, other.st_ino)


@contextmanager
def open_text(path: str) -> Iterator[SupportsWrite[str]]:
    """Open a file for text with `armvirt.outputs.open_text`. If the path is ``-``, the text is
    written to standard output."""
    if path == STANDARD_OUTPUT:
        yield printing.Lines()
        printing.flush()
        return
    with outputs.open_text(path) as file:
        yield file


def write_bytes(path: str, data: bytes) -> None:
    """Write a file with `armvirt.outputs.write_bytes`. If the path is ``-``, the bytes are written
    to standard output."""
    if path == STANDARD_OUTPUT:
        printing.raw(data)
    else:
        outputs.write_bytes(path, data)
