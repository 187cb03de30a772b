"""The memory map of the board, as data. It is the memory map of QEMU's ``virt`` machine
(hw/arm/virt.c). `armvirt.board.memmap` describes the names.

Most guests find devices through the device tree. But firmware and small test guests have these
addresses in their code, so the addresses must not change. The map has only the regions that armvirt
models or must keep free.
"""

from __future__ import annotations

from collections.abc import Mapping

from armvirt.arch.gic import FIRST_SPI, GICR_SIZE
from armvirt.board.config import Region

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30

FLASH = Region(0x0000_0000, 128 * MIB)  # two banks
ROM = Region(0x0000_0000, 64 * MIB)  # the first bank, where firmware starts
GICD = Region(0x0800_0000, 64 * KIB)
GICC = Region(0x0801_0000, 64 * KIB)
GICV2M = Region(0x0802_0000, 4 * KIB)
ITS = Region(0x0808_0000, 128 * KIB)
GICR = Region(0x080A_0000, 0xF6_0000)
UART = Region(0x0900_0000, 4 * KIB)
RTC = Region(0x0901_0000, 4 * KIB)
PVTIME = Region(0x090A_0000, 64 * KIB)  # guests find it by hypercall

RAM_BASE = 0x4000_0000
RAM_MAX = 255 * GIB
RAM_MIN = 1 * MIB

# One redistributor is two 64 KiB frames (RD_base, SGI_base); the region holds 123 of them.
MAX_CPUS = GICR.size // GICR_SIZE

NR_IRQS = 288
INTIDS: Mapping[str, int] = {"uart": FIRST_SPI + 1, "rtc": FIRST_SPI + 2}
