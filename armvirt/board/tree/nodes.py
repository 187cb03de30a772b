"""The nodes of a device tree that do not belong to a device: /chosen, /cpus, /psci, /timer, the
memory, the interrupt controller, the clock. The module of a device builds the node of the device.

Nodes and properties are those of QEMU's board virt (hw/arm/virt.c), so that a guest finds the same
device tree as on QEMU.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from armvirt.arch.bits import MASK32, MASK64
from armvirt.arch.gic import FIRST_PPI, MPIDR_AFFINITY
from armvirt.arch.psci import PsciFunction
from armvirt.arch.timer import PPI_HPTIMER, PPI_PTIMER, PPI_STIMER, PPI_VTIMER
from armvirt.board.tree import fdt
from armvirt.board.tree.fdt import Node, Tree
from armvirt.records import NamedTuple

if TYPE_CHECKING:
    from armvirt.board.memmap import MemoryMap

CLOCK_PHANDLE, GIC_PHANDLE, MSI_PHANDLE = 0x8000, 0x8001, 0x8002
APB_CLOCK_HZ = 24_000_000
_LEVEL_HIGH = 4


class BoardTree(NamedTuple):
    """The parameters of a board's device tree. ``memmap`` is the memory map of the board.

    ``mpidrs`` are the MPIDR_EL1 values of the CPUs. ``memory`` is the size of RAM in bytes.
    ``initrd`` is the address range [start, end) of the initrd in RAM. It is None if there is no
    initrd. /chosen/rng-seed and /chosen/kaslr-seed are functions of ``seed``. If ``kaslr_seed`` is
    False, there is no /chosen/kaslr-seed. QEMU has these properties unless its option
    dtb-randomness is off. ``gic_devices`` are the device nodes that are children of the interrupt
    controller's node. ``devices`` are all other device nodes.
    """

    memmap: MemoryMap
    mpidrs: Sequence[int]
    memory: int
    cpu: str
    gic: int = 3
    bootargs: str = ""
    initrd: tuple[int, int] | None = None
    seed: int = 0
    kaslr_seed: bool = True
    its: bool = False
    devices: Sequence[Node] = ()
    gic_devices: Sequence[Node] = ()


def write(board: BoardTree, root: Node) -> bytes:
    """Return the blob of the device tree. The length of the blob depends on the presence of an
    initrd, but not on the address of the initrd."""
    return fdt.write(Tree(root, boot_cpu=board.mpidrs[0] & MPIDR_AFFINITY & MASK32))


def root_node(compatible: str) -> Node:
    """Build the root node. Its property interrupt-parent is `GIC_PHANDLE`, the phandle of the
    interrupt controller."""
    root = Node("")
    root.cells("interrupt-parent", GIC_PHANDLE)
    root.text("model", compatible)
    root.cells("#size-cells", 2)
    root.cells("#address-cells", 2)
    root.text("compatible", compatible)
    return root


def seed_bytes(seed: int, purpose: str, size: int) -> bytes:
    """Return ``size`` bytes (at most 32) that depend only on ``seed`` and ``purpose``."""
    state = zlib.crc32(f"armvirt {purpose} {seed}".encode())
    return b"".join(_splitmix(state + n).to_bytes(8, "little") for n in range(4))[:size]


def _splitmix(n: int) -> int:
    """Return the n-th number of SplitMix64. hashlib is not used, because hashlib loads OpenSSL,
    which takes as long as a whole run of the guest `hello`."""
    z = n * 0x9E37_79B9_7F4A_7C15 & MASK64
    z = (z ^ z >> 30) * 0xBF58_476D_1CE4_E5B9 & MASK64
    z = (z ^ z >> 27) * 0x94D0_49BB_1331_11EB & MASK64
    return z ^ z >> 31


def chosen(board: BoardTree) -> Node:
    """Build the node /chosen: command line, console, initrd, seeds."""
    node = Node("chosen")
    if board.bootargs:
        node.text("bootargs", board.bootargs)
    node.text("stdout-path", f"/pl011@{board.memmap.UART.base:x}")
    if board.initrd:
        set_initrd(node, board.initrd)
    node.properties["rng-seed"] = seed_bytes(board.seed, "rng-seed", 32)
    if board.kaslr_seed:
        node.properties["kaslr-seed"] = seed_bytes(board.seed, "kaslr-seed", 8)
    return node


def set_initrd(node: Node, initrd: tuple[int, int]) -> None:
    """Write the address range [start, end) of the initrd into /chosen."""
    node.u64("linux,initrd-start", initrd[0])
    node.u64("linux,initrd-end", initrd[1])


def memory(base: int, size: int, address_cells: int = 2, size_cells: int = 2) -> Node:
    """Build the memory node for RAM. ``address_cells`` and ``size_cells`` are the cell counts of
    the parent node."""
    node = Node(f"memory@{base:x}")
    node.text("device_type", "memory")
    node.properties["reg"] = base.to_bytes(4 * address_cells, "big") + size.to_bytes(
        4 * size_cells, "big"
    )
    return node


def cpus(model: str, mpidrs: Sequence[int]) -> Node:
    """Build the node /cpus. The property reg of a CPU is the affinity in MPIDR_EL1. If a CPU has a
    nonzero Aff3, reg has two cells, else one cell (Linux cpus.yaml)."""
    affinities = [mpidr & MPIDR_AFFINITY for mpidr in mpidrs]
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
    """Build the node /psci, with the method HVC. The properties of PSCI 0.1 contain the function
    ids, because some guests still read these properties."""
    node = Node("psci")
    node.text("compatible", "arm,psci-1.0", "arm,psci-0.2", "arm,psci")
    node.text("method", "hvc")
    node.cells("cpu_suspend", PsciFunction.CPU_SUSPEND_64)
    node.cells("cpu_off", PsciFunction.CPU_OFF)
    node.cells("cpu_on", PsciFunction.CPU_ON_64)
    node.cells("migrate", PsciFunction.MIGRATE_64)
    return node


def timer(gic: int, cpu_count: int) -> Node:
    """Build the node /timer: the interrupts of the secure, physical, virtual and EL2 timers. For a
    GICv2, bits 15:8 of the interrupt flags are the CPU mask."""
    flags = _LEVEL_HIGH | (((1 << cpu_count) - 1) << 8 if gic == 2 else 0)
    node = Node("timer")
    node.text("compatible", "arm,armv8-timer", "arm,armv7-timer")
    node.flag("always-on")
    intids = (PPI_STIMER, PPI_PTIMER, PPI_VTIMER, PPI_HPTIMER)
    node.cells("interrupts", *(cell for intid in intids for cell in (1, intid - FIRST_PPI, flags)))
    return node


def ram(board: BoardTree) -> Node:
    """Build the memory node for the RAM of the board."""
    return memory(board.memmap.RAM_BASE, board.memory)


def _gic(compatible: str, memmap: MemoryMap) -> Node:
    node = Node(f"intc@{memmap.GICD.base:x}")
    node.cells("phandle", GIC_PHANDLE)
    node.text("compatible", compatible)
    node.cells("#interrupt-cells", 3)
    node.flag("interrupt-controller")
    node.cells("#address-cells", 2)
    node.cells("#size-cells", 2)
    node.flag("ranges")
    return node


def gic_v3(memmap: MemoryMap, its: bool = False) -> Node:
    """Build the node of a GICv3 with one redistributor region. With ``its`` the node has an ITS as
    a child."""
    node = _gic("arm,gic-v3", memmap)
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


def gic_v2(memmap: MemoryMap) -> Node:
    """Build the node of a GICv2: distributor and CPU interface."""
    node = _gic("arm,cortex-a15-gic", memmap)
    node.u64("reg", *memmap.GICD, *memmap.GICC)
    return node


def gic(board: BoardTree) -> Node:
    """Build the node of the interrupt controller. The nodes in ``gic_devices`` are its children."""
    node = gic_v3(board.memmap, board.its) if board.gic == 3 else gic_v2(board.memmap)
    for child in board.gic_devices:
        node.add(child)
    return node


def apb_clock() -> Node:
    """Build the node of the 24 MHz clock of the PrimeCell devices."""
    node = Node("apb-pclk")
    node.cells("phandle", CLOCK_PHANDLE)
    node.text("compatible", "fixed-clock")
    node.cells("#clock-cells", 0)
    node.cells("clock-frequency", APB_CLOCK_HZ)
    node.text("clock-output-names", "clk24mhz")
    return node
