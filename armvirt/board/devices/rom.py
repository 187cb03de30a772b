"""The ROM that stands where QEMU's two flash banks are: reads are memory's, writes are ignored.

Not a CFI flash: firmware that asks for one finds an array that does not answer, and uses its
defaults.
"""

from __future__ import annotations

from armvirt.board.devices.device import State


class Rom:
    """What is left of the ROM when its contents are a read-only memory slot: a place where stores
    vanish."""

    name = "rom"

    def __init__(self, size: int) -> None:
        self.size = size

    def __repr__(self) -> str:
        return f"<Rom of {self.size:#x} bytes>"

    def read(self, offset: int, size: int) -> int:
        """Only accesses that the memory slot refuses come here; it never refuses a load."""
        return 0

    def write(self, offset: int, size: int, value: int) -> None:
        """Ignored."""

    def reset(self) -> None:
        """A ROM has no state."""

    def state(self) -> State:
        return {"version": 1}

    def load(self, state: State) -> None:
        """Nothing to take over."""
