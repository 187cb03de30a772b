"""Stage-2 translation tables, 4 KiB granule (DDI 0487 D8.3): descriptors and control registers as
data."""

from __future__ import annotations

from typing import NamedTuple

PAGE_SHIFT, PAGE_SIZE = 12, 4096
ENTRIES = 512

VALID = 1 << 0
TABLE = 1 << 1  # with VALID: a table; at level 3 a page
MEMATTR_NORMAL_WB = 0xF << 2
MEMATTR_DEVICE_NGNRE = 1 << 2
S2AP_READ = 1 << 6
S2AP_WRITE = 1 << 7
SH_INNER = 3 << 8
ACCESS_FLAG = 1 << 10
XN = 1 << 54
ADDRESS_MASK = 0x0000_FFFF_FFFF_F000

NORMAL_PAGE = VALID | TABLE | MEMATTR_NORMAL_WB | S2AP_READ | SH_INNER | ACCESS_FLAG


class Geometry(NamedTuple):
    """The start of a table walk: IPA size in bits, start level, number of concatenated tables at
    this level."""

    ipa_bits: int
    start_level: int
    tables: int


SMALL = Geometry(34, 2, 16)
"""16 GiB, from level 2: a walk has one level less than in `LARGE`, so a boot is measurably
faster."""
LARGE = Geometry(40, 1, 2)


def geometry(top: int) -> Geometry:
    """The geometry with the fewest levels whose IPA space contains the addresses below ``top``;
    ValueError if ``top`` needs more than 40 bits."""
    for candidate in (SMALL, LARGE):
        if top <= 1 << candidate.ipa_bits:
            return candidate
    raise ValueError(f"an IPA space of 40 bits does not hold {top:#x}")


def vtcr(shape: Geometry) -> int:
    """VTCR_EL2 for a geometry: 4 KiB granule, 44-bit PA, inner shareable write-back walks."""
    sl0 = 2 - shape.start_level
    return 1 << 31 | 4 << 16 | 3 << 12 | 1 << 10 | 1 << 8 | sl0 << 6 | 64 - shape.ipa_bits


def index(ipa: int, level: int) -> int:
    """The index of ``ipa`` in a table of ``level`` (with concatenated tables the index can exceed
    511)."""
    return ipa >> (PAGE_SHIFT + 9 * (3 - level))
