"""Saves and restores an interrupt controller only through its device attributes, as QEMU does in
kvm_arm_gic*_{get,put}.

A save returns a list of attributes with their values, in the order of the restore.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import TYPE_CHECKING

from armvirt.arch.bits import MASK32
from armvirt.arch.gic import (
    GICR_FRAME_SIZE,
    ICACTIVER,
    ICC_REGISTERS,
    ICENABLER,
    ICFGR,
    ICPENDR,
    IGROUPR,
    IPRIORITYR,
    IROUTER,
    ISACTIVER,
    ISENABLER,
    ISPENDR,
    ITARGETSR,
    NR_PRIVATE,
    NR_SGIS,
    OFFSETS,
)
from armvirt.errors import KvmError
from armvirt.hyp.kvm import VgicCtrl, VgicDevice, VgicGroup
from armvirt.hyp.vgic.registers.v3_cpu_interface import ACCESSES
from armvirt.records import NamedTuple

if TYPE_CHECKING:
    from armvirt.hyp.vgic.device.its import ItsDevice

#: A GICR register of 64 bits is two attributes, each of one word.
REDISTRIBUTOR_SAVED = (
    *(OFFSETS[name] + half for name in ("GICR_PROPBASER", "GICR_PENDBASER") for half in (0, 4)),
    OFFSETS["GICR_CTLR"],
)
#: ICC_CTLR_EL1 is first: its priority bits decide which values the other registers can have.
ICC_SAVED = ("ICC_CTLR_EL1", *(row.name for row in ACCESSES if row.name != "ICC_CTLR_EL1"))
GICC_SAVED = tuple(
    OFFSETS[f"GICC_{name}"]
    for name in ("CTLR", "PMR", "BPR", "ABPR", *(f"APR{n}" for n in range(4)))
)
#: GITS_IIDR is first, because it decides the layout of the saved tables. GITS_CTLR is last, after
#: the tables.
ITS_SAVED = tuple(
    OFFSETS[f"GITS_{name}"]
    for name in ("IIDR", "CBASER", "CREADR", "CWRITER", *(f"BASER{n}" for n in range(8)), "CTLR")
)


class Array(NamedTuple):
    """An array of registers with ``bits`` bits per interrupt, such as GICD_ISENABLER<n>. ``offset``
    is the offset of the array in bytes. A restore writes this array. If a write to the array can
    only set bits, ``clear`` is the offset of the array that clears these bits; otherwise ``clear``
    is None."""

    offset: int
    bits: int
    clear: int | None = None


#: Group, trigger and priority are first, because pending, active and enabled depend on them.
ARRAYS = (Array(IGROUPR, 1), Array(ICFGR, 2), Array(IPRIORITYR, 8), Array(ISPENDR, 1, ICPENDR),
          Array(ISACTIVER, 1, ICACTIVER), Array(ISENABLER, 1, ICENABLER))  # fmt: skip

#: The senders of the pending SGIs of a GICv2. A restore of ISPENDR alone would make the vCPU itself
#: the sender.
SGI_SENDERS = Array(OFFSETS["GICD_SPENDSGIR"], 8, OFFSETS["GICD_CPENDSGIR"])

Line = tuple["int | None", int]
"""An input of the interrupt controller as (vCPU, INTID). The vCPU is None for an SPI."""


class Saved(NamedTuple):
    """One attribute of a device, with its group and its value."""

    group: int
    attr: int
    value: int


def _words(array: Array, first: int, last: int) -> Iterable[int]:
    return range(first * array.bits // 32, -(-last * array.bits // 32))


def _array(
    device: VgicDevice, group: int, where: int, array: Array, first: int, last: int
) -> Iterator[Saved]:
    """Read the words of an array that have the bits of the interrupts [first, last). ``where`` is
    added to the offset of the array: the bits of the attribute that select the CPU, plus the offset
    of the register frame."""
    for word in _words(array, first, last):
        value = device.get_attr(group, where + array.offset + 4 * word)
        if array.clear is not None:
            yield Saved(group, where + array.clear + 4 * word, MASK32)
        yield Saved(group, where + array.offset + 4 * word, value)


def _arrays(device: VgicDevice, group: int, where: int, first: int, last: int) -> Iterator[Saved]:
    for array in ARRAYS:
        yield from _array(device, group, where, array, first, last)


def _read(device: VgicDevice, group: int, attrs: Iterable[int]) -> Iterator[Saved]:
    """Read the attributes of ``attrs``. Attributes that do not exist are left out: the number of
    priority bits decides how many active-priority registers exist."""
    for attr in attrs:
        try:
            yield Saved(group, attr, device.get_attr(group, attr))
        except KvmError as error:
            if error.errno not in ("EINVAL", "ENXIO"):
                raise


def save_v3(
    device: VgicDevice, affinities: Iterable[int], high: Collection[Line] = ()
) -> list[Saved]:
    """Save a GICv3: the distributor, and the redistributors and CPU interfaces of the vCPUs.
    ``affinities`` has MPIDR[23:0] of each vCPU.

    ``high`` are the inputs that are high now; only the SPIs are used. The caller has to give these
    inputs, because LEVEL_INFO reads 1 only for level-sensitive SPIs. The restore sets the line
    levels of edge-triggered SPIs, too (kvm vgic_write_irq_line_level_info), because the guest may
    make them level-sensitive later.
    """
    cpus = [affinity << 32 for affinity in affinities]
    count = device.get_attr(VgicGroup.NR_IRQS, 0)
    first = cpus[0]
    rows: list[Saved] = []
    rows += _read(device, VgicGroup.DIST_REGS, [first + OFFSETS["GICD_IIDR"]])
    rows += _levels(device, first, range(NR_PRIVATE, count, 32), high)
    rows += _read(
        device,
        VgicGroup.DIST_REGS,
        [first + IROUTER + 4 * n for n in range(2 * NR_PRIVATE, 2 * count)],
    )
    rows += _arrays(device, VgicGroup.DIST_REGS, first, NR_PRIVATE, count)
    for cpu in cpus:
        rows += _read(device, VgicGroup.LEVEL_INFO, [cpu])
        rows += _arrays(device, VgicGroup.REDIST_REGS, cpu + GICR_FRAME_SIZE, 0, NR_PRIVATE)
        rows += _read(device, VgicGroup.REDIST_REGS, [cpu + at for at in REDISTRIBUTOR_SAVED])
        rows += _read(
            device, VgicGroup.CPU_SYSREGS, [cpu | ICC_REGISTERS[name] for name in ICC_SAVED]
        )
    rows += _read(device, VgicGroup.DIST_REGS, [first + OFFSETS["GICD_CTLR"]])
    return rows


def _levels(
    device: VgicDevice, first: int, words: Iterable[int], high: Collection[Line]
) -> Iterator[Saved]:
    for word in words:
        value = device.get_attr(VgicGroup.LEVEL_INFO, first + word)
        for owner, intid in high:
            if owner is None and intid & ~31 == word:
                value |= 1 << (intid & 31)
        yield Saved(VgicGroup.LEVEL_INFO, first + word, value)


def save_v2(
    device: VgicDevice, vcpu_ids: Iterable[int], high: Collection[Line] = ()
) -> list[Saved]:
    """Save a GICv2. Its attributes do not have the levels of the lines, so the VMM has to drive
    each line before the restore. If the VMM drove the lines after the restore, each edge-triggered
    interrupt whose line is high would become pending once more.

    ``high`` are the inputs that are high now. GICD_ISPENDR reads 1 for a level-sensitive interrupt
    whose line is high, but the saved value has 0. The reason is that an interrupt that is restored
    by ISPENDR would stay pending when the line falls. If the guest itself has made this interrupt
    pending by a write of ISPENDR, this pending state is lost. A caller that can detect such a write
    leaves the input out of ``high``.
    """
    return [_without_lines(device, row, high) for row in _save_v2(device, vcpu_ids)]


def _without_lines(device: VgicDevice, row: Saved, high: Collection[Line]) -> Saved:
    word = (row.attr & MASK32) - ISPENDR >> 2
    if row.group != VgicGroup.DIST_REGS or not 0 <= word < 32:
        return row
    vcpu, value = row.attr >> 32, row.value
    for owner, intid in high:
        if intid >> 5 == word and owner in (None, vcpu) and not _is_edge(device, vcpu, intid):
            value &= ~(1 << (intid & 31))
    return row._replace(value=value)


def _is_edge(device: VgicDevice, vcpu: int, intid: int) -> bool:
    config = device.get_attr(VgicGroup.DIST_REGS, vcpu << 32 | ICFGR + 4 * (intid >> 4))
    return bool(config >> 2 * (intid & 15) & 2)


def _save_v2(device: VgicDevice, vcpu_ids: Iterable[int]) -> list[Saved]:
    cpus = [vcpu << 32 for vcpu in vcpu_ids]
    count = device.get_attr(VgicGroup.NR_IRQS, 0)
    first = cpus[0]
    rows: list[Saved] = []
    rows += _read(device, VgicGroup.DIST_REGS, [first + OFFSETS["GICD_IIDR"]])
    rows += _array(device, VgicGroup.DIST_REGS, first, Array(ITARGETSR, 8), NR_PRIVATE, count)
    rows += _arrays(device, VgicGroup.DIST_REGS, first, NR_PRIVATE, count)
    for cpu in cpus:
        rows += _arrays(device, VgicGroup.DIST_REGS, cpu, 0, NR_PRIVATE)
        rows += _array(device, VgicGroup.DIST_REGS, cpu, SGI_SENDERS, 0, NR_SGIS)
        rows += _read(device, VgicGroup.CPU_REGS, [cpu + at for at in GICC_SAVED])
    rows += _read(device, VgicGroup.DIST_REGS, [first + OFFSETS["GICD_CTLR"]])
    return rows


def restore(device: VgicDevice, rows: Iterable[Saved]) -> None:
    """Restore an interrupt controller. ``rows`` are the attributes that `save_v2` or `save_v3` has
    read from the saved interrupt controller. ``device`` is the interrupt controller to which they
    are written. It must have the same configuration as the saved interrupt controller. Before this
    call, the caller has to restore guest memory."""
    for group, attr, value in rows:
        device.set_attr(group, attr, value)


def save_its(device: VgicDevice, its: ItsDevice) -> list[Saved]:
    """Save an ITS: write the tables of the ITS and the LPI pending tables into guest memory, and
    return the registers of the ITS. After this call, the caller has to save guest memory."""
    its.set_attr(VgicGroup.CTRL, VgicCtrl.ITS_SAVE_TABLES)
    device.set_attr(VgicGroup.CTRL, VgicCtrl.SAVE_PENDING_TABLES)
    return [
        Saved(VgicGroup.ITS_REGS, attr, its.get_attr(VgicGroup.ITS_REGS, attr))
        for attr in ITS_SAVED
    ]


def restore_its(its: ItsDevice, rows: Iterable[Saved]) -> None:
    """Restore an ITS: first its registers except GITS_CTLR, then its tables from guest memory, and
    last GITS_CTLR. Before this call, the caller has to restore the redistributors."""
    *registers, control = rows
    for row in registers:
        its.set_attr(*row)
    its.set_attr(VgicGroup.CTRL, VgicCtrl.ITS_RESTORE_TABLES)
    its.set_attr(*control)
