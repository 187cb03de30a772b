"""A register frame as a table of registers. `armvirt.arch.gic` has tables with the offset and the
size of each register. This module binds each row of such a table, by name, to the functions that
read and write the register.

A `Register` is a plain register. An `IrqBank` is an array with a field for each INTID. An access by
user space (save and restore) can use other functions than a guest's access. As in KVM, no access
causes an external abort. A read returns zero and a write is ignored in these cases: the size is
wrong, the offset is not aligned, or no register or no implemented INTID is at the offset.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from itertools import compress
from typing import Protocol, TypeVar

from armvirt.arch.gic import MmioRow
from armvirt.hyp.vgic import flush
from armvirt.hyp.vgic.cpu import VgicCpu
from armvirt.hyp.vgic.distributor import Distributor
from armvirt.hyp.vgic.irq import VgicIrq
from armvirt.records import NamedTuple

ReadRegister = Callable[[Distributor, VgicCpu], int]
WriteRegister = Callable[[Distributor, VgicCpu, int], None]
GetField = Callable[[VgicIrq], int]
PutField = Callable[[Distributor, VgicIrq, int], None]
FindIrqs = Callable[[Distributor, VgicCpu, int, int], Sequence[VgicIrq]]


_BITS = tuple(1 << n for n in range(64))


def _zero(dist: Distributor, cpu: VgicCpu) -> int:
    return 0


class Register(NamedTuple):
    """A plain register, and the functions that read and write the register. If ``write`` is None,
    the register is WI. User space writes with ``user_write``, or with ``write`` if ``user_write``
    is None.

    A write of one half of a register keeps the other half. The value of the other half comes from
    ``stored``, or from ``read`` if ``stored`` is None.
    """

    name: str
    read: ReadRegister = _zero
    write: WriteRegister | None = None
    user_write: WriteRegister | None = None
    stored: ReadRegister | None = None


class IrqBank(NamedTuple):
    """A register array with a field for each INTID. ``get`` and ``put`` read and write the field of
    one interrupt. If ``get`` is None, the array is RAZ. If ``put`` is None, the array is WI.

    If ``ones`` is True, a write calls ``put`` only for the fields that are not 0; if False, for
    every field. If ``folds`` is True, list registers are folded before an access, because a list
    register may have the present value of the field. ``user`` has the functions for accesses by
    user space. If ``user`` is None, user space has the same access as the guest. If
    ``hidden(dist)`` returns True, the array is RAZ/WI for the guest.
    """

    name: str
    get: GetField | None = None
    put: PutField | None = None
    ones: bool = False
    folds: bool = False
    user: UserBank | None = None
    hidden: Callable[[Distributor], bool] | None = None


class UserBank(NamedTuple):
    """The functions with which user space saves and restores the fields of an `IrqBank`. If ``get``
    is None, the array is RAZ for user space. If ``put`` is None, the array is WI. If ``ones`` is
    True, a write calls ``put`` only for the fields that are not 0."""

    get: GetField | None
    put: PutField | None
    ones: bool = False


Binding = Register | IrqBank


class Bound(NamedTuple):
    row: MmioRow
    binding: Binding


class Named(Protocol):
    @property
    def name(self) -> str: ...


NamedBinding = TypeVar("NamedBinding", bound=Named)


def match(
    rows: Iterable[MmioRow], bindings: Iterable[NamedBinding]
) -> list[tuple[MmioRow, NamedBinding]]:
    """Pair each row of a register table with the binding of the same name, and return the pairs.
    ValueError if a row has no binding, a binding has no row, or two bindings have the same name."""
    table: dict[str, NamedBinding] = {}
    for binding in bindings:
        if binding.name in table:
            raise ValueError(f"{binding.name} is bound twice")
        table[binding.name] = binding
    pairs: list[tuple[MmioRow, NamedBinding]] = []
    unbound: list[str] = []
    for row in rows:
        if row.name in table:
            pairs.append((row, table.pop(row.name)))
        else:
            unbound.append(row.name)
    if unbound or table:
        raise ValueError(f"without a binding: {unbound}; without a register: {sorted(table)}")
    return pairs


def bind(rows: Iterable[MmioRow], bindings: Iterable[Binding]) -> list[Bound]:
    """The pairs of rows and bindings that `match` returns, sorted by offset."""
    return sorted(
        (Bound(*pair) for pair in match(rows, bindings)), key=lambda bound: bound.row.offset
    )


class RegisterMap:
    """The registers of one frame. Offsets and sizes are in bytes.

    ``find(dist, cpu, first, count)`` returns interrupts whose fields are in this frame: the
    interrupt with INTID ``first`` and the following ones, at most ``count`` interrupts.
    `RegisterMap` calls ``find`` once for each access to an `IrqBank`. No access of a valid size
    reaches both private interrupts and SPIs, so ``find`` never has to return both.
    """

    def __init__(self, bound: list[Bound], find: FindIrqs) -> None:
        self._bound, self._find = bound, find
        self._offsets = [b.row.offset for b in bound]
        self._ends = [b.row.end for b in bound]

    def lookup(self, offset: int, size: int) -> Bound | None:
        """The register for an access of ``size`` bytes at ``offset``. None if there is no register,
        or if the size or the alignment of the access is wrong."""
        index = bisect_right(self._offsets, offset) - 1
        if index < 0:
            return None
        bound = self._bound[index]
        if offset + size > self._ends[index] or offset % size or size not in bound.row.widths:
            return None
        return bound

    def stable(self, offset: int, size: int) -> bool:
        """Whether a read has no effect, and returns the same value until EL2 runs for another
        reason. The result is False for a field whose value can be in a list register, because the
        guest changes list registers without an exit."""
        bound = self.lookup(offset, size)
        return bound is None or isinstance(bound.binding, Register) or not bound.binding.folds

    def read(
        self, dist: Distributor, cpu: VgicCpu, offset: int, size: int, user: bool = False
    ) -> int:
        """Read ``size`` bytes. ``cpu`` is the vCPU whose private interrupts the access reaches. The
        value is 0 if `lookup` finds no register. ``user`` is True if user space makes the access,
        False if the guest makes the access."""
        bound = self.lookup(offset, size)
        if bound is None:
            return 0
        row, binding = bound
        if isinstance(binding, Register):
            return binding.read(dist, cpu) >> 8 * (offset - row.offset) & (1 << 8 * size) - 1
        get = binding.user.get if user and binding.user is not None else binding.get
        if get is None or (binding.hidden is not None and not user and binding.hidden(dist)):
            return 0
        if binding.folds:
            flush.sync_all(dist)
        at, bits = offset - row.offset, row.bits_per_irq
        irqs = self._find(dist, cpu, 8 * at // bits, 8 * size // bits or 1)
        if bits == 1:
            return sum(compress(_BITS, map(get, irqs)))
        value = shift = 0
        for irq in irqs:
            value |= get(irq) << shift
            shift += bits
        return value >> 8 * (at % (bits // 8)) if bits > 8 * size else value

    def write(
        self,
        dist: Distributor,
        cpu: VgicCpu,
        offset: int,
        size: int,
        value: int,
        user: bool = False,
    ) -> None:
        """Write ``size`` bytes. ``cpu`` is the vCPU whose private interrupts the access reaches.
        The write has no effect if `lookup` finds no register. ``user`` is True if user space makes
        the access, False if the guest makes the access. KvmError EINVAL if user space restores a
        value that the register cannot have."""
        bound = self.lookup(offset, size)
        if bound is None:
            return
        row, binding = bound
        if isinstance(binding, Register):
            _write_register(dist, cpu, row, binding, offset - row.offset, size, value, user)
            return
        put, ones = binding.put, binding.ones
        if user and binding.user is not None:
            put, ones = binding.user.put, binding.user.ones
        if put is None or (binding.hidden is not None and not user and binding.hidden(dist)):
            return
        if binding.folds:
            flush.sync_all(dist)
        at, bits = offset - row.offset, row.bits_per_irq
        mask = (1 << bits) - 1
        for irq in self._find(dist, cpu, 8 * at // bits, 8 * size // bits or 1):
            field = value & mask
            if field or not ones:
                if bits > 8 * size:  # one half of GICD_IROUTER<n>
                    old = binding.get(irq) if binding.get is not None else 0
                    field = _merge(old, at % (bits // 8), size, value)
                put(dist, irq, field)
            value >>= bits


def _write_register(
    dist: Distributor,
    cpu: VgicCpu,
    row: MmioRow,
    register: Register,
    at: int,
    size: int,
    value: int,
    user: bool,
) -> None:
    write = register.user_write if user and register.user_write is not None else register.write
    if write is None:
        return
    if size < row.length:
        value = _merge((register.stored or register.read)(dist, cpu), at, size, value)
    write(dist, cpu, value)


def _merge(old: int, at: int, size: int, value: int) -> int:
    """Replace ``size`` bytes of ``old`` by ``value``, and return the result. ``at`` is the number
    of the first byte to replace."""
    mask = (1 << 8 * size) - 1 << 8 * at
    return old & ~mask | value << 8 * at & mask
