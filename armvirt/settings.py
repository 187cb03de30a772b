"""The table of all settings of a run. The command line, suite files and `Machine` use this table.

A `Setting` is an option of the command line (``--quantum``), a key of armvirt.toml (``quantum``),
and an argument in Python (``quantum_ns``). All three accept the same text. The default is that of
`armvirt.board.config.BoardConfig`. This module imports no large module, because every command reads
the table.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from armvirt import units
from armvirt.arch.bits import MASK64
from armvirt.arch.gic import MAX_LIST_REGISTERS, MAX_PRIORITY_BITS, MIN_PRIORITY_BITS
from armvirt.board.boards import BOARDS
from armvirt.board.config import BoardConfig
from armvirt.errors import UserError
from armvirt.records import NamedTuple

Parse = Callable[[str], Any]

BOARD, LIMIT, RUN = "board", "limit", "run"
DEFAULTS: dict[str, Any] = BoardConfig._field_defaults
_MAPS = [model.memmap for model in BOARDS.values()]
#: The limits of the most capable board. `armvirt.board.checks` checks the limits of the chosen
#: board.
MOST_CPUS = max(at.MAX_CPUS for at in _MAPS)
LEAST_RAM, MOST_RAM = min(at.RAM_MIN for at in _MAPS), max(at.RAM_MAX for at in _MAPS)


def text(value: str) -> str:
    """Return ``value``, which becomes a string in the device tree. UserError if ``value`` contains
    a NUL character."""
    if "\0" in value:
        raise UserError("a NUL character would end the text; leave it out")
    return value


def file(value: str) -> str:
    """Return ``value``, which is the path of a file. In an armvirt.toml, a path is relative to the
    directory of this armvirt.toml."""
    return value


def choice(*allowed: str) -> Parse:
    """Return a parser that accepts only the texts in ``allowed``."""

    def parse(value: str) -> str:
        if value not in allowed:
            raise UserError(f"{value[:40]!r} is not one of {', '.join(allowed)}")
        return value

    return parse


def count(low: int, high: int = MASK64, what: str = "number") -> Parse:
    """Return a parser of whole numbers from ``low`` to ``high``. ``what`` names the number in error
    messages."""
    return lambda value: units.parse_count(value, low, high, what=what)


def memory(value: str) -> int:
    """Parse a size of RAM, and return the size in bytes (see `armvirt.units.parse_size`)."""
    return units.parse_size(value, LEAST_RAM, MOST_RAM)


def gic_version(value: str) -> int:
    """Parse the GIC version: 2 or 3."""
    return int(choice("2", "3")(value))


def cpu_model(value: str) -> str:
    """Return ``value``. UserError if the engine does not support a CPU model of this name."""
    from armvirt.hw.engine.abi import CPU_MODELS

    return str(choice(*CPU_MODELS)(value))


def cpu_features(value: str) -> tuple[str, ...]:
    """Parse a list of CPU features such as "ecv,wfxt", and return their names. UserError for an
    unknown name."""
    from armvirt.hyp.kvm import CPU_FEATURES

    names = tuple(name for name in value.split(",") if name)
    for name in names:
        if name not in CPU_FEATURES:
            raise UserError(
                f"there is no CPU feature {name[:40]!r}; there is {', '.join(CPU_FEATURES)}"
            )
    return names


def quantum(value: str) -> int:
    """Parse the time slice of a CPU, and return the time slice in ns. UserError for a time slice
    that is too short."""
    from armvirt.hyp.kvm import MIN_QUANTUM_NS

    ns = units.parse_time(value)
    if ns < MIN_QUANTUM_NS:
        raise UserError(f"a time slice of {ns} ns is too short; the minimum is {MIN_QUANTUM_NS} ns")
    return ns


def seconds(value: str) -> float:
    """Parse a span of host time, and return the span in seconds."""
    return units.parse_time(value) / 1e9


class Setting(NamedTuple):
    """One setting. ``parse`` is a function that converts the text of the setting to a value. A
    setting whose value is True or False is a switch: it has no text, and ``parse`` is None.
    ``meta`` is the name of the value in ``--help``.

    ``argument`` is the name of the keyword argument of `Machine`. If ``group`` is `LIMIT`, it is a
    keyword argument of `Machine.run` instead. If ``negates`` is True, the switch sets this argument
    to False. Python code may give a number instead of a text; ``unit`` is the unit of this number.
    ``by_guest`` is True if each bundled guest has its own default.
    """

    name: str
    meta: str
    parse: Parse | None
    help: str
    argument: str = ""
    group: str = BOARD
    unit: str = ""
    negates: bool = False
    by_guest: bool = False

    @property
    def flag(self) -> str:
        """The option of the command line, such as ``--quantum``."""
        return f"--{self.name}"

    @property
    def default(self) -> Any:
        """The default of the switch, or of the argument. None if each bundled guest has its own
        default, or if `DEFAULTS` does not have the argument."""
        if self.negates or (self.parse is None and self.argument not in DEFAULTS):
            return False
        return None if self.by_guest else DEFAULTS.get(self.argument)


_COUNT_OF_CPUS = count(1, MOST_CPUS, "CPU count")

SETTINGS = (
    Setting("board", "NAME", choice(*BOARDS), "the board (default virt)", "board"),
    Setting("gic", "2|3", gic_version, "GIC version (default 3; 2 has at most 8 CPUs)", "gic"),
    Setting(
        "no-its", "", None, "leave out the ITS of a GICv3, and LPIs with it", "its", negates=True
    ),
    Setting(
        "cpus",
        "N",
        _COUNT_OF_CPUS,
        "CPUs (default 1, or what the bundled guest needs)",
        "cpus",
        by_guest=True,
    ),
    Setting(
        "mem",
        "SIZE",
        memory,
        "guest RAM, for example 512M or 2G (default 512M)",
        "memory",
        unit="B",
    ),
    Setting("cpu", "MODEL", cpu_model, "CPU model (default cortex-a72)", "cpu"),
    Setting("cntfrq", "HZ", units.parse_frequency, "counter frequency (default 62.5MHz)", "cntfrq"),
    Setting(
        "cntvoff",
        "TICKS",
        units.parse_offset,
        "CNTVOFF_EL2 (default: the virtual count starts at 0)",
        "cntvoff",
    ),
    Setting(
        "list-registers",
        "N",
        count(1, MAX_LIST_REGISTERS, "list register count"),
        "list registers (default 4)",
        "list_registers",
    ),
    Setting(
        "priority-bits",
        "N",
        count(MIN_PRIORITY_BITS, MAX_PRIORITY_BITS, "priority bit count"),
        "priority bits of the CPU interface (default 5)",
        "priority_bits",
    ),
    Setting("pcpus", "N", _COUNT_OF_CPUS, "physical CPUs that the CPUs share (default 1)", "pcpus"),
    Setting(
        "quantum",
        "TIME",
        quantum,
        "time slice of a CPU when others wait (default 1ms on one physical CPU, 100us on several)",
        "quantum_ns",
        unit="ns",
    ),
    Setting(
        "no-skip",
        "",
        None,
        "execute every instruction of polled waits; the results are the same",
        "skip",
        negates=True,
    ),
    Setting(
        "vhe",
        "",
        None,
        "run the hypervisor at EL2 (VHE); the guest has both timers directly",
        "vhe",
    ),
    Setting(
        "cpu-features",
        "LIST",
        cpu_features,
        "features that the CPU model does not have: ecv, wfxt (separated by commas)",
        "cpu_features",
    ),
    Setting(
        "rtc-base",
        "DATE",
        units.parse_date,
        "date at the start of the run (default 2024)",
        "rtc_base",
    ),
    Setting(
        "seed",
        "N",
        count(0, what="seed"),
        "seed of the guest's random numbers (default 0)",
        "seed",
    ),
    Setting(
        "no-kaslr-seed",
        "",
        None,
        "give the guest no kaslr-seed: Linux runs at its link addresses",
        "kaslr_seed",
        negates=True,
    ),
    Setting("append", "STR", text, "kernel command line", "append"),
    Setting("initrd", "FILE", file, "initial RAM disk", "initrd"),
    Setting("dtb", "FILE", file, "device tree to use instead of the generated one", "dtb"),
    Setting(
        "bios", "FILE", file, "firmware, put into a ROM at address 0 (for example U-Boot)", "bios"
    ),
    Setting(
        "symbols",
        "FILE",
        file,
        "file with the guest's symbols: its ELF (vmlinux), or System.map",
        "symbols",
    ),
    Setting("load-addr", "ADDR", units.parse_address, "load address of a flat binary", "load_addr"),
    Setting("semihosting", "", None, "serve Arm semihosting calls (HLT #0xF000)", "semihosting"),
    Setting("script", "FILE", file, "console script of expect and send lines", "script"),
    Setting("no-reboot", "", None, "end when the guest asks for a reset", "reboot", negates=True),
    Setting(
        "engine",
        "native|portable",
        choice("auto", "native", "portable"),
        "engine that executes the guest",
        "engine",
    ),
    Setting(
        "max-insns",
        "N",
        count(1, (1 << 63) - 1, "instruction count"),
        "end after N instructions",
        "max_insns",
        LIMIT,
    ),
    Setting(
        "max-time",
        "TIME",
        units.parse_time,
        "end after this much guest time, for example 10ms or 2s",
        "max_time_ns",
        LIMIT,
        unit="ns",
    ),
    Setting(
        "timeout",
        "TIME",
        seconds,
        "end after this much host time, for example 30s",
        "timeout_s",
        LIMIT,
        unit="s",
    ),
    Setting(
        "dump-dtb", "FILE", file, "write the device tree that the guest would get, and end", "", RUN
    ),
    Setting("trace", "FILE", file, "write every event to FILE as JSON lines", "", RUN),
    Setting(
        "trace-hash",
        "",
        None,
        "print the SHA-256 of the architectural events as the last line",
        "",
        RUN,
    ),
    Setting(
        "pace",
        "",
        None,
        "let idle guest time and polled waits take as long as on the host's clock (default at a terminal)",
        "pace",
        RUN,
    ),
    Setting("no-pace", "", None, "skip idle guest time", "pace", RUN, negates=True),
    Setting("exit-raw", "", None, "end with the guest's own exit code", "", RUN),
    Setting("debug", "", None, "show the Python traceback of an internal error", "", RUN),
)
BY_NAME = {setting.name: setting for setting in SETTINGS}
_BY_ARGUMENT = {
    setting.argument: setting
    for setting in SETTINGS
    if setting.argument and setting.name != "no-pace"
}


def native(argument: str, value: Any, name: str = "") -> Any:
    """Convert ``value``, which Python code gave for the keyword argument ``argument`` of `Machine`
    or `Machine.run`. ``value`` is a Python value such as a number, or a text as on the command
    line. If ``value`` is None, return the default.

    UserError if ``value`` cannot be converted. The message has the accepted forms. ``name`` is the
    name of the argument in the message; if ``name`` is empty, the message has ``argument``.
    """
    setting = _BY_ARGUMENT[argument]
    default = DEFAULTS.get(argument)
    if value is None or (type(value) is type(default) and value == default):
        return default if value is None else value
    try:
        return _native(setting, value)
    except UserError as error:
        raise UserError(f"{name or argument}={shown(value)}: {error}") from None


def shown(value: object) -> str:
    """Return the repr of a value for a message. A repr that is too long is cut."""
    try:
        shown = repr(value)
    except ValueError:  # an integer with more digits than Python converts to text
        return "..."
    return shown if len(shown) <= 60 else f"{shown[:57]}..."


def _native(setting: Setting, value: Any) -> Any:
    if setting.parse is None:
        if not isinstance(value, bool):
            raise UserError("write True or False")
        return value
    if setting.parse is file:
        if not isinstance(value, (str, os.PathLike)):
            raise UserError("write the path of a file")
        return value
    if setting.parse is text:
        if not isinstance(value, str):
            raise UserError("write a text")
        return value
    return setting.parse(_as_text(setting, value))


def _as_text(setting: Setting, value: Any) -> str:
    """Convert ``value`` to the text that ``setting.parse`` can parse. ``value`` is a text, a number
    or a sequence of names. UserError for any other value."""
    if isinstance(value, str):
        return value
    if isinstance(value, (tuple, list)) and all(isinstance(name, str) for name in value):
        return ",".join(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise UserError("write a number or a text, as the option takes it on the command line")
    if setting.unit == "B" and 0 < value < 1 << 20:
        raise UserError(f'a number counts bytes here; write "{value}M" for {value} MiB')
    return number_text(value) + setting.unit


def number_text(value: int | float) -> str:
    """Convert a number to a text for the parser of a setting. UserError if the number has too many
    digits."""
    try:
        return str(int(value) if isinstance(value, float) and value.is_integer() else value)
    except ValueError:  # more digits than Python converts to text
        raise UserError("the number is too large") from None
