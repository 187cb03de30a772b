"""Entry point: ``armvirt COMMAND ...``. Every error becomes an exit status, and at most one line on
standard error. (``--debug`` prints the traceback of an internal error.)"""

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
    """Run one command and return the exit status: 0 passed, 1 failed, 2 user error, 3 stuck, 4
    limit, 70 internal error, 130 interrupted. ``argv`` is None for the command line of this
    process."""
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
    """Run one command. ``own`` is True if the process was started for this command and ends with
    it."""
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
    """Parse and run one command. The limit of host time is counted from the start of the process,
    so the time that Python needs to load its modules counts, too."""
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
    """A lower bound of the age of this process in seconds. The result is 0 if the system does not
    report when the process started."""
    try:
        with open("/proc/self/stat", "rb") as stat:
            started = int(stat.read().rpartition(b")")[2].split()[19])  # proc(5), field 22
        return least_age(started, os.sysconf("SC_CLK_TCK"), time.clock_gettime(time.CLOCK_BOOTTIME))
    except (OSError, ValueError, IndexError, AttributeError):
        return 0.0


def least_age(started: int, per_second: int, now: float) -> float:
    """A lower bound of the age of a process in seconds. ``started`` is the time at which the
    process started, in clock ticks since boot. ``per_second`` is the number of clock ticks in a
    second. ``now`` is the present time in seconds since boot.

    The kernel rounds the start down to a tick, so the process can have started up to one tick
    later. One tick is added to ``started``; otherwise a limit of host time could end a command
    early.
    """
    return max(0.0, now - (started + 1) / per_second)


def _end_now(error: BaseException, forced: bool) -> NoReturn:
    """End the process after a signal or the limit of host time. The process ends even if nobody
    reads its output: if the flush of standard output blocks, an alarm ends the flush. The process
    ends with ``os._exit``, because a normal exit of Python would flush standard output once
    more."""
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
