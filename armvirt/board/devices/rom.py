"""The ROM at the address of QEMU's two flash banks. A read-only memory slot serves the loads from
the ROM. The device in this module gets the stores, and ignores them.

The ROM is not a CFI flash: firmware that sends a CFI query reads the contents of the ROM instead of
CFI data, and uses its defaults.
"""

from __future__ import annotations

from collections.abc import Container

from armvirt.board.devices.device import State


class Rom:
    """The device that gets the stores to the ROM, and ignores them. The contents of the ROM are in
    a read-only memory slot."""

    name = "rom"
    stable_reads: Container[int] = ()

    def __init__(self, size: int) -> None:
        self.size = size

    def __repr__(self) -> str:
        return f"<Rom of {self.size:#x} bytes>"

    def read(self, offset: int, size: int) -> int:
        """Return 0. No load reaches this device, because the memory slot serves all loads."""
        return 0

    def write(self, offset: int, size: int, value: int) -> None:
        """Ignore a store."""

    def reset(self) -> None:
        """Do nothing, because the device has no state."""

    def state(self) -> State:
        return {"version": 1}

    def load(self, state: State) -> None:
        """Do nothing, because the device has no state."""
