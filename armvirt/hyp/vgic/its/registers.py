"""The register frame GITS of an ITS (IHI 0069 12.19; kvm/vgic/vgic-its.c). `armvirt.arch.gic` has a
table with the offset and the size of each register. This module binds each row of the table, by
name, to the functions that read and write the register."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

from armvirt.arch import gic
from armvirt.arch import its as arch
from armvirt.arch.gic import (
    GITS_ROWS,
    PIDR2_GICV3,
    MmioRow,
)
from armvirt.errors import KvmError
from armvirt.hyp.vgic.its import commands
from armvirt.hyp.vgic.its.its import COLLECTION_TABLE, DEVICE_TABLE, Its
from armvirt.hyp.vgic.registers.register_map import match
from armvirt.records import NamedTuple

ABI_REVISIONS = 1

Read = Callable[[Its], int]
Write = Callable[[Its, int], None]


class ItsRegister(NamedTuple):
    """A register of an ITS, and the functions that read and write the register. If ``write`` is
    None, the register is WI. User space writes with ``user_write``, or with ``write`` if
    ``user_write`` is None."""

    name: str
    read: Read
    write: Write | None = None
    user_write: Write | None = None


class BoundRegister(NamedTuple):
    """A register of an ITS, and its row (offset and size) in the register tables of
    `armvirt.arch.gic`."""

    row: MmioRow
    register: ItsRegister


def _read_ctlr(its: Its) -> int:
    return (arch.CTLR_ENABLED if its.enabled else 0) | (arch.CTLR_QUIESCENT if its.quiescent else 0)


def _write_ctlr(its: Its, value: int) -> None:
    """Write GITS_CTLR.Enabled. If the command queue or one of the two tables is not valid, a write
    of 1 is UNPREDICTABLE in the architecture. armvirt ignores such a write, as KVM does."""
    enable = bool(value & arch.CTLR_ENABLED)
    if enable and not its.enabled and not (its.cbaser & its.baser[0] & its.baser[1] & arch.VALID):
        return
    its.enabled = enable
    commands.process(its)


def _read_iidr(its: Its) -> int:
    return gic.iidr(its.abi_revision)


def _restore_iidr(its: Its, value: int) -> None:
    """Restore GITS_IIDR.Revision, which selects the layout of the saved tables. KvmError EINVAL if
    there is no layout with this number."""
    revision = gic.iidr_revision(value)
    if revision >= ABI_REVISIONS:
        raise KvmError("EINVAL", f"there is no ITS table layout {revision}")
    its.abi_revision = revision


def _read_typer(_: Its) -> int:
    """GITS_TYPER. The ITS has physical LPIs, ITT entries of 8 bytes, EventIDs of 16 bits, and
    DeviceIDs of 16 bits. PTA is 0: RDbase is a processor number."""
    bits = arch.ID_BITS - 1
    sizes = bits << arch.TYPER_IDBITS_SHIFT | bits << arch.TYPER_DEVBITS_SHIFT
    return arch.TYPER_PHYSICAL | arch.ENTRY_SIZE - 1 << arch.TYPER_ITT_ENTRY_SHIFT | sizes


def _write_cbaser(its: Its, value: int) -> None:
    """Write GITS_CBASER. The write is ignored while the ITS is enabled. The write sets GITS_CREADR
    and GITS_CWRITER to 0. In the architecture GITS_CWRITER is UNKNOWN after the write."""
    if not its.enabled:
        its.executed = False
        its.cbaser = arch.sanitise(value & arch.CBASER_WRITABLE, arch.GITS_ATTRIBUTES)
        its.creadr = its.cwriter = 0


def _write_cwriter(its: Its, value: int) -> None:
    """Write GITS_CWRITER and execute commands. The write is ignored if the offset is beyond the end
    of the queue. The bit Retry has no effect, because GITS_CREADR.Stalled is never set."""
    offset = value & arch.OFFSET
    if offset < arch.queue_size(its.cbaser):
        its.cwriter = offset
        commands.process(its)


def _restore_creadr(its: Its, value: int) -> None:
    if its.enabled:
        raise KvmError("EBUSY", "GITS_CREADR cannot be restored while the ITS is enabled")
    offset = value & arch.OFFSET
    if offset >= arch.queue_size(its.cbaser):
        raise KvmError("EINVAL", f"GITS_CREADR {offset:#x} is beyond the queue")
    its.creadr, its.executed = offset, False


def _read_baser(index: int, its: Its) -> int:
    return its.baser[index]


def _write_baser(index: int, its: Its, value: int) -> None:
    """Write GITS_BASER<n>. The write is ignored while the ITS is enabled. A write of Valid = 0
    unmaps all devices (n = 0) or all collections (n = 1)."""
    if its.enabled:
        return
    its.baser[index] = its.sanitised_baser(index, value)
    if not value & arch.VALID:
        if index == DEVICE_TABLE:
            its.free_devices()
        else:
            its.free_collections()


def _constant(name: str, value: int) -> ItsRegister:
    return ItsRegister(name, lambda _: value)


def _baser(index: int) -> ItsRegister:
    return ItsRegister(
        f"GITS_BASER{index}", partial(_read_baser, index), partial(_write_baser, index)
    )


BINDINGS: tuple[ItsRegister, ...] = (
    ItsRegister("GITS_CTLR", _read_ctlr, _write_ctlr),
    ItsRegister("GITS_IIDR", _read_iidr, user_write=_restore_iidr),
    ItsRegister("GITS_TYPER", _read_typer),
    ItsRegister("GITS_CBASER", lambda its: its.cbaser, _write_cbaser),
    ItsRegister("GITS_CWRITER", lambda its: its.cwriter, _write_cwriter),
    ItsRegister("GITS_CREADR", lambda its: its.creadr, user_write=_restore_creadr),
    _baser(DEVICE_TABLE),
    _baser(COLLECTION_TABLE),
    *(_constant(f"GITS_BASER{n}", 0) for n in range(2, 8)),
    _constant("GITS_PIDR0", 0x92),
    _constant("GITS_PIDR1", 0xB4),
    _constant("GITS_PIDR2", PIDR2_GICV3),
    _constant("GITS_PIDR3", 0),
    _constant("GITS_PIDR4", 0x40),  # a software-visible page of 64 KiB
    *(_constant(f"GITS_PIDR{n}", 0) for n in (5, 6, 7)),
    *(_constant(f"GITS_CIDR{n}", value) for n, value in enumerate((0x0D, 0xF0, 0x05, 0xB1))),
)


def bind(rows: Iterable[MmioRow], bindings: Iterable[ItsRegister]) -> dict[int, BoundRegister]:
    """The registers by offset; a 64-bit register is also at the offset of its upper 32 bits.
    `match` pairs each row of the register table with the binding of the same name."""
    bound = (BoundRegister(*pair) for pair in match(rows, bindings))
    return {offset: each for each in bound for offset in range(each.row.offset, each.row.end, 4)}


REGISTERS: dict[int, BoundRegister] = bind(GITS_ROWS, BINDINGS)


def lookup(offset: int, size: int) -> BoundRegister | None:
    """The register for a guest's access of ``size`` bytes at ``offset``. None if there is no
    register, or if the size or the alignment of the access is wrong."""
    bound = REGISTERS.get(offset)
    return bound if bound is not None and size in bound.row.widths and offset % size == 0 else None


def read(its: Its, offset: int, size: int) -> int:
    """Read ``size`` bytes at ``offset`` for the guest. The value is 0 if `lookup` finds no
    register. Earlier accesses can leave work on LPIs and ITS commands unfinished. Before the read,
    the ITS continues this work, up to the limit of work for one guest access
    (`armvirt.hyp.vgic.backlog`)."""
    bound = lookup(offset, size)
    if bound is None:
        return 0
    its.dist.backlog.begin()
    if not its.quiescent:
        commands.process(its)
    return bound.register.read(its) >> 8 * (offset - bound.row.offset) & (1 << 8 * size) - 1


def write(its: Its, offset: int, size: int, value: int) -> None:
    """Write ``size`` bytes at ``offset`` for the guest. The write has no effect if `lookup` finds
    no register. If the guest writes one half of a register, the other half does not change. Before
    the write, the ITS continues the work on LPIs that earlier accesses have not finished
    (`armvirt.hyp.vgic.backlog`)."""
    bound = lookup(offset, size)
    if bound is None or bound.register.write is None:
        return
    if size < bound.row.length:
        shift = 8 * (offset - bound.row.offset)
        mask = (1 << 8 * size) - 1
        value = bound.register.read(its) & ~(mask << shift) | (value & mask) << shift
    its.dist.backlog.begin()
    bound.register.write(its, value)


def user_register(offset: int) -> BoundRegister:
    """The register at ``offset``, for save and restore by user space. KvmError ENXIO if there is no
    register, EINVAL if the offset is not aligned. As in KVM, offsets from GITS_TYPER up to the ID
    registers must be multiples of 8 bytes. Other offsets must be multiples of 4 bytes."""
    first, last = gic.OFFSETS["GITS_TYPER"], gic.OFFSETS["GITS_PIDR4"]
    if offset % (8 if first <= offset < last else 4):
        raise KvmError("EINVAL", f"ITS register offset {offset:#x} is not aligned")
    bound = REGISTERS.get(offset)
    if bound is None:
        raise KvmError("ENXIO", f"an ITS has no register at {offset:#x}")
    return bound


def user_read(its: Its, offset: int) -> int:
    """Read a whole register for a save by user space. The errors are the errors of
    `user_register`."""
    return user_register(offset).register.read(its)


def user_write(its: Its, offset: int, value: int) -> None:
    """Write a whole register for a restore by user space. The errors are the errors of
    `user_register`. Also KvmError EINVAL if the register cannot have the value, and EBUSY for
    GITS_CREADR while the ITS is enabled."""
    bound = user_register(offset)
    write = bound.register.user_write or bound.register.write
    if write is not None:
        its.dist.backlog.begin()
        write(its, value & (1 << 8 * bound.row.length) - 1)
