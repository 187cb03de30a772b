"""Standard output and standard error: all commands print through this module.

A call prints whole lines. A line feed in a text is printed as an escape, so that foreign text
(`armvirt.printable`) cannot imitate a line of armvirt. If standard output cannot be written, the
command ends with an error of one line. Examples are a full disk (ENOSPC), a file size limit
(EFBIG), and a descriptor that was closed before the start (EBADF). BrokenPipeError is handled in
`armvirt.cli.main`.
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
    """A context that raises OutputError if a write to standard output fails. This context is a
    class, because a generator would take 2 us longer for each byte of the guest's console."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, (OSError, ValueError)) and not isinstance(error, BrokenPipeError):
            raise OutputError(error) from None  # ValueError: the stream is closed


_checked = _Checked()


def line(text: str = "", *, fold: bool = True, indent: int | None = None) -> None:
    """Print one line on standard output. The parameters are those of `lines`."""
    lines([text], fold=fold, indent=indent)


def lines(texts: Iterable[str], *, fold: bool = True, indent: int | None = None) -> None:
    """Print lines on standard output. If ``fold`` is True and standard output is a terminal, a line
    that is too long is folded between words. The continuation of a folded line is indented by
    ``indent`` columns. If ``indent`` is None, the continuation is indented by `INDENT` columns more
    than the line."""
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
    """The width of a stream's terminal in characters: the environment variable COLUMNS, else the
    width that the terminal reports, else 80."""
    try:
        return (
            int(os.environ.get("COLUMNS", 0)) or os.get_terminal_size(stream.fileno()).columns or 80
        )
    except (OSError, ValueError):
        return 80


class Lines:
    """A file object that writes text to standard output. The text must consist of whole lines of
    ASCII, for example from `armvirt.trace.jsonl`."""

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
    """Print on a console of the library rich. ``what`` (the text or table) and ``style`` are
    arguments of ``console.print``. All texts must be printable already (`armvirt.printable`)."""
    with _checked:
        console.print(*what, **style)


def remark(text: str, lead: str = "") -> None:
    """Flush standard output, then print one line on standard error. The parameters are those of
    `complain`."""
    flush()
    complain(text, lead)


def complain(text: str, lead: str = "") -> None:
    """Print one line on standard error: "armvirt: " and ``text``. ``lead`` is printed before this
    line; it is a line feed if the cursor may not be at the start of a line, otherwise "". Unlike
    `remark`, this function does not flush standard output, because the line may report that
    standard output cannot be written."""
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
    """Write text to standard error. If this write fails, the text is lost, and only the exit status
    tells the user that there was an error."""
    try:
        if sys.stderr is not None:
            sys.stderr.write(text)
            sys.stderr.flush()
    except (OSError, ValueError):
        pass


# The standard streams of the process


def prepare() -> None:
    """Make sure that a write to a standard stream of this process succeeds, or raises an error that
    can be reported.

    If the process starts with descriptor 0, 1 or 2 closed, the next file that the process opens
    gets the number of the closed descriptor, and the guest's console would be written into this
    file. Therefore /dev/null is opened in place of a closed descriptor. For standard output
    /dev/null is opened read-only, so that a write still fails with EBADF.

    A character that the encoding of a stream does not have is printed as an escape.
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
    """Redirect standard output to /dev/null after a write error. Otherwise Python would flush
    standard output at exit and report the error once more."""
    try:
        fd = sys.stdout.fileno()
    except (OSError, ValueError):
        return  # not a stream of the process, for example in a test
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, fd)
    os.close(devnull)
