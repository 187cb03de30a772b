"""armvirt: an ARMv8 virtualization emulator for the GIC and the Generic Timer."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from armvirt.errors import ArmvirtError, ImageError, UserError
    from armvirt.machine import Machine, Result

__version__ = "0.1.0"
__all__ = ["ArmvirtError", "ImageError", "Machine", "Result", "UserError", "__version__"]

_HOME = {
    "Machine": "armvirt.machine.machine", "Result": "armvirt.machine.result", "ArmvirtError": "armvirt.errors",
    "ImageError": "armvirt.errors", "UserError": "armvirt.errors",
}  # fmt: skip


def __getattr__(name: str) -> object:
    """Import a name of this package when the name is first used. So the command line starts without
    the import of modules that it does not need."""
    if name not in _HOME:
        raise AttributeError(f"module 'armvirt' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOME[name]), name)
