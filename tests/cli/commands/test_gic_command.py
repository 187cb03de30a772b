"""``armvirt gic`` shows the interrupt controller."""

from __future__ import annotations

import json
import re

import pytest

from armvirt.cli.main import main

ESCAPES = re.compile(r"\x1b\[[0-9;]*m")


def gic(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    status = main(["gic", *words])
    out, err = capsys.readouterr()
    return status, out, err


def test_in_a_handler(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = gic(capsys, "vtimer-tick", "--at", "tick")
    assert (status, err) == (0, "") and out.startswith("GICv3 at 1,00")
    for title in (
        "distributor",
        "redistributors",
        "CPU interfaces",
        "list registers",
        "interrupts",
    ):
        assert f"\n{title}\n" in out
    assert "ICH_LR0_EL2  0xb0a0001b0000001b  27 vtimer  active" in out


def test_all_and_one_cpu(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = gic(capsys, "sgi-smp", "--at", "100us", "--all", "--vcpu", "1", "--json")
    data = json.loads(out)
    assert len(data["interrupts"]) == 32 + 256 and [row["vcpu"] for row in data["interfaces"]] == [
        1
    ]


def test_at_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = gic(capsys, "hello")
    assert status == 0 and "no interrupt is enabled" in out and "the guest passed" in err


def test_the_its_is_shown_when_the_guest_uses_it(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = gic(capsys, "gic-lpi", "--at", "300us")
    assert "ITS" not in out
    _, out, _ = gic(capsys, "gic-lpi", "--at", "540us")
    for title in ("LPI tables", "ITS", "ITS collections", "ITS devices", "ITS translations"):
        assert f"\n{title}\n" in out
    assert "  GITS_CREADR   0x380               all done" in out
    assert "  8195   LPI   vCPU 0  yes" in out
    data = json.loads(gic(capsys, "gic-lpi", "--at", "540us", "--json")[1])
    assert data["its"]["ITS translations"][3] == {
        "device": 0,
        "event": 3,
        "intid": 8195,
        "icid": 0,
        "vcpu": 0,
    }


@pytest.mark.parametrize("columns", [80, 120])
@pytest.mark.parametrize("words", [["vtimer-tick", "--at", "tick"], ["gic-overflow", "--gic", "2", "--at", "300us"],
                                   ["gic-lpi", "--at", "3ms"]], ids=" ".join)  # fmt: skip
def test_no_line_is_too_long_for_a_terminal(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    columns: int,
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", str(columns))
    out = ESCAPES.sub("", gic(capsys, *words)[1])
    assert max(map(len, out.splitlines())) <= columns and "…" not in out
    assert {"INTID", "HPPI", "VMCR"} <= set(out.replace("│", " ").split()), "no heading is cut"


@pytest.mark.parametrize("zero", ["0", "0ns", "00ms"])
def test_before_the_first_instruction(capsys: pytest.CaptureFixture[str], zero: str) -> None:
    status, out, err = gic(capsys, "hello", "--at", zero)
    assert (status, err) == (0, "") and out.startswith("GICv3 at 0 ns\n")


def test_mistakes(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = gic(capsys, "hello", "--vcpu", "1")
    assert (status, out) == (2, "") and "CPU 1 does not exist" in err


def test_colours(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "150")
    assert "╭" in gic(capsys, "vtimer-tick", "--at", "tick")[1]
