"""The register arrays with a field for each INTID, the same in GICD_* and in the SGI_base frame of
GICR_*.

0x080 IGROUPR, 0x100/0x180 I[SC]ENABLER, 0x200/0x280 I[SC]PENDR, 0x300/0x380 I[SC]ACTIVER (one bit
an INTID), 0x400 IPRIORITYR (one byte), 0xC00 ICFGR (two bits). IHI 0048 4.3, IHI 0069 12.9 and
12.11.
"""

from __future__ import annotations

from collections.abc import Sequence

from .irq import FIRST_SPI, Irq
from .state import GicState

BITS_FIRST, BITS_END = 0x080, 0x400
PRIORITY_FIRST, PRIORITY_END = 0x400, 0x800
CONFIG_FIRST, CONFIG_END = 0xC00, 0xD00

# Offset >> 7 of the one-bit arrays. The SET and the CLEAR register read the same.
GROUP, SET_ENABLE, CLEAR_ENABLE, SET_PENDING, CLEAR_PENDING, SET_ACTIVE, CLEAR_ACTIVE = range(1, 8)


def read_bits(irqs: Sequence[Irq], kind: int) -> int:
    """One word of a one-bit array; `irqs` are the (at most 32) interrupts of that word."""
    value = 0
    bit = 1
    for irq in irqs:
        if kind == GROUP:
            isset = irq.group == 1
        elif kind <= CLEAR_ENABLE:
            isset = irq.enabled
        elif kind <= CLEAR_PENDING:
            isset = irq.latch or (irq.line and not irq.edge)
        else:
            isset = irq.active
        if isset:
            value |= bit
        bit <<= 1
    return value


def write_bits(state: GicState, irqs: Sequence[Irq], kind: int, value: int) -> None:
    if kind == GROUP:
        _write_groups(state, irqs, value)
        return
    value &= (1 << len(irqs)) - 1
    while value:
        lowest = value & -value
        value ^= lowest
        _write_one(state, irqs[lowest.bit_length() - 1], kind)


def _write_groups(state: GicState, irqs: Sequence[Irq], value: int) -> None:
    for irq in irqs:
        if irq.group != value & 1:
            irq.group = value & 1
            state.settle(irq)
        value >>= 1


def _write_one(state: GicState, irq: Irq, kind: int) -> None:
    if kind == SET_ACTIVE:
        state.force_active(irq)
        return
    if kind == CLEAR_ACTIVE:
        state.deactivate(irq)
        return
    if kind == SET_ENABLE:
        irq.enabled = True
    elif kind == CLEAR_ENABLE:
        irq.enabled = False
    elif irq.intid < 16 and state.version == 2:
        return  # IHI 0048 4.3.7, 4.3.8: the bits of SGIs are read-only; SPENDSGIR and CPENDSGIR write them
    else:
        # For a level-sensitive interrupt this is the latch beside the wire (IHI 0048 figure 4-10):
        # a high wire stays pending after a clear.
        irq.latch = kind == SET_PENDING
    state.settle(irq)


def read_priorities(irqs: Sequence[Irq]) -> int:
    value = 0
    for irq in reversed(irqs):
        value = value << 8 | irq.prio
    return value


def write_priorities(state: GicState, irqs: Sequence[Irq], value: int) -> None:
    for irq in irqs:
        irq.set_priority(value & 0xFF)
        if irq.where >= 0:
            state.settle(irq)
        value >>= 8


def read_config(irqs: Sequence[Irq]) -> int:
    value = 0
    for irq in reversed(irqs):
        value = value << 2 | (2 if irq.edge else 0)
    return value


def write_config(state: GicState, irqs: Sequence[Irq], value: int) -> None:
    """ICFGR: the wire and the latch are kept; SGIs and PPIs are read-only in this
    implementation."""
    for irq in irqs:
        edge = bool(value & 2)
        if irq.intid >= FIRST_SPI and edge != irq.edge:
            if irq.enabled:
                # IHI 0048 4.3.13, IHI 0069 GICD_ICFGR<n>: software must disable the interrupt
                # before
                state.note("ICFGR changed while the interrupt was enabled")
            irq.edge = edge
            state.settle(irq)
        value >>= 2


def read_array(bank: Sequence[Irq], offset: int, size: int) -> int:
    """A word, or one byte of IPRIORITYR, of `bank` (indexed by INTID); other offsets read zero."""
    if offset < BITS_FIRST:
        return 0
    if offset < BITS_END:
        first = (offset & 0x7F) * 8
        return read_bits(bank[first : first + 32], offset >> 7) if size == 4 else 0
    if offset < PRIORITY_END:
        first = offset - PRIORITY_FIRST
        return read_priorities(bank[first : first + size])
    if CONFIG_FIRST <= offset < CONFIG_END and size == 4:
        first = (offset - CONFIG_FIRST) * 4
        return read_config(bank[first : first + 16])
    return 0


def write_array(state: GicState, bank: Sequence[Irq], offset: int, size: int, value: int) -> None:
    if offset < BITS_FIRST:
        return
    if offset < BITS_END:
        if size == 4:
            first = (offset & 0x7F) * 8
            write_bits(state, bank[first : first + 32], offset >> 7, value)
    elif offset < PRIORITY_END:
        first = offset - PRIORITY_FIRST
        write_priorities(state, bank[first : first + size], value)
    elif CONFIG_FIRST <= offset < CONFIG_END and size == 4:
        first = (offset - CONFIG_FIRST) * 4
        write_config(state, bank[first : first + 16], value)


def first_intid(offset: int) -> int:
    """The lowest INTID that the word or byte at `offset` of an array describes."""
    if offset < BITS_END:
        return (offset & 0x7F) * 8
    if offset < CONFIG_FIRST:
        return offset & 0x3FF
    return (offset - CONFIG_FIRST) * 4
