"""Runs commands of armvirt for `fuzz.py`, each in a child that is forked from this process.

This process has loaded the modules of a run and nothing else, so the memory of a child is that of
the command. For each command, one line of JSON is read (the words of the command, and the folder in
which it runs), and one line is written: status (negative: a signal), CPU seconds, and the maximum
RSS in bytes. Standard error goes to the file ``stderr`` in the folder.
"""

from __future__ import annotations

import json
import os
import resource
import sys

HANG_S = 60  # CPU seconds after which a child is killed


def warm() -> None:
    """Load the modules of a run."""
    import armvirt.cli.commands.run
    import armvirt.cli.main
    import armvirt.machine  # noqa: F401
    from armvirt.hw.engine import describe

    describe()


def run(words: list[str], folder: str) -> tuple[int, float, int]:
    """Run one command in a child; returns (status, CPU seconds, RSS)."""
    child = os.fork()
    if child == 0:
        _child(words, folder)
    _, status, usage = os.wait4(child, 0)
    return os.waitstatus_to_exitcode(status), usage.ru_utime + usage.ru_stime, usage.ru_maxrss << 10


def _child(words: list[str], folder: str) -> None:
    """Run the command and exit; does not return."""
    status: int | str | None = 70
    try:
        os.chdir(folder)
        quiet = os.open(os.devnull, os.O_RDWR)
        os.dup2(quiet, 0)
        os.dup2(quiet, 1)
        os.dup2(os.open("stderr", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), 2)
        resource.setrlimit(resource.RLIMIT_CPU, (HANG_S, HANG_S))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        from armvirt.cli.main import main

        status = main(words)
    except SystemExit as end:
        status = end.code
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status if isinstance(status, int) else 0 if status is None else 1)


def main() -> None:
    warm()
    for line in sys.stdin:
        words, folder = json.loads(line)
        print(json.dumps(run(words, folder)), flush=True)


if __name__ == "__main__":
    main()
