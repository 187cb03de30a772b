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
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from armvirt import outputs, settings
from armvirt import script as scripts
from armvirt.bundled import find, guests, parse_toml
from armvirt.errors import UserError
from armvirt.settings import Setting

if TYPE_CHECKING:
    from armvirt.events import Sink
    from armvirt.machine import Machine, Result
    from armvirt.trace.jsonl import JsonLines
    from armvirt.watch import Watch

FILE = "armvirt.toml"
VERDICTS = ("pass", "fail", "off", "reset", "stuck", "limit")
DEFAULT_TIMEOUT_S = 120.0
DEFAULT_LIMIT_NS = 100_000_000
GUEST_SUFFIXES = (".elf", ".img", ".bin")
HASH = re.compile("[0-9a-f]{64}")
GUEST_NAMES = ("Image", "Image.gz")


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
        arguments |= {"script": script, "sinks": (*sinks, *self._tracer()), "watch": watch}
        return Machine(guest.path if guest else None, **arguments)

    def _tracer(self) -> list[JsonLines]:
        from armvirt.trace.jsonl import JsonLines

        return [JsonLines()] if self.trace else []

    def run(self, machine: Machine) -> Result:
        """Run to the end or a limit. A guest that should reach one, but has none, gets a short one."""
        limits = {"timeout_s": DEFAULT_TIMEOUT_S, **self.limits}
        if self.expect == "limit" and not self.limits:
            limits["max_time_ns"] = DEFAULT_LIMIT_NS
        if self.dump_dtb:
            outputs.write_bytes(self.dump_dtb, machine.dump_dtb())
        with ExitStack() as stack:
            if self.trace:
                self._trace(machine, stack)
            return machine.run(**limits)

    def _trace(self, machine: Machine, stack: ExitStack) -> None:
        """The trace goes to its file until the end of ``stack``."""
        from armvirt.trace.jsonl import JsonLines

        file = stack.enter_context(outputs.open_text(str(self.trace)))
        for sink in machine.sinks:
            if isinstance(sink, JsonLines):
                stack.enter_context(sink.writing(file, guest=self.name))

    def accepts(self, verdict: str) -> bool:
        """Whether a run that ended so is as expected: a guest that just powers off passes, as for ``armvirt run``."""
        return verdict == self.expect or (self.expect == "pass" and verdict == "off")

    def difference(self, result: Result) -> str:
        """What is not as expected of a run: "expected pass, got stuck: ..."; "" if all is."""
        if self.exit_raw is not None and result.guest_code != self.exit_raw:
            ended = f"exit code {result.guest_code}" if result.guest_code is not None else result.verdict
            return f"expected exit code {self.exit_raw}, got {ended}"
        if self.exit_raw is None and not self.accepts(result.verdict):
            return f"expected {self.expect}, got {result.verdict}"
        if isinstance(self.trace_hash, str) and result.trace_hash != self.trace_hash:
            return f"expected trace hash {self.trace_hash}, got {result.trace_hash}"
        return ""

    @property
    def timeout_s(self) -> float:
        return float(self.limits.get("timeout_s", DEFAULT_TIMEOUT_S))


def collect(paths: Iterable[str]) -> list[Case]:
    """The cases of all ``paths``, in order. UserError if one is no suite, or names a file that does not exist."""
    cases = [case for path in paths for case in _collect_one(path)]
    for case in cases:
        _check(case)
    _check_outputs(cases)
    return cases


def _check(case: Case) -> None:
    """UserError for a file that does not exist, and for more CPUs than a bundled guest was made for."""
    guest = find(case.image) if case.image is not None else None
    for path in [*([guest.path] if guest else []), *([Path(case.script)] if case.script else [])]:
        if not path.exists():
            raise UserError(f"{case.name}: {path}: there is no such file; check the path")
    if guest is not None:
        guest.cpus_or(case.settings.get("cpus"))


def _check_outputs(cases: Sequence[Case]) -> None:
    """Each file can be written, and by one guest only, for guests run at once."""
    named: dict[str, str | None] = {}
    for case in cases:
        named |= {f"{case.name}: trace": case.trace, f"{case.name}: dump-dtb": case.dump_dtb}
    if any(named.values()):
        outputs.check(named, inputs((), cases))


def inputs(paths: Iterable[str], cases: Iterable[Case]) -> Iterator[str]:
    """Every file that the suites of ``paths`` and their ``cases`` read."""
    for text in paths:
        yield os.path.join(text, FILE) if os.path.isdir(text) else text
    for case in cases:
        if case.image is not None:
            yield find(case.image).file
        named = (case.script, *(case.settings.get(name) for name in ("initrd", "dtb", "bios", "symbols")))
        yield from (path for path in named if path)


def _collect_one(text: str) -> list[Case]:
    path = Path(text)
    if path.is_dir():
        return folder_cases(path)
    if path.suffix == ".toml":
        return toml_cases(path)
    known = guests().get(text)
    return [Case(find(text).name, text, known.expect if known else "pass")]


def folder_cases(folder: Path) -> list[Case]:
    """The suite of a folder: what its armvirt.toml says, else every guest in it."""
    if (folder / FILE).exists():
        return toml_cases(folder / FILE)
    found = sorted(path for path in folder.iterdir() if path.suffix in GUEST_SUFFIXES or path.name in GUEST_NAMES)
    if not found:
        raise UserError(f"{folder}: there is no guest and no {FILE} in it; guests end in {', '.join(GUEST_SUFFIXES)}")
    return [Case(path.stem, str(path)) for path in found]


# armvirt.toml


def toml_cases(path: Path) -> list[Case]:
    """The suite that a file describes; UserError, with the file's name, for anything that is not as documented."""
    document = _document(path)
    try:
        _known_keys(document, {"defaults", "guest"}, "the file")
        defaults, rows = document.get("defaults", {}), document.get("guest", [])
        if not isinstance(defaults, dict) or not isinstance(rows, list) or not rows:
            raise UserError("there is no [[guest]] table in it; add one")
        _known_keys(defaults, set(KEYS), "[defaults]")
        cases = [_case(path.parent, {**defaults, **row}, number) for number, row in enumerate(rows, start=1)]
        _distinct([case.name for case in cases])
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    return cases


def _document(path: Path) -> dict[str, Any]:
    try:
        return parse_toml(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}") from None
    except ValueError as error:
        raise UserError(f"{path}: not TOML: {error}") from None


def _known_keys(table: dict[str, Any], known: set[str], where: str) -> None:
    for key in table:
        if key not in known:
            from difflib import get_close_matches

            near = get_close_matches(key, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(sorted(known))}"
            raise UserError(f"unknown key {key!r} in {where}; {hint}")


def _distinct(names: list[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"two guests are called {name!r}; give each its own name")


def _case(folder: Path, row: dict[str, Any], number: int) -> Case:
    label = row.get("name", row.get("path"))
    where = f"[[guest]] {label if isinstance(label, str) else number}"
    _known_keys(row, {"name", "path", *KEYS}, where)
    try:
        name, image = _identity(folder, row)
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


def _identity(folder: Path, row: dict[str, Any]) -> tuple[str, str | None]:
    """(name, image) of a guest."""
    name, path = row.get("name"), row.get("path")
    for key, value in (("name", name), ("path", path)):
        if value is not None and not isinstance(value, str):
            raise UserError(f"{key} must be a text")
    if path is not None:
        return name or Path(path).stem, str(folder / path)
    if name is None:
        raise UserError("it has neither path nor name; give the path of a guest")
    if "bios" in row:
        return name, None
    if name not in guests():
        raise UserError(f"no path, and {name!r} is no bundled guest; add path = ...")
    return name, name


Read = Callable[[Path, Any], Any]


def _text(_folder: Path, value: Any) -> str:
    if not isinstance(value, str):
        raise UserError("it must be a text")
    return value


def _file(folder: Path, value: Any) -> str:
    if _text(folder, value) == "-":
        raise UserError("a guest of a suite has no standard input or output; name a file")
    return str(folder / value)


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
        raise UserError("it must be true, or the 64 hexadecimal digits that armvirt run --trace-hash prints")
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
        "expect": Key(lambda _folder, value: settings.choice(*VERDICTS)(_text(_folder, value)), "", "expect"),
        "script": Key(_file, "", "script"),
        "trace": Key(_file, "", "trace"),
        "dump-dtb": Key(_file, "", "dump_dtb"),
        "trace-hash": Key(_hash, "", "trace_hash"),
        "exit-raw": Key(_unit(settings.count(0, (1 << 64) - 1, "exit code")), "", "exit_raw"),
        "debug": Key(_flag, "", "debug"),
    }
    return {**keys, **own}


KEYS = _keys()
