"""The file armvirt.toml, which describes the guests of a suite::

    [defaults]              # any key of [[guest]] except name and path
    timeout = "30s"

    [[guest]]
    name = "boot"           # the name in reports; without path, the name of a bundled guest
    path = "build/boot.elf" # relative to this file
    cpus = 2
    mem = "256M"
    expect = "pass"         # pass, fail, off, reset, stuck or limit; default pass
    max-time = "2s"         # of guest time

A [[guest]] table can have these keys: ``name``, ``path``, ``expect``, and each option of ``armvirt
run`` without its leading dashes (`armvirt.settings`). The value of a switch is true or false. The
path of a file is relative to the folder of armvirt.toml. Three keys have another meaning than the
option. ``trace-hash`` may be the hash that the run must have. ``exit-raw`` is the semihosting exit
code with which the guest must end. ``dump-dtb`` writes the device tree, and the guest runs, too.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Set
from pathlib import Path
from typing import Any

from armvirt import settings
from armvirt.bundled import Guest, guests, parse_toml
from armvirt.errors import UserError
from armvirt.inputs import read_text
from armvirt.printable import printable
from armvirt.records import NamedTuple
from armvirt.settings import Setting
from armvirt.suite.case import VERDICTS, Case

FILE = "armvirt.toml"
HASH = re.compile("[0-9a-f]{64}")
MAX_FILE = 8 << 20
MOST_PARTS = 64  # maximum number of parts of a dotted key; a key of a suite has two
_TOKEN = re.compile(
    r"""(?P<part>"(?:[^"\\\n]|\\.)*"|'[^'\n]*'|[\w \t-]+)|(?P<dot>\.)|(?P<end>.|\n)""", re.DOTALL
)


def toml_cases(path: Path) -> list[Case]:
    """The cases that a file describes. Raises UserError for a key or a value that a suite cannot
    have. The message begins with the name of the file."""
    document = _document(path)
    try:
        _known_keys(document, frozenset({"defaults", "guest"}), "the file")
        defaults, rows = document.get("defaults", {}), document.get("guest", [])
        if not isinstance(defaults, dict):
            raise UserError("defaults is not a table; write [defaults]")
        if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
            raise UserError("there is no [[guest]] table in it; add one")
        _known_keys(defaults, frozenset(KEYS), "[defaults]")
        bundled = guests()
        cases = [
            _case(path.parent, {**defaults, **row}, number, bundled)
            for number, row in enumerate(rows, start=1)
        ]
        _distinct([case.name for case in cases])
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    return cases


def _document(path: Path) -> dict[str, Any]:
    text = read_text(path, "suite", MAX_FILE)
    if (
        any(line.count(".") > MOST_PARTS for line in text.split("\n"))
        and _longest_key(text) > MOST_PARTS
    ):
        raise UserError(
            f"{path}: not TOML that describes a suite: a key has more than {MOST_PARTS} parts"
        )
    try:
        return parse_toml(text)
    except RecursionError:
        raise UserError(
            f"{path}: not TOML that describes a suite: it is nested too deeply"
        ) from None
    except ValueError as error:
        raise UserError(f"{path}: not TOML: {error}") from None


def _longest_key(text: str) -> int:
    """The number of parts of the longest dotted key in ``text``. The time of the TOML parser grows
    with the square of this number. Any text in the form of a dotted key counts, for example in a
    comment."""
    longest = parts = 0
    for match in _TOKEN.finditer(text):
        if match.lastgroup == "dot":
            parts += 1
            longest = max(longest, parts)
        elif match.lastgroup == "end":
            parts = 0
    return longest


def _known_keys(table: dict[str, Any], known: Set[str], where: str) -> None:
    for key in table:
        if key not in known:
            from difflib import get_close_matches

            near = get_close_matches(key[:40], known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(sorted(known))}"
            raise UserError(f"unknown key {printable(key)!r} in {where}; {hint}")


def _distinct(names: list[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise UserError(f"two guests are called {printable(name)!r}; give each its own name")
        seen.add(name)


def _case(folder: Path, row: dict[str, Any], number: int, bundled: dict[str, Guest]) -> Case:
    label = row.get("name", row.get("path"))
    where = f"[[guest]] {printable(label) if isinstance(label, str) else number}"
    _known_keys(row, GUEST_KEYS, where)
    try:
        name, image = _identity(folder, row, bundled)
        if "pace" in row and "no-pace" in row:
            raise UserError("pace and no-pace exclude each other; give one")
        values: dict[str, dict[str, Any]] = {"settings": {}, "limits": {}, "": {}}
        for name_of_key, value in row.items():
            if key := KEYS.get(name_of_key):
                values[key.goes][key.target] = _value(folder, name_of_key, key, value)
    except UserError as error:
        raise UserError(f"{where}: {error}") from None
    return Case(name, image, settings=values["settings"], limits=values["limits"], **values[""])


def _value(folder: Path, name: str, key: Key, value: Any) -> Any:
    try:
        read = key.read(folder, value)
    except UserError as error:
        raise UserError(f"{name}: {error}") from None
    return not read if key.negates else read


def _identity(
    folder: Path, row: dict[str, Any], bundled: dict[str, Guest]
) -> tuple[str, str | None]:
    """The pair (name, image) of a guest. The image is a path or the name of a bundled guest. The
    image is None if only firmware runs (the key ``bios``)."""
    name, path = row.get("name"), row.get("path")
    for key, value in (("name", name), ("path", path)):
        if value is not None and not isinstance(value, str):
            raise UserError(f"{key} must be a text")
    if path is not None:
        return name or os.path.splitext(os.path.basename(path))[0] or path, os.path.join(
            folder, path
        )
    if name is None:
        raise UserError("it has neither path nor name; give the path of a guest")
    if "bios" in row:
        return name, None
    if name not in bundled:
        raise UserError(f"no path, and {printable(name)!r} is no bundled guest; add path = ...")
    return name, name


Read = Callable[[Path, Any], Any]


def _text(_folder: Path, value: Any) -> str:
    if not isinstance(value, str):
        raise UserError("it must be a text")
    return settings.text(value)


def _file(folder: Path, value: Any) -> str:
    if _text(folder, value) == "-":
        raise UserError("a guest of a suite has no standard input or output; name a file")
    return os.path.join(folder, value)


def _flag(_folder: Path, value: Any) -> bool:
    if not isinstance(value, bool):
        raise UserError("it must be true or false")
    return value


def _unit(parse: Callable[[str], Any]) -> Read:
    """Make the function that reads the value of a key. The value is a number, or a text that
    ``parse`` can convert."""

    def read(_folder: Path, value: Any) -> Any:
        if isinstance(value, bool) or not isinstance(value, (str, int, float)):
            raise UserError("it must be a number or a text")
        return parse(value if isinstance(value, str) else settings.number_text(value))

    return read


def _hash(folder: Path, value: Any) -> bool | str:
    if isinstance(value, str) and not HASH.fullmatch(value):
        raise UserError(
            "it must be true, or the 64 hexadecimal digits that armvirt run --trace-hash prints"
        )
    return value if isinstance(value, str) else _flag(folder, value)


def _reader(setting: Setting) -> Read:
    if setting.parse is None:
        return _flag
    if setting.parse is settings.file:
        return _file
    return _text if setting.parse is settings.text else _unit(setting.parse)


class Key(NamedTuple):
    """A key of [[guest]]: the function that reads its value, and the place in a `Case` that stores
    the value."""

    read: Read
    goes: str  # settings or limits of the case, or "" for a field of the case itself
    target: str
    negates: bool = False


def _keys() -> dict[str, Key]:
    """All keys of [[guest]] except name and path: every setting of a run, and keys such as
    ``expect`` that are not arguments of `Machine`."""
    goes = {settings.BOARD: "settings", settings.LIMIT: "limits", settings.RUN: "settings"}
    keys = {
        setting.name: Key(_reader(setting), goes[setting.group], setting.argument, setting.negates)
        for setting in settings.SETTINGS
    }
    own = {
        "expect": Key(
            lambda _folder, value: settings.choice(*VERDICTS)(_text(_folder, value)), "", "expect"
        ),
        "script": Key(_file, "", "script"),
        "trace": Key(_file, "", "trace"),
        "dump-dtb": Key(_file, "", "dump_dtb"),
        "trace-hash": Key(_hash, "", "trace_hash"),
        "exit-raw": Key(_unit(settings.count(0, (1 << 64) - 1, "exit code")), "", "exit_raw"),
        "debug": Key(_flag, "", "debug"),
    }
    return {**keys, **own}


KEYS = _keys()
GUEST_KEYS = frozenset({"name", "path", *KEYS})
