"""The GIC as data (Arm IHI 0069; for GICv2 IHI 0048): INTIDs, register rows, encodings, and the
register fields that several packages use.

Other packages implement the behaviour of the registers, and find their rows by name:
`armvirt.hyp.vgic` for GICD and GICR, `armvirt.hw.ich` for ICC and ICH, `armvirt.hw.gicv` for GICC.
Fields that the code uses at each interrupt are plain integers, because an IntFlag operation takes a
microsecond.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache

from armvirt.arch.bits import shift_of
from armvirt.arch.encoding import SysReg, define
from armvirt.records import NamedTuple

# INTIDs (IHI 0069 2.2) ---------------------------------------------------------------------------

NR_SGIS = 16
FIRST_PPI = 16
NR_PRIVATE = 32
FIRST_SPI = 32
MAX_SPI = 1019
FIRST_SPECIAL, LAST_SPECIAL = 1020, 1023
SPECIAL_INTIDS = range(FIRST_SPECIAL, LAST_SPECIAL + 1)
SPURIOUS = 1023
FIRST_LPI = 8192

#: The maintenance interrupt of the virtual CPU interface, level-sensitive (BSA).
PPI_MAINTENANCE = 25


def is_sgi(intid: int) -> bool:
    return 0 <= intid < NR_SGIS


def is_ppi(intid: int) -> bool:
    return FIRST_PPI <= intid < NR_PRIVATE


def is_private(intid: int) -> bool:
    return 0 <= intid < NR_PRIVATE


def is_spi(intid: int) -> bool:
    return FIRST_SPI <= intid <= MAX_SPI


def is_special(intid: int) -> bool:
    return FIRST_SPECIAL <= intid <= LAST_SPECIAL


# Memory-mapped registers (IHI 0069 chapter 12) --------------------------------------------------


class MmioRow(NamedTuple):
    """One memory-mapped register, or one array of such registers.

    ``offset`` and ``length`` are in bytes. ``bits_per_irq`` is 0 for a single register. An array
    has a field of ``bits_per_irq`` bits for each INTID, beginning with INTID 0. ``widths`` are the
    supported access sizes in bytes.
    """

    name: str
    offset: int
    length: int = 4
    bits_per_irq: int = 0
    widths: tuple[int, ...] = (4,)
    access: str = "rw"

    @property
    def end(self) -> int:
        return self.offset + self.length


def _per_irq(
    name: str, offset: int, bits: int, irqs: int, widths: tuple[int, ...] = (4,), access: str = "rw"
) -> MmioRow:
    return MmioRow(name, offset, irqs * bits // 8, bits, widths, access)


def _irq_arrays(prefix: str, suffix: str, irqs: int) -> tuple[MmioRow, ...]:
    """Return the rows of the register arrays that both the distributor and the redistributor's SGI
    frame have, at the same offsets. ``irqs`` is the number of interrupts in each array."""

    def row(name: str, offset: int, bits: int, widths: tuple[int, ...] = (4,)) -> MmioRow:
        return _per_irq(f"{prefix}_{name}{suffix}", offset, bits, irqs, widths)

    return (
        row("IGROUPR", 0x0080, 1),
        row("ISENABLER", 0x0100, 1),
        row("ICENABLER", 0x0180, 1),
        row("ISPENDR", 0x0200, 1),
        row("ICPENDR", 0x0280, 1),
        row("ISACTIVER", 0x0300, 1),
        row("ICACTIVER", 0x0380, 1),
        row("IPRIORITYR", 0x0400, 8, (1, 4)),
        row("ICFGR", 0x0C00, 2),
        row("IGRPMODR", 0x0D00, 1),
        row("NSACR", 0x0E00, 2),
    )


_ID_WIDTHS = (4,)
_WIDE = (4, 8)

#: GICv3 distributor, 64 KiB (IHI 0069 12.9).
GICD_SIZE = 0x1_0000
GICD_ROWS: tuple[MmioRow, ...] = (
    MmioRow("GICD_CTLR", 0x0000),
    MmioRow("GICD_TYPER", 0x0004, access="ro"),
    MmioRow("GICD_IIDR", 0x0008, access="ro"),
    MmioRow("GICD_TYPER2", 0x000C, access="ro"),
    MmioRow("GICD_STATUSR", 0x0010),
    MmioRow("GICD_SETSPI_NSR", 0x0040, access="wo"),
    MmioRow("GICD_CLRSPI_NSR", 0x0048, access="wo"),
    MmioRow("GICD_SETSPI_SR", 0x0050, access="wo"),
    MmioRow("GICD_CLRSPI_SR", 0x0058, access="wo"),
    *_irq_arrays("GICD", "", 1024),
    _per_irq("GICD_ITARGETSR", 0x0800, 8, 1024, (1, 4)),
    MmioRow("GICD_SGIR", 0x0F00, access="wo"),
    MmioRow("GICD_CPENDSGIR", 0x0F10, 16, widths=(1, 4)),
    MmioRow("GICD_SPENDSGIR", 0x0F20, 16, widths=(1, 4)),
    _per_irq("GICD_IROUTER", 0x6000, 64, 1024, _WIDE),
    MmioRow("GICD_ID", 0xFFD0, 0x18, widths=_ID_WIDTHS, access="ro"),
    MmioRow("GICD_PIDR2", 0xFFE8, access="ro"),
    MmioRow("GICD_CIDR", 0xFFEC, 0x14, widths=_ID_WIDTHS, access="ro"),
)

#: GICv3 redistributor: RD_base, 64 KiB, then SGI_base, 64 KiB (IHI 0069 12.11).
GICR_FRAME_SIZE = 0x1_0000
GICR_SIZE = 2 * GICR_FRAME_SIZE
GICR_RD_ROWS: tuple[MmioRow, ...] = (
    MmioRow("GICR_CTLR", 0x0000),
    MmioRow("GICR_IIDR", 0x0004, access="ro"),
    MmioRow("GICR_TYPER", 0x0008, 8, widths=_WIDE, access="ro"),
    MmioRow("GICR_STATUSR", 0x0010),
    MmioRow("GICR_WAKER", 0x0014),
    MmioRow("GICR_SETLPIR", 0x0040, 8, widths=_WIDE, access="wo"),
    MmioRow("GICR_CLRLPIR", 0x0048, 8, widths=_WIDE, access="wo"),
    MmioRow("GICR_PROPBASER", 0x0070, 8, widths=_WIDE),
    MmioRow("GICR_PENDBASER", 0x0078, 8, widths=_WIDE),
    MmioRow("GICR_INVLPIR", 0x00A0, 8, widths=_WIDE, access="wo"),
    MmioRow("GICR_INVALLR", 0x00B0, 8, widths=_WIDE, access="wo"),
    MmioRow("GICR_SYNCR", 0x00C0, access="ro"),
    MmioRow("GICR_ID", 0xFFD0, 0x18, widths=_ID_WIDTHS, access="ro"),
    MmioRow("GICR_PIDR2", 0xFFE8, access="ro"),
    MmioRow("GICR_CIDR", 0xFFEC, 0x14, widths=_ID_WIDTHS, access="ro"),
)
GICR_SGI_ROWS: tuple[MmioRow, ...] = _irq_arrays("GICR", "0", NR_PRIVATE)

#: ITS: the control frame, 64 KiB, then the page of GITS_TRANSLATER (IHI 0069 12.18, 12.19). The
#: fields are in `armvirt.arch.its`.
GITS_FRAME_SIZE = 0x1_0000
GITS_SIZE = 2 * GITS_FRAME_SIZE
GITS_TRANSLATER = GITS_FRAME_SIZE + 0x0040
GITS_ROWS: tuple[MmioRow, ...] = (
    MmioRow("GITS_CTLR", 0x0000),
    MmioRow("GITS_IIDR", 0x0004, access="ro"),
    MmioRow("GITS_TYPER", 0x0008, 8, widths=_WIDE, access="ro"),
    MmioRow("GITS_CBASER", 0x0080, 8, widths=_WIDE),
    MmioRow("GITS_CWRITER", 0x0088, 8, widths=_WIDE),
    MmioRow("GITS_CREADR", 0x0090, 8, widths=_WIDE, access="ro"),
    *(MmioRow(f"GITS_BASER{n}", 0x0100 + 8 * n, 8, widths=_WIDE) for n in range(8)),
    MmioRow("GITS_PIDR4", 0xFFD0, access="ro"),
    *(MmioRow(f"GITS_PIDR{n}", 0xFFD4 + 4 * (n - 5), access="ro") for n in range(5, 8)),
    *(MmioRow(f"GITS_PIDR{n}", 0xFFE0 + 4 * n, access="ro") for n in range(4)),
    *(MmioRow(f"GITS_CIDR{n}", 0xFFF0 + 4 * n, access="ro") for n in range(4)),
)

#: GICv2 distributor, 4 KiB (IHI 0048 4.3). At 0xD00 a GICv2 has no IGRPMODR, but IMPLEMENTATION
#: DEFINED registers.
GICV2_GICD_SIZE = 0x1000
GICV2_GICD_ROWS: tuple[MmioRow, ...] = (
    MmioRow("GICD_CTLR", 0x000),
    MmioRow("GICD_TYPER", 0x004, access="ro"),
    MmioRow("GICD_IIDR", 0x008, access="ro"),
    *(row for row in _irq_arrays("GICD", "", 1024) if row.name != "GICD_IGRPMODR"),
    _per_irq("GICD_ITARGETSR", 0x800, 8, 1024, (1, 4)),
    MmioRow("GICD_SGIR", 0xF00, access="wo"),
    _per_irq("GICD_CPENDSGIR", 0xF10, 8, NR_SGIS, (1, 4)),
    _per_irq("GICD_SPENDSGIR", 0xF20, 8, NR_SGIS, (1, 4)),
    MmioRow("GICD_ID", 0xFD0, 0x18, widths=_ID_WIDTHS, access="ro"),
    MmioRow("GICD_ICPIDR2", 0xFE8, access="ro"),
    MmioRow("GICD_CIDR", 0xFEC, 0x14, widths=_ID_WIDTHS, access="ro"),
)

#: GICv2 CPU interface, 8 KiB (IHI 0048 4.4). GICV, which a guest uses as its GICC, has the same
#: layout (5.5).
GICC_SIZE = 0x2000
GICC_ROWS: tuple[MmioRow, ...] = (
    MmioRow("GICC_CTLR", 0x0000),
    MmioRow("GICC_PMR", 0x0004),
    MmioRow("GICC_BPR", 0x0008),
    MmioRow("GICC_IAR", 0x000C, access="ro"),
    MmioRow("GICC_EOIR", 0x0010, access="wo"),
    MmioRow("GICC_RPR", 0x0014, access="ro"),
    MmioRow("GICC_HPPIR", 0x0018, access="ro"),
    MmioRow("GICC_ABPR", 0x001C),
    MmioRow("GICC_AIAR", 0x0020, access="ro"),
    MmioRow("GICC_AEOIR", 0x0024, access="wo"),
    MmioRow("GICC_AHPPIR", 0x0028, access="ro"),
    *(MmioRow(f"GICC_APR{n}", 0x00D0 + 4 * n) for n in range(4)),
    MmioRow("GICC_IIDR", 0x00FC, access="ro"),
    MmioRow("GICC_DIR", 0x1000, access="wo"),
)

#: The offset of a register or array in its frame, by name. A register of both GICD frames has the
#: same offset in both.
OFFSETS: dict[str, int] = {
    row.name: row.offset
    for row in (*GICV2_GICD_ROWS, *GICD_ROWS, *GICR_RD_ROWS, *GICR_SGI_ROWS, *GITS_ROWS, *GICC_ROWS)
}
#: Offsets of the arrays with a field per INTID, in GICD and, for INTIDs below 32, in the SGI frame
#: of GICR.
IGROUPR, ISENABLER, ICENABLER = (
    OFFSETS[f"GICD_{n}"] for n in ("IGROUPR", "ISENABLER", "ICENABLER")
)
ISPENDR, ICPENDR = OFFSETS["GICD_ISPENDR"], OFFSETS["GICD_ICPENDR"]
ISACTIVER, ICACTIVER = OFFSETS["GICD_ISACTIVER"], OFFSETS["GICD_ICACTIVER"]
IPRIORITYR, ICFGR = OFFSETS["GICD_IPRIORITYR"], OFFSETS["GICD_ICFGR"]
ITARGETSR, IROUTER = OFFSETS["GICD_ITARGETSR"], OFFSETS["GICD_IROUTER"]

# GICC_CTLR with one Security state (IHI 0048 4.4.1). ICH_VMCR_EL2 has these fields in the same
# bits.
GICC_CTLR_ENABLE_GRP0, GICC_CTLR_ENABLE_GRP1, GICC_CTLR_ACKCTL = 1 << 0, 1 << 1, 1 << 2
GICC_CTLR_FIQEN, GICC_CTLR_CBPR, GICC_CTLR_EOIMODE = 1 << 3, 1 << 4, 1 << 9
GICC_CTLR_BITS = 0x21F
GICC_DIR_OFFSET = OFFSETS["GICC_DIR"]
# The value of GICC_IAR, GICC_EOIR and GICC_DIR: the INTID and, for an SGI, the sender's CPUID.
GICC_INTID, GICC_CPUID_SHIFT, GICC_CPUID_MASK = 0x3FF, 10, 7
GICC_ID_BITS = 0x1FFF
GROUP1_ONLY = 1022  # read from GICC_IAR for a group 1 interrupt with AckCtl = 0 (IHI 0048 3.2.5)
GICV2_TYPER_CPUS_SHIFT = 5
PIDR2_GICV2 = 0x2B  # architecture revision 2, JEDEC-assigned
MAX_CPUS_GICV2 = 8

# GICD_CTLR with one Security state (IHI 0069 12.9.4). A GICv2 has the enable bits only (IHI 0048
# 4.3.1).
GICD_CTLR_ENABLE_GRP0 = 1 << 0
GICD_CTLR_ENABLE_GRP1 = 1 << 1
GICD_CTLR_ARE = 1 << 4
GICD_CTLR_DS = 1 << 6
GICD_TYPER_LPIS, GICD_TYPER_IDBITS_SHIFT, GICD_TYPER_RSS = 1 << 17, 19, 1 << 26
IROUTER_IRM = 1 << 31
GICR_CTLR_ENABLE_LPIS, GICR_CTLR_CES, GICR_CTLR_IR, GICR_CTLR_RWP = 1 << 0, 1 << 1, 1 << 2, 1 << 3
GICR_SYNCR_BUSY = 1 << 0
GICR_TYPER_PLPIS, GICR_TYPER_LAST = 1 << 0, 1 << 4
GICR_TYPER_NUMBER_SHIFT = 8
GICR_TYPER_AFFINITY_SHIFT = 32
PIDR2_GICV3 = 0x3B  # architecture revision 3, JEDEC-assigned
IMPLEMENTER_ARM = 0x43B
PRODUCT_ID_KVM = 0x4B
IIDR_REVISION_SHIFT, IIDR_REVISION_MASK = 12, 15


def iidr(revision: int) -> int:
    """Return the value of GICD_IIDR, GICR_IIDR and GITS_IIDR of KVM's GIC: product, revision,
    implementer."""
    return PRODUCT_ID_KVM << 24 | revision << IIDR_REVISION_SHIFT | IMPLEMENTER_ARM


def iidr_revision(value: int) -> int:
    """Return the Revision field of GICD_IIDR, GICR_IIDR or GITS_IIDR."""
    return value >> IIDR_REVISION_SHIFT & IIDR_REVISION_MASK


#: GICC_IIDR as KVM gives it to user space: product, architecture version 2, implementer.
GICC_IIDR = PRODUCT_ID_KVM << 20 | 2 << 16 | IMPLEMENTER_ARM

# Affinity: MPIDR_EL1 has Aff3 at [39:32]; GICR_TYPER has the four fields in 32 contiguous bits.
MPIDR_AFFINITY = 0xFF_00FF_FFFF
MPIDR_AFF0_TO_2 = 0xFF_FFFF  # Aff3 of a vCPU is always 0, as in KVM


def packed_affinity(mpidr: int) -> int:
    """Convert MPIDR_EL1 to a 32-bit affinity, Aff3.Aff2.Aff1.Aff0. GICR_TYPER[63:32] and KVM's
    device attributes have this format."""
    return mpidr >> 8 & 0xFF00_0000 | mpidr & 0x00FF_FFFF


def unpacked_affinity(packed: int) -> int:
    """Convert a 32-bit affinity (Aff3.Aff2.Aff1.Aff0) to the affinity fields of MPIDR_EL1."""
    return (packed & 0xFF00_0000) << 8 | packed & 0x00FF_FFFF


# System registers (IHI 0069 12.2, 12.4) ---------------------------------------------------------


_INTID = "INTID:23:0"
_PRIORITY = "Priority:7:0"
_BINARY_POINT = "BinaryPoint:2:0"
_SGI = "TargetList:15:0 Aff1:23:16 INTID:27:24 Aff2:39:32 IRM:40 RS:47:44 Aff3:55:48"


def _icc_rows() -> Iterator[SysReg]:
    yield define("ICC_PMR_EL1", (3, 0, 4, 6, 0), layout=_PRIORITY)
    for group, crm in ((0, 8), (1, 12)):
        yield define(f"ICC_IAR{group}_EL1", (3, 0, 12, crm, 0), "ro", _INTID)
        yield define(f"ICC_EOIR{group}_EL1", (3, 0, 12, crm, 1), "wo", _INTID)
        yield define(f"ICC_HPPIR{group}_EL1", (3, 0, 12, crm, 2), "ro", _INTID)
        yield define(f"ICC_BPR{group}_EL1", (3, 0, 12, crm, 3), layout=_BINARY_POINT)
    for n in range(4):
        yield define(f"ICC_AP0R{n}_EL1", (3, 0, 12, 8, 4 + n))
        yield define(f"ICC_AP1R{n}_EL1", (3, 0, 12, 9, n))
    yield define("ICC_DIR_EL1", (3, 0, 12, 11, 1), "wo", _INTID)
    yield define("ICC_RPR_EL1", (3, 0, 12, 11, 3), "ro", _PRIORITY)
    yield define("ICC_SGI1R_EL1", (3, 0, 12, 11, 5), "wo", _SGI)
    yield define("ICC_ASGI1R_EL1", (3, 0, 12, 11, 6), "wo", _SGI)
    yield define("ICC_SGI0R_EL1", (3, 0, 12, 11, 7), "wo", _SGI)
    yield define(
        "ICC_CTLR_EL1",
        (3, 0, 12, 12, 4),
        layout=(
            "CBPR:0 EOImode:1 PMHE:6 PRIbits:10:8 IDbits:13:11 SEIS:14 A3V:15 RSS:18 ExtRange:19"
        ),
    )
    yield define("ICC_SRE_EL1", (3, 0, 12, 12, 5), layout="SRE:0 DFB:1 DIB:2")
    yield define("ICC_IGRPEN0_EL1", (3, 0, 12, 12, 6), layout="Enable:0")
    yield define("ICC_IGRPEN1_EL1", (3, 0, 12, 12, 7), layout="Enable:0")
    yield define("ICC_SRE_EL2", (3, 4, 12, 9, 5), layout="SRE:0 DFB:1 DIB:2 Enable:3")


_LR = "vINTID:31:0 pINTID:44:32 Priority:55:48 NMI:59 Group:60 HW:61 State:63:62"
MAX_LIST_REGISTERS = 16
MIN_PRIORITY_BITS, MAX_PRIORITY_BITS = 5, 7  # of a virtual CPU interface (ICH_VTR_EL2.PREbits)
#: The numbers of list registers and of priority bits of Cortex-A53, A57 and A72 (ICH_VTR_EL2).
LIST_REGISTERS, PRIORITY_BITS = 4, 5


def _ich_rows() -> Iterator[SysReg]:
    for n in range(4):
        yield define(f"ICH_AP0R{n}_EL2", (3, 4, 12, 8, n))
        yield define(f"ICH_AP1R{n}_EL2", (3, 4, 12, 9, n))
    yield define(
        "ICH_HCR_EL2",
        (3, 4, 12, 11, 0),
        layout=(
            "En:0 UIE:1 LRENPIE:2 NPIE:3 VGrp0EIE:4 VGrp0DIE:5 VGrp1EIE:6 VGrp1DIE:7 vSGIEOICount:8 TC:10 TALL0:11"
            " TALL1:12 TSEI:13 TDIR:14 DVIM:15 EOIcount:31:27"
        ),
    )
    yield define(
        "ICH_VTR_EL2",
        (3, 4, 12, 11, 1),
        "ro",
        ("ListRegs:4:0 TDS:19 nV4:20 A3V:21 SEIS:22 IDbits:25:23 PREbits:28:26 PRIbits:31:29"),
    )
    yield define(
        "ICH_MISR_EL2",
        (3, 4, 12, 11, 2),
        "ro",
        "EOI:0 U:1 LRENP:2 NP:3 VGrp0E:4 VGrp0D:5 VGrp1E:6 VGrp1D:7",
    )
    yield define("ICH_EISR_EL2", (3, 4, 12, 11, 3), "ro", "Status:15:0")
    yield define("ICH_ELRSR_EL2", (3, 4, 12, 11, 5), "ro", "Status:15:0")
    yield define(
        "ICH_VMCR_EL2",
        (3, 4, 12, 11, 7),
        layout=(
            "VENG0:0 VENG1:1 VAckCtl:2 VFIQEn:3 VCBPR:4 VEOIM:9 VBPR1:20:18 VBPR0:23:21 VPMR:31:24"
        ),
    )
    for n in range(MAX_LIST_REGISTERS):
        yield define(f"ICH_LR{n}_EL2", (3, 4, 12, 12 + n // 8, n % 8), layout=_LR)


ICC_ROWS: tuple[SysReg, ...] = tuple(_icc_rows())
ICH_ROWS: tuple[SysReg, ...] = tuple(_ich_rows())

_BY_NAME: dict[str, SysReg] = {row.name: row for row in (*ICC_ROWS, *ICH_ROWS)}


def field(name: str) -> int:
    """Return the mask of a field of an ICC_* or ICH_* register at its position:
    ``field("ICH_HCR_EL2.En")``."""
    register, _, part = name.partition(".")
    return _BY_NAME[register].mask(part)


def _fields(register: str, *parts: str) -> tuple[int, ...]:
    return tuple(field(f"{register}.{part}") for part in parts)


#: The packed encodings by register name.
ICC_REGISTERS: dict[str, int] = {row.name: row.encoding for row in ICC_ROWS}
ICH_REGISTERS: dict[str, int] = {row.name: row.encoding for row in ICH_ROWS}

ICC_SGI1R_EL1 = ICC_REGISTERS["ICC_SGI1R_EL1"]
ICC_ASGI1R_EL1 = ICC_REGISTERS["ICC_ASGI1R_EL1"]
ICC_SGI0R_EL1 = ICC_REGISTERS["ICC_SGI0R_EL1"]
ICC_DIR_EL1 = ICC_REGISTERS["ICC_DIR_EL1"]
ICC_SRE_EL1 = ICC_REGISTERS["ICC_SRE_EL1"]

INTID_MASK = field("ICC_IAR1_EL1.INTID")
VINTID_MASK = 0xFFFF  # a vINTID has 16 bits (ICH_VTR_EL2.IDbits = 0)

# ICH_LR<n>_EL2 (IHI 0069 12.4.6).
LR_VINTID, LR_GROUP1, LR_HW, LR_STATE = _fields("ICH_LR0_EL2", "vINTID", "Group", "HW", "State")
LR_PINTID_SHIFT = shift_of(field("ICH_LR0_EL2.pINTID"))
LR_PINTID_MASK = field("ICH_LR0_EL2.pINTID") >> LR_PINTID_SHIFT
LR_PRIORITY_SHIFT = shift_of(field("ICH_LR0_EL2.Priority"))
LR_PRIORITY_MASK = field("ICH_LR0_EL2.Priority") >> LR_PRIORITY_SHIFT
LR_CPUID_SHIFT, LR_CPUID_MASK = 10, 7  # the CPUID in vINTID: SGIs of a GICv2 guest
LR_EOI = 1 << 41  # valid with HW = 0; with HW = 1 this bit is part of pINTID
LR_STATE_SHIFT, LR_GROUP_SHIFT = shift_of(LR_STATE), shift_of(LR_GROUP1)
LR_PENDING, LR_ACTIVE = 1 << LR_STATE_SHIFT, 2 << LR_STATE_SHIFT
STATE_NAMES = ("inactive", "pending", "active", "pending+active")


class ListRegister(NamedTuple):
    """The decoded fields of ICH_LR<n>_EL2. ``pintid`` is None if HW is 0. ``eoi`` is False if HW is
    1."""

    vintid: int
    priority: int
    group: int
    pending: bool
    active: bool
    pintid: int | None = None
    eoi: bool = False

    @classmethod
    def decode(cls, value: int) -> ListRegister:
        hw = bool(value & LR_HW)
        return cls(
            value & LR_VINTID,
            value >> LR_PRIORITY_SHIFT & LR_PRIORITY_MASK,
            int(bool(value & LR_GROUP1)),
            bool(value & LR_PENDING),
            bool(value & LR_ACTIVE),
            value >> LR_PINTID_SHIFT & LR_PINTID_MASK if hw else None,
            not hw and bool(value & LR_EOI),
        )

    def encode(self) -> int:
        value = self.vintid | self.priority << LR_PRIORITY_SHIFT | (LR_GROUP1 if self.group else 0)
        value |= (LR_PENDING if self.pending else 0) | (LR_ACTIVE if self.active else 0)
        if self.pintid is not None:
            return value | LR_HW | self.pintid << LR_PINTID_SHIFT
        return value | (LR_EOI if self.eoi else 0)

    @property
    def state_name(self) -> str:
        return STATE_NAMES[self.pending | self.active << 1]

    def __str__(self) -> str:
        source = (
            f" HW pINTID {self.pintid}" if self.pintid is not None else " EOI" if self.eoi else ""
        )
        return f"INTID {self.vintid} {self.state_name} priority {self.priority:#04x} group {self.group}{source}"


# ICH_HCR_EL2 (12.4.4).
ICH_HCR_EN, ICH_HCR_UIE, ICH_HCR_LRENPIE, ICH_HCR_NPIE = _fields(
    "ICH_HCR_EL2", "En", "UIE", "LRENPIE", "NPIE"
)
ICH_HCR_VGRP0EIE, ICH_HCR_VGRP0DIE = _fields("ICH_HCR_EL2", "VGrp0EIE", "VGrp0DIE")
ICH_HCR_VGRP1EIE, ICH_HCR_VGRP1DIE = _fields("ICH_HCR_EL2", "VGrp1EIE", "VGrp1DIE")
ICH_HCR_MAINTENANCE_ENABLES = (
    ICH_HCR_UIE
    | ICH_HCR_LRENPIE
    | ICH_HCR_NPIE
    | ICH_HCR_VGRP0EIE
    | ICH_HCR_VGRP0DIE
    | ICH_HCR_VGRP1EIE
    | ICH_HCR_VGRP1DIE
)
ICH_HCR_TC, ICH_HCR_TALL0, ICH_HCR_TALL1, ICH_HCR_TDIR = _fields(
    "ICH_HCR_EL2", "TC", "TALL0", "TALL1", "TDIR"
)
ICH_HCR_EOICOUNT_SHIFT = shift_of(field("ICH_HCR_EL2.EOIcount"))
ICH_HCR_EOICOUNT_MASK = field("ICH_HCR_EL2.EOIcount") >> ICH_HCR_EOICOUNT_SHIFT
ICH_HCR_WRITABLE = (
    field("ICH_HCR_EL2.EOIcount")
    | ICH_HCR_TC
    | ICH_HCR_TALL0
    | ICH_HCR_TALL1
    | ICH_HCR_TDIR
    | ICH_HCR_MAINTENANCE_ENABLES
    | ICH_HCR_EN
)

# ICH_MISR_EL2 (12.4.7).
MISR_EOI, MISR_U, MISR_LRENP, MISR_NP = _fields("ICH_MISR_EL2", "EOI", "U", "LRENP", "NP")
MISR_VGRP0E, MISR_VGRP0D = _fields("ICH_MISR_EL2", "VGrp0E", "VGrp0D")
MISR_VGRP1E, MISR_VGRP1D = _fields("ICH_MISR_EL2", "VGrp1E", "VGrp1D")

# ICH_VMCR_EL2 (12.4.8).
VMCR_VENG0, VMCR_VENG1 = _fields("ICH_VMCR_EL2", "VENG0", "VENG1")
VMCR_VACKCTL, VMCR_VFIQEN = _fields("ICH_VMCR_EL2", "VAckCtl", "VFIQEn")
VMCR_VCBPR, VMCR_VEOIM = _fields("ICH_VMCR_EL2", "VCBPR", "VEOIM")
VMCR_VBPR1_SHIFT = shift_of(field("ICH_VMCR_EL2.VBPR1"))
VMCR_VBPR0_SHIFT = shift_of(field("ICH_VMCR_EL2.VBPR0"))
VMCR_BPR_MASK = field("ICH_VMCR_EL2.VBPR0") >> VMCR_VBPR0_SHIFT
VMCR_VPMR = field("ICH_VMCR_EL2.VPMR")
VMCR_VPMR_SHIFT = shift_of(VMCR_VPMR)
VMCR_PMR_MASK = VMCR_VPMR >> VMCR_VPMR_SHIFT
VMCR_LEGACY_FLAGS = VMCR_VACKCTL | VMCR_VFIQEN  # writable only with ICC_SRE_EL1.SRE = 0
VMCR_FLAGS = VMCR_VENG0 | VMCR_VENG1 | VMCR_VCBPR | VMCR_VEOIM

# ICC_CTLR_EL1 (12.2.6) and ICH_VTR_EL2 (12.4.9).
CTLR_CBPR, CTLR_EOIMODE, CTLR_SEIS, CTLR_A3V, CTLR_RSS = _fields(
    "ICC_CTLR_EL1", "CBPR", "EOImode", "SEIS", "A3V", "RSS"
)
CTLR_PRIBITS_SHIFT = shift_of(field("ICC_CTLR_EL1.PRIbits"))
CTLR_PRIBITS_MASK = field("ICC_CTLR_EL1.PRIbits") >> CTLR_PRIBITS_SHIFT
CTLR_IDBITS_SHIFT = shift_of(field("ICC_CTLR_EL1.IDbits"))
VTR_TDS, VTR_NV4, VTR_A3V = _fields("ICH_VTR_EL2", "TDS", "nV4", "A3V")
VTR_PREBITS_SHIFT = shift_of(field("ICH_VTR_EL2.PREbits"))
VTR_PRIBITS_SHIFT = shift_of(field("ICH_VTR_EL2.PRIbits"))
SRE_ALL = (
    field("ICC_SRE_EL1.SRE") | field("ICC_SRE_EL1.DFB") | field("ICC_SRE_EL1.DIB")
)  # system registers are enabled, IRQ and FIQ bypass are disabled

# Priorities (IHI 0069 4.8). In the functions below, ``bits`` is the number of priority bits; the
# number of preemption bits is the same here. The implemented bits are the upper bits of the 8-bit
# priority.

IDLE_PRIORITY = 0xFF
#: The bits of a priority that form the group priority: ``GROUP_MASKS[group][binary point]``. The
#: group priority excludes the BPR0 + 1 low bits in group 0, the BPR1 low bits in group 1 (4.8.5).
GROUP_MASKS = (
    tuple(0xFF << bpr + 1 & 0xFF for bpr in range(8)),
    tuple(0xFF << bpr & 0xFF for bpr in range(9)),
)


def implemented_priority(bits: int) -> int:
    """Return the mask of the implemented bits in a priority and in ICC_PMR_EL1. ``bits`` is the
    number of priority bits."""
    return 0xFF << 8 - bits & 0xFF


def active_priority_registers(bits: int) -> int:
    """Return the number of active-priority registers of a group: 1, 2 or 4 (IHI 0069 12.2.1).
    ``bits`` is the number of preemption bits, 5 to 7."""
    return 1 << bits - 5


def minimum_bpr(bits: int, group: int) -> int:
    """Return the minimum of ICC_BPR<group>_EL1 (IHI 0069 4.8.5): 7 - ``bits`` for group 0, 8 -
    ``bits`` for group 1. ``bits`` is the number of preemption bits."""
    return 7 - bits + group


def binary_point(vmcr: int, bits: int, group: int) -> int:
    """Return the binary point of a group: ICH_VMCR_EL2.VBPR<group>, or `minimum_bpr` if that is
    greater. ``bits`` is the number of preemption bits."""
    field = vmcr >> (VMCR_VBPR1_SHIFT if group else VMCR_VBPR0_SHIFT) & VMCR_BPR_MASK
    return max(field, minimum_bpr(bits, group))


def read_bpr(vmcr: int, bits: int, group: int) -> int:
    """Return the value that a read of ICC_BPR<group>_EL1 returns. If VCBPR is 1, ICC_BPR1_EL1 reads
    as BPR0 + 1, at most 7. ``bits`` is the number of preemption bits."""
    if group and vmcr & VMCR_VCBPR:
        return min(binary_point(vmcr, bits, 0) + 1, 7)
    return binary_point(vmcr, bits, group)


def running_priority(ap0r: Sequence[int], ap1r: Sequence[int], bits: int) -> int:
    """Return the priority of the lowest bit that is set in the active-priority registers of both
    groups, or `IDLE_PRIORITY` if no bit is set. ``bits`` is the number of preemption bits."""
    for word, active in enumerate(ap0r):
        active |= ap1r[word]
        if active:
            return 32 * word + (active & -active).bit_length() - 1 << 8 - bits
    return IDLE_PRIORITY


class SgiRequest(NamedTuple):
    """The decoded fields of ICC_SGI0R_EL1, ICC_SGI1R_EL1 and ICC_ASGI1R_EL1 (IHI 0069 12.2.24).

    ``affinity`` is Aff3.Aff2.Aff1.0 in the format of MPIDR_EL1. Bit n of ``targets`` selects the PE
    with Aff0 = ``first_aff0`` + n. If ``all_others`` (IRM) is True, the SGI goes to all PEs except
    the sender, and ``affinity`` and ``targets`` have no effect.
    """

    intid: int
    affinity: int
    targets: int
    first_aff0: int
    all_others: bool

    @classmethod
    @lru_cache(maxsize=256)
    def decode(cls, value: int) -> SgiRequest:
        affinity = (
            (value >> 48 & 0xFF) << 32 | (value >> 32 & 0xFF) << 16 | (value >> 16 & 0xFF) << 8
        )
        return cls(
            value >> 24 & 15,
            affinity,
            value & 0xFFFF,
            16 * (value >> 44 & 15),
            bool(value >> 40 & 1),
        )


class SgirRequest(NamedTuple):
    """The decoded fields of GICD_SGIR (IHI 0048 4.3.15). ``targets`` has a bit for each CPU
    (CPUTargetList). ``target_filter`` selects the receivers: 0 selects ``targets``, 1 selects all
    CPUs except the sender, 2 selects the sender, and 3 is reserved."""

    intid: int
    targets: int
    target_filter: int

    @classmethod
    def decode(cls, value: int) -> SgirRequest:
        return cls(value & 15, value >> 16 & 0xFF, value >> 24 & 3)

    def receivers(self, sender: int, existing: int) -> int:
        """Return the CPUs that receive the SGI, one bit for each CPU. ``sender`` is the number of
        the sending CPU. ``existing`` has a bit for each CPU of the VM."""
        return (self.targets, ~(1 << sender), 1 << sender, 0)[self.target_filter] & existing
