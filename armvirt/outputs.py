"""Writes the files that the user names.

A file is written next to its final place, as ``NAME.PID.partial``, and renamed when it is complete.
So after a full disk, a file size limit (``ulimit -f``) or a kill the user has the old file, or no
file.

A stream of records, such as a trace, has a last record that says that the stream is complete. A
stream is renamed even if its run ended early, also by Ctrl-C, but not after a write error. Pipes
and devices (``/dev/null``, ``/dev/fd/3``) are written directly.

An output must not be an input of the same run, under any name: `check` compares inodes.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import count
from typing import IO, TYPE_CHECKING, Any

from armvirt.errors import UserError
from armvirt.inputs import STDIN

if TYPE_CHECKING:
    from pathlib import Path

STANDARD_OUTPUT = "-"
_IN_PLACE = ("/dev/", "/proc/")
_NAME_BYTES = 200  # bytes of the file's name that the partial name keeps; a name has at most 255


def check(outputs: Mapping[str, str | None], inputs: Iterable[str | Path | None] = ()) -> None:
    """Check the outputs of a run. UserError for an output that cannot be written, or that would
    overwrite an input or another output.

    ``outputs`` has the path of each option; ``-`` and None are ignored. No file is changed.
    """
    taken: dict[object, str] = {}
    for path in inputs:
        if path is not None and (inode := _inode(path)):
            taken[inode] = f"{path} is read by this run"
    for option, name in outputs.items():
        if name is None or name == STANDARD_OUTPUT:
            continue
        _check_place(option, name)
        # A file that does not exist yet is identified by its path.
        key = _inode(name) or os.path.realpath(name)
        if key in taken and not _in_place(name):
            raise UserError(f"{option} {name}: {taken[key]}; name another file")
        taken[key] = f"it is written by {option}, too"


def _check_place(option: str, path: str) -> None:
    if os.path.isdir(path):
        raise UserError(f"{option} {path}: it is a directory; name a file in it")
    parent = os.path.dirname(path) or "."
    if not os.path.isdir(parent):
        raise UserError(f"{option} {path}: there is no directory {parent}; make it first")
    if os.path.exists(path) and not os.access(path, os.W_OK):
        raise UserError(
            f"{option} {path}: it may not be written; change its permissions, or name another file"
        )


def _inode(path: str | Path) -> tuple[int, int] | None:
    """(device, inode) of a regular file, which is the same under each of its names. None for other
    files, and if there is no file."""
    try:
        status = os.fstat(0) if str(path) == STDIN else os.stat(path)
    except (OSError, ValueError):
        return None
    return (status.st_dev, status.st_ino) if stat.S_ISREG(status.st_mode) else None


def write_bytes(path: str | Path, data: bytes) -> None:
    """Write a whole file. UserError if it cannot be written; the old file is then unchanged."""
    with _opened(path, "b", keep=False) as file:
        file.write(data)


@contextmanager
def open_text(path: str | Path) -> Iterator[IO[str]]:
    """A context with a stream of records to write (see the module). UserError if it cannot be
    written."""
    with _opened(path, "", keep=True, encoding="utf-8") as file:
        yield file


@contextmanager
def _opened(path: str | Path, mode: str, keep: bool, **how: Any) -> Iterator[IO[Any]]:
    """A context with the file to write into. With ``keep`` the file is renamed to its final place
    also after an exception, except after a write error (an OSError that names no other file)."""
    place, partial = (str(path), None) if _in_place(path) else _beside(os.path.realpath(path))
    try:
        file = open(partial or place, f"{'x' if partial else 'w'}{mode}", **how)
        try:
            with file:
                if partial and os.path.exists(place):
                    os.fchmod(file.fileno(), stat.S_IMODE(os.stat(place).st_mode))
                yield file
        except OSError:
            _drop(partial)
            raise
        except BaseException:
            _take_place(partial, place) if keep else _drop(partial)
            raise
        _take_place(partial, place)
    except BrokenPipeError:
        raise
    except OSError as error:
        if error.filename not in (None, place, partial):
            raise
        raise UserError(f"{path}: cannot be written: {error.strerror}") from None


def _beside(place: str) -> tuple[str, str]:
    """The final place, and the path of a file next to it that does not exist yet."""
    folder, name = os.path.split(place)
    start = os.path.join(folder, os.fsdecode(os.fsencode(name)[:_NAME_BYTES]) + f".{os.getpid()}")
    names = (f"{start}.{n}.partial" if n else f"{start}.partial" for n in count())
    return place, next(partial for partial in names if not os.path.lexists(partial))


def _take_place(partial: str | None, place: str) -> None:
    try:
        if partial:
            os.replace(partial, place)
    except OSError:
        _drop(partial)
        raise


def _drop(partial: str | None) -> None:
    if partial:
        with suppress(OSError):
            os.unlink(partial)


def _in_place(path: str | Path) -> bool:
    """Whether the file is written directly, because it is a pipe, a device, or a file that is named
    in /dev or /proc, such as an own descriptor."""
    if os.path.abspath(path).startswith(_IN_PLACE):
        return True
    try:
        return not stat.S_ISREG(os.stat(path).st_mode)
    except OSError:
        return False
