"""The table of command-line options, without a machine."""

from __future__ import annotations

import inspect
import re

import pytest
from conftest import ROOT

from armvirt import events
from armvirt.cli.options import COMMANDS, Parser, build_parser, settings
from armvirt.errors import UserError
from armvirt.hyp.diagnosis.finding import Check
from armvirt.settings import DEFAULTS, SETTINGS


def parse(*words: str) -> dict[str, object]:
    return vars(build_parser("0").parse_args(words))


def test_every_setting_is_an_argument_of_the_machine_or_of_a_run() -> None:
    from armvirt.machine import Machine

    made, run = inspect.signature(Machine).parameters, inspect.signature(Machine.run).parameters
    for setting in SETTINGS:
        where = run if setting.group == "limit" else made
        assert not setting.argument or setting.argument in where, setting.name
        if (
            setting.argument in DEFAULTS
            and DEFAULTS[setting.argument] is not None
            and not setting.by_guest
        ):
            assert where[setting.argument].default == DEFAULTS[setting.argument], setting.name


def test_a_default_in_a_help_text_is_the_default() -> None:
    named = 0
    for setting in SETTINGS:
        told = re.search(r"\(default ([\w.]+)[);]", setting.help)
        if told and setting.parse is not None and setting.default is not None:
            assert setting.parse(told[1]) == setting.default, setting.name
            named += 1
    assert named >= 6


def test_settings_and_their_defaults() -> None:
    arguments = build_parser("0").parse_args(
        ["run", "g", "--mem", "1G", "--cntfrq", "24MHz", "--cntvoff", "-1"]
    )
    chosen = settings(arguments)
    assert (chosen["memory"], chosen["cntfrq"], chosen["cntvoff"]) == (
        1 << 30,
        24_000_000,
        (1 << 64) - 1,
    )
    assert (chosen["gic"], chosen["engine"], chosen["initrd"]) == (3, None, None)
    assert chosen["cpus"] is None, "a bundled guest brings its own"
    assert settings(build_parser("0").parse_args(["run", "g", "--gic", "2"]))["gic"] == 2
    assert (chosen["list_registers"], chosen["priority_bits"]) == (4, 5)


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["--gic", "4"], "'4' is not one of 2, 3"),
        (["--cpus", "0"], "outside 1..123"),
        (["--cpus", "two"], "not a CPU count"),
        (["--list-registers", "0"], "list register count 0 is outside 1..16"),
        (["--list-registers", "17"], "list register count 17 is outside 1..16"),
        (["--priority-bits", "4"], "priority bit count 4 is outside 5..7"),
        (["--priority-bits", "8"], "priority bit count 8 is outside 5..7"),
        (["--mem", "0"], "outside 1M..255G"),
        (["--mem", "lots"], "not a size"),
        (["--cntfrq", "0"], "frequency 0 is outside"),
        (["--max-insns", "0"], "outside 1.."),
        (["--max-time", "soon"], "not a time"),
        (["--timeout", "-1"], "outside 1.."),
        (["--load-addr", "0x1000000000000"], "outside"),
        (["--engine", "fast"], "not one of auto, native, portable"),
        (["--cpu"], "expected one argument"),
        (["--max-in", "1"], "unrecognized arguments: --max-in"),
        (["two"], "unrecognized arguments: two"),
    ],
)
def test_complaints_are_one_line(words: list[str], problem: str) -> None:
    with pytest.raises(UserError) as caught:
        parse("run", "guest", *words)
    assert problem in str(caught.value)
    assert "\n" not in str(caught.value)


LINES = (
    "run hello",
    "run hello --gic 2 --mem=1G --vhe --append=-- --trace-hash",
    "run --bios u-boot.bin --append --vhe",
    "run --append x hello --cntvoff -1",
    "trace hello --trace t.jsonl --rows 5 --plain",
    "explain hello --intid vtimer --at 1ms",
    "gic hello --all --no-its",
    "migrate-test hello --at 1ms",
    "test a b -j4 --junit=j.xml",
    "test -j 4 run",
    "list --json",
    "doctor",
    "",
    "run --help",
    "test -h",
    "--version",
    "hello",
    "hello run --gic 2",
    "--gic 2 run hello",
    "run hello --gic 4",
    "run hello --max-in 1",
    "run hello --j 4",
    "run hello --cpu",
    "run hello -v",
    "test -jx a",
    "test",
)


@pytest.mark.parametrize("words", LINES)
def test_the_parser_of_one_command_line_reads_it_like_the_whole_parser(
    words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def read(parser: Parser) -> tuple[object, str]:
        try:
            outcome: object = vars(parser.parse_args(words.split()))
        except (UserError, SystemExit) as error:
            outcome = repr(error)
        return outcome, capsys.readouterr().out

    assert read(build_parser("0", words.split())) == read(build_parser("0"))


@pytest.mark.parametrize("command", [command.name for command in COMMANDS])
def test_every_command_has_help_and_a_module(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        parse(command, "--help")
    assert caught.value.code == 0
    assert "--debug" in capsys.readouterr().out
    assert callable(next(each for each in COMMANDS if each.name == command).load())


def test_defaults_in_the_documentation_are_those_of_the_table() -> None:
    rows = [
        line
        for line in (ROOT / "docs" / "cli.md").read_text().splitlines()
        if line.startswith("| `--")
    ]
    told = 0
    for setting in SETTINGS:
        row = next((row for row in rows if f"`{setting.flag}" in row), "")
        default = re.search(r"\(default ([\w.-]+)", row)
        if default and setting.parse is not None:
            # What is no value here (a date, another setting's) is of another kind than the table's.
            if setting.default is not None:
                assert setting.parse(default[1]) == setting.default, row
                told += 1
    assert told >= 4


def test_every_option_is_documented() -> None:
    text = (ROOT / "docs" / "cli.md").read_text()
    flags = {option.flag for command in COMMANDS for option in command.options}
    assert [
        flag for flag in sorted(flags) if f"`{flag}" not in text and f" {flag} " not in text
    ] == []
    assert [command.name for command in COMMANDS if f"armvirt {command.name}" not in text] == []


def test_every_check_of_an_interrupt_is_documented() -> None:
    text = (ROOT / "docs" / "cli.md").read_text()
    assert [check.value for check in Check if f"`{check.value}`" not in text] == []


def test_every_kind_of_event_is_documented_with_its_fields() -> None:
    rows = {}
    for line in (ROOT / "docs" / "cli.md").read_text().splitlines():
        cells = line.strip("| ").split(" | ")
        if len(cells) == 3:
            rows[cells[0].strip("`")] = cells[2]
    kinds = [each for each in vars(events).values() if "kind" in getattr(each, "_fields", ())]
    assert len(kinds) > 10
    for kind in kinds:
        name = kind._field_defaults["kind"]
        assert [
            field for field in kind._fields if field != "kind" and f"`{field}`" not in rows[name]
        ] == [], name
