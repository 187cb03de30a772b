"""Malformed arguments and names, and small resource limits of the host: one line says what is
wrong, with the exit status of a mistake."""

from __future__ import annotations

import os
import resource
from pathlib import Path

import pytest
from command import Done
from command import armvirt as run
from elf_builder import TEXT, Load, elf

from armvirt.bundled import FOLDER
from armvirt.cli.options import BOARD, LIMITS

NOT_UTF8 = os.fsdecode(b"\xff\xfe")
FORGED = "a\nVERDICT: PASS\x1b[2J"


def armvirt(*words: str, limit: tuple[int, int] | None = None) -> Done:
    """With one resource limit of the host (RLIMIT_*, value)."""
    before = None if limit is None else lambda: resource.setrlimit(limit[0], (limit[1], limit[1]))
    return run(*words, errors="surrogateescape", preexec_fn=before)


@pytest.mark.parametrize(
    "option", [option.flag for option in (*BOARD, *LIMITS) if option.parse is not None]
)
def test_two_dashes_are_a_value(
    option: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = armvirt("run", "hello", f"{option}=--")
    assert (done.returncode, len(done.stderr.splitlines())) == (
        0 if option == "--append" else 2,
        1,
    ), done.stderr


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (["run", NOT_UTF8], 2),
        (["run", "hello", "--append", NOT_UTF8], 0),
        (["run", "hello", "--semihosting", "--append", NOT_UTF8], 0),
        (["run", "hello", "--script", NOT_UTF8], 2),
        (["run", "hello", "--cpu", NOT_UTF8], 2),
        (["run", "hello", "--" + NOT_UTF8], 2),
        ([NOT_UTF8], 2),
        (["test", NOT_UTF8], 2),
        (["test", "x" * 300 + ".elf"], 2),
        (["test", "y" * 300], 2),
        (["run", "y" * 100_000], 2),
        (["gic", "hello", "--at", FORGED], 2),
        (["explain", "hello", "--intid=--"], 2),
        (["test", "-j=--", "hello"], 2),
        (["run", "hello", "--timeout", "1000000h"], 0),
        (["test", "hello", "-j", "256"], 0),
    ],
)
def test_words_of_every_kind(words: list[str], status: int) -> None:
    done = armvirt(*words)
    assert done.returncode == status, done.stderr
    assert len(done.stderr.splitlines()) <= 1
    assert done.stderr.isascii() and "\x1b" not in done.stderr


def test_bytes_that_are_no_utf8_reach_the_guest_as_they_are(tmp_path: Path) -> None:
    assert (
        armvirt("run", "hello", "--append", NOT_UTF8, "--dump-dtb", str(tmp_path / "t")).returncode
        == 0
    )
    assert b"\xff\xfe\0" in (tmp_path / "t").read_bytes()


def test_a_file_name_that_is_not_utf8(tmp_path: Path) -> None:
    guest = tmp_path / f"{NOT_UTF8}.elf"
    guest.write_bytes((Path(FOLDER) / "fail.elf").read_bytes())
    trace = tmp_path / f"{NOT_UTF8}.jsonl"
    assert armvirt("run", str(guest), "--trace", str(trace)).returncode == 1
    assert trace.exists()
    done = armvirt("test", str(guest), "--junit", str(tmp_path / "report"))
    assert (done.returncode, "--- \\xff\\xfe: expected pass" in done.stdout) == (1, True)


# Names that try to look like something else


@pytest.mark.parametrize(
    "words", [["run"], ["trace"], ["gic"], ["explain", "--intid", "27"]], ids=lambda w: w[0]
)
def test_no_symbol_forges_a_verdict(words: list[str], tmp_path: Path) -> None:
    guest = tmp_path / "guest.elf"
    guest.write_bytes(elf([Load(data=b"\x00\x00\x00\x14")], symbols=[(FORGED, 2, TEXT, 4)]))
    done = armvirt(words[0], str(guest), *words[1:])
    printed = done.stdout + done.stderr
    assert "\x1b" not in printed
    assert [line for line in printed.splitlines() if line.startswith("VERDICT")] == []
    assert "a\\nVERDICT: PASS\\x1b[2J" in printed


def test_no_name_of_a_suite_forges_a_verdict(tmp_path: Path) -> None:
    (tmp_path / "armvirt.toml").write_text(
        '[[guest]]\nname = "a\\nVERDICT: PASS\\u001b[2J"\npath = "fail.elf"\n[[guest]]\nname="[/]"\npath = "fail.elf"\n'
    )
    (tmp_path / "fail.elf").write_bytes((Path(FOLDER) / "fail.elf").read_bytes())
    report = tmp_path / "report.xml"
    done = armvirt("test", str(tmp_path), "--junit", str(report))
    assert done.returncode == 1, done.stderr
    assert "\x1b" not in done.stdout
    assert [line for line in done.stdout.splitlines() if line.startswith("VERDICT")] == []
    assert "\x1b" not in report.read_text()
    assert [
        line for line in report.read_text().splitlines() if line.startswith("VERDICT: PASS")
    ] == []


# What the host does not give


@pytest.mark.parametrize("mib", [60, 400, 1000])
@pytest.mark.parametrize("words", [["run", "hello"], ["trace", "hello"]], ids=lambda w: w[0])
def test_too_little_address_space_is_no_verdict_of_the_guest(words: list[str], mib: int) -> None:
    done = armvirt(*words, limit=(resource.RLIMIT_AS, mib << 20))
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr
    assert "raise ulimit -v" in done.stderr


@pytest.mark.parametrize(
    "words", [["run", "hello"], ["test", "hello", "spin", "-j", "2"]], ids=lambda w: w[0]
)
@pytest.mark.parametrize("files", [6, 8, 10, 12, 16])
def test_too_few_file_descriptors(words: list[str], files: int) -> None:
    done = armvirt(*words, limit=(resource.RLIMIT_NOFILE, files))
    assert done.returncode in (0, 2), done.stderr
    assert done.returncode == 0 or (
        len(done.stderr.splitlines()),
        "raise ulimit -n" in done.stderr,
    ) == (1, True)
