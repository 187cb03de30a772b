"""A machine with a guest: the code that builds a machine, runs it until the guest ends, and moves
it to another host."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from armvirt.machine.machine import Machine
    from armvirt.machine.result import EXIT_STATUS, Result

__all__ = ["EXIT_STATUS", "Machine", "Result"]

_HOME = {"EXIT_STATUS": "result", "Machine": "machine", "Result": "result"}


def __getattr__(name: str) -> object:
    """Import a name of this package when the name is first used. Most commands need only a small
    module of this package, and start faster if the other modules are not imported."""
    if name not in _HOME:
        raise AttributeError(f"module 'armvirt.machine' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"armvirt.machine.{_HOME[name]}"), name)
