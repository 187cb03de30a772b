"""On a terminal of 80 columns no line is longer, no word is broken, and no word is missing.

What a command says on a terminal of 400 columns is what it has to say; on one of 80 it has to be
the same words.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from armvirt.bundled import FOLDER, guests
from armvirt.cli.main import main
from armvirt.cli.options import COMMANDS
from armvirt.printable import folded
from armvirt.tables import Table

ESCAPES = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")
FRAMES = re.compile("[\u2500-\u257f]")
#: How much is skipped depends on the moments at which the host looks at its own time.
POLLED = re.compile(r", \d+ %\s+of\s+them\s+in\s+polled\s+waits")
SECONDS = re.compile(r"\d+\.\d\d s")

LOOKS = [
    "explain wfi-forever --intid 27",
    "explain vtimer-tick --intid vtimer --at tick",
    "explain gic-lpi --intid 8192 --at 3ms",
    "explain gic-overflow --gic 2 --intid 166 --at 300us --versus 162",
    "explain sgi-smp --intid sgi0 --at 0 --vcpu 1",
    "explain driver-bugs --intid vtimer",
    "gic vtimer-tick --at tick",
    "gic vtimer-tick --at tick --all",
    "gic smp-timers --cpus 8 --at 1ms",
    "gic gic-lpi --at 3ms",
    "gic gic-overflow --gic 2 --at 300us",
    "trace gic-lpi --rows 60",
    "trace vtimer-tick --cntfrq 1GHz",
    "trace smp-timers --rows 100",
    "trace timer-el0 --rows 300",
    "trace gic-msi-v2m --gic 2 --rows 100",
    "trace wfi-forever",
    "migrate-test vtimer-tick --at 1.5ms",
    "migrate-test runaway --at 1.5ms --max-insns 2M",
    "list",
    "doctor",
]
RUNS = [f"run {guest.name} --max-time 1ms" for guest in guests().values() if not guest.script]
MISTAKES = [
    "run no-such-guest-of-this-name",
    f"run {FOLDER}/hello.elf --dtb {FOLDER}/hello.elf",
    "run -M virt,gic-version=2 -smp 2 -m 1G -nographic -kernel hello -append console=ttyAMA0 -S -s -d int",
    "explain hello --intid spi2000",
    "explain hello --intid vtimer --at no_such_function_of_this_name",
    "run hello --cpu cortex-a510",
]
HELP = ["--help", *(f"{command.name} --help" for command in COMMANDS)]


def said(
    words: list[str],
    columns: int,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> tuple[list[str], Counter[str]]:
    """The lines of a command on a terminal, and its words, without what the guest prints."""
    for stream in ("stdout", "stderr"):
        monkeypatch.setattr(f"sys.{stream}.isatty", lambda: True, raising=False)
    monkeypatch.setattr("armvirt.cli.commands.run._interactive", lambda arguments: False)
    monkeypatch.setattr("armvirt.cli.printing.raw", lambda data: None)
    monkeypatch.setenv("COLUMNS", str(columns))
    try:
        main(words)
    except SystemExit:
        pass  # --help
    captured = capsys.readouterr()
    text = SECONDS.sub("1.00 s", ESCAPES.sub("", captured.out + captured.err))
    text = POLLED.sub("", text)
    return text.splitlines(), Counter(FRAMES.sub(" ", text).split())


def check(
    words: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lines, narrow = said(words, 80, capsys, monkeypatch)
    _, wide = said(words, 400, capsys, monkeypatch)
    assert lines, "it says something"
    assert [line for line in lines if len(line) > 80 and max(map(len, line.split())) < 80] == []
    assert "…" not in "".join(lines)
    assert set(narrow) - set(wide) == set(), "words that were broken"
    assert set(wide) - set(narrow) == set(), "words that were left out"


@pytest.mark.parametrize("command", [*LOOKS, *MISTAKES])
def test_what_commands_say(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    check(command.split(), capsys, monkeypatch)


@pytest.mark.long
@pytest.mark.parametrize("command", RUNS)
def test_how_runs_end(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    check(command.split(), capsys, monkeypatch)


@pytest.mark.parametrize("command", HELP)
def test_help(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lines, narrow = said(command.split(), 80, capsys, monkeypatch)
    _, wide = said(command.split(), 400, capsys, monkeypatch)
    assert max(map(len, lines)) <= 80
    assert set(narrow) == set(wide)


def test_the_report_of_a_suite(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    suite = tmp_path / "armvirt.toml"
    suite.write_text(
        '[[guest]]\nname = "wfi-forever"\n[[guest]]\nname = "fail"\nexpect = "stuck"\n'
    )
    check(["test", str(suite), "--plain"], capsys, monkeypatch)


def test_every_command_is_looked_at() -> None:
    seen = {command.split()[0] for command in (*LOOKS, *RUNS)} | {"test"}
    assert seen == {command.name for command in COMMANDS}


# The mechanism


def test_a_folded_line() -> None:
    assert folded("one two-three four", 11, 2) == ["one", "  two-three", "  four"]
    assert folded("a 0x123456789abcdef0 b", 18, 8) == ["a", "0x123456789abcdef0", "b"], (
        "less indented to fit"
    )
    assert folded("a " + "x" * 30 + " b", 10, 4) == ["a", "x" * 30, "b"], (
        "longer than the terminal: whole"
    )
    assert folded("    ok    value", 80) == ["    ok    value"]


def test_a_table_that_does_not_fit_becomes_several() -> None:
    """Each has the first column; a row that has nothing to say in a later one is left out there,
    with its mark."""
    table = Table(
        "t",
        ("name", "value", "writer"),
        (("a", "0x1234567890", "x" * 20), ("b", "0x1", "")),
        {0: "red"},
    )
    first, second = table.parts(24)
    assert (first.title, first.columns, first.rows) == (
        "t",
        ("name", "value"),
        (("a", "0x1234567890"), ("b", "0x1")),
    )
    assert (second.title, second.columns, second.rows) == (
        "",
        ("name", "writer"),
        (("a", "x" * 20),),
    )
    assert (dict(first.marks), dict(second.marks)) == ({0: "red"}, {0: "red"})
    assert table.parts(100) == [table]
