"""The interface of a board's memory map. The module ``memmap`` of each board defines the names of
`MemoryMap`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from armvirt.board.config import Region


class MemoryMap(Protocol):
    """The addresses, INTIDs and limits of a board.

    RAM starts at ``RAM_BASE`` and has ``RAM_MIN`` to ``RAM_MAX`` bytes. ``FLASH`` is the region of
    a read-only memory slot. Firmware starts in ``ROM``, which is a part of ``FLASH``. ``PVTIME`` is
    the region of the memory slot that has the stolen time: 64 bytes for each of ``MAX_CPUS`` CPUs.
    ``UART`` is the region of the device ``uart``, which is the console. ``NR_IRQS`` is the number
    of INTIDs of the GIC, as for KVM_DEV_ARM_VGIC_GRP_NR_IRQS. ``INTIDS`` has the INTID of each
    device that has an interrupt, by the name of the device.
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
