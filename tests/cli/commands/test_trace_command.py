"""``armvirt trace``: its rows agree with what the guest did."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from armvirt.cli.main import main


def trace(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, list[str]]:
    status = main(["trace", *words])
    return status, capsys.readouterr().out.splitlines()


def test_the_virtual_timer(capsys: pytest.CaptureFixture[str]) -> None:
    status, lines = trace(capsys, "vtimer-tick", "--no-console")
    assert status == 0
    stages = [line.split()[3] for line in lines[1:] if re.match(r"\s*[\d,]+\s+\+", line)]
    assert (
        stages.count("fire")
        == stages.count("deliver")
        == stages.count("ack")
        == stages.count("eoi")
        == 100
    )
    assert "INTID 27, vtimer: fired 100, acknowledged 100, ended 100" in lines
    period = next(line for line in lines if "fire -> next fire" in line)
    assert "1,000,000" in period


def test_rows_are_limited_but_the_summary_is_not(capsys: pytest.CaptureFixture[str]) -> None:
    _, lines = trace(capsys, "vtimer-tick", "--rows", "3")
    assert lines[4].startswith("... ")
    assert any("fired 100" in line for line in lines)


def test_the_guests_console_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    _, lines = trace(capsys, "hello")
    assert any(" | " in line and "VERDICT: PASS" in line for line in lines)


def test_limits_keep_what_was_seen(capsys: pytest.CaptureFixture[str]) -> None:
    status, lines = trace(capsys, "vtimer-tick", "--max-time", "3.5ms")
    assert status == 4
    assert any("fired 3, acknowledged 3" in line for line in lines)


def test_events_can_be_written_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "t.jsonl"
    assert trace(capsys, "hello", "--trace", str(path))[0] == 0
    assert path.read_text().startswith('{"kind":"header"')


def test_colours(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "100")
    status, lines = trace(capsys, "vtimer-tick", "--rows", "5")
    assert status == 0
    assert "\x1b[" in lines[0]
    assert any("─" in line for line in lines)
    assert any("fire → next fire" in line for line in lines)
    assert not any("…" in line for line in lines)


def test_each_lpi_has_its_life(capsys: pytest.CaptureFixture[str]) -> None:
    status, lines = trace(capsys, "gic-lpi")
    assert status == 0
    assert not any("8192, spurious" in line for line in lines)
    assert any(line.endswith("fire     raised, INTID 8192, LPI") for line in lines)
    assert any(
        "its      MAPTI, device 0, event 0, INTID 8192, collection 0" in line for line in lines
    )
    fired, taken, ended = next(line.split()[1:4] for line in lines if line.startswith("  8193 "))
    assert int(fired) == int(taken) == int(ended) > 1


def test_the_gicv2_by_its_own_registers(capsys: pytest.CaptureFixture[str]) -> None:
    _, lines = trace(capsys, "gic-retarget", "--gic", "2")
    assert any("written to GICD_ISPENDR5, INTID 160, SPI" in line for line in lines)
    assert any("eoi      INTID 160 [" in line for line in lines)
