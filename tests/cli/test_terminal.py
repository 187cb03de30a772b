"""The terminal: the Ctrl-A keys, raw mode, and input that comes from a pipe."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
import termios
import threading
import time
from pathlib import Path

import pytest
from asm import Asm

from armvirt.arch.gic import ICC_REGISTERS
from armvirt.bundled import guests
from armvirt.cli import terminal
from armvirt.cli.terminal import Escape, Keys, Reader, piped_input, raw_mode
from armvirt.errors import UserError


@pytest.mark.parametrize(
    ("typed", "keys"),
    [
        (b"ls\r", Keys(b"ls\r")),
        (b"\x03", Keys(b"\x03")),
        (b"\x01\x01", Keys(b"\x01")),
        (b"a\x01xb", Keys(b"a", leave=True)),
        (b"\x01X", Keys(b"", leave=True)),
        (b"\x01h", Keys(b"", help=True)),
        (b"\x01q", Keys(b"")),
        (b"\x01cx", Keys(b"x")),
    ],
)
def test_escape(typed: bytes, keys: Keys) -> None:
    assert Escape().feed(typed) == keys


def test_escape_remembers_ctrl_a_between_reads() -> None:
    escape = Escape()
    assert escape.feed(b"a\x01") == Keys(b"a")
    assert escape.feed(b"x") == Keys(b"", leave=True)


@pytest.fixture
def terminal_fds() -> tuple[int, int]:
    return pty.openpty()


def test_raw_mode_is_undone_also_after_an_exception(terminal_fds: tuple[int, int]) -> None:
    _, fd = terminal_fds
    before = termios.tcgetattr(fd)
    with pytest.raises(ZeroDivisionError), raw_mode(fd):
        inside = termios.tcgetattr(fd)
        assert not inside[3] & (termios.ECHO | termios.ICANON | termios.ISIG)
        raise ZeroDivisionError
    assert termios.tcgetattr(fd) == before


def test_the_reader_feeds_and_leaves(terminal_fds: tuple[int, int]) -> None:
    keyboard, fd = terminal_fds
    fed: list[bytes] = []
    left = threading.Event()
    with raw_mode(fd):
        reader = Reader(fd, fed.append, left.set)
        reader.start()
        os.write(keyboard, b"ls\r\x01x")
        assert left.wait(5)
        reader.stop()
    assert b"".join(fed) == b"ls\r"
    assert reader.leaving


def test_the_reader_stops_without_input(terminal_fds: tuple[int, int]) -> None:
    _, fd = terminal_fds
    reader = Reader(fd, lambda data: None, lambda: None)
    reader.start()
    reader.stop()
    assert not reader.leaving
    assert "armvirt-stdin" not in {thread.name for thread in threading.enumerate()}


def test_a_file_is_read_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "input"
    path.write_bytes(b"quit\n")
    with open(path, "rb") as file:
        assert piped_input(file.fileno()) == b"quit\n"


def test_a_pipe_with_data_is_read_to_its_end() -> None:
    read, write = os.pipe()
    os.write(write, b"one ")
    os.write(write, b"two")
    os.close(write)
    assert piped_input(read) == b"one two"
    os.close(read)


def test_a_pipe_that_stays_silent_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(terminal, "PIPE_PATIENCE", 0.01)
    read, write = os.pipe()
    assert piped_input(read) == b""
    os.close(read)
    os.close(write)


def test_a_pipe_that_stays_open_gives_what_has_come(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(terminal, "PIPE_QUIET", 0.01)
    read, write = os.pipe()
    os.write(write, b"so far")
    assert piped_input(read) == b"so far"
    assert "stays open: the guest gets the 6 bytes" in capsys.readouterr().err
    os.close(read)
    os.close(write)


def test_standard_input_that_cannot_be_read(tmp_path: Path) -> None:
    fd = os.open(tmp_path, os.O_RDONLY)
    with pytest.raises(UserError, match="standard input cannot be read: Is a directory"):
        piped_input(fd)
    os.close(fd)


def test_absurd_input_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "input"
    path.write_bytes(bytes(terminal.MAX_PIPED + 1))
    with open(path, "rb") as file, pytest.raises(UserError, match="longer than 1 MiB"):
        piped_input(file.fileno())


# A guest that sleeps at a terminal --------------------------------------------------------------

ECHO = str(guests()["console-echo"].path)  # by its path: without its script
WAITS = "the guest waits for an interrupt (WFI) that nothing but the keyboard will send"


def at_terminal(arguments: list[str], steps: list[tuple[str, bytes]]) -> tuple[int, str]:
    """`armvirt run` at a terminal, at which each answer is typed when its text has appeared: (exit
    status, what the terminal shows, as one line)."""
    keyboard, screen = pty.openpty()
    environment = {**os.environ, "COLUMNS": "1000"}
    process = subprocess.Popen(
        [sys.executable, "-m", "armvirt", "run", *arguments], stdin=screen, stdout=screen, stderr=screen,
        start_new_session=True, env=environment,
    )  # fmt: skip
    os.close(screen)
    shown, waiting, until = b"", list(steps), time.monotonic() + 120
    while time.monotonic() < until:
        if select.select([keyboard], [], [], 0.1)[0]:
            try:
                shown += os.read(keyboard, 4096)
            except OSError:  # nobody has the terminal open any more
                break
        if waiting and waiting[0][0].encode() in shown:
            time.sleep(1)  # the guest goes to sleep after what it has printed
            os.write(keyboard, waiting.pop(0)[1])
    process.kill()
    status = process.wait()
    os.close(keyboard)
    return status, " ".join(shown.decode().split())


def test_a_guest_that_waits_for_a_key_says_so_once_and_at_the_end() -> None:
    status, shown = at_terminal([ECHO], [(WAITS, b"hello\r"), ("hello", b"\x01x")])
    assert status == 130 and shown.count(WAITS) == 2
    first, _, last = shown.partition("hello")
    assert WAITS in first and f"left by Ctrl-A x: {WAITS}" in last


def test_it_goes_on_with_the_key() -> None:
    status, shown = at_terminal([ECHO], [(WAITS, b"quit\r")])
    assert status == 0 and shown.count(WAITS) == 1 and shown.endswith("instructions)")


def test_it_is_said_when_the_time_is_over() -> None:
    status, shown = at_terminal([ECHO, "--timeout", "1s"], [])
    assert status == 4 and shown.count(WAITS) == 2


def test_a_guest_that_no_key_would_wake_is_stuck() -> None:
    """As where nobody types: the run ends, and says why."""
    status, shown = at_terminal(["wfi-forever"], [])
    assert (
        status == 3
        and "stuck: the guest waits for an interrupt (WFI) that nothing will send (the virtual"
        in shown
    )


def test_a_guest_that_spins_until_a_key_is_pressed(tmp_path: Path) -> None:
    """A branch to itself with interrupts open is no dead end while the UART listens."""
    a = Asm(0x4008_0000)
    for address, value in (
        (0x0800_0000, 0x13),
        (0x0800_0084, 1 << 1),
        (0x0800_0104, 1 << 1),
        (0x0900_0038, 0x50),
    ):
        a.mov(1, address)
        a.mov(2, value)
        a.str_w(2, 1)
    for name, value in (("ICC_PMR_EL1", 0xF8), ("ICC_IGRPEN1_EL1", 1)):
        a.mov(2, value)
        a.msr(ICC_REGISTERS[name], 2)
    a.set_vectors()
    a.daifclr(2)
    a.label("here")
    a.b("here")
    a.vectors(lambda a, offset: (a.mov(0, 0x8400_0008), a.hvc(0)))
    guest = tmp_path / "spin.bin"
    guest.write_bytes(a.code())
    waits = (
        "the guest branches to itself until an interrupt that nothing but the keyboard will send"
    )
    status, shown = at_terminal([str(guest)], [(waits, b"x")])
    assert status == 0 and shown.count(waits) == 1
