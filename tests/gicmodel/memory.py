"""What the model needs of guest RAM (LPI configuration and pending tables, ITS command queue and
level-1 tables)."""

from __future__ import annotations

from typing import Protocol


class Memory(Protocol):
    """Guest-physical memory, little-endian; size in bytes 1, 2, 4 or 8."""

    def read(self, addr: int, size: int, /) -> int: ...

    def write(self, addr: int, size: int, value: int, /) -> None: ...
