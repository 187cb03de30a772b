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

Keys are the options of ``armvirt run`` without dashes in front: cpus, mem, cpu, gic, list-registers,
priority-bits, cntfrq, cntvoff, append, initrd, dtb, bios, load-addr, semihosting, script, engine, no-reboot, no-its;
max-insns, max-time, timeout; and expect.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from armvirt import script as scripts
from armvirt import units
from armvirt.bundled import find, guests, parse_toml
from armvirt.errors import UserError

if TYPE_CHECKING:
    from armvirt.events import Sink
    from armvirt.machine import Machine, Result

FILE = "armvirt.toml"
VERDICTS = ("pass", "fail", "off", "reset", "stuck", "limit")
DEFAULT_TIMEOUT_S = 120.0
DEFAULT_LIMIT_NS = 100_000_000
GUEST_SUFFIXES = (".elf", ".img", ".bin")
GUEST_NAMES = ("Image", "Image.gz")


@dataclass(frozen=True)
class Case:
    """One guest, ready to run. ``settings`` are arguments of `Machine`, ``limits`` of `Machine.run`."""

    name: str
    image: str | None
    expect: str = "pass"
    settings: dict[str, Any] = field(default_factory=dict)
    script: str | None = None
    limits: dict[str, Any] = field(default_factory=dict)

    def machine(self, sinks: Iterable[Sink] = ()) -> Machine:
        """The machine; UserError for what cannot be used."""
        from armvirt.machine import Machine

        guest = find(self.image) if self.image is not None else None
        script = scripts.load(self.script) if self.script else guest.script if guest else None
        settings = {"cpus": guest.cpus if guest else 1, "trace_hash": False, **self.settings}
        return Machine(guest.path if guest else None, script=script, sinks=sinks, **settings)

    def run(self, machine: Machine) -> Result:
        """Run to the end or a limit. A guest that should reach one, but has none, gets a short one."""
        limits = {"timeout_s": DEFAULT_TIMEOUT_S, **self.limits}
        if self.expect == "limit" and not self.limits:
            limits["max_time_ns"] = DEFAULT_LIMIT_NS
        return machine.run(**limits)

    def accepts(self, verdict: str) -> bool:
        """Whether a run that ended so is as expected: a guest that just powers off passes, as for ``armvirt run``."""
        return verdict == self.expect or (self.expect == "pass" and verdict == "off")

    @property
    def timeout_s(self) -> float:
        return float(self.limits.get("timeout_s", DEFAULT_TIMEOUT_S))


def collect(paths: Iterable[str]) -> list[Case]:
    """The cases of all ``paths``, in order. UserError if one is no suite, or names a file that does not exist."""
    cases = [case for path in paths for case in _collect_one(path)]
    for case in cases:
        named = [find(case.image).path] if case.image is not None else []
        for path in [*named, *([Path(case.script)] if case.script else [])]:
            if not path.exists():
                raise UserError(f"{case.name}: {path}: there is no such file; check the path")
    return cases


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
        values: dict[str, dict[str, Any]] = {"settings": {}, "limits": {}, "case": {}}
        for key, value in row.items():
            if key in KEYS:
                kind, target, read = KEYS[key]
                values[kind][target] = read(folder, key, value)
    except UserError as error:
        raise UserError(f"{where}: {error}") from None
    return Case(name, image, settings=values["settings"], limits=values["limits"], **values["case"])


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


Read = Callable[[Path, str, Any], Any]


def _text(_folder: Path, key: str, value: Any) -> str:
    if not isinstance(value, str):
        raise UserError(f"{key} must be a text")
    return value


def _file(folder: Path, key: str, value: Any) -> str:
    return str(folder / _text(folder, key, value))


def _flag(_folder: Path, key: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise UserError(f"{key} must be true or false")
    return value


def _not(folder: Path, key: str, value: Any) -> bool:
    return not _flag(folder, key, value)


def _unit(parse: Callable[[str], Any]) -> Read:
    """A number, or a text that ``parse`` understands."""

    def read(_folder: Path, key: str, value: Any) -> Any:
        if isinstance(value, bool) or not isinstance(value, (str, int, float)):
            raise UserError(f"{key} must be a number or a text")
        try:
            return parse(str(value))
        except UserError as error:
            raise UserError(f"{key}: {error}") from None

    return read


def _choice(*allowed: str) -> Read:
    def read(folder: Path, key: str, value: Any) -> str:
        if _text(folder, key, value) not in allowed:
            raise UserError(f"{key} is {value!r}, not one of {', '.join(allowed)}")
        return str(value)

    return read


def _memory(text: str) -> str:
    from armvirt.board.sizes import parse_size

    parse_size(text)
    return text


KEYS: dict[str, tuple[str, str, Read]] = {
    "expect": ("case", "expect", _choice(*VERDICTS)),
    "script": ("case", "script", _file),
    "gic": ("settings", "gic", _unit(lambda text: units.parse_count(text, 2, 3, what="GIC version"))),
    "cpus": ("settings", "cpus", _unit(lambda text: units.parse_count(text, 1, units.MAX_CPUS, what="CPU count"))),
    "mem": ("settings", "memory", _unit(_memory)),
    "cpu": ("settings", "cpu", _text),
    "cntfrq": ("settings", "cntfrq", _unit(units.parse_frequency)),
    "cntvoff": ("settings", "cntvoff", _unit(units.parse_offset)),
    "list-registers": (
        "settings",
        "list_registers",
        _unit(lambda text: units.parse_count(text, 1, 16, what="list register count")),
    ),
    "priority-bits": (
        "settings",
        "priority_bits",
        _unit(lambda text: units.parse_count(text, 5, 7, what="priority bit count")),
    ),
    "append": ("settings", "append", _text),
    "initrd": ("settings", "initrd", _file),
    "dtb": ("settings", "dtb", _file),
    "bios": ("settings", "bios", _file),
    "load-addr": ("settings", "load_addr", _unit(units.parse_address)),
    "semihosting": ("settings", "semihosting", _flag),
    "engine": ("settings", "engine", _choice("auto", "native", "portable")),
    "no-reboot": ("settings", "reboot", _not),
    "no-its": ("settings", "its", _not),
    "max-insns": ("limits", "max_insns", _unit(lambda text: units.parse_count(text, 1, what="instruction count"))),
    "max-time": ("limits", "max_time_ns", _unit(units.parse_time)),
    "timeout": ("limits", "timeout_s", _unit(lambda text: units.parse_time(text) / 1e9)),
}
