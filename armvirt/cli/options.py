"""Every command-line option, as a table. This module imports no large module, so that a run starts
fast."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any, NoReturn

from armvirt import settings as settings_table
from armvirt import units
from armvirt.board.boards import BOARDS
from armvirt.cli import printing
from armvirt.errors import UserError
from armvirt.printable import folded
from armvirt.records import NamedTuple
from armvirt.settings import MOST_CPUS, SETTINGS, Parse, Setting, count, file


class Option(NamedTuple):
    """One option of the command line. ``parse`` converts the text of the option's value, and
    ``meta`` is the name of this value in the help. ``parse`` is None for an option without a
    value."""

    flag: str
    meta: str
    parse: Parse | None
    help: str
    default: Any = None

    @property
    def dest(self) -> str:
        """The name of the attribute that has the option's value in the parsed arguments."""
        return self.flag.lstrip("-").replace("-", "_")


HELP = ("-h", "--help")


def _option(setting: Setting) -> Option:
    # argparse parses a default that is a text, and this costs time in every run. The option has the
    # default None instead, and `Machine` has the real default.
    default = None if isinstance(setting.default, str) else setting.default
    return Option(setting.flag, setting.meta, setting.parse, setting.help, default)


def _group(name: str) -> tuple[Option, ...]:
    return tuple(
        _option(setting)
        for setting in SETTINGS
        if setting.group == name and setting.name != "debug"
    )


BOARD, LIMITS, RUN = (
    _group(settings_table.BOARD),
    _group(settings_table.LIMIT),
    _group(settings_table.RUN),
)
DEBUG = _option(settings_table.BY_NAME["debug"])

TRACE = (
    Option("--plain", "", None, "plain text, even on a terminal", False),
    Option("--no-console", "", None, "leave out what the guest prints", False),
    Option(
        "--rows",
        "N",
        count(0, 1 << 32, "row count"),
        "show at most N rows (the summary counts all)",
    ),
    Option("--trace", "FILE", file, "write every event to FILE as JSON lines, too"),
)


def intid(text: str) -> str:
    """Check the text of an INTID, which is a number or a name, and return the text. The text is
    converted to a number later, when the board of the machine is known."""
    from armvirt.intids import any_intid

    return any_intid(text, [model.memmap for model in BOARDS.values()])


LOOK = (
    Option(
        "--at",
        "TIME|SYMBOL",
        str,
        "when to look: a time (1.5ms), a function, or an address (default: at the end)",
    ),
    Option(
        "--vcpu",
        "N",
        count(0, MOST_CPUS - 1, "CPU number"),
        "the CPU to look at, counted from 0",
    ),
    Option("--console", "", None, "show what the guest prints, on standard error", False),
    Option("--plain", "", None, "plain text, even on a terminal", False),
    Option("--json", "", None, "as JSON", False),
)

EXPLAIN = (
    Option(
        "--intid",
        "N|NAME",
        intid,
        "the interrupt that does not come: 27, vtimer, ptimer, uart, rtc, sgi0, spi1",
    ),
    Option("--versus", "N|NAME", intid, "an interrupt that is taken instead: say why"),
    *LOOK,
)

GIC = (*LOOK, Option("--all", "", None, "show all interrupts, not only those in use", False))

MIGRATE = (
    Option("--at", "TIME", units.parse_time, "guest time of the move, for example 1.5ms"),
    Option(
        "--counter-start",
        "N",
        count(0),
        "physical count of the other host at its time 0",
        None,
    ),
    Option(
        "--tolerance",
        "TIME",
        units.parse_time,
        "allowed difference of the end times (default 0; 500us for several CPUs)",
    ),
    Option(
        "--max-insns",
        "N",
        count(1, (1 << 63) - 1, "instruction count"),
        "end each run after N instructions",
    ),
    _option(settings_table.BY_NAME["timeout"]),
)

TEST = (
    Option(
        "-j",
        "N",
        count(1, 256, "job count"),
        "number of guests that run at once (default: one per CPU of this machine)",
    ),
    Option("--junit", "FILE", file, "write a JUnit XML report"),
    Option("--plain", "", None, "plain lines, even on a terminal", False),
)

LIST = (Option("--json", "", None, "as JSON", False),)


class Command(NamedTuple):
    """A command of armvirt. ``entry`` is MODULE:FUNCTION in armvirt.cli.commands. If ``entry`` is
    "", the module has the name of the command and the function is ``execute``. The function takes
    the parsed arguments and returns the exit status."""

    name: str
    help: str
    options: tuple[Option, ...] = ()
    positional: tuple[str, str, str] | None = None  # name, nargs, help
    entry: str = ""

    def load(self) -> Callable[[argparse.Namespace], int]:
        """Import the function that executes the command."""
        module, _, function = (self.entry or f"{self.name}:execute").partition(":")
        found: Callable[[argparse.Namespace], int] = getattr(
            import_module(f"armvirt.cli.commands.{module.replace('-', '_')}"), function
        )
        return found


GUEST = (
    "guest",
    "?",
    "a file (ELF, arm64 Image, gzipped Image, flat binary) or the name of a bundled guest",
)
PATHS = ("paths", "+", "a folder, a guest, or an armvirt.toml")
COMMANDS = (
    Command("run", "boot a guest", BOARD + LIMITS + RUN, GUEST),
    Command(
        "trace", "boot a guest and show its interrupts on a timeline", BOARD + LIMITS + TRACE, GUEST
    ),
    Command(
        "explain",
        "boot a guest and say why an interrupt does not come",
        BOARD + LIMITS + EXPLAIN,
        GUEST,
        "look:explain",
    ),
    Command(
        "gic",
        "boot a guest and show its interrupt controller",
        BOARD + LIMITS + GIC,
        GUEST,
        "look:gic",
    ),
    Command(
        "migrate-test",
        "move a guest to another host during its run, and compare",
        BOARD + MIGRATE,
        GUEST,
    ),
    Command("test", "run guests and compare with what is expected", TEST, PATHS),
    Command("list", "show the bundled guests", LIST),
    Command("doctor", "check this installation"),
)


class _Formatter(argparse.HelpFormatter):
    """A HelpFormatter with the width that `printing.columns` returns. argparse creates a formatter
    for each option. The formatter of argparse would import shutil to find the width of the
    terminal, and this import takes time."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=printing.columns(sys.stdout) - 2)

    def _split_lines(self, text: str, width: int) -> list[str]:
        """Wrap ``text`` at spaces only. The method of argparse would also break words at
        hyphens."""
        return folded(" ".join(text.split()), width, 0)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return "\n".join(indent + line for line in self._split_lines(text, width - len(indent)))


class Parser(argparse.ArgumentParser):
    """An argument parser that raises UserError, with a message of one line, if the arguments are
    wrong."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(formatter_class=_Formatter, allow_abbrev=False, **settings)
        self.color = False  # Python 3.14 colours the help; `printing` would show the escapes

    def _print_message(self, message: str, file: Any = None) -> None:
        """Print the text of ``--help`` and ``--version`` through `printing`, which reports an error
        if the output cannot be written. Newer versions of argparse ignore this error."""
        printing.lines(message.rstrip("\n").split("\n"), fold=False)

    def _get_values(self, action: argparse.Action, arg_strings: list[str]) -> Any:
        """Accept ``--`` as the value of an option, as in ``--append=--``. argparse would take
        ``--`` for the end of the options, and would store an empty list as the value."""
        if action.option_strings and action.nargs is None and arg_strings == ["--"]:
            return self._get_value(action, "--")
        return super()._get_values(action, arg_strings)

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} ({self.prog} --help shows the options)")


def _typed(parse: Parse) -> Parse:
    def convert(text: str) -> Any:
        try:
            return parse(text)
        except UserError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return convert


def _add(parser: argparse.ArgumentParser, option: Option) -> None:
    text = option.help.replace("%", "%%")
    if option.parse is None:
        parser.add_argument(option.flag, action="store_true", default=option.default, help=text)
    else:
        kind = _typed(option.parse)
        parser.add_argument(
            option.flag, metavar=option.meta, type=kind, default=option.default, help=text
        )


def build_parser(version: str, words: Sequence[str] | None = None) -> Parser:
    """Make the parser of the command line.

    ``words`` are the words of the command line. With ``words``, the parser has only the command and
    the options that occur in ``words``, and the default values of the other options. (To make all
    options takes longer than the run of a small guest.) If ``words`` is None, the parser has all
    commands and options.
    """
    parser = Parser(prog="armvirt", description="Boot, trace and test AArch64 guests.")
    parser.add_argument("--version", action="version", version=f"armvirt {version}")
    subparsers = parser.add_subparsers(
        prog="armvirt", dest="command", metavar="COMMAND", parser_class=Parser
    )
    first = words[0] if words else ""
    for command in [each for each in COMMANDS if each.name == first] or COMMANDS:
        sub = subparsers.add_parser(command.name, help=command.help, description=command.help)
        if words is None or command.name in words:
            _fill(sub, command, words)
    return parser


def _fill(parser: Parser, command: Command, words: Sequence[str] | None) -> None:
    """Add the arguments of ``command`` to ``parser``. If ``words`` is not None, add only the
    options that occur in ``words``."""
    if command.positional:
        name, nargs, text = command.positional
        parser.add_argument(
            name, nargs=nargs, metavar=name.upper() if nargs == "?" else "PATH", help=text
        )
    options = (*command.options, DEBUG)
    if words is not None and not any(word.startswith(HELP) for word in words):
        named = {word.partition("=")[0] for word in words}
        parser.set_defaults(**{option.dest: option.default for option in options})
        # A value can be joined to an option with one hyphen: -j4.
        options = tuple(each for each in options if each.flag in named or each.flag[1] != "-")
    for option in options:
        _add(parser, option)


def board_words(words: Sequence[str]) -> list[str]:
    """The words of the command line ``words`` that are options of the board (for example
    ``--cpus``), and the values of these options."""
    takes_value = {option.flag: option.parse is not None for option in BOARD}
    kept: list[str] = []
    rest = iter(words)
    for word in rest:
        flag, equals, _ = word.partition("=")
        if flag in takes_value:
            kept += [word, next(rest, "")] if takes_value[flag] and not equals else [word]
    return kept


def settings(arguments: argparse.Namespace) -> dict[str, Any]:
    """The `Machine` arguments for the board options on the command line."""
    chosen = {}
    for setting in SETTINGS:
        if setting.group == settings_table.BOARD:
            value = getattr(arguments, setting.name.replace("-", "_"))
            chosen[setting.argument] = not value if setting.negates else value
    return chosen
