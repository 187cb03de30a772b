"""Semihosting calls, one by one."""

from __future__ import annotations

import json
import struct
from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from armvirt.board.semihosting import (
    EBADF,
    EFAULT,
    EINVAL,
    EMFILE,
    ENOENT,
    ENOSYS,
    FAILED,
    MAX_AT_ONCE,
    MAX_HANDLES,
    MAX_TRANSFER,
    Again,
    BadAddressError,
    Exit,
    Heap,
    Op,
    Outcome,
    Semihosting,
    Wait,
)

BASE, SIZE = 0x4000_0000, 0x1_0000
BLOCK, TEXT = BASE + 0x100, BASE + 0x1000


class Host:
    """64 KiB of memory, a console, a clock."""

    def __init__(self) -> None:
        self.memory, self.console = bytearray(SIZE), bytearray()
        self.input, self.input_closed = deque[int](), False
        self.date, self.now, self.command_line, self.heap = (
            1_704_067_200,
            0,
            "guest --flag",
            Heap(1, 2, 3, 4),
        )
        self.semihosting = Semihosting(self)

    def _offset(self, address: int, size: int) -> int:
        if not BASE <= address <= address + size <= BASE + SIZE:
            raise BadAddressError(f"{address:#x}")
        return address - BASE

    def read_memory(self, address: int, size: int) -> bytes:
        at = self._offset(address, size)
        return bytes(self.memory[at : at + size])

    def write_memory(self, address: int, data: bytes) -> None:
        at = self._offset(address, len(data))
        self.memory[at : at + len(data)] = data

    def write_console(self, data: bytes) -> None:
        self.console += data

    def read_console(self) -> int | None:
        return self.input.popleft() if self.input else None

    def call(self, operation: int, *words: int) -> Outcome:
        self.write_memory(BLOCK, struct.pack(f"<{len(words)}Q", *words))
        return self.semihosting.call(operation, BLOCK)

    def open(self, name: bytes = b":tt", mode: int = 4) -> int:
        self.write_memory(TEXT, name)
        handle = self.call(Op.OPEN, TEXT, mode, len(name))
        assert isinstance(handle, int)
        return handle

    def errno(self) -> Outcome:
        return self.semihosting.call(Op.ERRNO, 0)


def test_console_output() -> None:
    host = Host()
    host.write_memory(TEXT, b"Hello\0not this")
    assert host.semihosting.call(Op.WRITE0, TEXT) == 0
    host.semihosting.call(Op.WRITEC, TEXT + 1)
    handle = host.open()
    host.write_memory(TEXT, b"line\n")
    assert host.call(Op.WRITE, handle, TEXT, 5) == 0
    assert host.console == b"Helloeline\n"


LONG = bytes(1 + n % 251 for n in range(3 * MAX_AT_ONCE + 100))


@pytest.mark.parametrize("operation", [Op.WRITE, Op.WRITE0])
def test_long_output_is_shown_in_parts(operation: int) -> None:
    """No call is more than a part, and between two of them the state can be saved, or another call
    be made."""
    host, other = Host(), Host()
    handle = host.open()
    host.write_memory(TEXT, LONG + b"\0")
    host.write_memory(BASE + 0x8000, b"tick\0")
    host.write_memory(BLOCK, struct.pack("<3Q", handle, TEXT, len(LONG)))
    shown, answer = b"", None
    for part in range(4):
        answer = host.semihosting.call(operation, BLOCK if operation == Op.WRITE else TEXT)
        assert len(host.console) <= MAX_AT_ONCE + 64 and (answer == Again()) == (part < 3)
        shown += bytes(host.console)
        host.console.clear()
        assert (
            host.semihosting.call(Op.WRITE0, BASE + 0x8000) == 0
        )  # an interrupt handler says something
        host.console.clear()
        other.semihosting.load(json.loads(json.dumps(host.semihosting.state())))
        other.memory[:] = host.memory
        host, other = other, host
    assert answer == 0 and shown == LONG


def test_write_shows_nothing_of_what_is_not_all_there() -> None:
    host = Host()
    handle = host.open()
    at = BASE + SIZE - 2 * MAX_AT_ONCE
    assert (host.call(Op.WRITE, handle, at, 2 * MAX_AT_ONCE + 1), host.errno()) == (FAILED, EFAULT)
    assert host.console == b""


def test_write0_stops_before_memory_that_is_not_there() -> None:
    host = Host()
    host.write_memory(BASE + SIZE - 3, b"ok\0")
    assert host.semihosting.call(Op.WRITE0, BASE + SIZE - 3) == 0
    assert host.console == b"ok"
    host.memory[-3:] = b"bad"
    assert host.semihosting.call(Op.WRITE0, BASE + SIZE - 3) == FAILED
    assert bytes(host.console) == b"ok"
    assert host.errno() == EFAULT


def test_reading_the_console() -> None:
    host = Host()
    handle = host.open(mode=0)
    assert host.call(Op.READ, handle, TEXT, 10) == Wait()
    assert host.semihosting.call(Op.READC, 0) == Wait()
    host.input.extend(b"abcd")
    assert host.semihosting.call(Op.READC, 0) == ord("a")
    assert host.call(Op.READ, handle, TEXT, 10) == 7
    assert host.read_memory(TEXT, 3) == b"bcd"
    host.input_closed = True
    assert host.call(Op.READ, handle, TEXT, 10) == 10, "end of input"
    assert host.semihosting.call(Op.READC, 0) == FAILED


def test_handles() -> None:
    host = Host()
    console, features = host.open(), host.open(b":semihosting-features", 0)
    assert 0 not in (console, features)
    assert [host.call(Op.ISTTY, handle) for handle in (console, features)] == [1, 0]
    assert [host.call(Op.FLEN, handle) for handle in (console, features)] == [0, 5]
    assert host.call(Op.READ, features, TEXT, 5) == 0
    assert host.read_memory(TEXT, 5) == b"SHFB\x03"
    assert host.call(Op.READ, features, TEXT, 5) == 5
    assert host.call(Op.SEEK, features, 4) == 0
    assert host.call(Op.READ, features, TEXT, 5) == 4
    assert host.call(Op.CLOSE, console) == 0
    assert (host.call(Op.CLOSE, console), host.errno()) == (FAILED, EBADF)


@pytest.mark.parametrize(
    ("name", "mode", "errno"), [(b"/etc/passwd", 0, ENOENT), (b":tt", 12, EINVAL), (b"", 0, ENOENT)]
)
def test_files_of_the_host_do_not_open(name: bytes, mode: int, errno: int) -> None:
    host = Host()
    assert (host.open(name, mode), host.errno()) == (FAILED, errno)


def test_handles_run_out() -> None:
    host = Host()
    assert [host.open() for _ in range(MAX_HANDLES)] == list(range(1, MAX_HANDLES + 1))
    assert (host.open(), host.errno()) == (FAILED, EMFILE)


def test_a_transfer_is_bounded() -> None:
    host = Host()
    handle = host.open()
    assert (host.call(Op.WRITE, handle, TEXT, 1 << 63), host.errno()) == (FAILED, EFAULT)
    host.write_memory(BLOCK, bytes(24))
    assert host.call(Op.READ, handle, TEXT, 0) == 0
    assert MAX_TRANSFER > SIZE


def test_refusals() -> None:
    host = Host()
    assert (host.semihosting.call(0x999, 0), host.errno()) == (FAILED, ENOSYS)
    assert (host.semihosting.call(Op.WRITE, 0), host.errno()) == (FAILED, EFAULT)
    assert (host.call(Op.WRITE, 1, TEXT, 5), host.errno()) == (FAILED, EBADF)
    features = host.open(b":semihosting-features", 0)
    assert host.call(Op.WRITE, features, TEXT, 1) == FAILED
    assert host.call(Op.SEEK, features, 6) == FAILED
    assert [host.call(Op.ISERROR, status) for status in (0, 5, FAILED)] == [0, 0, 1]


def test_time_is_virtual() -> None:
    host = Host()
    host.now = 12_345_678_901
    assert host.semihosting.call(Op.CLOCK, 0) == 1234
    assert host.semihosting.call(Op.TIME, 0) == 1_704_067_200
    assert host.semihosting.call(Op.TICKFREQ, 0) == 10**9
    assert host.semihosting.call(Op.ELAPSED, TEXT) == 0
    assert host.read_memory(TEXT, 8) == struct.pack("<Q", 12_345_678_901)


def test_command_line_and_heap() -> None:
    host = Host()
    assert host.call(Op.GET_CMDLINE, TEXT, 100) == 0
    assert host.read_memory(TEXT, 13) == b"guest --flag\0"
    assert host.read_memory(BLOCK + 8, 8) == struct.pack("<Q", 12)
    assert host.call(Op.GET_CMDLINE, TEXT, 12) == FAILED
    assert host.call(Op.HEAPINFO, TEXT) == 0
    assert host.read_memory(TEXT, 32) == struct.pack("<4Q", 1, 2, 3, 4)


@pytest.mark.parametrize("operation", [Op.EXIT, Op.EXIT_EXTENDED])
@pytest.mark.parametrize(
    ("reason", "code", "result"), [(0x20026, 0, 0), (0x20026, 7, 7), (0x20023, 0, 1)]
)
def test_exit(operation: Op, reason: int, code: int, result: int) -> None:
    assert Host().call(operation, reason, code) == Exit(result)


def test_w0_is_32_bits() -> None:
    assert Host().semihosting.call(1 << 32 | Op.TICKFREQ, 0) == 10**9


def test_state_survives_json() -> None:
    host, other = Host(), Host()
    console, features = host.open(), host.open(b":semihosting-features", 0)
    host.call(Op.READ, features, TEXT, 2)
    host.call(Op.CLOSE, console)
    host.semihosting.call(0x999, 0)
    other.semihosting.load(json.loads(json.dumps(host.semihosting.state())))
    assert other.semihosting.state() == host.semihosting.state()
    assert other.errno() == ENOSYS
    assert other.call(Op.READ, features, TEXT, 3) == 0
    other.semihosting.reset()
    assert other.semihosting.state() == {"version": 1, "files": [], "errno": 0, "shown": []}


@given(st.integers(0, 0x40), st.lists(st.one_of(st.integers(0, 5), st.sampled_from([TEXT, BLOCK, 0x20026, FAILED]),
                                               st.integers(0, FAILED)), min_size=4, max_size=4))  # fmt: skip
def test_no_arguments_break_it(operation: int, words: list[int]) -> None:
    host = Host()
    host.open()
    assert isinstance(host.call(operation, *words), int | Exit | Wait)
