"""Entry point: ``armvirt COMMAND ...``. Turns every outcome into an exit status and at most one line."""

from __future__ import annotations

import argparse
import gc
import importlib
import sys
from collections.abc import Sequence

from armvirt import __version__
from armvirt.cli import printing
from armvirt.cli.options import build_parser
from armvirt.cli.printing import OutputError
from armvirt.errors import ArmvirtError, UserError, lack_of

INTERNAL = 70
INTERRUPTED = 130
GC_THRESHOLD = 100_000  # objects; Python's own is 700
BROKEN_PIPE = 141  # what a shell reports for a program ended by SIGPIPE


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status (0 passed, 1 failed, 2 user error, 3 stuck, 4 limit, 70 internal)."""
    if argv is not None:
        return _main(list(argv))
    # We are the process. What is made up to the guest's start stays to the end, and a collector that looked through
    # it again and again, and once more at the end, would take a fifth of the run of a small guest.
    gc.set_threshold(GC_THRESHOLD)
    printing.prepare()
    status = _main(sys.argv[1:])
    gc.freeze()
    return status


def _main(words: list[str]) -> int:
    try:
        try:
            return _dispatch(words)
        finally:
            printing.flush()  # of --help, too, which argparse prints and leaves with SystemExit
    except OutputError as error:
        printing.give_up()
        return _say(str(error), error.exit_status)
    except UserError as error:
        return _say(str(error), error.exit_status)
    except KeyboardInterrupt:
        return _say("interrupted", INTERRUPTED)
    except BrokenPipeError:
        printing.give_up()  # who read our output has gone: end quietly
        return BROKEN_PIPE
    except (OSError, MemoryError) as error:
        lack = lack_of(error)
        return _say(lack, UserError.exit_status) if lack else _internal(error, "--debug" in words)
    except Exception as error:
        return _internal(error, "--debug" in words)


def _dispatch(words: list[str]) -> int:
    parser = build_parser(__version__, words)
    arguments = parser.parse_args(words)
    if arguments.command is None:
        parser.print_help()
        return UserError.exit_status
    return _execute(arguments)


def _execute(arguments: argparse.Namespace) -> int:
    module = importlib.import_module(f"armvirt.cli.{arguments.command.replace('-', '_')}_command")
    status: int = module.execute(arguments)
    return status


def _say(message: str, status: int) -> int:
    printing.complain(message)
    return status


def _internal(error: Exception, debug: bool) -> int:
    if debug:
        import traceback

        traceback.print_exception(error)
        return INTERNAL
    kind = "" if isinstance(error, ArmvirtError) else f"{type(error).__name__}: "
    return _say(f"internal error: {kind}{error}; use --debug to see where", getattr(error, "exit_status", INTERNAL))


if __name__ == "__main__":
    sys.exit(main())
