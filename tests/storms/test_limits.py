"""Limits and signals end every storm in time. `limits.py` runs the whole matrix (``make limits``),
this a share of it.

Each storm runs under one limit on one engine, which differ from one storm to the next. Margins are
wide: that the command ends at all is the subject, on however busy a machine.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import limits
import pytest
from command import ARMVIRT, armvirt, interruptible
from storm_guests import STORMS

LATE_S = 5.0
LIMIT_S = 0.6


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("storms")


def shares() -> Iterator[object]:
    """Every storm in a long run, each third of them in a short one: a second or two each, whatever
    the machine."""
    for n, name in enumerate(STORMS):
        ending = ("timeout", "timeout", "timeout", "SIGINT", "SIGTERM")[n % 5]
        yield pytest.param(
            name, limits.ENGINES[n % 2], ending, marks=[pytest.mark.long] if n % 3 else []
        )


@pytest.mark.parametrize(("name", "engine", "ending"), list(shares()), ids=lambda value: str(value))
def test_a_storm_ends_in_time(folder: Path, name: str, engine: str, ending: str) -> None:
    limits.write_guests(folder, [name])
    run = limits.run(folder, name, engine, ending, LIMIT_S)
    assert run.ended_right, run.says
    assert run.late < LATE_S


def command(folder: Path, *words: str) -> tuple[int, float]:
    """(status, seconds) of a command."""
    started = time.monotonic()
    done = armvirt(*words, cwd=folder)
    return done.returncode, time.monotonic() - started


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (["trace", "GUEST"], 4),
        (["trace", "GUEST", "--trace", "out.jsonl"], 4),
        (["explain", "GUEST", "--intid", "27"], 0),
        (["explain", "GUEST", "--intid", "27", "--at", "1h"], 0),
        (["gic", "GUEST", "--at", "0xdead0000"], 0),
        (["migrate-test", "GUEST", "--at", "1ms"], 4),
        (["migrate-test", "GUEST", "--at", "1h"], 4),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else str(value),
)
def test_every_command_that_runs_a_guest(folder: Path, words: list[str], status: int) -> None:
    limits.write_guests(folder, ["timer-level"])
    got, took = command(
        folder, *(word.replace("GUEST", "timer-level.elf") for word in words), "--timeout", "2s"
    )
    assert got == status and took < 2 + LATE_S


@pytest.mark.parametrize("ending", ["timeout", "SIGINT", "SIGTERM"])
@pytest.mark.parametrize(
    "words", [["run"], ["trace"], ["run", "--trace", "/dev/stdout"]], ids=" ".join
)
def test_an_output_that_nobody_reads(folder: Path, words: list[str], ending: str) -> None:
    """A write that blocks is no place where anybody looks at the clock."""
    limits.write_guests(folder, ["uart-flood"])
    extra = ["--timeout", f"{LIMIT_S}s"] if ending == "timeout" else []
    started = time.monotonic()
    process = subprocess.Popen(
        [*ARMVIRT, words[0], "uart-flood.elf", *words[1:], *extra], cwd=folder,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, preexec_fn=interruptible,
    )  # fmt: skip
    try:
        time.sleep(1.5)
        due = started + LIMIT_S if not extra else time.monotonic()
        if not extra:
            process.send_signal(limits.SIGNALS[ending][0])
        status = process.wait(20)
        assert status == (4 if extra else limits.SIGNALS[ending][1])
        assert time.monotonic() - due < LATE_S
    finally:
        process.kill()
        process.communicate()


def test_loading_is_part_of_the_limit(folder: Path) -> None:
    """A large file takes longer to read than the limit allows."""
    from elf_builder import TEXT, Load, elf

    image = folder / "large.elf"
    image.write_bytes(elf([Load(address=TEXT, data=bytes(1 << 20), memsz=1 << 20)], entry=TEXT))
    with open(folder / "large.cpio", "wb") as file:
        file.truncate(2 << 30)
    status, took = command(
        folder,
        "run",
        "large.elf",
        "--initrd",
        "large.cpio",
        "--mem",
        "8G",
        "--timeout",
        "0.6s",
        "--max-insns",
        "1",
    )
    assert status == 4 and took < LIMIT_S + LATE_S
