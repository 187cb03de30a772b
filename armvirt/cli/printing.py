"""Standard output and standard error: all commands print through this module.

A call prints whole lines, and a line feed in a text does not start a new line: foreign text
(`armvirt.printable`) cannot imitate a line of armvirt. A stream that cannot be written gives an
error of one line: a full disk (ENOSPC), a file size limit (EFBIG), a descriptor that was closed
before the start (EBADF). BrokenPipeError is left to `main`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from typing import IO, Any

from armvirt.errors import UserError
from armvirt.printable import escaped, folded, printable

INDENT = 2
LONGEST = 4000
"""The maximum length of a line on standard error, in characters."""


class OutputError(UserError):
    """Standard output cannot be written."""

    def __init__(self, error: OSError | ValueError) -> None:
        super().__init__(
            f"standard output cannot be written: {getattr(error, 'strerror', None) or error}"
        )


class _Checked:
    """A context for a write to standard output. It is a class because a generator would cost 2 us
    per byte of a guest's console."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, (OSError, ValueError)) and not isinstance(error, BrokenPipeError):
            raise OutputError(error) from None  # ValueError: the stream is closed


_checked = _Checked()


def line(text: str = "", *, fold: bool = True, indent: int | None = None) -> None:
    """Print one line on standard output, like `lines`."""
    lines([text], fold=fold, indent=indent)


def lines(texts: Iterable[str], *, fold: bool = True, indent: int | None = None) -> None:
    """Print lines on standard output. On a terminal, a line that is too long is folded between
    words, and its continuation indented by ``indent`` (None: a little more than the line
    itself)."""
    shown = [escaped(text) for text in texts]
    if fold and sys.stdout is not None and sys.stdout.isatty():
        width = columns(sys.stdout)
        shown = [
            part
            for text in shown
            for part in folded(text, width, _indent(text) if indent is None else indent)
        ]
    with _checked:
        sys.stdout.write("".join(f"{text}\n" for text in shown))


def _indent(text: str) -> int:
    return len(text) - len(text.lstrip(" ")) + INDENT


def columns(stream: IO[str]) -> int:
    """The width of a stream's terminal: COLUMNS, else the width that the terminal reports, else
    80."""
    try:
        return (
            int(os.environ.get("COLUMNS", 0)) or os.get_terminal_size(stream.fileno()).columns or 80
        )
    except (OSError, ValueError):
        return 80


class Lines:
    """Standard output as a file, for a sink that writes whole lines of ASCII
    (`armvirt.trace.jsonl`)."""

    def write(self, text: str) -> int:
        with _checked:
            return sys.stdout.write(text)


def flush() -> None:
    """Flush standard output."""
    with _checked:
        sys.stdout.flush()


def raw(data: bytes) -> None:
    """Write bytes of the guest's console to standard output, unchanged and unbuffered."""
    with _checked:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()


def rich(console: Any, *what: object, **style: Any) -> None:
    """``console.print`` of a rich console whose texts are already printable."""
    with _checked:
        console.print(*what, **style)


def remark(text: str, lead: str = "") -> None:
    """Print one line on standard error, after flushing standard output; ``lead`` is printed before
    the line."""
    flush()
    complain(text, lead)


def complain(text: str, lead: str = "") -> None:
    """Like `remark`, for an error that may be about standard output itself."""
    said = f"armvirt: {printable(text, LONGEST)}"
    if sys.stderr is not None and not sys.stderr.closed and sys.stderr.isatty():
        said = "\n".join(folded(said, columns(sys.stderr), INDENT))
    _error(f"{lead}{said}\n")


def raw_error(data: bytes) -> None:
    """Write bytes of the guest's console to standard error."""
    try:
        sys.stderr.buffer.write(data)
        sys.stderr.buffer.flush()
    except OSError:
        pass


def _error(text: str) -> None:
    """Write to standard error. If standard error is closed, only the exit status reports the
    error."""
    try:
        if sys.stderr is not None:
            sys.stderr.write(text)
            sys.stderr.flush()
    except (OSError, ValueError):
        pass


# The standard streams of the process


def prepare() -> None:
    """Prepare the standard streams of this process, so that each is writable or gives an error that
    can be reported.

    A closed descriptor would be reused by the next file that is opened, and the guest's console
    would go into this file. So /dev/null is opened for a closed descriptor; for standard output
    read-only, so that writing still fails with EBADF. Characters outside the encoding of a stream
    are shown as escapes.
    """
    for fd, flags in ((0, os.O_RDONLY), (1, os.O_RDONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(fd)
        except OSError:
            _occupy(fd, flags)
    if sys.stdout is None:
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)
    for stream in (sys.stdout, sys.stderr):
        _show_anything(stream)


def _occupy(fd: int, flags: int) -> None:
    opened = os.open(os.devnull, flags)
    if opened != fd:
        os.dup2(opened, fd)
        os.close(opened)


def _show_anything(stream: IO[str] | None) -> None:
    reconfigure = getattr(stream, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(errors="backslashreplace")


def give_up() -> None:
    """Standard output is no longer writable: prevent Python from flushing it, and reporting an
    error, at exit."""
    try:
        fd = sys.stdout.fileno()
    except (OSError, ValueError):
        return  # not a stream of the process, for example in a test
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, fd)
    os.close(devnull)
