"""``armvirt doctor`` and ``armvirt list``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from armvirt.bundled import guests, resolve
from armvirt.cli.commands import doctor as doctor_command
from armvirt.cli.main import main
from armvirt.errors import UserError
from armvirt.hw.engine import native


def test_a_good_installation(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert "armvirt is fit for use" in out
    assert "unicorn" in out


def test_a_broken_engine_is_a_finding_not_a_crash(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken() -> dict[str, str]:
        raise OSError("libunicorn.so.2: cannot open shared object file")

    monkeypatch.setattr("armvirt.hw.engine.describe", broken)
    assert main(["doctor"]) == 1
    out = capsys.readouterr().out
    assert "BAD   engine" in out
    assert "libunicorn.so.2" in out


def test_a_portable_engine_says_why_it_is_no_native_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    log = tmp_path / "native-build.log"
    log.write_text("cc failed: native.c:1: \x1b[31merror\n$ cc native.c\n" + "a line\n" * 40)
    monkeypatch.setattr("armvirt.hw.engine.describe", lambda: {"engine": "portable"})
    lines = native.build_log(str(log))
    monkeypatch.setattr("armvirt.hw.engine.native.build_log", lambda: lines)
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert "not built: cc failed: native.c:1: \\x1b[31merror" in out
    assert "| $ cc native.c" in out
    assert out.count("| a line") == doctor_command.LOG_LINES - 1 and "(42 lines in " in out


def test_an_installation_without_a_build_log() -> None:
    assert native.build_log("/none") == []


def test_doctor_names_the_documents(capsys: pytest.CaptureFixture[str]) -> None:
    main(["doctor"])
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "documents" in line]
    assert (Path(line.split(maxsplit=2)[2]) / "CHANGELOG.md").is_file()


def test_missing_tools_are_only_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_command.shutil, "which", lambda name: None)
    assert {finding.state for finding in doctor_command.tools()} == {"note"}


def test_the_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(guests())
    assert next(line for line in lines if line.startswith("gic-lpi ")).split()[1:5] == [
        "2",
        "CPUs",
        "GICv3",
        "pass",
    ]
    assert next(line for line in lines if line.startswith("gic-sgi ")).split()[3] == "GICv2,3"
    assert main(["list", "--json"]) == 0
    assert {row["name"] for row in json.loads(capsys.readouterr().out)} == set(guests())


def test_the_list_on_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80 and [
        line.split()[0] for line in lines if line[0] != " "
    ] == list(guests())


def test_every_bundled_guest_is_there() -> None:
    known = guests()
    assert {"hello", "vtimer-tick"} <= set(known)
    assert [guest.name for guest in known.values() if not guest.path.is_file()] == []
    assert resolve("hello") == known["hello"].file or resolve("hello") == known["hello"].path


def test_a_near_miss_is_suggested() -> None:
    with pytest.raises(UserError, match="did you mean vtimer-tick"):
        resolve("vtimer_tick")
