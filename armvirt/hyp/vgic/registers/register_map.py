"""Register frames as tables: rows from `armvirt.arch.gic`, behaviour bound to them by name (after
kvm/vgic/vgic-mmio.c).

Two kinds of binding: `Register` for a plain register and `IrqBank` for an array with a field per
INTID. A guest's access and user space's (save and restore) may differ. An access of a wrong size,
unaligned, between registers or beyond the implemented INTIDs reads as zero and writes nothing: KVM
never answers one with an abort.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeVar

from armvirt.arch.gic import MmioRow
from armvirt.hyp.vgic.cpu import VgicCpu
from armvirt.hyp.vgic.irq import VgicIrq

if TYPE_CHECKING:
    from armvirt.hyp.vgic.vgic import Vgic

ReadRegister = Callable[["Vgic", VgicCpu], int]
WriteRegister = Callable[["Vgic", VgicCpu, int], None]
GetField = Callable[[VgicIrq], int]
PutField = Callable[["Vgic", VgicIrq, int], None]
FindIrqs = Callable[["Vgic", VgicCpu, int, int], "Sequence[VgicIrq]"]


def _zero(vgic: Vgic, cpu: VgicCpu) -> int:
    return 0


class Register(NamedTuple):
    """A plain register. Without ``write`` it ignores writes; user space gets the guest's access
    unless it has its own. ``stored`` is what a write of one half leaves in the other, where that is
    not what is read.
    """

    name: str
    read: ReadRegister = _zero
    write: WriteRegister | None = None
    user_write: WriteRegister | None = None
    stored: ReadRegister | None = None


class IrqBank(NamedTuple):
    """A field per INTID. ``ones``: a write acts where it has a 1, instead of storing every field.

    ``folds``: the field's truth may be in a list register, so they are folded before the access.
    """

    name: str
    get: GetField | None = None
    put: PutField | None = None
    ones: bool = False
    folds: bool = False
    user: UserBank | None = None


class UserBank(NamedTuple):
    """What user space reads and writes instead: for these arrays the raw state."""

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
    """Each row with the binding of its name. ValueError for a row or binding that is left or comes
    twice."""
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
    """What `match` gives, ordered by offset."""
    return sorted(
        (Bound(*pair) for pair in match(rows, bindings)), key=lambda bound: bound.row.offset
    )


class RegisterMap:
    """One frame's registers. Offsets and sizes are in bytes; ``find`` gives the interrupts of this
    frame from an INTID on, at most so many: an access never covers private and shared ones.
    """

    def __init__(self, bound: list[Bound], find: FindIrqs) -> None:
        self._bound, self._find = bound, find
        self._offsets = [b.row.offset for b in bound]

    def lookup(self, offset: int, size: int) -> Bound | None:
        """The register that an access hits, None if there is none that takes it."""
        index = bisect_right(self._offsets, offset) - 1
        if index < 0:
            return None
        bound = self._bound[index]
        fits = offset + size <= bound.row.end and size in bound.row.widths and offset % size == 0
        return bound if fits else None

    def read(self, vgic: Vgic, cpu: VgicCpu, offset: int, size: int, user: bool = False) -> int:
        """Value of an access of ``size`` bytes; 0 where there is nothing."""
        bound = self.lookup(offset, size)
        if bound is None:
            return 0
        row, binding = bound
        if isinstance(binding, Register):
            return binding.read(vgic, cpu) >> 8 * (offset - row.offset) & (1 << 8 * size) - 1
        get = binding.user.get if user and binding.user is not None else binding.get
        if get is None:
            return 0
        if binding.folds:
            vgic.before_access()
        return self._gather(vgic, cpu, row, get, offset - row.offset, size)

    def write(
        self, vgic: Vgic, cpu: VgicCpu, offset: int, size: int, value: int, user: bool = False
    ) -> None:
        """A store of ``size`` bytes; ignored where there is nothing. KvmError if user space may not
        store that."""
        bound = self.lookup(offset, size)
        if bound is None:
            return
        row, binding = bound
        if isinstance(binding, Register):
            self._write_register(vgic, cpu, row, binding, offset, size, value, user)
            return
        special = binding.user if user and binding.user is not None else None
        put, ones = (
            (special.put, special.ones) if special is not None else (binding.put, binding.ones)
        )
        if put is None:
            return
        if binding.folds:
            vgic.before_access()
        self._scatter(vgic, cpu, row, binding.get, put, ones, offset - row.offset, size, value)

    @staticmethod
    def _write_register(
        vgic: Vgic,
        cpu: VgicCpu,
        row: MmioRow,
        register: Register,
        offset: int,
        size: int,
        value: int,
        user: bool,
    ) -> None:
        write = register.user_write if user and register.user_write is not None else register.write
        if write is None:
            return
        if size < row.length:
            value = _merge(
                (register.stored or register.read)(vgic, cpu), offset - row.offset, size, value
            )
        write(vgic, cpu, value)

    def _gather(
        self, vgic: Vgic, cpu: VgicCpu, row: MmioRow, get: GetField, at: int, size: int
    ) -> int:
        bits = row.bits_per_irq
        first, count = _intids(bits, at, size)
        value = shift = 0
        for irq in self._find(vgic, cpu, first, count):
            value |= get(irq) << shift
            shift += bits
        return value >> 8 * (at % (bits // 8)) if bits > 8 * size else value

    def _scatter(
        self,
        vgic: Vgic,
        cpu: VgicCpu,
        row: MmioRow,
        get: GetField | None,
        put: PutField,
        ones: bool,
        at: int,
        size: int,
        value: int,
    ) -> None:
        bits = row.bits_per_irq
        first, count = _intids(bits, at, size)
        for n, irq in enumerate(self._find(vgic, cpu, first, count)):
            field = value >> n * bits & (1 << bits) - 1
            if field or not ones:
                if bits > 8 * size:
                    field = _merge(
                        get(irq) if get is not None else 0, at % (bits // 8), size, value
                    )
                put(vgic, irq, field)


def _intids(bits: int, at: int, size: int) -> tuple[int, int]:
    """The first INTID and how many an access of ``size`` bytes ``at`` bytes into an array
    covers."""
    return 8 * at // bits, max(1, 8 * size // bits)


def _merge(old: int, at: int, size: int, value: int) -> int:
    """``old`` with ``size`` bytes from byte ``at`` on replaced."""
    mask = (1 << 8 * size) - 1 << 8 * at
    return old & ~mask | value << 8 * at & mask
