"""The input of the guest's console: keys from a terminal in raw mode, the commands that begin with
Ctrl-A, and data from a file or pipe."""

from __future__ import annotations

import os
import select
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from armvirt.cli import printing
from armvirt.errors import UserError
from armvirt.records import NamedTuple

CTRL_A = 0x01
HELP = b"\r\nCtrl-A x  leave armvirt\r\nCtrl-A h  this help\r\nCtrl-A Ctrl-A  send Ctrl-A\r\n"
MAX_PIPED = 1 << 20  # maximum number of bytes of piped input
PIPE_PATIENCE = 0.05  # seconds after the start until a pipe without data counts as unused
PIPE_QUIET = 1.0  # seconds without data until a pipe that has had data counts as ended


class Keys(NamedTuple):
    """The meaning of typed bytes: ``data`` goes to the guest, ``leave`` ends armvirt, and ``help``
    shows the help."""

    data: bytes
    leave: bool = False
    help: bool = False


class Escape:
    """The state machine of the Ctrl-A commands: `feed` converts typed bytes to `Keys`, and does no
    I/O."""

    def __init__(self) -> None:
        self._armed = False

    def feed(self, typed: bytes) -> Keys:
        data, help_wanted = bytearray(), False
        for byte in typed:
            if not self._armed:
                self._armed = byte == CTRL_A
                data += b"" if self._armed else bytes([byte])
                continue
            self._armed = False
            if byte in b"xX":
                return Keys(bytes(data), leave=True, help=help_wanted)
            help_wanted |= byte in b"hH?"
            data += b"\x01" if byte == CTRL_A else b""
        return Keys(bytes(data), help=help_wanted)


class Reader:
    """A thread that reads the terminal.

    The thread gives typed bytes to ``feed``, which queues them as input of the guest. If the user
    asks to leave, the thread sets ``leaving`` and calls ``interrupt``, which raises
    KeyboardInterrupt in the main thread.
    """

    def __init__(
        self, fd: int, feed: Callable[[bytes], None], interrupt: Callable[[], None]
    ) -> None:
        self.leaving = False
        self._fd, self._feed, self._interrupt = fd, feed, interrupt
        self._escape = Escape()
        self._wake_read, self._wake_write = os.pipe()
        import threading

        self._thread = threading.Thread(target=self._loop, name="armvirt-stdin", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        os.write(self._wake_write, b"!")
        self._thread.join(timeout=1)
        os.close(self._wake_read)
        os.close(self._wake_write)

    def _loop(self) -> None:
        while True:
            ready, _, _ = select.select([self._fd, self._wake_read], [], [])
            if self._wake_read in ready:
                return
            typed = os.read(self._fd, 4096)
            if not typed or self._handle(self._escape.feed(typed)):
                return

    def _handle(self, keys: Keys) -> bool:
        """Act on typed keys. Returns True if the thread has to end."""
        if keys.data:
            self._feed(keys.data)
        if keys.help:
            os.write(sys.stderr.fileno(), HELP)
        if keys.leave:
            self.leaving = True
            self._interrupt()
        return keys.leave


@contextmanager
def raw_mode(fd: int) -> Iterator[None]:
    """A context in which the terminal passes every key to armvirt. The settings of the terminal are
    restored at the end of the context, also after an exception.

    The terminal still processes output, so that a line feed also returns the cursor to column 0.
    Many guests print line feeds without carriage returns.
    """
    import termios

    before = termios.tcgetattr(fd)
    raw = termios.tcgetattr(fd)
    raw[0] &= ~(
        termios.IXON
        | termios.ICRNL
        | termios.INLCR
        | termios.IGNCR
        | termios.ISTRIP
        | termios.BRKINT
    )
    raw[3] &= ~(termios.ECHO | termios.ICANON | termios.ISIG | termios.IEXTEN)
    raw[6][termios.VMIN], raw[6][termios.VTIME] = 1, 0
    try:
        termios.tcsetattr(fd, termios.TCSADRAIN, raw)
        yield
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)


def piped_input(fd: int = 0) -> bytes:
    """Return the data on standard input, if this is a file or a pipe. The guest starts afterwards,
    so that every run gets the same input. Raises UserError if there are more than `MAX_PIPED`
    bytes.

    For a terminal, the result is empty. The result is also empty for a pipe without data at the
    start, because such a pipe belongs to the caller of armvirt and not to the guest. If a pipe
    stays open but brings no more data for `PIPE_QUIET` seconds, the guest gets the data that have
    come so far.
    """
    try:
        mode = os.fstat(fd).st_mode
    except OSError:
        return b""  # no standard input at all
    if stat.S_ISCHR(mode) or not (stat.S_ISREG(mode) or _ready(fd, PIPE_PATIENCE)):
        return b""
    data = bytearray()
    while chunk := _chunk(fd):
        data += chunk
        if len(data) > MAX_PIPED:
            raise UserError(
                f"standard input is longer than {MAX_PIPED >> 20} MiB; use --script for the guest's input"
            )
        if not stat.S_ISREG(mode) and not _ready(fd, PIPE_QUIET):
            printing.complain(
                f"standard input stays open: the guest gets the {len(data)} bytes that have come so far"
            )
            break
    return bytes(data)


def _ready(fd: int, seconds: float) -> bool:
    return bool(select.select([fd], [], [], seconds)[0])


def _chunk(fd: int) -> bytes:
    try:
        return os.read(fd, 65536)
    except OSError as error:
        raise UserError(
            f"standard input cannot be read: {error.strerror}; give a file, a pipe or /dev/null"
        ) from None
