"""A short run of `make fuzz`, and faults that its judge finds."""

from __future__ import annotations

import subprocess
import sys

import fuzz
import pytest
from fuzz_inputs import TARGETS, Mutant, most_cpus

SHARE = 40
MIB = 1 << 20


@pytest.mark.parametrize("target", TARGETS)
def test_a_share_of_the_mutants(target: str) -> None:
    """In a process of its own: each mutant is a fork, and the memory of a test run is none of
    armvirt's."""
    command = [sys.executable, fuzz.__file__, "-n", str(SHARE), "--targets", target]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("target", TARGETS)
def test_a_number_means_one_mutant(target: str) -> None:
    first, again, other = (fuzz.mutant_of(target, number) for number in (3, 3, 4))
    assert first == again != other


GOOD = fuzz.Run(3, 0.2, 40 * MIB, "armvirt: stuck\n")


@pytest.mark.parametrize(
    ("done", "says"),
    [
        (GOOD, ""),
        (GOOD._replace(status=70, said="armvirt: internal error"), "status 70"),
        (GOOD._replace(status=-11), "status -11"),
        (GOOD._replace(status=2, said="one\ntwo\n"), "more than one line"),
        (GOOD._replace(said="\x1b[2J"), "not printable"),
        (GOOD._replace(seconds=1.2), "CPU time"),
        (GOOD._replace(rss=70 * MIB), "MiB of memory"),
    ],
)
def test_what_is_a_problem(done: fuzz.Run, says: str) -> None:
    found = fuzz.problem(Mutant(["run", "{}"], b"", MIB), done)
    assert says in found and bool(found) == bool(says)


def test_the_bound_of_memory_grows_with_the_cpus() -> None:
    """A suite of a guest with 16 CPUs takes 78 MiB, and none of it for its file."""
    suite = b'[[guest]]\nname = "hello"\ncpus = 0x10\n'
    assert most_cpus(suite) == 16
    done = GOOD._replace(rss=78 * MIB)
    assert fuzz.problem(Mutant(["test", "{}"], suite, len(suite), 16), done) == ""
    assert "allowed" in fuzz.problem(Mutant(["test", "{}"], suite, len(suite)), done)


@pytest.mark.parametrize(
    "suite", [b"", b"\xff", b"guest = 3", b'[defaults]\ncpus = "16"', b"[defaults]\ncpus = 1000000"]
)
def test_a_suite_that_asks_for_no_cpus(suite: bytes) -> None:
    assert most_cpus(suite) == 0


def test_the_bounds_grow_with_the_file() -> None:
    done = GOOD._replace(seconds=1.9, rss=400 * MIB)
    assert fuzz.problem(Mutant(["run", "{}"], b"", 100 * MIB), done) == ""
