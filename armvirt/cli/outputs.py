"""Files that a command writes. They are opened only after all input has been checked."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from armvirt.cli import printing
from armvirt.errors import UserError

if TYPE_CHECKING:
    from armvirt.trace.jsonl import SupportsWrite

STANDARD_OUTPUT = "-"


def check_writable(path: str) -> None:
    """Complain early about a file that cannot be written, without touching it."""
    if path == STANDARD_OUTPUT:
        return
    if os.path.isdir(path):
        raise UserError(f"{path}: it is a directory; name a file in it")
    parent = os.path.dirname(path) or "."
    if not os.path.isdir(parent):
        raise UserError(f"{path}: there is no directory {parent}; make it first")


@contextmanager
def open_text(path: str) -> Iterator[SupportsWrite]:
    """A text file to write, or standard output for ``-``.

    A failure to open it, or to write it, is the user's error (a full disk, permissions).
    """
    if path == STANDARD_OUTPUT:
        yield printing.Lines()
        printing.flush()
        return
    try:
        with open(path, "w", encoding="utf-8") as file:
            yield file
    except BrokenPipeError:
        raise
    except OSError as error:
        if error.filename not in (None, path):
            raise
        raise UserError(f"{path}: cannot be written: {error.strerror}") from None


def write_bytes(path: str, data: bytes) -> None:
    """Write a whole binary file, or to standard output for ``-``."""
    if path == STANDARD_OUTPUT:
        printing.raw(data)
        return
    try:
        with open(path, "wb") as file:
            file.write(data)
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror}") from None
