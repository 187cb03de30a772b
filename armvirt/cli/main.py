"""Entry point: ``armvirt COMMAND ...``. Each outcome gives an exit status and at most one line."""

from __future__ import annotations

import argparse
import gc
import os
import select
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, NoReturn

from armvirt import __version__
from armvirt.cli import printing
from armvirt.cli.printing import OutputError
from armvirt.errors import INTERNAL, INTERRUPTED, ArmvirtError, LimitError, UserError, lack_of

if TYPE_CHECKING:
    from armvirt.cli.interrupt import Signals

GC_THRESHOLD = 100_000  # new objects that start a garbage collection; Python's default is 700
BROKEN_PIPE = 141  # the status of a program that SIGPIPE ended


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status (0 passed, 1 failed, 2 user error, 3 stuck, 4 limit,
    70 internal)."""
    if argv is not None:
        return _main(list(argv), own=False)
    # This call is the whole process. The objects made before the guest's start live until the
    # process ends. With Python's default threshold the garbage collector would scan them again and
    # again, and once more at exit: a fifth of the run of a small guest.
    gc.set_threshold(GC_THRESHOLD)
    printing.prepare()
    status = _main(sys.argv[1:], own=True)
    gc.freeze()
    return status


def _main(words: list[str], own: bool) -> int:
    """Run one command. ``own`` is True if the process ends with this command."""
    try:
        try:
            return _dispatch(words, own)
        finally:
            printing.flush()  # also for --help: argparse prints and raises SystemExit
    except OutputError as error:
        printing.give_up()
        return _say(str(error), error.exit_status)
    except (UserError, LimitError) as error:
        return _say(str(error), error.exit_status)
    except KeyboardInterrupt:
        return _say("interrupted", INTERRUPTED)
    except BrokenPipeError:
        printing.give_up()  # the reader of the output has closed its end: end quietly
        return BROKEN_PIPE
    except (OSError, MemoryError) as error:
        lack = lack_of(error)
        return _say(lack, UserError.exit_status) if lack else _internal(error, "--debug" in words)
    except Exception as error:
        return _internal(error, "--debug" in words)


def _dispatch(words: list[str], own: bool) -> int:
    from armvirt.cli.interrupt import signals

    with signals() as taken:
        try:
            status = _execute(words, own, taken)
            printing.flush()
        except BaseException:
            if own and taken.error is not None:
                _end_now(taken.error, taken.forced)
            raise
    return status


def _execute(words: list[str], own: bool, taken: Signals) -> int:
    """Parse and run one command. The limit of host time begins with the start of the process, so
    that it includes loading."""
    # This import follows after `main` has set the threshold of the garbage collector, and inside
    # the context that handles signals.
    from armvirt.cli.options import COMMANDS, build_parser

    parser = build_parser(__version__, words)
    arguments = _parsed(parser, words)
    if arguments.command is None:
        parser.print_help()
        return UserError.exit_status
    timeout = getattr(arguments, "timeout", None)
    if timeout is not None:
        taken.limit(timeout, _age() if own else 0.0)
    arguments.watch = taken.watch
    command = next(each for each in COMMANDS if each.name == arguments.command)
    return command.load()(arguments)


def _parsed(parser: argparse.ArgumentParser, words: list[str]) -> argparse.Namespace:
    try:
        arguments = parser.parse_args(words)
        arguments.words = words
        return arguments
    except UserError:
        from armvirt.cli import qemu
        from armvirt.cli.options import COMMANDS

        if (said := qemu.answer(words, [command.name for command in COMMANDS])) is not None:
            raise UserError(said) from None
        raise


def _age() -> float:
    """The minimum age of the process in seconds; 0 if the system does not report its start."""
    try:
        with open("/proc/self/stat", "rb") as stat:
            started = int(stat.read().rpartition(b")")[2].split()[19])  # proc(5), field 22
        return least_age(started, os.sysconf("SC_CLK_TCK"), time.clock_gettime(time.CLOCK_BOOTTIME))
    except (OSError, ValueError, IndexError, AttributeError):
        return 0.0


def least_age(started: int, per_second: int, now: float) -> float:
    """The minimum age of a process in seconds. ``started`` is its start in clock ticks since boot,
    ``per_second`` the number of clock ticks in a second, ``now`` the present time in seconds since
    boot.

    The kernel rounds the start down to a tick. The real start can be up to one tick later, so one
    tick is added: otherwise a limit of host time could end a command early.
    """
    return max(0.0, now - (started + 1) / per_second)


def _end_now(error: BaseException, forced: bool) -> NoReturn:
    """End the process after a signal or the limit of host time, even if nobody reads its output.
    The alarm is still set and ends a flush that blocks. ``os._exit`` prevents the flush of Python
    at exit."""
    try:
        if not forced:
            printing.flush()
    except (Exception, type(error)):
        pass  # the output is not read, or the alarm has fired
    if not isinstance(error, SystemExit) and select.select([], [2], [], 0)[1]:
        os.write(2, f"armvirt: {str(error) or 'interrupted'}\n".encode())
    os._exit(_status_of(error))


def _status_of(error: BaseException) -> int:
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED
    return int(getattr(error, "exit_status", getattr(error, "code", INTERNAL)))


def _say(message: str, status: int) -> int:
    printing.complain(message)
    return status


def _internal(error: Exception, debug: bool) -> int:
    if debug:
        import traceback

        traceback.print_exception(error)
        return INTERNAL
    kind = "" if isinstance(error, ArmvirtError) else f"{type(error).__name__}: "
    return _say(
        f"internal error: {kind}{error}; use --debug to see where",
        getattr(error, "exit_status", INTERNAL),
    )


if __name__ == "__main__":
    sys.exit(main())
