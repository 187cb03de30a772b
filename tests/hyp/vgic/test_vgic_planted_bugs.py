"""The comparison with the reference model finds bugs: each planted one, in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from planted_bugs import BUGS

RUNNER = Path(__file__).with_name("planted_bugs.py")


@pytest.mark.parametrize("name", [bug.name for bug in BUGS])
def test_a_planted_bug_is_found(name: str) -> None:
    done = subprocess.run([sys.executable, str(RUNNER), name], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
