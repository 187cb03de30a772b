"""Files that a command writes. They are opened only after all input has been checked."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

from armvirt.errors import UserError


def check_writable(path: str) -> None:
    """Complain early about a file that cannot be written, without touching it."""
    if os.path.isdir(path):
        raise UserError(f"{path}: it is a directory; name a file in it")
    parent = os.path.dirname(path) or "."
    if not os.path.isdir(parent):
        raise UserError(f"{path}: there is no directory {parent}; make it first")


@contextmanager
def open_text(path: str) -> Iterator[IO[str]]:
    """A text file to write; a failure to open it, or to write it, is the user's error (a full disk, permissions)."""
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
    """Write a whole binary file."""
    try:
        with open(path, "wb") as file:
            file.write(data)
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror}") from None
