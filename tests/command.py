"""The command ``armvirt`` as a process of its own."""

from __future__ import annotations

import signal
import subprocess
import sys

ARMVIRT = [sys.executable, "-m", "armvirt"]
Done = subprocess.CompletedProcess[str]


def armvirt(*words: str, **options: object) -> Done:
    """Run ``armvirt WORDS`` to its end, without input and for at most a minute.

    ``options`` are those of `subprocess.run`.
    """
    merged: dict[str, object] = {"stdin": subprocess.DEVNULL, "timeout": 60, **options}
    return subprocess.run([*ARMVIRT, *words], capture_output=True, text=True, **merged)  # type: ignore[call-overload, no-any-return]


def interruptible() -> None:
    """SIGINT as at a terminal, whatever the test run has inherited: a ``preexec_fn``."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
