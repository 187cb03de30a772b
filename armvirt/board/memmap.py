"""The memory map of a board: the names that the module ``memmap`` of each board defines."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from armvirt.board.config import Region


class MemoryMap(Protocol):
    """Addresses, INTIDs and limits of a board.

    RAM starts at ``RAM_BASE`` and has ``RAM_MIN`` to ``RAM_MAX`` bytes. ``FLASH`` is a read-only
    memory slot; firmware starts in ``ROM``, a part of ``FLASH``. ``PVTIME`` is the memory slot of
    the stolen time: 64 bytes for each of ``MAX_CPUS`` CPUs. ``UART`` is the region of the device
    ``uart``, which is the console. The GIC has ``NR_IRQS`` INTIDs; ``INTIDS`` has the INTID of each
    device by the name of the device.
    """

    MAX_CPUS: int
    RAM_BASE: int
    RAM_MIN: int
    RAM_MAX: int
    FLASH: Region
    ROM: Region
    GICD: Region
    GICC: Region
    GICR: Region
    ITS: Region
    PVTIME: Region
    UART: Region
    NR_IRQS: int
    INTIDS: Mapping[str, int]
