"""``armvirt run``: boot a guest with its console on the terminal."""

from __future__ import annotations

import argparse
import os
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING

from armvirt import __version__
from armvirt.cli import printing, session
from armvirt.cli.outputs import STANDARD_OUTPUT, open_text, write_bytes
from armvirt.cli.terminal import Reader, piped_input, raw_mode
from armvirt.errors import INTERRUPTED, LimitError, UserError

if TYPE_CHECKING:
    from armvirt.machine import Machine, Result
    from armvirt.trace.files import TraceFile


def execute(arguments: argparse.Namespace) -> int:
    """Run the guest and return the exit status. With ``--dump-dtb`` only write the device tree."""
    if arguments.pace and arguments.no_pace:
        raise UserError("--pace and --no-pace exclude each other; give one")
    trace = _trace_file(arguments)
    machine = session.build_machine(
        arguments,
        sinks=trace.sinks if trace else (),
        pace=_pace(arguments),
        trace_hash=arguments.trace_hash,
    )
    if arguments.dump_dtb:
        write_bytes(arguments.dump_dtb, machine.dump_dtb())
        return 0
    result = _run(machine, arguments, trace)
    if result is None:
        printing.remark(
            "left by Ctrl-A x" + (f": {machine.waiting}" if machine.waiting else ""), "\n"
        )
        return INTERRUPTED
    session.say_ending(result, result.console[-1:], arguments, machine.skipped)
    if machine.waiting:
        printing.remark(machine.waiting)
    if arguments.trace_hash:
        if result.trace_hash is None:
            raise LimitError(
                "no trace hash: host time was over before the digest of the guest's RAM was done"
            )
        printing.line(result.trace_hash)
    return _status(arguments, result)


def _trace_file(arguments: argparse.Namespace) -> TraceFile | None:
    if arguments.trace is None:
        return None
    from armvirt.trace.files import TraceFile  # imported late: most runs write no trace

    return TraceFile(arguments.trace)


def _interactive(arguments: argparse.Namespace) -> bool:
    """True if the user types the guest's input at a terminal. False if there is a console script,
    or if the trace is written to standard output."""
    if arguments.trace == STANDARD_OUTPUT:
        return False
    return (
        sys.stdin is not None
        and sys.stdin.isatty()
        and sys.stdout.isatty()
        and not arguments.script
    )


def _pace(arguments: argparse.Namespace) -> bool:
    return bool(arguments.pace or (_interactive(arguments) and not arguments.no_pace))


def _status(arguments: argparse.Namespace, result: Result) -> int:
    if arguments.exit_raw and result.guest_code is not None:
        return result.guest_code & 0xFF
    return result.exit_status


def _run(machine: Machine, arguments: argparse.Namespace, trace: TraceFile | None) -> Result | None:
    """Open the trace file, connect the guest's console to the terminal, and run the guest. Returns
    None if the user ended armvirt with Ctrl-A x."""
    # With a trace on standard output, only the trace is printed there.
    machine.console.listeners.append(
        printing.raw_error if arguments.trace == STANDARD_OUTPUT else printing.raw
    )
    with ExitStack() as stack:
        if trace is not None:
            about = {"armvirt": __version__, "guest": arguments.guest or ""}
            stack.enter_context(trace.writing(open_text, **about))
        if not _interactive(arguments):
            if not arguments.script and (data := piped_input()):
                machine.console.feed(data)
            return session.run(machine, arguments)
        return _run_interactive(machine, arguments, stack)


def _say_waiting(machine: Machine) -> None:
    """Print that the guest sleeps until a key is pressed. This function is called once, when the
    guest waits for the keyboard for the first time."""
    unfinished = not machine.console.output.endswith(b"\n")
    printing.remark(
        f"{machine.waiting}; Ctrl-A x leaves", "\n" if unfinished and machine.console.output else ""
    )


def _run_interactive(
    machine: Machine, arguments: argparse.Namespace, stack: ExitStack
) -> Result | None:
    import signal

    fd = sys.stdin.fileno()
    reader = Reader(fd, machine.console.feed, lambda: os.kill(os.getpid(), signal.SIGINT))
    printing.remark("Ctrl-A x leaves, Ctrl-A h helps")
    machine.console.interactive = True
    machine.pacer.listeners.append(lambda: _say_waiting(machine))
    stack.enter_context(raw_mode(fd))
    reader.start()
    stack.callback(reader.stop)
    try:
        return session.run(machine, arguments)
    except KeyboardInterrupt:
        if reader.leaving:
            return None
        raise
