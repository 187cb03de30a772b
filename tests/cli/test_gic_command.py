"""``armvirt gic`` shows the interrupt controller."""

from __future__ import annotations

import json

import pytest

from armvirt.cli.main import main


def gic(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    status = main(["gic", *words])
    out, err = capsys.readouterr()
    return status, out, err


def test_in_a_handler(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = gic(capsys, "vtimer-tick", "--at", "tick")
    assert (status, err) == (0, "") and out.startswith("GICv3 at 1,00")
    for title in ("distributor", "redistributors", "CPU interfaces", "list registers", "interrupts"):
        assert f"\n{title}\n" in out
    assert "ICH_LR0_EL2    0xb0a0001b0000001b  27     active" in out


def test_all_and_one_cpu(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = gic(capsys, "sgi-smp", "--at", "100us", "--all", "--vcpu", "1", "--json")
    data = json.loads(out)
    assert len(data["interrupts"]) == 32 + 256 and [row["vcpu"] for row in data["interfaces"]] == [1]


def test_at_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = gic(capsys, "hello")
    assert status == 0 and "no interrupt is enabled" in out and "the guest passed" in err


def test_mistakes(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = gic(capsys, "hello", "--vcpu", "1")
    assert (status, out) == (2, "") and "CPU 1 does not exist" in err


def test_colours(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "150")
    assert "╭" in gic(capsys, "vtimer-tick", "--at", "tick")[1]
