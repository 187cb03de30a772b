"""Reads the files that the user names. A file is opened once and read in parts. The message of an
error is one line.

Only the needed parts of a regular file are read. If the file grows after it was opened, the new
data is ignored. If the file shrinks, an error is raised. A pipe (a FIFO, ``<(...)`` of a shell,
``-`` for standard input) is first read to its end. If the pipe has more bytes than the reader can
use, an error is raised. A signal ends the wait for a writer of the pipe. Other files are refused: a
directory, a socket, and a device such as /dev/zero, which has no end.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, final

from armvirt.errors import ImageError, lack_of
from armvirt.records import NamedTuple

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

STDIN = "-"
_STEP = 1 << 20
_PART = 1 << 26  # maximum bytes of one read: Python handles signals between two reads
_MOST_PIPED = 1 << 30
_KINDS = {
    stat.S_IFDIR: "a directory",
    stat.S_IFCHR: "a character device",
    stat.S_IFBLK: "a block device",
    stat.S_IFSOCK: "a socket",
}


class Identity(NamedTuple):
    """The identity of a file (device, inode), and of its contents (size in bytes, time of
    modification in ns). If a file is changed, its identity changes."""

    device: int
    inode: int
    size: int
    mtime_ns: int


@final
class Input:
    """An open input file, and a context manager that closes the file. ImageError for a file that
    cannot be opened or read. ImageError for an empty file, unless ``may_be_empty`` is True.

    ``what`` is the kind of file that error messages name, for example "initrd". ``most`` is the
    maximum number of bytes that are read from a pipe. For a regular file, the caller has to check
    ``size``. ``size`` is in bytes, and ``path`` is the path for messages. ``data`` is the content
    of a pipe; None for a regular file.
    """

    def __init__(
        self,
        path: str | Path,
        what: str = "guest image",
        most: int = _MOST_PIPED,
        may_be_empty: bool = False,
    ) -> None:
        self.path = str(path)
        self.data: bytes | None = None
        self._fd = _open(self.path, path, what)
        try:
            status = os.fstat(self._fd)
            self._check_kind(status.st_mode, what)
            if stat.S_ISFIFO(status.st_mode):
                self.data = self._drain(most)
                self.size = len(self.data)
            else:
                self.size = status.st_size
            if self.size == 0 and not may_be_empty:
                raise ImageError(self.path, "it is empty", f"give a {what}")
            self.identity = Identity(
                status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
            )
        except BaseException:
            os.close(self._fd)
            raise

    def _check_kind(self, mode: int, what: str) -> None:
        kind = _KINDS.get(stat.S_IFMT(mode))
        if kind == "a directory":
            raise ImageError(self.path, "it is a directory", f"name a {what} in it")
        if kind is not None:
            tty = ", a terminal" if os.isatty(self._fd) else ""
            raise ImageError(
                self.path, f"it is {kind}{tty}, not a regular file or a pipe", f"give a {what}"
            )

    def _drain(self, most: int) -> bytes:
        """Read a pipe until all its writers have closed it. ImageError if there are more than
        ``most`` bytes."""
        parts, total = bytearray(), 0
        while part := self._next_part():
            parts += part
            total += len(part)
            if total > most:
                raise ImageError(
                    self.path, f"the pipe gives more than the {most} bytes that there is room for"
                )
        return bytes(parts)

    def _next_part(self) -> bytes:
        import select

        try:
            # Without a writer, read() would return the end; poll() waits for the first writer.
            poll = select.poll()
            poll.register(self._fd, select.POLLIN)
            poll.poll()
            return os.read(self._fd, _STEP)
        except BlockingIOError:
            return self._next_part()  # another reader was faster
        except OSError as error:
            raise ImageError(self.path, f"it cannot be read: {error.strerror}") from None

    def __enter__(self) -> Input:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.close(self._fd)

    def read_at(self, offset: int, size: int) -> bytes:
        """Read exactly ``size`` bytes from ``offset``. ImageError if the file is shorter."""
        if offset + size > self.size:
            raise ImageError(
                self.path, f"it is truncated: {size} bytes at {offset:#x} lie beyond its end"
            )
        if self.data is not None:
            return self.data[offset : offset + size]
        parts = []
        while size:
            part = self._pread(offset, size)
            parts.append(part)
            offset, size = offset + len(part), size - len(part)
        return b"".join(parts)

    def _pread(self, offset: int, size: int) -> bytes:
        try:
            part = os.pread(self._fd, min(size, _PART), offset)
        except OSError as error:
            raise ImageError(self.path, f"it cannot be read: {error.strerror}") from None
        if not part:
            raise ImageError(self.path, "it was shortened while it was read", "try again")
        return part

    def head(self, size: int = 512) -> bytes:
        """Read the first ``size`` bytes, or the whole file if it is shorter."""
        return self.read_at(0, min(size, self.size))


def read_text(path: str | Path, what: str, most: int) -> str:
    """Read a file as UTF-8 text. ImageError if the file has more than ``most`` bytes, or is not
    UTF-8."""
    with Input(path, what, most, may_be_empty=True) as source:
        if source.size > most:
            raise ImageError(path, f"it has more than {most >> 20} MiB", f"is it the {what}?")
        raw = source.read_at(0, source.size)
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise ImageError(path, "it is not UTF-8 text", f"is it the {what}?") from None


def _open(name: str, path: str | Path, what: str) -> int:
    """Open a file in non-blocking mode. In blocking mode, the open of a FIFO without a writer would
    block, and a signal would not end the call."""
    try:
        if name == STDIN:
            return os.dup(0)
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except (OSError, ValueError) as error:
        raise ImageError(name, *_open_problem(error, what)) from None


def _open_problem(error: OSError | ValueError, what: str) -> tuple[str, str]:
    if isinstance(error, FileNotFoundError):
        return "there is no such file", f"check the path of the {what}"
    if isinstance(error, PermissionError):
        return "it may not be read", "check its permissions"
    reason = lack_of(error) or getattr(error, "strerror", None) or str(error)
    return f"it cannot be opened: {reason}", ""
