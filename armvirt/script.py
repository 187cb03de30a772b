"""Console scripts: wait for a text on the guest's console, then type a text.

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
from typing import TypeAlias

from armvirt.errors import UserError
from armvirt.inputs import read_text
from armvirt.records import NamedTuple
from armvirt.units import parse_time

MAX_FILE = 1 << 20


class Expect(NamedTuple):
    """A step of a script: wait until the guest prints ``text`` on the console, at most
    ``timeout_ns`` of guest time in ns (None if there is no limit)."""

    text: bytes
    timeout_ns: int | None = None


class Send(NamedTuple):
    """A step of a script: type ``text``."""

    text: bytes


Step: TypeAlias = "Expect | Send"


class Script(tuple[Step, ...]):
    """The steps of a console script, in order. A text is sent at the instruction at which the guest
    completes the expected text of the previous step."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"<Script of {len(self)} steps>"

    @classmethod
    def from_pairs(cls, pairs: Iterable[Sequence[str]]) -> Script:
        """Make a script from pairs (text to wait for, text to send). An empty text makes no step.
        UserError for a value that is not such a pair."""
        steps: list[Step] = []
        for pair in pairs:
            if (
                isinstance(pair, (str, bytes))
                or len(pair) != 2
                or not all(isinstance(text, str) for text in pair)
            ):
                raise UserError(
                    f"{pair!r:.60} is not a pair; write (text to wait for, text to send)"
                )
            expect, send = pair
            steps += [Expect(expect.encode())] if expect else []
            steps += [Send(send.encode())] if send else []
        return cls(steps)


_VERB, _PLAIN, _REST = (
    re.compile("[a-z]*"),
    re.compile(r'[^"\\]*'),
    re.compile(r"[ \t]*(?:#.*)?$", re.DOTALL),
)
_SIMPLE = {"n": b"\n", "r": b"\r", "t": b"\t", "e": b"\x1b", "\\": b"\\", '"': b'"'}
_HEX = re.compile("x([0-9a-fA-F]{2})")


def load(path: str | Path) -> Script:
    """Load the script in a file. UserError if the file cannot be read, or if a line in the file is
    not a step."""
    return parse(read_text(path, "console script", MAX_FILE), str(path))


def parse(text: str, name: str = "script") -> Script:
    """Parse the script in ``text``. ``name`` is the name of the script in messages. UserError for a
    line that is not a step."""
    steps: list[Step] = []
    timeout: int | None = None
    for number, line in enumerate(text.split("\n"), start=1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        try:
            verb, rest = _split(line)
            if verb == "timeout":
                timeout = parse_time(rest.partition("#")[0])
            else:
                steps.append(_STEPS[verb](_text(rest), timeout))
        except UserError as error:
            raise UserError(f"{name}:{number}: {error}") from None
    return Script(steps)


_STEPS: dict[str, Callable[[bytes, int | None], Step]] = {
    "expect": Expect,
    "send": lambda text, _timeout: Send(text),
}


def _split(line: str) -> tuple[str, str]:
    """Split a line into its first word (expect, send or timeout) and the rest of the line."""
    match = _VERB.match(line)
    verb = match[0] if match is not None else ""
    if verb not in (*_STEPS, "timeout"):
        raise UserError(_NO_STEP)
    return verb, line[len(verb) :].lstrip()


_NO_STEP = 'not a step; write expect "text", send "text\\n" or timeout 5s'


def _text(rest: str) -> bytes:
    """Parse a text in double quotes, and return its bytes. Only a comment may follow the text.

    Each character is read only once, because a line may be as long as the whole file.
    """
    if not rest.startswith('"'):
        raise UserError('the text must be in double quotes, for example expect "login: "')
    out, at = bytearray(), 1
    while True:
        plain = _PLAIN.match(rest, at)
        assert plain is not None  # the text may be empty
        out += plain[0].encode()
        at = plain.end()
        if rest[at : at + 1] != "\\":
            break
        data, at = _escape(rest, at + 1)
        out += data
    if at == len(rest) or not _REST.match(rest, at + 1):
        raise UserError(_NO_STEP)
    if not out:
        raise UserError("the text is empty")
    return bytes(out)


def _escape(rest: str, at: int) -> tuple[bytes, int]:
    """Parse one escape sequence in a text. ``at`` is the index of the letter after the backslash.
    Return the bytes that the escape sequence stands for, and the index after the escape
    sequence."""
    match = _HEX.match(rest, at)
    if match is not None:
        return bytes([int(match[1], 16)]), match.end()
    letter = rest[at : at + 1]
    if letter not in _SIMPLE:
        raise UserError(f'unknown escape \\{letter}; known are \\n \\r \\t \\e \\\\ \\" and \\xHH')
    return _SIMPLE[letter], at + 1
