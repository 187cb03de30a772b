"""``armvirt test``: parallel runs, reports, and workers that die."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as xml

import pytest

from armvirt.bundled import FOLDER
from armvirt.cli import pool
from armvirt.cli.junit import report
from armvirt.cli.main import main
from armvirt.cli.outcome import Outcome, disassemble
from armvirt.cli.test_command import closing, failure
from armvirt.suite import Case


def armvirt_test(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    status = main(["test", *words])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_guests_that_end_as_expected(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = armvirt_test(capsys, "hello", "spin", "fail", "runaway", "-j", "2")
    assert status == 0, out
    assert "4 passed, 0 failed, 0 errors" in out.splitlines()[-1]


def test_a_guest_that_does_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    suite, junit = tmp_path / "armvirt.toml", tmp_path / "report.xml"
    suite.write_text(f'[[guest]]\nname = "bad"\npath = "{FOLDER}/fail.elf"\n[[guest]]\nname = "hello"\n')
    status, out, _ = armvirt_test(capsys, str(tmp_path), "--junit", str(junit))
    assert status == 1
    assert "--- bad: expected pass, got fail" in out
    assert "VERDICT: FAIL" in out  # the end of its console
    assert "psci_call" in out  # where it is
    assert "1 passed, 1 failed, 0 errors" in out
    (suite_element,) = xml.parse(junit).getroot()
    assert (suite_element.get("tests"), suite_element.get("failures")) == ("2", "1")


def test_mistakes_in_a_suite(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "armvirt.toml").write_text('[[guest]]\nname = "hello"\nmemory = "1G"\n')
    junit = tmp_path / "report.xml"
    status, out, err = armvirt_test(capsys, str(tmp_path), "--junit", str(junit))
    assert (status, out, len(err.splitlines())) == (2, "", 1)
    assert "unknown key 'memory'" in err
    assert not junit.exists()


def test_an_image_that_is_none_is_that_guests_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "broken.elf").write_bytes(b"\x7fELF")
    status, out, _ = armvirt_test(capsys, str(tmp_path / "broken.elf"), "hello")
    assert status == 1
    assert "1 passed, 0 failed, 1 errors" in out
    assert "broken.elf" in out


def run_worker(monkeypatch: pytest.MonkeyPatch, code: str, limit_s: float = 30) -> Outcome:
    """A case whose worker is ``code`` instead."""
    real = subprocess.run

    def instead(command: list[str], **options: object) -> object:
        return real([sys.executable, "-c", code], **options)  # type: ignore[call-overload]

    monkeypatch.setattr(pool.subprocess, "run", instead)
    monkeypatch.setattr(pool, "GRACE_S", 0.0)
    return pool.run_one(Case("guest", "hello", limits={"timeout_s": limit_s}))


def test_a_worker_that_crashes(monkeypatch: pytest.MonkeyPatch) -> None:
    outcome = run_worker(monkeypatch, "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    assert (outcome.ok, outcome.error) == (False, "its process crashed (SIGSEGV)")


def test_a_worker_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    outcome = run_worker(monkeypatch, "raise SystemExit('no space')")
    assert outcome.error == "its process ended with status 1: no space"


def test_a_worker_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    outcome = run_worker(monkeypatch, "import time; time.sleep(60)", limit_s=0.5)
    assert outcome.error == "its process hung; ended after 0.5 s"


def test_a_report_can_hold_what_guests_print() -> None:
    outcome = Outcome("a\x00b", "pass", "fail", console=["<&>\x1b[0m\ud800"])
    root = xml.fromstring(report([outcome, Outcome("fine", "pass", "pass", True), Outcome("dead", "pass", error="x")]))
    suite = root[0]
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("3", "1", "1")
    assert suite[0].get("name") == "a?b"
    assert "<&>?[0m?" in (suite[0][0].text or "")


def test_texts() -> None:
    bad = Outcome("g", "pass", "stuck", diagnosis="waits", console=["last words"])
    assert failure(bad) == ["--- g: expected pass, got stuck: waits", "  last of the console:", "    last words"]
    assert closing([bad, Outcome("h", "pass", error="x")], 1.5) == "0 passed, 1 failed, 1 errors in 1.50 s"


def test_disassembly_of_what_is_no_code() -> None:
    assert list(disassemble(bytes.fromhex("1f2003d5 ffffffff"), 0x1000)) == [
        (0x1000, "nop"),
        (0x1004, ".word 0xffffffff"),
    ]
