"""``armvirt test``: parallel runs, reports, and workers that are killed."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree as xml

import pytest
from command import ARMVIRT, interruptible

from armvirt.bundled import FOLDER
from armvirt.cli import pool, worker
from armvirt.cli.commands import test as test_command
from armvirt.cli.commands.test import closing, failure
from armvirt.cli.junit import report
from armvirt.cli.main import main
from armvirt.suite.case import Case
from armvirt.suite.outcome import Outcome, disassemble


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
    suite.write_text(
        f'[[guest]]\nname = "bad"\npath = "{FOLDER}/fail.elf"\n[[guest]]\nname = "hello"\n'
    )
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


def test_an_image_that_is_none_is_found_before_anything_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "broken.elf").write_bytes(b"\x7fELF")
    status, out, err = armvirt_test(capsys, "hello", str(tmp_path / "broken.elf"))
    assert (status, out, len(err.splitlines())) == (2, "", 1)
    assert "broken.elf: it is truncated" in err


def test_an_image_that_goes_away_is_that_guests_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    case = Case("gone", str(tmp_path / "gone.elf"))
    monkeypatch.setattr(test_command.suite, "collect", lambda paths: [case, Case("hello", "hello")])
    status, out, _ = armvirt_test(capsys, "hello")
    assert (status, "1 passed, 0 failed, 1 errors" in out) == (1, True)
    assert "gone.elf: there is no such file" in out


def run_worker(monkeypatch: pytest.MonkeyPatch, code: str, limit_s: float = 30) -> Outcome:
    """A case whose worker is ``code`` instead."""
    monkeypatch.setattr(pool, "command", lambda: [sys.executable, "-c", code])
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


def test_a_worker_that_says_much(monkeypatch: pytest.MonkeyPatch) -> None:
    """More than a pipe holds, on both streams."""
    code = (
        "import sys; sys.stderr.write('x' * 3_000_000); print('y' * 3_000_000); raise SystemExit(3)"
    )
    assert run_worker(monkeypatch, code).error.startswith("its process ended with status 3: xxx")


def children(parent: int) -> set[int]:
    """The processes that ``parent`` has started."""
    listed = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    return {int(pid) for pid in listed}


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in ("Z", "X")
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_for(what: Callable[[], bool], seconds: float = 20.0) -> float:
    """How long it took, in seconds."""
    started = time.monotonic()
    while not what():
        assert time.monotonic() - started < seconds, "in vain"
        time.sleep(0.01)
    return time.monotonic() - started


@pytest.mark.parametrize("after_s", [0.0, 0.8], ids=["while-they-start", "while-they-run"])
@pytest.mark.parametrize(
    ("number", "status"),
    [
        (signal.SIGINT, 130),
        (signal.SIGTERM, 143),
        (signal.SIGHUP, 129),
        (signal.SIGKILL, -signal.SIGKILL),
    ],
)
def test_no_worker_outlives_the_command(
    tmp_path: Path, number: int, status: int, after_s: float
) -> None:
    suite = tmp_path / "armvirt.toml"
    one = '[[guest]]\nname = "endless{n}"\npath = "{folder}/bench-smp8.elf"\ncpus = 1\nengine = "portable"\n'
    suite.write_text("".join(one.format(n=n, folder=FOLDER) for n in range(4)))
    words = [*ARMVIRT, "test", str(suite), "-j", "2"]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, preexec_fn=interruptible)
    try:
        wait_for(lambda: len(children(process.pid)) == 2)
        workers = children(process.pid)
        time.sleep(after_s)
        process.send_signal(number)
        assert process.wait(timeout=20) == status
        assert wait_for(lambda: not any(map(alive, workers))) < 2.0
    finally:
        process.kill()
        process.wait()


def test_a_limit_while_a_guest_loads(monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case("guest", "hello", limits={"timeout_s": 0.2})
    monkeypatch.setattr(Case, "machine", lambda *_, **__: time.sleep(30))
    outcome = worker.run_case(case)
    assert (outcome.verdict, outcome.ok, outcome.diagnosis) == (
        "limit", False, "limit reached: host time of 200 ms is over",
    )  # fmt: skip


def test_a_report_can_hold_what_guests_print() -> None:
    outcome = Outcome("a\x00b", "pass", "fail", console=["<&>\x1b[0m\ud800"])
    root = xml.fromstring(
        report([outcome, Outcome("fine", "pass", "pass", True), Outcome("dead", "pass", error="x")])
    )
    suite = root[0]
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("3", "1", "1")
    assert suite[0].get("name") == "a\\x00b"
    assert "<&>\\x1b[0m\\ud800" in (suite[0][0].text or "")


def test_texts() -> None:
    bad = Outcome("g", "pass", "stuck", diagnosis="waits", console=["last words"])
    assert failure(bad) == [
        "--- g: expected pass, got stuck: waits",
        "  last of the console:",
        "    last words",
    ]
    assert (
        closing([bad, Outcome("h", "pass", error="x")], 1.5)
        == "0 passed, 1 failed, 1 errors in 1.50 s"
    )


def test_disassembly_of_what_is_no_code() -> None:
    assert list(disassemble(bytes.fromhex("1f2003d5 ffffffff"), 0x1000)) == [
        (0x1000, "nop"),
        (0x1004, ".word 0xffffffff"),
    ]
