"""LPIs and the ITS as data (Arm IHI 0069 chapter 5, 12.11, 12.18): tables in memory, commands,
register fields.

The rows of the ITS registers are in `armvirt.arch.gic`.
"""

from __future__ import annotations

from armvirt.arch.bits import MASK32
from armvirt.arch.gic import FIRST_LPI

#: The number of bits of an INTID (with LPIs), an EventID, a DeviceID and a collection ID.
ID_BITS = 16
END_LPI = 1 << ID_BITS

# The LPI configuration table, a byte per LPI (5.1.1), and the pending table, a bit per INTID (5.1.2) ----------------

LPI_PRIORITY, LPI_ENABLE = 0xFC, 1 << 0
ADDRESS = 0x000F_FFFF_FFFF_F000  # [51:12]
PENDING_ADDRESS = 0x000F_FFFF_FFFF_0000  # [51:16]
PROPBASER_IDBITS = 0x1F
PROPBASER_WRITABLE = 0x070F_FFFF_FFFF_FF9F
PENDBASER_PTZ = 1 << 62
PENDBASER_WRITABLE = PENDBASER_PTZ | 0x070F_FFFF_FFFF_0F80


def lpis_end(propbaser: int) -> int:
    """Return the first INTID after the LPI configuration table. GICR_PROPBASER.IDbits gives the
    size of the table, but the result is limited by GICD_TYPER.IDbits."""
    return 1 << min((propbaser & PROPBASER_IDBITS) + 1, ID_BITS)


def property_address(propbaser: int, intid: int) -> int:
    """Return the address of the configuration byte of an LPI. ``propbaser`` is GICR_PROPBASER."""
    return (propbaser & ADDRESS) + intid - FIRST_LPI


def pending_address(pendbaser: int, intid: int) -> tuple[int, int]:
    """Return the address of the byte with the pending bit of an LPI, and the mask of the bit in
    this byte. ``pendbaser`` is GICR_PENDBASER."""
    return (pendbaser & PENDING_ADDRESS) + intid // 8, 1 << intid % 8


# Memory attributes of table registers: shareability and two cacheability fields -----------------

INNER_SHAREABLE, OUTER_SHAREABLE = 1, 2
DEVICE_NGNRNE, NON_CACHEABLE, READ_ALLOCATE_WRITE_BACK = 0, 1, 5
SAME_AS_INNER = 0
GICR_ATTRIBUTES = (7, 10, 56)  # the lowest bit of InnerCache, Shareability, OuterCache
GITS_ATTRIBUTES = (59, 10, 53)


def sanitise(value: int, attributes: tuple[int, int, int]) -> int:
    """Return the value that is stored when a guest writes ``value`` to a register with a table
    address (KVM: vgic_sanitise_*).

    Memory attributes that are not supported are replaced. Outer Shareable becomes Inner Shareable.
    Inner Device and inner Non-cacheable become Write-back. Each outer cacheability other than
    Non-cacheable becomes "same as inner". ``attributes`` has three bit positions: the lowest bit of
    the field InnerCache, of Shareability, and of OuterCache.
    """
    inner, share, outer = attributes
    if value >> share & 3 == OUTER_SHAREABLE:
        value ^= (OUTER_SHAREABLE ^ INNER_SHAREABLE) << share
    if value >> inner & 7 in (DEVICE_NGNRNE, NON_CACHEABLE):
        value = value & ~(7 << inner) | READ_ALLOCATE_WRITE_BACK << inner
    if value >> outer & 7 not in (SAME_AS_INNER, NON_CACHEABLE):
        value &= ~(7 << outer)
    return value


#: GICR_PROPBASER and GICR_PENDBASER at reset: normal memory, no table.
PROPBASER_RESET = PENDBASER_RESET = sanitise(INNER_SHAREABLE << GICR_ATTRIBUTES[1], GICR_ATTRIBUTES)
#: GITS_CBASER at reset: Valid is 0, the other fields are UNKNOWN (IHI 0069 12.19). KVM resets the
#: register to 0, a value that no write can store; here the attributes are sanitised.
CBASER_RESET = sanitise(0, GITS_ATTRIBUTES)

# GITS registers (12.19) --------------------------------------------------------------------------

CTLR_ENABLED, CTLR_QUIESCENT = 1 << 0, 1 << 31
TYPER_PHYSICAL, TYPER_ITT_ENTRY_SHIFT, TYPER_IDBITS_SHIFT, TYPER_DEVBITS_SHIFT = 1 << 0, 4, 8, 13
VALID = 1 << 63  # in GITS_CBASER, GITS_BASER<n> and the entries of a level 1 table
INDIRECT = 1 << 62
BASER_TYPE_SHIFT, TYPE_DEVICE, TYPE_COLLECTION = 56, 1, 4
BASER_ENTRY_SHIFT = 48
BASER_READ_ONLY = 7 << BASER_TYPE_SHIFT | 0x1F << BASER_ENTRY_SHIFT
BASER_PAGE_SIZE, BASER_64K = 3 << 8, 2 << 8
PAGE_SIZE = 0x1_0000  # bytes; no other GITS_BASER<n>.Page_Size is supported
CBASER_ADDRESS = 0x000F_FFFF_FFFF_0000
CBASER_WRITABLE = 0xB8EF_FFFF_FFFF_0CFF
OFFSET = 0xF_FFE0  # the offset in GITS_CWRITER and GITS_CREADR, in bytes
COMMAND_SIZE = 32


def queue_size(cbaser: int) -> int:
    """Return the size in bytes of the command queue. ``cbaser`` is GITS_CBASER."""
    return ((cbaser & 0xFF) + 1) << 12


def table_size(baser: int) -> int:
    """Return the size in bytes of the memory at the table address in GITS_BASER<n>. This is the
    whole table if the table is flat, or the level 1 table if the table has two levels."""
    return ((baser & 0xFF) + 1) * PAGE_SIZE


def table_address(baser: int) -> int:
    """Return the table address in GITS_BASER<n>. The page size is 64 KiB, so bits [15:12] of the
    register are bits [51:48] of the address."""
    return baser & 0xFFFF_FFFF_0000 | (baser >> 12 & 15) << 48


# Table entries as KVM saves them, revision 0 of its ABI (Documentation/virt/kvm/devices/arm-vgic-its.rst) -----------

ENTRY_SIZE = 8
ENTRIES_PER_PAGE = PAGE_SIZE // ENTRY_SIZE
LEVEL1_ADDRESS = 0x000F_FFFF_FFFF_0000
MAX_NEXT_DEVICE, MAX_NEXT_EVENT = (1 << 14) - 1, (1 << 16) - 1


def device_entry(following: int, itt: int, event_bits: int) -> int:
    return VALID | following << 49 | itt >> 8 << 5 | event_bits - 1


def device_fields(entry: int) -> tuple[int, int, int]:
    """Decode a device table entry as (offset of the next DeviceID, address of the ITT, number of
    EventID bits)."""
    return entry >> 49 & MAX_NEXT_DEVICE, (entry >> 5 & (1 << 44) - 1) << 8, (entry & 31) + 1


def collection_entry(target: int, icid: int) -> int:
    return VALID | target << 16 | icid


def collection_fields(entry: int) -> tuple[int, int]:
    """Decode a collection table entry as (target, collection ID). The target is a
    GICR_TYPER.Processor_Number."""
    return entry >> 16 & 0xFFFF_FFFF, entry & 0xFFFF


def event_entry(following: int, intid: int, icid: int) -> int:
    return following << 48 | intid << 16 | icid


def event_fields(entry: int) -> tuple[int, int, int]:
    """Decode an entry of an interrupt translation table (ITT) as (offset of the next EventID,
    INTID, collection ID). INTID 0 means that the event is not mapped."""
    return entry >> 48, entry >> 16 & 0xFFFF_FFFF, entry & 0xFFFF


INVLPIR_V = 1 << 63  # GICR_INVLPIR and GICR_INVALLR: the LPIs are virtual (IHI 0069 12.11)
#: The target of a collection that a MAPTI has used before any MAPC maps the collection.
NOT_MAPPED = MASK32

# Commands (5.3): first bit, width and scale of each field in the 256 bits of a command -----------

FIELDS: dict[str, tuple[int, int, int]] = {
    "opcode": (0, 8, 0),
    "device": (32, 32, 0),
    "event": (64, 32, 0),
    "size": (64, 5, 0),  # number of EventID bits, minus one
    "intid": (96, 32, 0),
    "icid": (128, 16, 0),
    "itt": (136, 44, 8),  # in units of 256 bytes
    "rdbase": (144, 35, 0),  # GITS_TYPER.PTA = 0: a processor number
    "valid": (191, 1, 0),
    "rdbase2": (208, 35, 0),
}

#: Opcode to name and operands. This ITS does not have the commands of GICv4.
COMMANDS: dict[int, tuple[str, tuple[str, ...]]] = {
    0x01: ("MOVI", ("device", "event", "icid")),
    0x03: ("INT", ("device", "event")),
    0x04: ("CLEAR", ("device", "event")),
    0x05: ("SYNC", ()),
    0x08: ("MAPD", ("device", "size", "itt", "valid")),
    0x09: ("MAPC", ("icid", "rdbase", "valid")),
    0x0A: ("MAPTI", ("device", "event", "intid", "icid")),
    0x0B: ("MAPI", ("device", "event", "icid")),
    0x0C: ("INV", ("device", "event")),
    0x0D: ("INVALL", ("icid",)),
    0x0E: ("MOVALL", ("rdbase", "rdbase2")),
    0x0F: ("DISCARD", ("device", "event")),
}


def command_field(command: int, name: str) -> int:
    """Extract a field of an ITS command. ``command`` is the 32 bytes of the command as a
    little-endian number."""
    first, width, scale = FIELDS[name]
    return (command >> first & (1 << width) - 1) << scale


def encode_command(name: str, **fields: int) -> bytes:
    """Encode an ITS command in 32 bytes. Raises KeyError if the command or a field is unknown."""
    opcode = next((code for code, (known, _) in COMMANDS.items() if known == name), None)
    if opcode is None:
        raise KeyError(name)
    value = opcode
    for field, number in fields.items():
        first, width, scale = FIELDS[field]
        value |= (number >> scale & (1 << width) - 1) << first
    return value.to_bytes(COMMAND_SIZE, "little")


# The result of a command: E_DONE, an error code of 5.3 (each command has a table of errors), or a
# negative errno of KVM.
E_MOVI_UNMAPPED_INTERRUPT = 0x01_0107
E_MOVI_UNMAPPED_COLLECTION = 0x01_0109
E_INT_UNMAPPED_INTERRUPT = 0x01_0307
E_CLEAR_UNMAPPED_INTERRUPT = 0x01_0507
E_MAPD_DEVICE_OOR = 0x01_0801
E_MAPD_ITTSIZE_OOR = 0x01_0802
E_MAPC_PROCNUM_OOR = 0x01_0902
E_MAPC_COLLECTION_OOR = 0x01_0903
E_MAPTI_UNMAPPED_DEVICE = 0x01_0A04
E_MAPTI_ID_OOR = 0x01_0A05
E_MAPTI_PHYSICALID_OOR = 0x01_0A06
E_INV_UNMAPPED_INTERRUPT = 0x01_0C07
E_INVALL_UNMAPPED_COLLECTION = 0x01_0D09
E_MOVALL_PROCNUM_OOR = 0x01_0E01
E_DISCARD_UNMAPPED_INTERRUPT = 0x01_0F07
E_DONE = 0
E_BUSY = -16  # the ITS is disabled, or the LPIs of the target: no effect (KVM: -EBUSY)
E_NO_MEMORY = -12  # the maximum number of mapped events of this model is reached
E_FAULT = -14  # the command queue is outside of memory
E_UNKNOWN = -19  # unknown command (KVM: -ENODEV)
