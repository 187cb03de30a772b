"""``armvirt explain``: what it prints, and where it stops the guest."""

from __future__ import annotations

import json
import re

import pytest
from conftest import ROOT

from armvirt.cli.main import main

ESCAPES = re.compile(r"\x1b\[[0-9;]*m")


def explain(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    status = main(["explain", *words])
    out, err = capsys.readouterr()
    return status, out, err


def test_a_guest_that_waits_in_vain(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = explain(capsys, "wfi-forever", "--intid", "27")
    assert status == 0
    lines = out.splitlines()
    assert lines[0].endswith("To change it: write 1 to bit 27 of GICR_ISENABLER0 (GICR+0x10100).")
    assert lines[1] == "" and lines[2].startswith(
        "INTID 27 (PPI, vtimer) on its way to vCPU 0, at 10"
    )
    assert [line.split()[1] for line in lines if line.startswith("  enable")] == ["NO"]
    assert "about to wait" not in out + err and err.startswith("armvirt: stuck: ")


def test_the_guests_console_on_request(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "wfi-forever", "--intid", "27", "--console"]) == 0
    out, err = capfd.readouterr()
    assert "about to wait" in err and "about to wait" not in out


@pytest.mark.parametrize("engine", ["native", "portable"])
def test_places(capsys: pytest.CaptureFixture[str], engine: str) -> None:
    def title(at: str) -> str:
        status, out, err = explain(
            capsys, "vtimer-tick", "--intid", "27", "--at", at, "--engine", engine
        )
        assert (status, err) == (0, "")
        return out.splitlines()[2].split("vCPU 0, at ")[1]

    tick = title("tick")
    ns, address = int(tick.split()[0].replace(",", "")), tick.split()[3]
    assert 1_000_000 < ns < 1_020_000 and tick.endswith(" (tick)")
    assert title(address) == tick
    assert title("tick+0x8") == f"{ns + 2:,} ns, pc {int(address, 16) + 8:#x} (tick+0x8)"
    assert title("1.5ms").startswith("1,500,000 ns, pc 0x")


def test_a_place_that_is_not_reached(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = explain(capsys, "hello", "--intid", "27", "--at", "5s")
    assert status == 0 and "the timer is off" in out.splitlines()[0]
    assert err.startswith("armvirt: --at 5s was not reached: the guest passed")
    status, _, err = explain(
        capsys, "vtimer-tick", "--intid", "27", "--at", "tick", "--max-time", "1us"
    )
    assert status == 0 and "--at tick was not reached: limit reached: after 1000 ns" in err


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["vtimer-tick"], "needs --intid N"),
        (["vtimer-tick", "--intid", "5000"], "INTID 5000 does not exist: this GIC has SGIs 0-15"),
        (["vtimer-tick", "--intid", "27", "--versus", "1021"], "INTID 1021 does not exist"),
        (
            ["vtimer-tick", "--intid", "27", "--vcpu", "1"],
            "CPU 1 does not exist: this machine has 1",
        ),
        (["vtimer-tick", "--intid", "27", "--at", "tcik"], "no such symbol; did you mean tick"),
        (
            ["vtimer-tick", "--intid", "27", "--at", "qqqq"],
            "give a function of the guest, an address or a time",
        ),
        (["vtimer-tick", "--intid", "27", "--at", "5x"], "'5x' is not a time"),
        (["vtimer-tick", "--intid", "27", "--at", ""], "no such symbol"),
        (["vtimer-tick", "--intid", "27", "--at", "tick+x"], "'x' is not an offset"),
        (["vtimer-tick", "--intid", "one"], "'one' is not an INTID"),
        (["vtimer-tick", "--intid", "8192", "--no-its"], "no LPIs, for there is no ITS"),
    ],
)
def test_mistakes(capsys: pytest.CaptureFixture[str], words: list[str], text: str) -> None:
    status, out, err = explain(capsys, *words)
    assert (status, out) == (2, "") and text in err and err.count("\n") == 1


def test_versus(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = explain(capsys, "vtimer-tick", "--intid", "33", "--versus", "27", "--at", "tick")
    assert out.splitlines()[1].startswith("Versus INTID 27 (vtimer): INTID 33 (uart) is held: ")


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = explain(capsys, "wfi-forever", "--intid", "27", "--json")
    data = json.loads(out)
    assert (data["intid"], data["vcpu"], data["held"], data["taken"]) == (27, 0, "enable", False)
    assert {"station", "passed", "text", "register", "value", "written", "remedy"} <= set(
        data["stations"][0]
    )


def test_colours(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    for name, value in (("FORCE_COLOR", "1"), ("TERM", "xterm-256color"), ("COLUMNS", "150")):
        monkeypatch.setenv(name, value)
    _, out, _ = explain(capsys, "wfi-forever", "--intid", "27")
    assert "╭" in out and "\x1b[31m" in out
    _, out, _ = explain(capsys, "wfi-forever", "--intid", "27", "--plain")
    assert "\x1b[" not in out


@pytest.mark.parametrize("columns", [80, 100])
def test_a_narrow_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:  # fmt: skip
    """What is short stays whole; what is long is folded at its words."""
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", str(columns))
    lines = ESCAPES.sub("", explain(capsys, "wfi-forever", "--intid", "27")[1]).splitlines()
    assert max(map(len, lines)) <= columns
    held = next(line.split() for line in lines if " NO " in line)
    assert held[:2] == ["enable", "NO"] and {"GICR_ISENABLER0", "0xffff"} <= set(held)
    # Where the words of all columns have no room beside each other, the last column is a table of
    # its own.
    assert "never" in held or ["enable", "never"] in [line.split() for line in lines]


def test_run_says_what_to_type(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "wfi-forever"]) == 3
    assert (
        capsys.readouterr().err.splitlines()[-1].endswith("armvirt explain wfi-forever --intid 27")
    )
    assert main(["run", "wfi-forever", "--gic", "2", "--cpus", "2"]) == 3
    assert capsys.readouterr().err.endswith(
        "armvirt explain wfi-forever --gic 2 --cpus 2 --intid 27\n"
    )
    words = ["--gic=2", "--append", "a b", "--max-time", "1s", "--vhe"]
    assert main(["run", "wfi-forever", *words]) == 3
    said = capsys.readouterr().err
    assert said.endswith("armvirt explain wfi-forever --gic=2 --append 'a b' --vhe --intid 27\n"), (
        "the same machine"
    )
    assert main(["run", "spin"]) == 3
    assert "explain" not in capsys.readouterr().err
    assert main(["run", "sgi-spi", "--gic", "2"]) == 1
    assert capsys.readouterr().err.endswith("; sgi-spi is made for a GICv3, this is a GICv2\n")
    assert main(["run", "fail"]) == 1
    assert "made for" not in capsys.readouterr().err


def test_the_readme_shows_what_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    """But for times and addresses, which change whenever the guest is built anew."""

    def shape(text: str) -> str:
        return " ".join(re.sub(r"0x[0-9a-f]+|[\d,]+", "N", text).split())

    readme = (ROOT / "README.md").read_text()
    example = readme.split("$ armvirt explain wfi-forever --intid 27\n")[1].split(
        "\n\nThe first line"
    )[0]
    printed = shape(explain(capsys, "wfi-forever", "--intid", "27")[1])
    for line in example.splitlines():
        assert shape(line) in printed
