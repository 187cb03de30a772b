"""Translation tables of both stages with the 4 KiB granule (DDI 0487 D8): descriptors and fields of
control registers, as data."""

from __future__ import annotations

from armvirt.arch.bits import shift_of
from armvirt.arch.sysregs import field
from armvirt.records import NamedTuple

PAGE_SHIFT, PAGE_SIZE = 12, 4096
LEVEL_BITS = 9  # the number of address bits that index a table
ENTRIES = 1 << LEVEL_BITS
INDEX_MASK = ENTRIES - 1
LAST_LEVEL = 3

VALID = 1 << 0
TABLE = 1 << 1  # with VALID: a table descriptor; at level 3, a page descriptor
ADDRESS_MASK = 0x0000_FFFF_FFFF_F000

# Stage 1: TCR_EL1 and TTBR<n>_EL1 (D23.2). Bit 55 of an address selects the TTBR.

UPPER_RANGE_SHIFT = 55
TCR_T0SZ_SHIFT, TCR_T1SZ_SHIFT = shift_of(field("TCR_EL1.T0SZ")), shift_of(field("TCR_EL1.T1SZ"))
TCR_TSZ_MASK = field("TCR_EL1.T0SZ") >> TCR_T0SZ_SHIFT
TCR_TG0_SHIFT, TCR_TG1_SHIFT = shift_of(field("TCR_EL1.TG0")), shift_of(field("TCR_EL1.TG1"))
TCR_TG_MASK = field("TCR_EL1.TG0") >> TCR_TG0_SHIFT
TG0_4K, TG1_4K = 0, 2
TCR_A1 = field("TCR_EL1.A1")  # the current ASID is in TTBR1_EL1
MIN_TSZ, MAX_TSZ = 16, 39
TTBR_ASID_SHIFT = shift_of(field("TTBR0_EL1.ASID"))

# Stage 2

VTTBR_VMID_SHIFT = shift_of(field("VTTBR_EL2.VMID"))
VTCR_SL0_SHIFT = shift_of(field("VTCR_EL2.SL0"))
VTCR_RES1 = 1 << 31
#: PS: 44-bit PA. SH0, ORGN0, IRGN0: inner shareable write-back walks. TG0 = 0: 4 KiB granule.
VTCR_FIXED = (
    VTCR_RES1
    | 4 << shift_of(field("VTCR_EL2.PS"))
    | field("VTCR_EL2.SH0")
    | 1 << shift_of(field("VTCR_EL2.ORGN0"))
    | 1 << shift_of(field("VTCR_EL2.IRGN0"))
)
MEMATTR_NORMAL_WB = 0xF << 2
MEMATTR_DEVICE_NGNRE = 1 << 2
S2AP_READ = 1 << 6
S2AP_WRITE = 1 << 7
SH_INNER = 3 << 8
ACCESS_FLAG = 1 << 10
XN = 1 << 54

NORMAL_PAGE = VALID | TABLE | MEMATTR_NORMAL_WB | S2AP_READ | SH_INNER | ACCESS_FLAG


class Geometry(NamedTuple):
    """The size of a stage-2 translation: the IPA size in bits, the start level of a walk, and the
    number of concatenated tables at the start level."""

    ipa_bits: int
    start_level: int
    tables: int


SMALL = Geometry(34, 2, 16)
"""A 16 GiB IPA space, with walks from level 2. A walk has one level less than with `LARGE`, so a
boot is measurably faster."""
LARGE = Geometry(40, 1, 2)


def geometry(top: int) -> Geometry:
    """Return a geometry whose IPA space contains all addresses below ``top``. If several geometries
    are possible, return the geometry with the shortest walk. Raises ValueError if ``top`` needs
    more than 40 bits."""
    for candidate in (SMALL, LARGE):
        if top <= 1 << candidate.ipa_bits:
            return candidate
    raise ValueError(f"an IPA space of 40 bits does not hold {top:#x}")


def vtcr(shape: Geometry) -> int:
    """Return VTCR_EL2 for a geometry: 4 KiB granule, 44-bit PA, and Inner Shareable Write-back
    walks."""
    sl0 = 2 - shape.start_level
    return VTCR_FIXED | sl0 << VTCR_SL0_SHIFT | 64 - shape.ipa_bits


def start_level(bits: int) -> int:
    """Return the level at which a stage-1 walk starts. ``bits`` is the size of the input address in
    bits."""
    return LAST_LEVEL - (bits - PAGE_SHIFT - 1) // LEVEL_BITS


def index(address: int, level: int) -> int:
    """Return the index of the descriptor for ``address`` in a translation table. ``level`` is the
    level of the table. With concatenated tables at the start level, the index can exceed 511."""
    return address >> (PAGE_SHIFT + LEVEL_BITS * (LAST_LEVEL - level))
