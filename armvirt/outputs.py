"""Writes the files that the user names.

A file is first written under the name ``NAME.PID.partial`` in the same directory, and renamed when
the file is complete. So if the disk becomes full, a file size limit is reached (``ulimit -f``) or
the program is killed, the user still has the old file, or no file.

The last record of a stream of records, such as a trace, says that the stream is complete. If the
run ends early, also by Ctrl-C, the stream is renamed without this last record. After a write error,
the stream is not renamed. Pipes and devices (``/dev/null``, ``/dev/fd/3``) are written directly.

An output must not be an input of the same run, under any name. For this, `check` compares inodes.
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

    ``outputs`` has the path for each option. The paths ``-`` and None are ignored. No file is
    changed.
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
    """Return (device, inode) of a regular file. All names of a file give the same pair. None if
    there is no file, or if the file is not a regular file."""
    try:
        status = os.fstat(0) if str(path) == STDIN else os.stat(path)
    except (OSError, ValueError):
        return None
    return (status.st_dev, status.st_ino) if stat.S_ISREG(status.st_mode) else None


def write_bytes(path: str | Path, data: bytes) -> None:
    """Write a whole file. If the file cannot be written, the old file is unchanged, and UserError
    is raised."""
    with _opened(path, "b", keep=False) as file:
        file.write(data)


@contextmanager
def open_text(path: str | Path) -> Iterator[IO[str]]:
    """A context manager that opens a stream of records for writing (the docstring of the module
    explains streams). UserError if the stream cannot be written."""
    with _opened(path, "", keep=True, encoding="utf-8") as file:
        yield file


@contextmanager
def _opened(path: str | Path, mode: str, keep: bool, **how: Any) -> Iterator[IO[Any]]:
    """A context manager that opens a file for writing. At the end, the file is renamed to its final
    name. After an exception, the file is deleted. But if ``keep`` is True, the file is deleted only
    after an OSError, and renamed after any other exception. An OSError of this file is raised as
    UserError; a BrokenPipeError is raised unchanged."""
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
    """Return two paths. The first is ``place``, the final path of a file. The second is an unused
    path in the same directory. The file is written at the second path, and then renamed."""
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
    """True if the file has to be written directly: a pipe, a device, or a file under /dev or /proc,
    such as a file descriptor of the program."""
    if os.path.abspath(path).startswith(_IN_PLACE):
        return True
    try:
        return not stat.S_ISREG(os.stat(path).st_mode)
    except OSError:
        return False
