"""Standard streams that cannot be written; only `armvirt.cli.printing` prints."""

from __future__ import annotations

import ast
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from command import ARMVIRT

import armvirt

ROOT = Path(armvirt.__file__).parent
COMMANDS = [
    ["--help"],
    ["--version"],
    ["list"],
    ["list", "--json"],
    ["doctor"],
    ["run", "--help"],
    ["run", "hello"],
    ["run", "hello", "--trace-hash"],
    ["trace", "vtimer-tick", "--rows", "3"],
    ["gic", "hello"],
    ["explain", "wfi-forever", "--intid", "27", "--json"],
    ["migrate-test", "hello", "--at", "1us"],
    ["test", "hello"],
]
#: Where standard streams are written by themselves: the printer, and the keys of a terminal in raw
#: mode.
PRINTERS = {"cli/printing.py"}


def with_closed(fd: int, words: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*ARMVIRT, *words], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60,
        preexec_fn=lambda: os.close(fd),
    )  # fmt: skip


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_a_full_standard_output_is_one_line(words: list[str]) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*ARMVIRT, *words],
            stdin=subprocess.DEVNULL,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
        )
    said = "armvirt: standard output cannot be written: No space left on device\n"
    assert (done.returncode, done.stderr) == (2, said)


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_a_closed_standard_output_is_one_line(words: list[str]) -> None:
    done = with_closed(1, words)
    assert (done.returncode, done.stderr) == (
        2,
        "armvirt: standard output cannot be written: Bad file descriptor\n",
    )


@pytest.mark.parametrize(
    "words", [["list"], ["run", "hello"], ["run", "none"], ["test", "hello"]], ids=" ".join
)
def test_with_standard_error_closed_nothing_of_it_goes_elsewhere(words: list[str]) -> None:
    with_it = subprocess.run(
        [*ARMVIRT, *words], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60
    )
    done = with_closed(2, words)
    assert done.returncode == with_it.returncode
    assert len(done.stdout.splitlines()) == len(with_it.stdout.splitlines())
    assert "armvirt: " not in done.stdout


def test_the_file_that_is_opened_next_is_not_standard_output(tmp_path: Path) -> None:
    trace = tmp_path / "t"
    with_closed(1, ["run", "hello", "--trace", str(trace)])
    assert not trace.exists() or b"VERDICT" not in trace.read_bytes()


def test_an_encoding_without_the_characters(tmp_path: Path) -> None:
    guest = tmp_path / "λ.elf"
    guest.write_bytes((ROOT / "guests" / "fail.elf").read_bytes())
    done = subprocess.run(
        [*ARMVIRT, "test", str(guest)], stdin=subprocess.DEVNULL, capture_output=True, timeout=60,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (1, b"")
    assert b"--- \\u03bb: expected pass, got fail" in done.stdout


def _writes(tree: ast.AST) -> Iterator[str]:
    """The calls that could write to a standard stream."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            text = ast.unparse(node.func)
            if text == "print" or text.endswith(
                (".print", "stdout.write", "stderr.write", "buffer.write")
            ):
                yield ast.unparse(node)


def test_nothing_prints_past_the_printer() -> None:
    found = {
        str(path.relative_to(ROOT)): calls
        for path in ROOT.rglob("*.py")
        if (calls := list(_writes(ast.parse(path.read_text()))))
    }
    assert set(found) == PRINTERS, found
