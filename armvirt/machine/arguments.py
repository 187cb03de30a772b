"""Checks and conversions of the arguments of `Machine`."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from armvirt.board.config import BoardConfig
from armvirt.bundled import find
from armvirt.errors import UserError
from armvirt.settings import native, shown

if TYPE_CHECKING:
    from pathlib import Path

    from armvirt.board.board import Board
    from armvirt.board.console import Console
    from armvirt.events import Sink
    from armvirt.script import Script


def board_config(
    image: str | Path | None, cpus: int | str | None, counter_start: int | None, **given: Any
) -> BoardConfig:
    """Make the configuration of the board. ``given`` has the other arguments of `Machine`, by name.
    Each value may also be the text of its command-line option. UserError for a value that cannot be
    used."""
    path, count = _named(image, None if cpus is None else native("cpus", cpus))
    return BoardConfig(
        image=path,
        cpus=count,
        counter_start=None if counter_start is None else ticks("counter_start", counter_start),
        **{name: native(name, value) for name, value in given.items()},
    )


def _named(image: str | Path | None, cpus: int | None) -> tuple[str | Path | None, int]:
    """Return the path of a guest's file, and the number of CPUs. ``image`` is a path, or the name
    of a bundled guest. ``cpus`` is the number of CPUs that the caller asks for. If ``cpus`` is
    None, the result has the default of the guest."""
    if image is None or isinstance(image, os.PathLike):
        return image, 1 if cpus is None else cpus
    if not isinstance(image, str):
        raise UserError(f"image={shown(image)}: write a path, or the name of a bundled guest")
    guest = find(image)
    return guest.file, guest.cpus_or(cpus)


def loaded_script(script: Script | str | Path | None) -> Script | None:
    """Return a console script. If ``script`` is a `Script`, the result is ``script``. If ``script``
    is a path, the script is loaded from this file. If ``script`` is None, the result is None."""
    if script is None:
        return None
    from armvirt.script import Script, load

    return script if isinstance(script, Script) else load(native("script", script))


def play(script: Script, console: Console) -> None:
    """Add all steps of a script to the console."""
    from armvirt.script import Expect

    for step in script:
        if isinstance(step, Expect):
            console.expect(step.text, step.timeout_ns)
        else:
            console.send(step.text)


def limit(argument: str, value: int | str | None, name: str = "") -> int | None:
    """Check a limit of a run, and return the limit as a number; None means no limit. ``value`` is a
    number or a text. A number is returned unchanged (0 is a valid limit). A text is converted like
    the text of the command-line option. ``name`` is the name of the argument in the error
    message."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    limit: int | None = native(argument, value, name)
    return limit


def timeout(value: float | str | None) -> float | None:
    """Check a limit of host time, and return the limit in seconds. ``value`` is a number of
    seconds, or the text of the command-line option. None means no limit."""
    if isinstance(value, (int, float)) and not isinstance(value, bool) and value >= 0:
        return value
    timeout: float | None = native("timeout_s", value)
    return timeout


def intid(argument: str, value: int | str, board: Board) -> int:
    """Return the INTID for a number, or for a name of an INTID on ``board``."""
    if isinstance(value, str):
        from armvirt.intids import IntidNames

        return IntidNames(board.memmap).parse(value)
    return number(argument, value)


def number(argument: str, value: int) -> int:
    """Return ``value``. UserError if ``value`` is not an int."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise UserError(f"{argument}={shown(value)}: write a whole number")
    return value


def ticks(argument: str, value: int) -> int:
    """Return ``value``. UserError if ``value`` is not a 64-bit counter value."""
    if not 0 <= number(argument, value) < 1 << 64:
        raise UserError(f"{argument}={value}: a counter has 64 bits")
    return value


def sink_list(sinks: Iterable[Sink]) -> tuple[Sink, ...]:
    """Return the sinks as a tuple. UserError if a sink is not callable."""
    if not isinstance(sinks, Iterable):
        raise UserError(f"sinks={shown(sinks)}: write a list of sinks, [sink]")
    listed = tuple(sinks)
    for sink in listed:
        if not callable(sink):
            raise UserError(f"sinks: {shown(sink)} cannot be called; a sink takes (stamp, event)")
    return listed


def address(pc: int) -> int:
    """Return ``pc``. UserError if ``pc`` is not a 64-bit address."""
    if not 0 <= pc < 1 << 64:
        raise UserError(f"pc={shown(pc)}: an address has 64 bits")
    return pc
