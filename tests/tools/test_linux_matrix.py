"""The table of Linux on many machines, without Linux."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import linux_matrix
import pytest

from armvirt.machine import Result


def passed(cpus: int, trace_hash: str = "0123456789abcdef" * 4) -> Result:
    return Result(
        "pass", 6_500_000_000, 2_400_000_000, "\r\n".join(linux_matrix.steps(cpus)), trace_hash
    )


@pytest.fixture
def boots(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The machines that were booted: each passes, in no time."""
    machines: list[dict[str, Any]] = []

    def boot(machine: dict[str, Any]) -> Result:
        machines.append(machine)
        return passed(machine["cpus"])

    monkeypatch.setattr(linux_matrix, "initramfs", lambda folder: folder / "initramfs.cpio")
    monkeypatch.setattr(linux_matrix, "boot", boot)
    monkeypatch.setattr(linux_matrix.time, "monotonic", lambda: 0.0)
    return machines


def test_the_table(boots: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]) -> None:
    assert linux_matrix.main(["--cpus", "1,8", "--pcpus", "4"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "vCPUs pCPUs verdict   guest s    instructions  host s  trace hash",
        "    1     4 pass        6.500   2,400,000,000     0.0  0123456789abcdef",
        "    8     4 pass        6.500   2,400,000,000     0.0  0123456789abcdef",
        "every machine passes",
    ]


def test_the_matrix_is_four_by_three(boots: list[dict[str, Any]]) -> None:
    assert linux_matrix.main(["--load", "7", "--runs", "2", "--gic", "2"]) == 0
    machines = [(machine["cpus"], machine["pcpus"]) for machine in boots]
    assert machines == [
        (cpus, pcpus) for cpus in (1, 2, 4, 8) for pcpus in (1, 2, 4) for _ in range(2)
    ]
    assert {(machine["append"], machine["gic"]) for machine in boots} == {
        ("console=ttyAMA0 autorun smp load=7", 2)
    }


def failing(monkeypatch: pytest.MonkeyPatch, *results: Result) -> str:
    """The row of a machine whose runs end like that; the exit status is that of a failure."""
    left = list(results)
    monkeypatch.setattr(linux_matrix, "boot", lambda _machine: left.pop(0))
    row = linux_matrix.measure(linux_matrix.options(2, 1, Path("initramfs.cpio")), len(results))
    monkeypatch.setattr(linux_matrix, "measure", lambda *_arguments: row)
    assert linux_matrix.main(["--cpus", "2", "--pcpus", "1"]) == 1
    return str(row)


def test_a_stuck_guest_fails(boots: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    console = passed(2).console.partition("ok - CPU 1 comes back")[0]
    row = failing(
        monkeypatch, passed(2)._replace(verdict="stuck", console=console, diagnosis="waits")
    )
    assert row.splitlines()[0].split()[:3] == ["2", "1", "stuck"]
    assert row.splitlines()[1:] == [
        "      waits",
        "      not printed, or out of order: ok - CPU 1 comes back",
    ]


def test_a_step_that_was_left_out_fails(
    boots: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the guest itself says that it passed: a CPU that nobody has seen is not tested."""
    row = failing(monkeypatch, passed(1))
    assert row.splitlines()[0].split()[2] == "fail"
    assert row.splitlines()[1:] == ["      not printed, or out of order: AUTORUN: 2 cpu(s)"]


def test_what_the_guest_says_is_below_its_row(
    boots: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    console = (
        passed(2).console.replace("ok - CPU 1 comes", "FAIL - CPU 1 comes").replace("PASS", "FAIL")
    )
    row = failing(monkeypatch, passed(2)._replace(verdict="fail", console=console))
    assert row.splitlines()[1] == "      FAIL - CPU 1 comes back"


def test_runs_that_differ_fail(
    boots: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    row = failing(monkeypatch, passed(2), passed(2), passed(2, "f" * 64))
    assert row.splitlines()[1:] == ["      3 runs are not one: 0123456789abcdef, ffffffffffffffff"]


def test_without_the_guests_it_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(linux_matrix, "FETCHED", tmp_path)
    assert linux_matrix.main([]) == 2
    assert "make guests" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--runs", "0"], ["--load", "0"], ["--cpus", "two"]])
def test_nonsense_is_refused(arguments: list[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        linux_matrix.main(arguments)
