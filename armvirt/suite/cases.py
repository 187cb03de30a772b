"""Suites of guests for ``armvirt test`` and the pytest plugin: which guests, how they run, what is expected.

A suite is a folder of guests (each ELF or Image in it is expected to pass), one guest, or a file armvirt.toml::

    [defaults]              # any key of [[guest]] but name and path
    timeout = "30s"

    [[guest]]
    name = "boot"           # what reports call it; without path, the name of a bundled guest
    path = "build/boot.elf" # relative to this file
    cpus = 2
    mem = "256M"
    expect = "pass"         # pass, fail, off, reset, stuck or limit; default pass
    max-time = "2s"         # of guest time

Keys are the options of ``armvirt run`` without dashes in front, all of them (`armvirt.settings`), and ``expect``. A
switch is true or false. Files are relative to armvirt.toml. Three mean more than on the command line: ``trace-hash``
may be the hash that the run must have, ``exit-raw`` is the exit code with which the guest must end (semihosting), and
``dump-dtb`` writes the device tree and runs the guest all the same.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from armvirt import outputs, settings
from armvirt import script as scripts
from armvirt.bundled import Guest, find, guests, parse_toml
from armvirt.errors import UserError
from armvirt.inputs import read_text
from armvirt.printable import printable
from armvirt.settings import Setting
from armvirt.trace.files import TraceFile

if TYPE_CHECKING:
    from armvirt.board.config import BoardConfig
    from armvirt.events import Sink
    from armvirt.machine import Machine, Result
    from armvirt.machine.watch import Watch

FILE = "armvirt.toml"
VERDICTS = ("pass", "fail", "off", "reset", "stuck", "limit")
DEFAULT_TIMEOUT_S = 120.0
DEFAULT_LIMIT_NS = 100_000_000
GUEST_SUFFIXES = (".elf", ".img", ".bin")
HASH = re.compile("[0-9a-f]{64}")
GUEST_NAMES = ("Image", "Image.gz")
MAX_FILE = 8 << 20
MOST_PARTS = 64  # of a dotted key; a suite's keys have two
_TOKEN = re.compile(
    r"""(?P<part>"(?:[^"\\\n]|\\.)*"|'[^'\n]*'|[\w \t-]+)|(?P<dot>\.)|(?P<end>.|\n)""", re.DOTALL
)


@dataclass(frozen=True)
class Case:
    """One guest, ready to run. ``settings`` are arguments of `Machine`, ``limits`` of `Machine.run`.

    ``trace`` and ``dump_dtb`` are files to write. ``trace_hash`` is the hash that the run must have, or whether the
    report shows it; ``exit_raw`` the exit code that the guest must end with, whatever the verdict (None: ``expect``
    decides).
    """

    name: str
    image: str | None
    expect: str = "pass"
    settings: dict[str, Any] = field(default_factory=dict)
    script: str | None = None
    limits: dict[str, Any] = field(default_factory=dict)
    trace: str | None = None
    dump_dtb: str | None = None
    trace_hash: bool | str = False
    exit_raw: int | None = None
    debug: bool = False

    def machine(self, sinks: Iterable[Sink] = (), watch: Watch | None = None) -> Machine:
        """The machine; UserError for what cannot be used."""
        from armvirt.machine import Machine

        guest = find(self.image) if self.image is not None else None
        script = scripts.load(self.script) if self.script else guest.script if guest else None
        arguments = {"trace_hash": bool(self.trace_hash), **self.settings}
        if guest is not None:
            arguments["cpus"] = guest.cpus_or(arguments.get("cpus"))
        arguments |= {
            "script": script,
            "sinks": (*sinks, *TraceFile(self.trace).sinks),
            "watch": watch,
        }
        return Machine(guest.path if guest else None, **arguments)

    def run(self, machine: Machine) -> Result:
        """Run to the end or a limit. A guest that should reach one, but has none, gets a short one."""
        limits = {"timeout_s": DEFAULT_TIMEOUT_S, **self.limits}
        if self.expect == "limit" and not self.limits:
            limits["max_time_ns"] = DEFAULT_LIMIT_NS
        if self.dump_dtb:
            outputs.write_bytes(self.dump_dtb, machine.dump_dtb())
        with TraceFile(self.trace, machine.sinks).writing(outputs.open_text, guest=self.name):
            return machine.run(**limits)

    def accepts(self, verdict: str) -> bool:
        """Whether a run that ended so is as expected: a guest that just powers off passes, as for ``armvirt run``."""
        return verdict == self.expect or (self.expect == "pass" and verdict == "off")

    def difference(self, result: Result) -> str:
        """What is not as expected of a run: "expected pass, got stuck: ..."; "" if all is."""
        if self.exit_raw is not None and result.guest_code != self.exit_raw:
            ended = (
                f"exit code {result.guest_code}"
                if result.guest_code is not None
                else result.verdict
            )
            return f"expected exit code {self.exit_raw}, got {ended}"
        if self.exit_raw is None and not self.accepts(result.verdict):
            return f"expected {self.expect}, got {result.verdict}"
        if isinstance(self.trace_hash, str) and result.trace_hash != self.trace_hash:
            return f"expected trace hash {self.trace_hash}, got {result.trace_hash}"
        return ""

    def config(self) -> BoardConfig:
        """The board of `machine`, without the machine."""
        from armvirt.board.config import BoardConfig

        guest = find(self.image) if self.image is not None else None
        board = {
            name: value for name, value in self.settings.items() if name in BoardConfig._fields
        }
        if guest is not None:
            board["cpus"] = guest.cpus_or(board.get("cpus"))
        return BoardConfig(guest.file if guest is not None else None, **board)

    def outputs(self) -> dict[str, str | None]:
        """The files that the run writes, by the key that names them."""
        return {"trace": self.trace, "dump-dtb": self.dump_dtb}

    @property
    def timeout_s(self) -> float:
        return float(self.limits.get("timeout_s", DEFAULT_TIMEOUT_S))


def collect(paths: Iterable[str]) -> list[Case]:
    """The cases of all ``paths``, in order. UserError if one is no suite, or for anything that can be said against a
    case before it runs: a file that is not there or cannot be used, a board that cannot be, an output over an input."""
    paths = list(paths)
    known = guests()
    cases = [case for path in paths for case in _collect_one(path, known)]
    _check_all(cases)
    written = {
        f"{case.name}: {kind}": path for case in cases for kind, path in case.outputs().items()
    }
    outputs.check(written, inputs(paths, cases))
    return cases


def _check_all(cases: Iterable[Case]) -> None:
    from armvirt.board.precheck import Precheck

    precheck = Precheck()
    for case in cases:
        try:
            precheck(case.config())
            if case.script:
                precheck.file(case.script, scripts.load)
        except UserError as error:
            raise UserError(f"{case.name}: {error}") from None


def inputs(paths: Iterable[str], cases: Iterable[Case]) -> Iterator[str]:
    """Every file that the suites of ``paths`` and their ``cases`` read."""
    for text in paths:
        yield os.path.join(text, FILE) if os.path.isdir(text) else text
    for case in cases:
        if case.image is not None:
            yield find(case.image).file
        named = (case.script, *(case.settings.get(name) for name in ("initrd", "dtb", "bios")))
        yield from (path for path in named if path)


def _collect_one(text: str, known: dict[str, Guest]) -> list[Case]:
    if os.path.isdir(text):
        return folder_cases(Path(text))
    if text.endswith(".toml"):
        return toml_cases(Path(text))
    guest = find(text)
    return [Case(guest.name, text, known[text].expect if guest.summary else "pass")]


def folder_cases(folder: Path) -> list[Case]:
    """The suite of a folder: what its armvirt.toml says, else every guest in it."""
    if os.path.exists(folder / FILE):
        return toml_cases(folder / FILE)
    try:
        names = sorted(os.listdir(folder))
    except OSError as error:
        raise UserError(f"{folder}: {error.strerror}; check its permissions") from None
    found = [name for name in names if name.endswith(GUEST_SUFFIXES) or name in GUEST_NAMES]
    if not found:
        raise UserError(
            f"{folder}: there is no guest and no {FILE} in it; guests end in {', '.join(GUEST_SUFFIXES)}"
        )
    return [Case(os.path.splitext(name)[0], str(folder / name)) for name in found]


# armvirt.toml


def toml_cases(path: Path) -> list[Case]:
    """The suite that a file describes; UserError, with the file's name, for anything that is not as documented."""
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
    """The parts of the longest dotted key, or of what looks like one. (The TOML parser takes time by their square.)"""
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
    """(name, image) of a guest."""
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
    """A number, or a text that ``parse`` understands."""

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
    """A key of [[guest]]: how its value is read, and where it goes in a `Case`."""

    read: Read
    goes: str  # settings, limits, or "" for a field of the case itself
    target: str
    negates: bool = False


def _keys() -> dict[str, Key]:
    """Every setting of a run is a key; the table below says where those go that `Machine` does not take."""
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
