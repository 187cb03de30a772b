"""Console scripts: wait for a text on the guest's console, then type something.

One step per line; ``#`` starts a comment::

    timeout 5s            # guest time that each following expect may take
    expect "login: "
    send "root\\n"

Strings are in double quotes with the escapes ``\\n \\r \\t \\e \\\\ \\"`` and ``\\xHH``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple, TypeAlias

from armvirt.errors import UserError
from armvirt.units import parse_time

MAX_FILE = 1 << 20


class Expect(NamedTuple):
    """Wait until ``text`` has appeared on the console, at most ``timeout_ns`` of guest time (None: no limit)."""

    text: bytes
    timeout_ns: int | None = None


class Send(NamedTuple):
    """Type ``text``."""

    text: bytes


Step: TypeAlias = "Expect | Send"


class Script(tuple[Step, ...]):
    """The steps of a console script, in order. Text sent acts at the instruction where the expected text ended."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"<Script of {len(self)} steps>"

    @classmethod
    def from_pairs(cls, pairs: Iterable[Sequence[str]]) -> Script:
        """From (text to wait for, text to send) pairs; an empty text is no step."""
        steps: list[Step] = []
        for expect, send in pairs:
            steps += [Expect(expect.encode())] if expect else []
            steps += [Send(send.encode())] if send else []
        return cls(steps)


_LINE = re.compile(r'\s*(?P<verb>[a-z]+)\s*(?P<rest>"(?:[^"\\]|\\.)*"|[^\s"#]*)\s*(?:#.*)?$')
_ESCAPE = re.compile(r"\\(x[0-9a-fA-F]{2}|.)")
_SIMPLE = {"n": "\n", "r": "\r", "t": "\t", "e": "\x1b", "\\": "\\", '"': '"'}


def load(path: str | Path) -> Script:
    """The script in a file. UserError for a file that cannot be read or a line that is no step."""
    try:
        with open(path, "rb") as file:
            text = file.read(MAX_FILE + 1)
        if len(text) > MAX_FILE:
            raise UserError(f"{path}: a script of more than {MAX_FILE >> 20} MiB; is it the right file?")
        return parse(text.decode(), str(path))
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}; give a file of expect and send lines") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: not UTF-8 text; is it the right file?") from None


def parse(text: str, name: str = "script") -> Script:
    """The script in ``text``; ``name`` is what messages call it."""
    steps: list[Step] = []
    timeout: int | None = None
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        try:
            verb, rest = _split(line)
            if verb == "timeout":
                timeout = parse_time(rest)
            else:
                steps.append(_STEPS[verb](_string(rest), timeout))
        except UserError as error:
            raise UserError(f"{name}:{number}: {error}") from None
    return Script(steps)


_STEPS: dict[str, Callable[[bytes, int | None], Step]] = {
    "expect": Expect,
    "send": lambda text, _timeout: Send(text),
}


def _split(line: str) -> tuple[str, str]:
    match = _LINE.match(line)
    if match is None or match["verb"] not in (*_STEPS, "timeout"):
        raise UserError('not a step; write expect "text", send "text\\n" or timeout 5s')
    return match["verb"], match["rest"]


def _string(quoted: str) -> bytes:
    if not quoted.startswith('"'):
        raise UserError('the text must be in double quotes, for example expect "login: "')
    value = _ESCAPE.sub(_unescape, quoted[1:-1])
    if not value:
        raise UserError("the text is empty")
    # Bytes above 0x7f written as \\xHH are meant as that byte; typed characters as their UTF-8 encoding.
    return b"".join(bytes([ord(c) - _RAW]) if ord(c) >= _RAW else c.encode() for c in value)


_RAW = 0x110000 - 0x1000  # a private-use range (plane 16) that stands for raw bytes between the two steps


def _unescape(match: re.Match[str]) -> str:
    code = match[1]
    if code[0] == "x" and len(code) == 3:
        return chr(_RAW + int(code[1:], 16))
    if code not in _SIMPLE:
        raise UserError(f'unknown escape \\{code}; known are \\n \\r \\t \\e \\\\ \\" and \\xHH')
    return _SIMPLE[code]
