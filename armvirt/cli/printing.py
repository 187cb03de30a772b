"""Standard output and standard error: the only place from which the commands print.

A call prints whole lines, and a line feed in a text does not begin another one: foreign text
(`armvirt.printable`) cannot make a line of its own. A stream that cannot be written is an error in
one line: a full disk (ENOSPC), a limit of the file's size (EFBIG), a descriptor that was closed
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
"""Characters of a remark on standard error."""


class OutputError(UserError):
    """Standard output cannot be written."""

    def __init__(self, error: OSError | ValueError) -> None:
        super().__init__(
            f"standard output cannot be written: {getattr(error, 'strerror', None) or error}"
        )


class _Checked:
    """Around a write to standard output. A class, for a generator would cost each byte of a guest's
    console 2 us."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, (OSError, ValueError)) and not isinstance(error, BrokenPipeError):
            raise OutputError(error) from None  # ValueError: the stream is closed


_checked = _Checked()


def line(text: str = "", *, fold: bool = True, indent: int | None = None) -> None:
    """One line on standard output, as `lines`."""
    lines([text], fold=fold, indent=indent)


def lines(texts: Iterable[str], *, fold: bool = True, indent: int | None = None) -> None:
    """Lines on standard output. A terminal would break those that are too long for it within a
    word: there they are folded between words, and indented by ``indent`` (None: a little more than
    they are themselves)."""
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
    """The width of the terminal that a stream is: what COLUMNS says, else what the terminal says,
    else 80."""
    try:
        return (
            int(os.environ.get("COLUMNS", 0)) or os.get_terminal_size(stream.fileno()).columns or 80
        )
    except (OSError, ValueError):
        return 80


class Lines:
    """Standard output as the file of a sink that writes whole lines of ASCII
    (`armvirt.trace.jsonl`)."""

    def write(self, text: str) -> int:
        with _checked:
            return sys.stdout.write(text)


def flush() -> None:
    """What was printed reaches its reader now."""
    with _checked:
        sys.stdout.flush()


def raw(data: bytes) -> None:
    """Bytes of the guest's console on standard output, at once and as they are."""
    with _checked:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()


def rich(console: Any, *what: object, **style: Any) -> None:
    """``console.print`` of a console of rich, whose texts are printable already."""
    with _checked:
        console.print(*what, **style)


def remark(text: str, lead: str = "") -> None:
    """One line of our own on standard error, behind what was printed; ``lead`` goes before it."""
    flush()
    complain(text, lead)


def complain(text: str, lead: str = "") -> None:
    """As `remark`, when standard output may be what there is to complain about."""
    said = f"armvirt: {printable(text, LONGEST)}"
    if sys.stderr is not None and not sys.stderr.closed and sys.stderr.isatty():
        said = "\n".join(folded(said, columns(sys.stderr), INDENT))
    _error(f"{lead}{said}\n")


def raw_error(data: bytes) -> None:
    """Bytes of the guest's console on standard error."""
    try:
        sys.stderr.buffer.write(data)
        sys.stderr.buffer.flush()
    except OSError:
        pass


def _error(text: str) -> None:
    """Standard error may be closed: the exit status is all that is left to say it then."""
    try:
        if sys.stderr is not None:
            sys.stderr.write(text)
            sys.stderr.flush()
    except (OSError, ValueError):
        pass


# The process's own streams


def prepare() -> None:
    """Make the standard streams of this process such that each can be written, or gives an error
    that can be reported.

    A descriptor that is closed would be given to the next file that is opened, and the guest's
    console would go into that file; /dev/null takes its place. As standard output it is open for
    reading only: writing fails with EBADF, as on the closed descriptor. Characters that the
    streams' encoding does not have are shown as escapes.
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
    """Standard output takes nothing more: keep Python from trying again, and complaining, when the
    process ends."""
    try:
        fd = sys.stdout.fileno()
    except (OSError, ValueError):
        return  # not a stream of the process, as in a test
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, fd)
    os.close(devnull)
