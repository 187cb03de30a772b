"""The device tree of the board, and what the boot loader adds to a user's own.

Nodes and properties are those that QEMU's virt board has for the same devices (hw/arm/virt.c);
guests must not be able to tell. A node that belongs to a device is built beside the device.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from armvirt.arch.gic import FIRST_PPI, FIRST_SPI
from armvirt.arch.timer import PPI_HPTIMER, PPI_PTIMER, PPI_STIMER, PPI_VTIMER
from armvirt.arch.words import MASK64
from armvirt.board import memmap
from armvirt.board.devices import gicv2m, pl011, pl031
from armvirt.board.tree import fdt
from armvirt.board.tree.fdt import Node, Tree
from armvirt.errors import ImageError, UserError
from armvirt.inputs import Input

if TYPE_CHECKING:
    from pathlib import Path

CLOCK_PHANDLE, GIC_PHANDLE, MSI_PHANDLE = 0x8000, 0x8001, 0x8002
_LEVEL_HIGH = 4
_AFFINITY = 0xFF_00FF_FFFF
_PSCI_64, _PSCI_32 = 0xC400_0000, 0x8400_0000


class BoardTree(NamedTuple):
    """What the tree of the board depends on.

    ``mpidrs`` are the MPIDR_EL1 values of the CPUs, ``initrd`` is [start, end) in RAM.
    /chosen/rng-seed and, unless ``kaslr_seed`` is False, /chosen/kaslr-seed are functions of
    ``seed``; QEMU's property dtb-randomness gives both.
    """

    mpidrs: Sequence[int]
    memory: int
    gic: int = 3
    cpu: str = "cortex-a72"
    bootargs: str = ""
    initrd: tuple[int, int] | None = None
    seed: int = 0
    kaslr_seed: bool = True
    its: bool = False


def build(board: BoardTree) -> bytes:
    """The blob. Its length does not depend on where the initrd is, only on whether there is one."""
    root = Node("")
    root.cells("interrupt-parent", GIC_PHANDLE)
    root.text("model", "linux,dummy-virt")
    root.cells("#size-cells", 2)
    root.cells("#address-cells", 2)
    root.text("compatible", "linux,dummy-virt")
    clock = CLOCK_PHANDLE
    root.children = [
        chosen(board),
        memory(memmap.RAM_BASE, board.memory),
        cpus(board.cpu, board.mpidrs),
        psci(),
        timer(board.gic, len(board.mpidrs)),
        gic_v3(board.its) if board.gic == 3 else gic_v2(),
        apb_clock(clock),
        pl011.fdt_node(*memmap.UART, memmap.UART_INTID - FIRST_SPI, clock),
        pl031.fdt_node(*memmap.RTC, memmap.RTC_INTID - FIRST_SPI, clock),
    ]
    return fdt.write(Tree(root, boot_cpu=board.mpidrs[0] & _AFFINITY & 0xFFFF_FFFF))


def seed_bytes(seed: int, purpose: str, size: int) -> bytes:
    """``size`` bytes (at most 32) that depend on ``seed`` and ``purpose`` only."""
    state = zlib.crc32(f"armvirt {purpose} {seed}".encode())
    return b"".join(_splitmix(state + n).to_bytes(8, "little") for n in range(4))[:size]


def _splitmix(n: int) -> int:
    """The n-th number of SplitMix64. hashlib would load OpenSSL, which takes as long as the guest
    `hello`."""
    z = n * 0x9E37_79B9_7F4A_7C15 & MASK64
    z = (z ^ z >> 30) * 0xBF58_476D_1CE4_E5B9 & MASK64
    z = (z ^ z >> 27) * 0x94D0_49BB_1331_11EB & MASK64
    return z ^ z >> 31


def chosen(board: BoardTree) -> Node:
    """/chosen: command line, console, initrd, seeds."""
    node = Node("chosen")
    if board.bootargs:
        node.text("bootargs", board.bootargs)
    node.text("stdout-path", f"/pl011@{memmap.UART.base:x}")
    if board.initrd:
        _set_initrd(node, board.initrd)
    node.properties["rng-seed"] = seed_bytes(board.seed, "rng-seed", 32)
    if board.kaslr_seed:
        node.properties["kaslr-seed"] = seed_bytes(board.seed, "kaslr-seed", 8)
    return node


def _set_initrd(node: Node, initrd: tuple[int, int]) -> None:
    node.u64("linux,initrd-start", initrd[0])
    node.u64("linux,initrd-end", initrd[1])


def memory(base: int, size: int, address_cells: int = 2, size_cells: int = 2) -> Node:
    """The RAM, with the cell counts of its parent."""
    node = Node(f"memory@{base:x}")
    node.text("device_type", "memory")
    node.properties["reg"] = base.to_bytes(4 * address_cells, "big") + size.to_bytes(
        4 * size_cells, "big"
    )
    return node


def cpus(model: str, mpidrs: Sequence[int]) -> Node:
    """/cpus; ``reg`` is the affinity of MPIDR_EL1, in two cells only if Aff3 is used (Linux
    cpus.yaml)."""
    affinities = [mpidr & _AFFINITY for mpidr in mpidrs]
    cells = 2 if max(affinities) >> 32 else 1
    node = Node("cpus")
    node.cells("#size-cells", 0)
    node.cells("#address-cells", cells)
    for affinity in affinities:
        cpu = node.add(Node(f"cpu@{affinity:x}"))
        cpu.text("device_type", "cpu")
        cpu.text("compatible", f"arm,{model}")
        cpu.properties["reg"] = affinity.to_bytes(4 * cells, "big")
        if len(affinities) > 1:
            cpu.text("enable-method", "psci")
    return node


def psci() -> Node:
    """/psci by HVC. The ids are those of PSCI 0.1's properties, which some guests still read."""
    node = Node("psci")
    node.text("compatible", "arm,psci-1.0", "arm,psci-0.2", "arm,psci")
    node.text("method", "hvc")
    node.cells("cpu_suspend", _PSCI_64 + 1)
    node.cells("cpu_off", _PSCI_32 + 2)
    node.cells("cpu_on", _PSCI_64 + 3)
    node.cells("migrate", _PSCI_64 + 5)
    return node


def timer(gic: int, cpu_count: int) -> Node:
    """/timer: secure, physical, virtual and EL2 interrupts; a GICv2 takes the CPU mask in bits 15:8
    of the flags."""
    flags = _LEVEL_HIGH | (((1 << cpu_count) - 1) << 8 if gic == 2 else 0)
    node = Node("timer")
    node.text("compatible", "arm,armv8-timer", "arm,armv7-timer")
    node.flag("always-on")
    intids = (PPI_STIMER, PPI_PTIMER, PPI_VTIMER, PPI_HPTIMER)
    node.cells("interrupts", *(cell for intid in intids for cell in (1, intid - FIRST_PPI, flags)))
    return node


def _gic(compatible: str) -> Node:
    node = Node(f"intc@{memmap.GICD.base:x}")
    node.cells("phandle", GIC_PHANDLE)
    node.text("compatible", compatible)
    node.cells("#interrupt-cells", 3)
    node.flag("interrupt-controller")
    node.cells("#address-cells", 2)
    node.cells("#size-cells", 2)
    node.flag("ranges")
    return node


def gic_v3(its: bool = False) -> Node:
    """A GICv3 with one redistributor region, and perhaps an ITS."""
    node = _gic("arm,gic-v3")
    node.cells("#redistributor-regions", 1)
    node.u64("reg", *memmap.GICD, *memmap.GICR)
    if its:
        child = node.add(Node(f"its@{memmap.ITS.base:x}"))
        child.cells("phandle", MSI_PHANDLE)
        child.text("compatible", "arm,gic-v3-its")
        child.flag("msi-controller")
        child.cells("#msi-cells", 1)
        child.u64("reg", *memmap.ITS)
    return node


def gic_v2() -> Node:
    """A GICv2: distributor, CPU interface, and a frame for messages below it."""
    node = _gic("arm,cortex-a15-gic")
    node.u64("reg", *memmap.GICD, *memmap.GICC)
    node.add(gicv2m.fdt_node(*memmap.GICV2M, MSI_PHANDLE))
    return node


def apb_clock(phandle: int) -> Node:
    """The 24 MHz clock of the PrimeCells."""
    node = Node("apb-pclk")
    node.cells("phandle", phandle)
    node.text("compatible", "fixed-clock")
    node.cells("#clock-cells", 0)
    node.cells("clock-frequency", memmap.APB_CLOCK_HZ)
    node.text("clock-output-names", "clk24mhz")
    return node


def checked(blob: bytes) -> bytes:
    """A blob that the boot protocol allows; UserError for one that a long ``--append`` has made too
    large."""
    if len(blob) > fdt.MAX_SIZE:
        raise UserError(
            f"the device tree would have {len(blob)} bytes, and 2 MiB are allowed; shorten --append"
        )
    return blob


# --- a tree that the user brings ---


def load_user_tree(path: str | Path) -> Tree:
    """The tree in a .dtb file; ImageError if it is none."""
    with Input(path, "device tree", fdt.MAX_SIZE) as source:
        if source.size > fdt.MAX_SIZE:
            raise ImageError(
                path, "it is larger than the 2 MiB that the boot protocol allows a device tree"
            )
        blob = source.read_at(0, source.size)
    try:
        return fdt.parse(blob)
    except fdt.FdtError as error:
        raise ImageError(path, str(error), "give a blob compiled by dtc") from None


def patch(tree: Tree, bootargs: str, initrd: tuple[int, int] | None, ram_size: int) -> bytes:
    """The blob of a user's tree with what a boot loader fills in.

    ``bootargs`` replaces the tree's if not empty; the initrd of an earlier boot is forgotten; a
    tree without memory gets the board's. The rest stays as it is.
    """
    root = tree.root
    node = root.child("chosen") or root.add(Node("chosen"))
    if bootargs:
        node.text("bootargs", bootargs)
    for name in ("linux,initrd-start", "linux,initrd-end"):
        node.properties.pop(name, None)
    if initrd:
        _set_initrd(node, initrd)
    if not any(child.properties.get("device_type") == b"memory\0" for child in root.children):
        root.add(_memory_for(root, ram_size))
    return fdt.write(tree)


def _memory_for(root: Node, ram_size: int) -> Node:
    """A memory node with the root's cell counts; without them the specification says 2 and 1."""
    address_cells, size_cells = root.get_cell("#address-cells", 2), root.get_cell("#size-cells", 1)
    if address_cells not in (1, 2) or size_cells not in (1, 2) or ram_size >> 32 * size_cells:
        root.cells("#address-cells", address_cells := 2)
        root.cells("#size-cells", size_cells := 2)
    return memory(memmap.RAM_BASE, ram_size, address_cells, size_cells)
