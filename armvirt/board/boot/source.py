"""A file that the user named: opened once, read in parts, every failure one line."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, final

from armvirt.errors import ImageError

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType


@final
class ImageFile:
    """A regular, non-empty file. Use it as a context manager.

    ``size`` is in bytes, as it was when the file was opened; ``path`` is what messages call it.
    """

    def __init__(self, path: str | Path, what: str = "guest image") -> None:
        self.path = str(path)
        try:
            # Non-blocking: opening a FIFO must not wait for someone to write it.
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except (OSError, ValueError) as error:
            raise ImageError(self.path, *_open_problem(error, what)) from None
        try:
            self.size = self._checked_size(what)
        except ImageError:
            os.close(self._fd)
            raise

    def _checked_size(self, what: str) -> int:
        status = os.fstat(self._fd)
        if stat.S_ISDIR(status.st_mode):
            raise ImageError(self.path, "it is a directory", f"name a {what} in it")
        if not stat.S_ISREG(status.st_mode):
            raise ImageError(self.path, "it is not a regular file", "copy it to one")
        if status.st_size == 0:
            raise ImageError(self.path, "it is empty", f"give a {what}")
        return status.st_size

    def __enter__(self) -> ImageFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._fd)

    def read_at(self, offset: int, size: int) -> bytes:
        """Exactly ``size`` bytes from ``offset``; ImageError if the file ends before."""
        if offset + size > self.size:
            raise ImageError(self.path, f"it is truncated: {size} bytes at {offset:#x} lie beyond its end")
        parts = []
        while size:
            part = self._pread(offset, size)
            parts.append(part)
            offset, size = offset + len(part), size - len(part)
        return b"".join(parts)

    def _pread(self, offset: int, size: int) -> bytes:
        try:
            part = os.pread(self._fd, min(size, 1 << 30), offset)
        except OSError as error:
            raise ImageError(self.path, f"it cannot be read: {error.strerror}") from None
        if not part:
            raise ImageError(self.path, "it was shortened while it was read", "try again")
        return part

    def head(self, size: int = 512) -> bytes:
        """The first bytes, fewer if the file is shorter."""
        return self.read_at(0, min(size, self.size))


def _open_problem(error: OSError | ValueError, what: str) -> tuple[str, str]:
    if isinstance(error, FileNotFoundError):
        return "there is no such file", f"check the path of the {what}"
    if isinstance(error, PermissionError):
        return "it may not be read", "check its permissions"
    return f"it cannot be opened: {getattr(error, 'strerror', None) or error}", ""
