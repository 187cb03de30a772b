"""The age of the process, which the host-time limit counts from, is never too large."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from armvirt.cli.main import least_age


@pytest.mark.parametrize(
    ("started", "now", "age"), [(100, 2.0, 0.99), (100, 1.005, 0.0), (100, 0.5, 0.0)]
)
def test_the_age_of_a_process_is_never_too_large(started: int, now: float, age: float) -> None:
    """The kernel rounds the start down: with 100 ticks a second, tick 100 is anything from 1.00 s
    to 1.01 s."""
    assert least_age(started, 100, now) == pytest.approx(age)


def test_no_process_is_older_than_the_wait_for_it() -> None:
    code = "from armvirt.cli.main import _age; print(_age())"
    for _ in range(4):
        before = time.monotonic()
        said = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout
        assert 0 < float(said) <= time.monotonic() - before
