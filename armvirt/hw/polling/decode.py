"""Decode the A64 instructions of polling loops (DDI 0487 C4.1). `decode` converts an instruction
word to a `Step`, which is the effect of the instruction on the state of one iteration (a *round*).

`decode` supports instructions that change only general registers, NZCV, the PC and RAM. It also
supports barriers and some hints. They have no effect in a polling loop, because armvirt executes
only one CPU at a time. For any other instruction `decode` returns None, and a loop with such an
instruction is not skipped.
"""

from __future__ import annotations

from collections.abc import Callable

from armvirt.arch.bits import MASK64
from armvirt.arch.insn import (
    BARRIER,
    BARRIER_OP,
    BLR,
    BR,
    BRANCH_REGISTER_MASK,
    HINT,
    HINT_MASK,
    HINT_NUMBER,
    HINT_SHIFT,
    LDAR,
    LDAR_MASK,
    MRS,
    MRS_MASK,
    RET,
    STLR,
    SYSTEM_ENCODING,
    SYSTEM_SHIFT,
    XZR,
)
from armvirt.arch.timer import CNTP_CTL_EL0, CNTPCT_EL0, CNTV_CTL_EL0, CNTVCT_EL0
from armvirt.hw.polling import flags as fl
from armvirt.hw.polling import interval as iv
from armvirt.hw.polling.interval import Interval
from armvirt.hw.polling.round import Round

SP, NOWHERE, NZCV = 32, 33, 34
"""`SP` and `NOWHERE` are indices of `Round.x` after X0 to X30 and XZR. `SP` is the stack pointer in
use. `NOWHERE` receives the writes to XZR. `NZCV` is no index of `Round.x`: in ``reads`` and
``writes`` of a `Step` this number stands for the flags."""

Run = Callable[["Round"], "int | None"]
"""Applies the effect of an instruction to the state of an iteration. Returns the next PC, or None
if the next instruction follows in memory."""


class Step:
    """A decoded instruction.

    ``run`` applies the effect of the instruction. ``reads`` and ``writes`` are the numbers of the
    registers that the instruction reads and writes. For MRS, ``system`` is the packed encoding of
    the system register, and ``rd`` is the number of the target register; for any other instruction
    ``system`` is 0. ``yields`` is True for YIELD.
    """

    __slots__ = ("rd", "reads", "run", "system", "writes", "yields")

    def __init__(
        self,
        run: Run,
        reads: tuple[int, ...] = (),
        writes: tuple[int, ...] = (),
        *,
        system: int = 0,
        rd: int = NOWHERE,
        yields: bool = False,
    ) -> None:
        self.run, self.reads, self.writes = run, reads, writes
        self.system, self.rd, self.yields = system, rd, yields


def decode(word: int, pc: int) -> Step | None:
    """Decode an instruction. ``word`` is the instruction word, and ``pc`` is the address of the
    instruction. Returns None if the effect of the instruction is not known."""
    return _GROUPS[word >> 25 & 15](word, pc)


def _unknown(word: int, pc: int) -> Step | None:
    return None


def _target(rd: int) -> int:
    return NOWHERE if rd == XZR else rd


def _signed(value: int, bits: int) -> int:
    return value - (1 << bits) if value >> bits - 1 else value


def _operand(n: int, width: int) -> Callable[[Round], Interval]:
    if width == 64:
        return lambda r: r.x[n]
    return lambda r: iv.wrap(*r.x[n], 32)


def _constant(value: int, width: int) -> Callable[[Round], Interval]:
    pair = (value & (1 << width) - 1,) * 2
    return lambda r: pair


# -- data processing (immediate) --


def _immediate(word: int, pc: int) -> Step | None:
    kind = word >> 23 & 7
    width = 64 if word >> 31 else 32
    if kind < 2:
        return _address(word, pc)
    if kind == 2:
        return _add_immediate(word, width)
    if kind == 4:
        return _logical_immediate(word, width)
    if kind == 5:
        return _move_wide(word, width)
    if kind == 6:
        return _bitfield(word, width)
    return _extract(word, width) if kind == 7 else None


def _address(word: int, pc: int) -> Step:
    offset = _signed((word >> 5 & 0x7FFFF) << 2 | word >> 29 & 3, 21)
    value = pc + offset if not word >> 31 else (pc & ~0xFFF) + (offset << 12)
    return _move(word & 31, _constant(value, 64))


def _move(rd: int, value: Callable[[Round], Interval], reads: tuple[int, ...] = ()) -> Step:
    rd = _target(rd)

    def run(r: Round) -> None:
        r.x[rd] = value(r)

    return Step(run, reads, (rd,))


def _stack(n: int) -> int:
    return SP if n == 31 else n


def _add_immediate(word: int, width: int) -> Step:
    value = (word >> 10 & 0xFFF) << (12 if word >> 22 & 1 else 0)
    rn, sets_flags = _stack(word >> 5 & 31), word >> 29 & 1
    rd = _target(word & 31) if sets_flags else _stack(word & 31)
    return _sum(rd, rn, _constant(value, width), (rn,), width, word >> 30 & 1, sets_flags)


def _sum(
    rd: int,
    rn: int,
    second: Callable[[Round], Interval],
    reads: tuple[int, ...],
    width: int,
    is_sub: int,
    sets_flags: int,
) -> Step:
    combine, kind = (iv.subtract, fl.SUB) if is_sub else (iv.add, fl.ADD)

    # The operands keep 64 bits up to here: a sum modulo 2**32 wraps later than they do.
    def plain(r: Round) -> None:
        r.x[rd] = combine(r.x[rn], second(r), width)

    def with_flags(r: Round) -> None:
        a, b = r.x[rn], second(r)
        r.x[rd] = combine(a, b, width)
        r.flags = (kind, width, iv.truncate(a, width), iv.truncate(b, width))

    if sets_flags:
        return Step(with_flags, reads, (rd, NZCV))
    return Step(plain, reads, (rd,))


_AND: Callable[[int, int], int] = lambda a, b: a & b  # noqa: E731
_ORR: Callable[[int, int], int] = lambda a, b: a | b  # noqa: E731
_EOR: Callable[[int, int], int] = lambda a, b: a ^ b  # noqa: E731
_LOGICAL = (_AND, _ORR, _EOR, _AND)


def _logical(
    rd: int,
    rn: int,
    second: Callable[[Round], Interval],
    reads: tuple[int, ...],
    width: int,
    opc: int,
) -> Step:
    first, operation = _operand(rn, width), _LOGICAL[opc]

    def plain(r: Round) -> None:
        r.x[rd] = iv.bitwise(first(r), second(r), operation)

    def with_flags(r: Round) -> None:
        r.x[rd] = result = iv.bitwise(first(r), second(r), operation)
        r.flags = (fl.LOGIC, width, result, iv.ZERO)

    if opc == 3:
        return Step(with_flags, reads, (rd, NZCV))
    return Step(plain, reads, (rd,))


def _logical_immediate(word: int, width: int) -> Step | None:
    mask = bit_masks(word >> 22 & 1, word >> 10 & 63, word >> 16 & 63, width)
    if mask is None:
        return None
    opc, rn = word >> 29 & 3, word >> 5 & 31
    rd = _target(word & 31) if opc == 3 else _stack(word & 31)
    return _logical(rd, rn, _constant(mask, width), (rn,), width, opc)


def bit_masks(n: int, imms: int, immr: int, width: int) -> int | None:
    """Return the immediate value of a logical instruction (DecodeBitMasks in DDI 0487), or None if
    the encoding is reserved."""
    length = (n << 6 | ~imms & 63).bit_length() - 1
    if length < 1 or 1 << length > width:
        return None
    size = 1 << length
    ones, rotation = (imms & size - 1) + 1, immr & size - 1
    if ones == size:
        return None
    element = (1 << ones) - 1
    element = (element >> rotation | element << size - rotation) & (1 << size) - 1
    return sum(element << at for at in range(0, width, size))


def _move_wide(word: int, width: int) -> Step | None:
    opc, shift = word >> 29 & 3, (word >> 21 & 3) * 16
    rd, value = word & 31, (word >> 5 & 0xFFFF) << shift
    if opc == 1 or shift >= width:
        return None
    if opc != 3:
        return _move(rd, _constant(value if opc == 2 else ~value, width))
    keep = _constant(~(0xFFFF << shift), width)
    old = _operand(rd, width)

    def insert(r: Round) -> Interval:
        kept = iv.bitwise(old(r), keep(r), _AND)
        return iv.bitwise(kept, (value, value), _ORR)

    return _move(rd, insert, (rd,))


def _bitfield(word: int, width: int) -> Step | None:
    opc, right, last = word >> 29 & 3, word >> 16 & 63, word >> 10 & 63
    if opc == 3 or word >> 22 & 1 != word >> 31 or max(right, last) >= width:
        return None
    rd, rn = word & 31, word >> 5 & 31
    source = _operand(rn, width)

    def field(r: Round) -> tuple[Interval, int, int]:
        """Return the value of the bit field that the instruction extracts from its source register,
        the width of the field in bits, and the position of the field's lowest bit in the
        destination register."""
        if last >= right:
            bits = last - right + 1
            return iv.truncate(iv.shift_right(source(r), right, width), bits), bits, 0
        return iv.truncate(source(r), last + 1), last + 1, width - right

    def move(r: Round) -> Interval:
        value, bits, place = field(r)
        if opc == 0:
            value = iv.sign_extend(value, bits, width)
        return iv.shift_left(value, place, width)

    if opc != 1:
        return _move(rd, move, (rn,))
    old = _operand(rd, width)

    def insert(r: Round) -> Interval:
        value, bits, place = field(r)
        keep = ~((1 << bits) - 1 << place) & (1 << width) - 1
        kept = iv.bitwise(old(r), (keep, keep), _AND)
        return iv.bitwise(kept, iv.shift_left(value, place, width), _ORR)

    return _move(rd, insert, (rd, rn))


def _extract(word: int, width: int) -> Step | None:
    lsb, rn, rm = word >> 10 & 63, word >> 5 & 31, word >> 16 & 31
    if word >> 29 & 3 or word >> 22 & 1 != word >> 31 or word >> 21 & 1 or lsb >= width:
        return None
    high, low = _operand(rn, width), _operand(rm, width)

    def run(r: Round) -> Interval:
        a, b = high(r), low(r)
        if rn == rm:
            return iv.rotate_right(b, lsb, width)
        return iv.bitwise(iv.shift_left(a, width - lsb, width), iv.shift_right(b, lsb, width), _ORR)

    return _move(word & 31, run, (rn, rm))


# -- branches and system instructions --


def _branch(word: int, pc: int) -> Step | None:
    top = word >> 24
    if top & 0x7C == 0x14:  # B, BL
        return _jump(pc + _signed((word & 0x3FFFFFF) << 2, 28), pc, word >> 31)
    if top & 0x7E == 0x34:  # CBZ, CBNZ
        return _compare_and_branch(word, pc)
    if top & 0x7E == 0x36:  # TBZ, TBNZ
        return _test_and_branch(word, pc)
    if top == 0x54 and not word & 0x10:
        return _conditional_branch(word, pc)
    if word & BRANCH_REGISTER_MASK in (BR, BLR, RET):  # BR, BLR, RET
        return _indirect(word >> 5 & 31, pc, word & BRANCH_REGISTER_MASK == BLR)
    return _system(word)


def _jump(target: int, pc: int, links: int) -> Step:
    target &= MASK64
    back = (pc + 4, pc + 4)

    def run(r: Round) -> int:
        if links:
            r.x[30] = back
        return target

    return Step(run, (), (30,) if links else ())


def _indirect(rn: int, pc: int, links: bool) -> Step:
    back = (pc + 4, pc + 4)

    def run(r: Round) -> int:
        low, high = r.x[rn]
        if low != high:
            raise fl.UndecidedError
        if links:
            r.x[30] = back
        return low

    return Step(run, (rn,), (30,) if links else ())


def _compare_and_branch(word: int, pc: int) -> Step:
    rt, is_nonzero = word & 31, bool(word >> 24 & 1)
    target = pc + _signed((word >> 5 & 0x7FFFF) << 2, 21) & MASK64
    value = _operand(rt, 64 if word >> 31 else 32)

    def run(r: Round) -> int | None:
        low, high = value(r)
        if low == 0 and high:
            raise fl.UndecidedError((low, high), 0)
        return target if (low != 0) is is_nonzero else None

    return Step(run, (rt,))


def _test_and_branch(word: int, pc: int) -> Step:
    rt, is_nonzero = word & 31, word >> 24 & 1
    bit = (word >> 31) << 5 | word >> 19 & 31
    target = pc + _signed((word >> 5 & 0x3FFF) << 2, 16) & MASK64

    def run(r: Round) -> int | None:
        low, high = r.x[rt]
        if low >> bit != high >> bit:
            raise fl.UndecidedError((low, high), high >> bit << bit)
        return target if low >> bit & 1 == is_nonzero else None

    return Step(run, (rt,))


def _conditional_branch(word: int, pc: int) -> Step:
    condition = word & 15
    target = pc + _signed((word >> 5 & 0x7FFFF) << 2, 21) & MASK64

    def run(r: Round) -> int | None:
        return target if fl.holds(r.flags, condition) else None

    return Step(run, (NZCV,))


def _nothing(r: Round) -> None:
    return None


#: Hints that are NOP on the supported cores: NOP, YIELD, CSDB, PACIASP to AUTIBSP, BTI.
_HINTS = frozenset({0, 1, 20, 24, 25, 26, 27, 28, 29, 30, 31, 32, 34, 36, 38})
_BARRIERS = frozenset({4, 5, 6})  # DSB, DMB, ISB


def _system(word: int) -> Step | None:
    if word & HINT_MASK == HINT:
        hint = word >> HINT_SHIFT & HINT_NUMBER
        return Step(_nothing, yields=hint == 1) if hint in _HINTS else None
    if word & HINT_MASK == BARRIER:
        return Step(_nothing) if word >> HINT_SHIFT & BARRIER_OP in _BARRIERS else None
    if word & MRS_MASK == MRS:
        encoding, rd = word >> SYSTEM_SHIFT & SYSTEM_ENCODING, _target(word & 31)
        if encoding in (CNTVCT_EL0, CNTPCT_EL0, CNTV_CTL_EL0, CNTP_CTL_EL0):
            return Step(_nothing, (), (rd,), system=encoding, rd=rd)
    return None


# -- data processing (register) --


def _shifted(rm: int, shift: int, amount: int, width: int) -> Callable[[Round], Interval]:
    source = _operand(rm, width)
    if not amount:
        return source
    function = (iv.shift_left, iv.shift_right, iv.shift_right_signed, iv.rotate_right)[shift]
    return lambda r: function(source(r), amount, width)


def _register(word: int, pc: int) -> Step | None:
    width = 64 if word >> 31 else 32
    top = word >> 24 & 31
    if top == 0x0A:
        return _logical_register(word, width)
    if top == 0x0B:
        return _add_register(word, width)
    if top == 0x1B:
        return _multiply(word, width)
    kind = word >> 21 & 0xFF
    if kind == 0xD4 and not word >> 29 & 1 and not word >> 11 & 1:
        return _select(word, width)
    if kind == 0xD2 and word >> 29 & 1 and not word & 0x410:
        return _conditional_compare(word, width)
    if kind == 0xD6 and not word >> 29 & 3:
        return _two_sources(word, width)
    return None


def _logical_register(word: int, width: int) -> Step | None:
    amount = word >> 10 & 63
    if amount >= width:
        return None
    rn, rm = word >> 5 & 31, word >> 16 & 31
    second = _shifted(rm, word >> 22 & 3, amount, width)
    if word >> 21 & 1:
        straight = second
        second = lambda r: iv.invert(straight(r), width)  # noqa: E731
    return _logical(_target(word & 31), rn, second, (rn, rm), width, word >> 29 & 3)


def _add_register(word: int, width: int) -> Step | None:
    rn, rm, rd, sets_flags = word >> 5 & 31, word >> 16 & 31, word & 31, word >> 29 & 1
    if word >> 21 & 1:
        if word >> 22 & 3 or word >> 10 & 7 > 4:
            return None
        second = _extended(rm, word >> 13 & 7, word >> 10 & 7, width)
        rn, rd = _stack(rn), _target(rd) if sets_flags else _stack(rd)
    else:
        amount, shift = word >> 10 & 63, word >> 22 & 3
        if amount >= width or shift == 3:
            return None
        second, rd = _shifted(rm, shift, amount, width if amount else 64), _target(rd)
    return _sum(rd, rn, second, (rn, rm), width, word >> 30 & 1, sets_flags)


def _extended(rm: int, option: int, amount: int, width: int) -> Callable[[Round], Interval]:
    bits = 8 << (option & 3)

    def run(r: Round) -> Interval:
        value = iv.truncate(r.x[rm], min(bits, width))
        if option >> 2 and bits < width:
            value = iv.sign_extend(value, bits, width)
        return iv.shift_left(value, amount, width)

    return run


def _multiply(word: int, width: int) -> Step | None:
    rn, rm, ra, rd = word >> 5 & 31, word >> 16 & 31, word >> 10 & 31, word & 31
    kind, is_sub = word >> 21 & 7, word >> 15 & 1
    if word >> 29 & 3 or (kind and width == 32):
        return None
    if kind == 6 and not is_sub:
        return _move(rd, lambda r: iv.multiply_high(r.x[rn], r.x[rm]), (rn, rm))
    bits = {0: width, 1: 32, 5: 32}.get(kind)
    if bits is None:
        return None

    def source(n: int, r: Round) -> Interval:
        value = iv.truncate(r.x[n], bits)
        return iv.sign_extend(value, 32, 64) if kind == 1 else value

    addend, combine = _operand(ra, width), iv.subtract if is_sub else iv.add

    def run(r: Round) -> Interval:
        return combine(addend(r), iv.multiply(source(rn, r), source(rm, r), width), width)

    return _move(rd, run, (rn, rm, ra))


def _two_sources(word: int, width: int) -> Step | None:
    rn, rm, opcode = word >> 5 & 31, word >> 16 & 31, word >> 10 & 63
    first, second = _operand(rn, width), _operand(rm, width)
    if opcode in (2, 3):
        function = iv.divide if opcode == 2 else iv.divide_signed
        return _move(word & 31, lambda r: function(first(r), second(r), width), (rn, rm))
    if not 8 <= opcode <= 11:
        return None
    shift = (iv.shift_left, iv.shift_right, iv.shift_right_signed, iv.rotate_right)[opcode - 8]

    def run(r: Round) -> Interval:
        amount = iv.bitwise(second(r), (width - 1, width - 1), _AND)
        if amount[0] != amount[1]:
            return iv.top(width)
        return shift(first(r), amount[0], width)

    return _move(word & 31, run, (rn, rm))


def _alternative(rm: int, width: int, inverts: int, increments: int) -> Callable[[Round], Interval]:
    """Return the function that computes the result of CSEL, CSINC, CSINV or CSNEG if the condition
    does not hold."""
    source = _operand(rm, width)

    def run(r: Round) -> Interval:
        value = source(r)
        if inverts:
            value = iv.invert(value, width)
        return iv.add(value, (1, 1), width) if increments else value

    return run


def _select(word: int, width: int) -> Step:
    rn, rm, condition = word >> 5 & 31, word >> 16 & 31, word >> 12 & 15
    first = _operand(rn, width)
    second = _alternative(rm, width, word >> 30 & 1, word >> 10 & 1)

    def run(r: Round) -> Interval:
        try:
            return first(r) if fl.holds(r.flags, condition) else second(r)
        except fl.UndecidedError:
            return iv.hull(first(r), second(r))

    return _move(word & 31, run, (rn, rm, NZCV))


def _conditional_compare(word: int, width: int) -> Step:
    rn, rm, condition = word >> 5 & 31, word >> 16 & 31, word >> 12 & 15
    is_immediate = word >> 11 & 1
    first = _operand(rn, width)
    second = _constant(rm, width) if is_immediate else _operand(rm, width)
    kind, otherwise = fl.SUB if word >> 30 & 1 else fl.ADD, fl.known(word & 15)

    def run(r: Round) -> None:
        if fl.holds(r.flags, condition):
            r.flags = (kind, width, first(r), second(r))
        else:
            r.flags = otherwise

    return Step(run, (rn, NZCV) if is_immediate else (rn, rm, NZCV), (NZCV,))


# -- loads and stores --


def _load_store(word: int, pc: int) -> Step | None:
    if word >> 26 & 1:
        return None  # SIMD and floating point
    kind = word >> 27 & 7
    if kind == 1:
        return _acquire_release(word)
    if kind == 3:
        return _literal(word, pc)
    if kind == 5:
        return _pair(word)
    return _single(word) if kind == 7 else None


def _access(
    rt: int, size: int, is_load: bool, extends: int, address: Callable[[Round], int]
) -> Callable[[Round], None]:
    """Return the function that executes one load or store. ``size`` is the number of bytes. ``rt``
    is the number of the register that is loaded or stored. ``extends`` is the width in bits to
    which a load sign-extends the value, or 0 for a load that zero-extends the value."""
    if not is_load:
        source = _operand(rt, 64)

        def store(r: Round) -> None:
            r.store(address(r), size, iv.truncate(source(r), 8 * size))

        return store
    rd = _target(rt)

    def load(r: Round) -> None:
        value = r.load(address(r), size)
        r.x[rd] = iv.sign_extend(value, 8 * size, extends) if extends else value

    return load


def _exact(r: Round, n: int) -> int:
    low, high = r.x[n]
    if low != high:
        raise fl.UndecidedError
    return low


def _acquire_release(word: int) -> Step | None:
    """Decode LDAR and STLR. Returns None for the other instructions of this group, such as
    exclusive loads and stores."""
    if word & LDAR_MASK not in (LDAR, STLR):
        return None
    rt, rn, is_load = word & 31, _stack(word >> 5 & 31), bool(word >> 22 & 1)
    run = _access(rt, 1 << (word >> 30), is_load, 0, lambda r: _exact(r, rn))
    return Step(run, (rn,), (_target(rt),)) if is_load else Step(run, (rn, rt))


def _literal(word: int, pc: int) -> Step | None:
    opc = word >> 30
    if word >> 24 & 3 or opc == 3:
        return None
    address = pc + _signed((word >> 5 & 0x7FFFF) << 2, 21) & MASK64
    rt = word & 31
    run = _access(rt, 8 if opc == 1 else 4, True, 64 if opc == 2 else 0, lambda r: address)
    return Step(run, (), (_target(rt),))


def _pair(word: int) -> Step | None:
    opc, mode, is_load = word >> 30, word >> 23 & 3, bool(word >> 22 & 1)
    if opc == 3 or (opc == 1 and (not is_load or not mode)):
        return None
    size = 8 if opc == 2 else 4
    offset = _signed(word >> 15 & 0x7F, 7) * size
    rt, rt2, rn = word & 31, word >> 10 & 31, _stack(word >> 5 & 31)
    before, after = (0, offset) if mode == 1 else (offset, 0)
    writes_back = mode in (1, 3)
    if writes_back and rn in (rt, rt2):
        return None
    extends = 64 if opc == 1 else 0
    first = _access(rt, size, is_load, extends, lambda r: r.base + before & MASK64)
    second = _access(rt2, size, is_load, extends, lambda r: r.base + before + size & MASK64)

    def run(r: Round) -> None:
        r.base = base = _exact(r, rn)
        first(r)
        second(r)
        if writes_back:
            value = base + (before or after) & MASK64
            r.x[rn] = (value, value)

    if is_load and rt == rt2 != 31:
        return None
    targets = (_target(rt), _target(rt2)) if is_load else ()
    return Step(run, (rn,) if is_load else (rn, rt, rt2), targets + ((rn,) if writes_back else ()))


#: (size, opc) of the loads that sign-extend: the width of the result.
_SIGNED = {(0, 2): 64, (0, 3): 32, (1, 2): 64, (1, 3): 32, (2, 2): 64}


def _single(word: int) -> Step | None:
    size, opc = word >> 30, word >> 22 & 3
    is_load, extends = opc != 0, _SIGNED.get((size, opc), 0)
    if opc > 1 and not extends:
        return None  # PRFM, and reserved
    rt, rn, size = word & 31, _stack(word >> 5 & 31), 1 << size
    if word >> 24 & 1:
        return _indexed(rt, rn, size, is_load, extends, (word >> 10 & 0xFFF) * size, 0, False)
    mode = word >> 10 & 3
    if word >> 21 & 1:
        return _by_register(word, rt, rn, size, is_load, extends) if mode == 2 else None
    offset = _signed(word >> 12 & 0x1FF, 9)
    if mode == 2:
        return None  # unprivileged
    if mode and rn == rt:
        return None
    before, after = (0, offset) if mode == 1 else (offset, 0)
    return _indexed(rt, rn, size, is_load, extends, before, after, mode != 0)


def _indexed(
    rt: int,
    rn: int,
    size: int,
    is_load: bool,
    extends: int,
    before: int,
    after: int,
    writes_back: bool,
) -> Step:
    access = _access(rt, size, is_load, extends, lambda r: r.base + before & MASK64)

    def run(r: Round) -> None:
        r.base = base = _exact(r, rn)
        access(r)
        if writes_back:
            value = base + (before or after) & MASK64
            r.x[rn] = (value, value)

    writes = ((_target(rt),) if is_load else ()) + ((rn,) if writes_back else ())
    return Step(run, (rn,) if is_load else (rn, rt), writes)


def _by_register(
    word: int, rt: int, rn: int, size: int, is_load: bool, extends: int
) -> Step | None:
    option, rm = word >> 13 & 7, word >> 16 & 31
    if not option & 2:
        return None
    amount = size.bit_length() - 1 if word >> 12 & 1 else 0
    offset = _extended(rm, option, amount, 64)

    def address(r: Round) -> int:
        low, high = iv.add(r.x[rn], offset(r), 64)
        if low != high:
            raise fl.UndecidedError
        return low

    run = _access(rt, size, is_load, extends, address)
    if is_load:
        return Step(run, (rn, rm), (_target(rt),))
    return Step(run, (rn, rm, rt))


#: By bits 28:25 of the word (DDI 0487 C4.1).
_GROUPS: tuple[Callable[[int, int], Step | None], ...] = (
    _unknown, _unknown, _unknown, _unknown, _load_store, _register, _load_store, _unknown,
    _immediate, _immediate, _branch, _branch, _load_store, _register, _load_store, _unknown,
)  # fmt: skip
