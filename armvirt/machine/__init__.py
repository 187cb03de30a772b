"""A machine with a guest in it: how it is built, run to a verdict, and moved to another host."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from armvirt.machine.machine import EXIT_STATUS, Machine, Result

__all__ = ["EXIT_STATUS", "Machine", "Result"]


def __getattr__(name: str) -> object:
    """Import `Machine` when it is used: most commands need only a small module of this room."""
    if name not in __all__:
        raise AttributeError(f"module 'armvirt.machine' has no attribute {name!r}")
    from armvirt.machine import machine

    return getattr(machine, name)
