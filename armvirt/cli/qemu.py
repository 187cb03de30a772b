"""The common options of QEMU, and the corresponding options of armvirt.

armvirt reads this table only after it could not parse a command line. The names and values of the
options are from QEMU's manual (https://www.qemu.org/docs/master/system/invocation.html).
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Sequence

from armvirt.records import NamedTuple

Translate = Callable[[str], list[str]]


class Word(NamedTuple):
    """An option of QEMU. ``here`` tells the user which option of armvirt to use, or why there is
    none. ``translate`` converts the value of the QEMU option to words of an armvirt command
    line."""

    takes_value: bool
    here: str
    translate: Translate = lambda _value: []


def _as(flag: str) -> Translate:
    return lambda value: [flag, value]


def _field(value: str, *names: str) -> str:
    """Read one field of ``value``, the value of a QEMU option, which has the form
    ``first,name=value,...``. The result is the value of the first field whose name is in ``names``.
    If there is no such field, the result is ``first``, or "" if ``value`` begins with a named
    field."""
    parts = [part.partition("=") for part in value.split(",")]
    for name, equals, text in parts:
        if equals and name in names:
            return text
    return parts[0][0] if not parts[0][1] else ""


def _smp(value: str) -> list[str]:
    cpus = _field(value, "cpus")
    return ["--cpus", cpus] if cpus else []


def _memory(value: str) -> list[str]:
    size = _field(value, "size")
    return ["--mem", size] if size else []


def _machine(value: str) -> list[str]:
    fields = dict(part.partition("=")[::2] for part in value.split(","))
    gic = fields.get("gic-version", "")
    words = ["--gic", gic] if gic in ("2", "3") else []
    words += ["--no-its"] if fields.get("its") == "off" else []
    return words + (["--dump-dtb", fields["dumpdtb"]] if fields.get("dumpdtb") else [])


def _rtc(value: str) -> list[str]:
    base = _field(value, "base")
    return ["--rtc-base", base] if base[:1].isdigit() else []


def _cpu(value: str) -> list[str]:
    from armvirt.hw.engine.abi import CPU_MODELS

    model = value.partition(",")[0]
    return ["--cpu", model] if model in CPU_MODELS else []


def _semihosting(value: str) -> list[str]:
    return [] if "enable=off" in value else ["--semihosting"]


_MACHINE = Word(True, "the board is always virt; the GIC is --gic 2|3", _machine)
_TERMINAL = "leave it out, the guest's console is the terminal"
_NO_GDB = "there is no GDB server; armvirt explain and armvirt gic stop at a place with --at"
_NO_DEVICE = "the board has no virtio and no PCI"

WORDS: dict[str, Word] = {
    "kernel": Word(True, "GUEST", lambda value: [value]),
    "smp": Word(True, "--cpus", _smp),
    "m": Word(True, "--mem", _memory),
    "append": Word(True, "--append", _as("--append")),
    "initrd": Word(True, "--initrd", _as("--initrd")),
    "dtb": Word(True, "--dtb", _as("--dtb")),
    "bios": Word(True, "--bios", _as("--bios")),
    "pflash": Word(True, "--bios", _as("--bios")),
    "cpu": Word(True, "--cpu", _cpu),
    "M": _MACHINE,
    "machine": _MACHINE,
    "nographic": Word(False, _TERMINAL),
    "display": Word(True, _TERMINAL),
    "serial": Word(True, _TERMINAL),
    "chardev": Word(True, _TERMINAL),
    "monitor": Word(True, "there is no monitor; Ctrl-A x leaves, Ctrl-A h helps"),
    "semihosting": Word(False, "--semihosting", lambda _value: ["--semihosting"]),
    "semihosting-config": Word(True, "--semihosting", _semihosting),
    "no-reboot": Word(False, "--no-reboot", lambda _value: ["--no-reboot"]),
    "rtc": Word(True, "--rtc-base", _rtc),
    "S": Word(False, _NO_GDB),
    "s": Word(False, _NO_GDB),
    "gdb": Word(True, _NO_GDB),
    "d": Word(True, "--trace FILE, or armvirt trace"),
    "D": Word(True, "--trace FILE", _as("--trace")),
    "trace": Word(True, "--trace FILE, which writes every event"),
    "icount": Word(True, "leave it out, one instruction is always one nanosecond"),
    "accel": Word(True, "leave it out, there is no accelerator to choose"),
    "enable-kvm": Word(False, "leave it out, there is no accelerator to choose"),
    "drive": Word(True, _NO_DEVICE),
    "device": Word(True, _NO_DEVICE),
    "netdev": Word(True, _NO_DEVICE),
    "nic": Word(True, _NO_DEVICE),
    "net": Word(True, _NO_DEVICE),
    "hda": Word(True, _NO_DEVICE),
    "sd": Word(True, _NO_DEVICE),
    "nodefaults": Word(False, "leave it out"),
    "name": Word(True, "leave it out"),
    "version": Word(False, "--version"),
}  # fmt: skip


def answer(words: Sequence[str], commands: Sequence[str]) -> str | None:
    """The error message, in one line, for a command line that contains options of QEMU. The message
    shows the equivalent command line of armvirt. The result is None if ``words`` contains no option
    of QEMU. ``commands`` are the names of armvirt's commands."""
    words = list(words)
    command = words.pop(0) if words and words[0] in commands else "run"
    if words and words[0].startswith("qemu-system-"):
        del words[0]
    told: dict[str, list[str]] = {}
    line = ["armvirt", command]
    guest: list[str] = []
    for name, value, plain in _split(words):
        if name is None:
            line.append(plain)
            continue
        told.setdefault(WORDS[name].here, []).append(f"-{name}")
        said = WORDS[name].translate(value)
        (guest if name == "kernel" else line).extend(said)
    if not told:
        return None
    meaning = "; ".join(f"{' '.join(dict.fromkeys(names))}: {here}" for here, names in told.items())
    line[2:2] = guest
    return f"these are options of QEMU; write {shlex.join(line)} ({meaning})"


def _split(words: Sequence[str]) -> Iterator[tuple[str | None, str, str]]:
    """Yield (name, value, "") for an option of QEMU, and (None, "", word) for any other word."""
    rest = iter(words)
    for word in rest:
        # QEMU accepts one or two dashes, but with two, some options are also options of armvirt.
        name = (
            word[1:]
            if not word.startswith("--")
            else word[2:]
            if word[2:] in ("kernel", "smp", "nographic")
            else ""
        )
        if word.startswith("-") and name in WORDS:
            yield name, next(rest, "") if WORDS[name].takes_value else "", ""
        else:
            yield None, "", word
