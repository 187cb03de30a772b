"""Ctrl-A, raw mode, and input that is not typed."""

from __future__ import annotations

import os
import pty
import termios
import threading
from pathlib import Path

import pytest

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
