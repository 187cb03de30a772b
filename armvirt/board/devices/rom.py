"""The ROM at the address of QEMU's two flash banks: a memory slot serves reads, and writes are
ignored.

This is not a CFI flash: firmware that sends a CFI query gets no CFI data, and uses its defaults.
"""

from __future__ import annotations

from armvirt.board.devices.device import State


class Rom:
    """The device that gets the stores to the ROM, and ignores them. A read-only memory slot has the
    contents of the ROM."""

    name = "rom"

    def __init__(self, size: int) -> None:
        self.size = size

    def __repr__(self) -> str:
        return f"<Rom of {self.size:#x} bytes>"

    def read(self, offset: int, size: int) -> int:
        """Return 0. The device gets no loads, because the memory slot serves all loads."""
        return 0

    def write(self, offset: int, size: int, value: int) -> None:
        """Ignore a store."""

    def reset(self) -> None:
        """No effect, because the device has no state."""

    def state(self) -> State:
        return {"version": 1}

    def load(self, state: State) -> None:
        """No effect, because the device has no state."""
