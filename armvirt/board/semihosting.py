"""Arm semihosting (ARM-software/abi-aa, semihosting.rst): the console, clocks and exit of a guest
under test.

A guest executes HLT #0xF000. W0 has the operation. X1 has the address of a block of 64-bit
arguments or, for a few operations, one argument. The result goes to X0. The guest has no access to
files of the host: SYS_OPEN accepts only ``:tt`` (the console) and ``:semihosting-features``.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from enum import IntEnum
from typing import Protocol

from armvirt.arch.bits import MASK64
from armvirt.errors import ArmvirtError
from armvirt.records import NamedTuple
from armvirt.state import State, checked

STATE_VERSION = 1
FAILED = MASK64
ENOENT, EBADF, EFAULT, EINVAL, EMFILE, ENOSYS = 2, 9, 14, 22, 24, 38

TICK_HZ = 1_000_000_000
MAX_TRANSFER = 1 << 20
"""The maximum number of bytes that one SYS_WRITE writes. If the guest gives more bytes, the result
in X0 counts the other bytes as not written."""
MAX_READ = 1 << 14
"""The maximum number of bytes that one SYS_READ reads. SYS_READ is allowed to fill only a part of
the guest's buffer."""
MAX_AT_ONCE = 1 << 11
"""The maximum number of bytes of output that one HLT writes. If the guest gives more bytes, the
guest executes the same HLT again for the other bytes. The limit bounds the host time of one HLT,
because each byte may cause a trace event and may complete an ``expect`` step of a console
script."""
MAX_UNFINISHED = 8
MAX_STRING = 1 << 16
MAX_HANDLES = 64

# "SHFB", then bit 0: SYS_EXIT_EXTENDED exists, bit 1: :tt opened for append is stderr.
_FEATURES = b"SHFB\x03"
_APPLICATION_EXIT = 0x20026
_EXIT_ON_TRAP = 1


class Op(IntEnum):
    """The operation numbers of semihosting (W0)."""

    OPEN = 0x01
    CLOSE = 0x02
    WRITEC = 0x03
    WRITE0 = 0x04
    WRITE = 0x05
    READ = 0x06
    READC = 0x07
    ISERROR = 0x08
    ISTTY = 0x09
    SEEK = 0x0A
    FLEN = 0x0C
    CLOCK = 0x10
    TIME = 0x11
    ERRNO = 0x13
    GET_CMDLINE = 0x15
    HEAPINFO = 0x16
    EXIT = 0x18
    EXIT_EXTENDED = 0x20
    ELAPSED = 0x30
    TICKFREQ = 0x31


class BadAddressError(ArmvirtError):
    """Raised by a `SemihostingHost` if there is no memory at an address that the guest gave."""


class Exit(NamedTuple):
    """The result of a semihosting call that ends the guest with the exit code ``code``."""

    code: int


class Wait(NamedTuple):
    """The result of a semihosting call that reads from the console while there is no input. The
    board has to let the guest execute the same HLT again when there may be input."""


class Again(NamedTuple):
    """The result of a semihosting call that has written only a part of its output. The board has to
    let the guest execute the same HLT again at once."""


Outcome = int | Exit | Wait | Again


class Heap(NamedTuple):
    """The guest addresses that SYS_HEAPINFO returns. The address 0 means that the address is
    unknown."""

    heap_base: int
    heap_limit: int
    stack_base: int
    stack_limit: int


class SemihostingHost(Protocol):
    """The functions of the board that the semihosting operations use. All addresses are virtual
    addresses of the guest."""

    def read_memory(self, address: int, size: int) -> bytes:
        """Read exactly ``size`` bytes. BadAddressError if there is no memory at one of the
        addresses."""

    def write_memory(self, address: int, data: bytes) -> None:
        """Write ``data``. BadAddressError if there is no memory at one of the addresses."""

    def write_console(self, data: bytes) -> None:
        """Write output of the guest to the console."""

    def read_console(self) -> int | None:
        """Read the next byte of input. None if there is no input now, or if the input has ended
        (`input_closed`)."""

    @property
    def input_closed(self) -> bool:
        """True if the input has ended."""

    @property
    def now(self) -> int:
        """Virtual time in ns."""

    @property
    def date(self) -> int:
        """The date in seconds since 1970."""

    @property
    def command_line(self) -> str:
        """The command line that SYS_GET_CMDLINE returns."""

    @property
    def heap(self) -> Heap:
        """The addresses that SYS_HEAPINFO returns."""


class _RefusedError(Exception):
    """Raised when an operation fails. ``errno`` is the number that SYS_ERRNO returns to the
    guest."""

    def __init__(self, errno: int) -> None:
        self.errno = errno
        super().__init__(errno)


class _File:
    """A file that SYS_OPEN has opened: the console, or the file ``:semihosting-features``.
    ``position`` is the offset in bytes of the next read from ``:semihosting-features``."""

    __slots__ = ("is_console", "position")

    def __init__(self, is_console: bool, position: int = 0) -> None:
        self.is_console, self.position = is_console, position


class Semihosting:
    """The semihosting of one vCPU: its open handles, and the errno of the last operation that
    failed."""

    def __init__(self, host: SemihostingHost) -> None:
        self._host = host
        self.reset()

    def __repr__(self) -> str:
        return f"<Semihosting with {len(self._files)} open handles>"

    def reset(self) -> None:
        """Close all handles and set errno to 0."""
        self._files: dict[int, _File] = {}
        self._errno = 0
        # The bytes that are written already, by call: an interrupt handler may make another call
        # between two parts of a call.
        self._shown: dict[tuple[int, ...], int] = {}

    def call(self, operation: int, argument: int) -> Outcome:
        """Execute one semihosting operation. ``operation`` is the value of W0, and ``argument`` is
        the value of X1. Return the value for X0, or `Exit`, `Wait` or `Again`."""
        handler = _OPERATIONS.get(operation & 0xFFFF_FFFF)
        try:
            if handler is None:
                raise _RefusedError(ENOSYS)
            return handler(self, argument)
        except _RefusedError as refusal:
            self._errno = refusal.errno
        except BadAddressError:
            self._errno = EFAULT
        return FAILED

    def state(self) -> State:
        """Return three items: the open handles, errno, and the output calls that are not complete.
        Each handle is a list of three values: its number, True if it is the console, and the offset
        of its next read. Each output call is a list of two values: the call, and the number of
        bytes that are written already. The call is a list of the operation number and the
        arguments."""
        files = [
            [number, file.is_console, file.position] for number, file in sorted(self._files.items())
        ]
        shown = [[list(call), count] for call, count in self._shown.items()]
        return {"version": STATE_VERSION, "files": files, "errno": self._errno, "shown": shown}

    def load(self, state: State) -> None:
        """Restore the state that `state` returned."""
        checked(state, "semihosting", STATE_VERSION)
        self._files = {
            number: _File(is_console, position) for number, is_console, position in state["files"]
        }
        self._errno = state["errno"]
        self._shown = {tuple(call): count for call, count in state["shown"]}

    # --- arguments ---

    def _words(self, address: int, count: int) -> tuple[int, ...]:
        return struct.unpack(f"<{count}Q", self._host.read_memory(address, 8 * count))

    def _file(self, address: int) -> _File:
        return self._by_handle(self._words(address, 1)[0])

    def _by_handle(self, handle: int) -> _File:
        if handle not in self._files:
            raise _RefusedError(EBADF)
        return self._files[handle]

    # --- handles ---

    def _open(self, address: int) -> int:
        name_at, mode, length = self._words(address, 3)
        if length > MAX_STRING or mode > 11:
            raise _RefusedError(EINVAL)
        name = self._host.read_memory(name_at, length)
        if name not in (b":tt", b":semihosting-features"):
            raise _RefusedError(ENOENT)
        if len(self._files) >= MAX_HANDLES:
            raise _RefusedError(EMFILE)
        # Zero is not a valid handle.
        handle = next(number for number in range(1, MAX_HANDLES + 1) if number not in self._files)
        self._files[handle] = _File(name == b":tt")
        return handle

    def _close(self, address: int) -> int:
        handle = self._words(address, 1)[0]
        self._by_handle(handle)
        del self._files[handle]
        return 0

    def _istty(self, address: int) -> int:
        return int(self._file(address).is_console)

    def _flen(self, address: int) -> int:
        return 0 if self._file(address).is_console else len(_FEATURES)

    def _seek(self, address: int) -> int:
        handle, position = self._words(address, 2)
        file = self._by_handle(handle)
        if file.is_console or position > len(_FEATURES):
            raise _RefusedError(EINVAL)
        file.position = position
        return 0

    # --- console ---

    def _writec(self, address: int) -> int:
        self._host.write_console(self._host.read_memory(address, 1))
        return 0

    def _write0(self, address: int) -> Outcome:
        call = (Op.WRITE0, address)
        shown = self._shown.get(call, 0)
        text, complete = self._string(address + shown, min(MAX_AT_ONCE, MAX_STRING - shown))
        self._host.write_console(text)
        shown += len(text)
        return Again() if self._goes_on(call, shown, complete or shown >= MAX_STRING) else 0

    def _string(self, address: int, most: int) -> tuple[bytes, bool]:
        """Read a string that ends at a zero byte. Return the text, and True if the zero byte was
        found. The search gives up at the first 64-byte boundary at which the text has at least
        ``most`` bytes."""
        text = bytearray()
        while len(text) < most:
            # A read ends at a 64-byte boundary, because the page after the terminator may have no
            # memory.
            chunk = self._host.read_memory(address, 64 - address % 64)
            end = chunk.find(b"\0")
            if end >= 0:
                return bytes(text + chunk[:end]), True
            text += chunk
            address += len(chunk)
        return bytes(text), False

    def _write(self, address: int) -> Outcome:
        """Write to the console. Return the number of bytes that were not written; `Again` if this
        HLT has written only a part of the output."""
        handle, data_at, length = self._words(address, 3)
        if not self._by_handle(handle).is_console:
            raise _RefusedError(EBADF)
        call, size = (Op.WRITE, address, data_at, length), min(length, MAX_TRANSFER)
        shown = self._shown.get(call, 0)
        if not shown:
            self._host.read_memory(data_at, size)  # EFAULT before the first output
        count = min(MAX_AT_ONCE, size - shown)
        self._host.write_console(self._host.read_memory(data_at + shown, count))
        return (
            Again() if self._goes_on(call, shown + count, shown + count == size) else length - size
        )

    def _goes_on(self, call: tuple[int, ...], shown: int, complete: bool) -> bool:
        """Return True if an output call is not complete. Then also store ``shown``, the number of
        bytes that are written already. ``call`` is the operation with its arguments."""
        self._shown.pop(call, None)
        if complete:
            return False
        while len(self._shown) >= MAX_UNFINISHED:  # calls that the guest will not finish
            self._shown.pop(next(iter(self._shown)))
        self._shown[call] = shown
        return True

    def _read(self, address: int) -> Outcome:
        """Read from a handle. Return the number of bytes that were not read; at the end of the
        input these are all bytes. Return `Wait` if the console has no input now."""
        handle, data_at, length = self._words(address, 3)
        file, size = self._by_handle(handle), min(length, MAX_READ)
        if file.is_console:
            data = self._console_bytes(size)
            if size and not data and not self._host.input_closed:
                return Wait()
        else:
            data = _FEATURES[file.position : file.position + size]
            file.position += len(data)
        self._host.write_memory(data_at, data)
        return length - len(data)

    def _console_bytes(self, size: int) -> bytes:
        data = bytearray()
        while len(data) < size and (byte := self._host.read_console()) is not None:
            data.append(byte)
        return bytes(data)

    def _readc(self, argument: int) -> Outcome:
        byte = self._host.read_console()
        if byte is not None:
            return byte
        return FAILED if self._host.input_closed else Wait()

    # --- time ---

    def _clock(self, argument: int) -> int:
        return self._host.now // 10_000_000

    def _time(self, argument: int) -> int:
        return self._host.date

    def _elapsed(self, address: int) -> int:
        self._host.write_memory(address, struct.pack("<Q", self._host.now))
        return 0

    def _tickfreq(self, argument: int) -> int:
        return TICK_HZ

    # --- the rest ---

    def _last_errno(self, argument: int) -> int:
        return self._errno

    def _iserror(self, address: int) -> int:
        return int(self._words(address, 1)[0] >> 63)

    def _get_cmdline(self, address: int) -> int:
        buffer, size = self._words(address, 2)
        line = self._host.command_line.encode("utf-8", "surrogateescape")
        if len(line) >= size:
            raise _RefusedError(EINVAL)
        self._host.write_memory(buffer, line + b"\0")
        self._host.write_memory(address + 8, struct.pack("<Q", len(line)))
        return 0

    def _heapinfo(self, address: int) -> int:
        self._host.write_memory(self._words(address, 1)[0], struct.pack("<4Q", *self._host.heap))
        return 0

    def _exit(self, address: int) -> Exit:
        """Return the exit of SYS_EXIT and SYS_EXIT_EXTENDED. In AArch64 both operations have a
        reason and an exit code. If the reason is not ApplicationExit, the guest fails."""
        reason, code = self._words(address, 2)
        return Exit(code & 0xFFFF_FFFF) if reason == _APPLICATION_EXIT else Exit(_EXIT_ON_TRAP)


_OPERATIONS: dict[int, Callable[[Semihosting, int], Outcome]] = {
    Op.OPEN: Semihosting._open,
    Op.CLOSE: Semihosting._close,
    Op.WRITEC: Semihosting._writec,
    Op.WRITE0: Semihosting._write0,
    Op.WRITE: Semihosting._write,
    Op.READ: Semihosting._read,
    Op.READC: Semihosting._readc,
    Op.ISERROR: Semihosting._iserror,
    Op.ISTTY: Semihosting._istty,
    Op.SEEK: Semihosting._seek,
    Op.FLEN: Semihosting._flen,
    Op.CLOCK: Semihosting._clock,
    Op.TIME: Semihosting._time,
    Op.ERRNO: Semihosting._last_errno,
    Op.GET_CMDLINE: Semihosting._get_cmdline,
    Op.HEAPINFO: Semihosting._heapinfo,
    Op.EXIT: Semihosting._exit,
    Op.EXIT_EXTENDED: Semihosting._exit,
    Op.ELAPSED: Semihosting._elapsed,
    Op.TICKFREQ: Semihosting._tickfreq,
}
