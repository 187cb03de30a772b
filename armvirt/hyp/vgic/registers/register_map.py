"""A register frame as a table. Rows of `armvirt.arch.gic` are bound by name to the functions that
read and write.

A `Register` is a plain register. An `IrqBank` is an array with a field for each INTID. An access by
user space (save and restore) may differ from a guest's access. A read returns zero, and a write is
ignored, if the size is wrong, the offset is unaligned, or there is no register or no implemented
INTID at the offset. As in KVM, no access aborts.
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
    """A plain register, with the functions that read and write the register. Without ``write`` the
    register is WI. User space writes with ``user_write`` if it is set, else with ``write``.

    If a guest writes one half of a register, ``stored`` returns the value of the other half;
    without ``stored``, ``read`` does.
    """

    name: str
    read: ReadRegister = _zero
    write: WriteRegister | None = None
    user_write: WriteRegister | None = None
    stored: ReadRegister | None = None


class IrqBank(NamedTuple):
    """An array with a field for each INTID. Without ``get`` the array is RAZ, without ``put`` WI.

    If ``ones`` is True, a write calls ``put`` only for fields that are not 0, else for every field.
    If ``folds`` is True, list registers are folded before an access, because they may have the
    value of the field. ``user`` has the functions for user space; without ``user``, user space has
    the same access as the guest. If ``hidden(dist)`` is True, the array is RAZ/WI for the guest.
    """

    name: str
    get: GetField | None = None
    put: PutField | None = None
    ones: bool = False
    folds: bool = False
    user: UserBank | None = None
    hidden: Callable[[Distributor], bool] | None = None


class UserBank(NamedTuple):
    """The functions with which user space saves and restores the fields of an `IrqBank`."""

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
    """Pairs of each row with the binding of the same name. ValueError for a row without a binding,
    a binding without a row, or two bindings of the same name."""
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
    """The pairs that `match` returns, in order of offset."""
    return sorted(
        (Bound(*pair) for pair in match(rows, bindings)), key=lambda bound: bound.row.offset
    )


class RegisterMap:
    """The registers of one frame. Offsets and sizes are in bytes.

    ``find(dist, cpu, first, count)`` returns at most ``count`` interrupts of the frame, from INTID
    ``first`` on. An access covers either private interrupts or SPIs, never both.
    """

    def __init__(self, bound: list[Bound], find: FindIrqs) -> None:
        self._bound, self._find = bound, find
        self._offsets = [b.row.offset for b in bound]
        self._ends = [b.row.end for b in bound]

    def lookup(self, offset: int, size: int) -> Bound | None:
        """The register for an access. None if no register accepts the access."""
        index = bisect_right(self._offsets, offset) - 1
        if index < 0:
            return None
        bound = self._bound[index]
        if offset + size > self._ends[index] or offset % size or size not in bound.row.widths:
            return None
        return bound

    def read(
        self, dist: Distributor, cpu: VgicCpu, offset: int, size: int, user: bool = False
    ) -> int:
        """Read ``size`` bytes for the vCPU ``cpu``; 0 if no register accepts the access. ``user``
        is True for an access by user space."""
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
        """Write ``size`` bytes for the vCPU ``cpu``; no effect if no register accepts the access.
        ``user`` is True for an access by user space. KvmError for a value that user space cannot
        restore."""
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
    """Replace ``size`` bytes of ``old``, from byte ``at`` on, by ``value``."""
    mask = (1 << 8 * size) - 1 << 8 * at
    return old & ~mask | value << 8 * at & mask
