"""The memory map of the board: that of QEMU's ``virt`` machine (hw/arm/virt.c), as data.

Guests find devices through the device tree, but firmware and small test guests hard-code these
addresses, so the addresses are an interface. The map has only the regions that armvirt models or
must keep free.
"""

from __future__ import annotations

from armvirt.arch.gic import GICR_SIZE
from armvirt.board.config import Limits, Region

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
PVTIME = Region(
    0x090A_0000, 64 * KIB
)  # stolen time, 64 bytes for each CPU; guests find it by hypercall

RAM_BASE = 0x4000_0000
RAM_MAX = 255 * GIB
RAM_MIN = 1 * MIB

# One redistributor is two 64 KiB frames (RD_base, SGI_base); the region holds 123 of them.
MAX_CPUS_V3 = GICR.size // GICR_SIZE

PVTIME_STRIDE = 64

APB_CLOCK_HZ = 24_000_000
CLOCK_PHANDLE, GIC_PHANDLE, MSI_PHANDLE = 0x8000, 0x8001, 0x8002  # in the device tree

LIMITS = Limits(MAX_CPUS_V3, RAM_MIN, RAM_MAX)
