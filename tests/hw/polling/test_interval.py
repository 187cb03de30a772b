"""Intervals contain every result of every value."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from armvirt.hw.polling import flags as fl
from armvirt.hw.polling import interval as iv
from armvirt.hw.polling.interval import Interval

WIDTHS = st.sampled_from((32, 64))
MASK64 = (1 << 64) - 1


@st.composite
def intervals(draw: st.DrawFn, width: int) -> tuple[Interval, int]:
    """An interval and a value in it, often near a wrap."""
    top = (1 << width) - 1
    middle = draw(st.sampled_from((0, 1, 1 << width // 2, 1 << width - 1, top)))
    ends = st.one_of(
        st.integers(0, top),
        st.integers(-40, 40).map(lambda near: min(max(middle + near, 0), top)),
    )
    low, high = sorted((draw(ends), draw(ends)))
    if draw(st.booleans()):
        high = min(high, low + draw(st.integers(0, 100)))
    return (low, high), draw(st.one_of(st.integers(low, high), st.sampled_from((low, high))))


Pair = tuple[int, tuple[Interval, int], tuple[Interval, int]]
PAIRS: st.SearchStrategy[Pair] = WIDTHS.flatmap(
    lambda width: st.tuples(st.just(width), intervals(width), intervals(width))
)


def signed(value: int, width: int) -> int:
    return value - (1 << width) if value & 1 << width - 1 else value


def quotient(a: int, b: int) -> int:
    return 0 if b == 0 else int(abs(a) // abs(b)) * (1 if (a < 0) == (b < 0) else -1)


def contains(found: Interval, value: int, width: int) -> bool:
    assert 0 <= found[0] <= found[1] < 1 << width
    return found[0] <= value & (1 << width) - 1 <= found[1]


BINARY: dict[str, tuple[Callable[[Interval, Interval, int], Interval], Callable[[int, int, int], int]]] = {
    "add": (iv.add, lambda a, b, w: a + b),
    "subtract": (iv.subtract, lambda a, b, w: a - b),
    "multiply": (iv.multiply, lambda a, b, w: a * b),
    "divide": (iv.divide, lambda a, b, w: a // b if b else 0),
    "divide_signed": (iv.divide_signed, lambda a, b, w: quotient(signed(a, w), signed(b, w))),
    "and": (lambda a, b, w: iv.bitwise(a, b, int.__and__), lambda a, b, w: a & b),
    "or": (lambda a, b, w: iv.bitwise(a, b, int.__or__), lambda a, b, w: a | b),
    "eor": (lambda a, b, w: iv.bitwise(a, b, int.__xor__), lambda a, b, w: a ^ b),
    "hull": (lambda a, b, w: iv.hull(a, b), lambda a, b, w: b),
}  # fmt: skip


@given(st.sampled_from(sorted(BINARY)), PAIRS)
def test_two_operands(name: str, pair: Pair) -> None:
    width, (a, x), (b, y) = pair
    ours, exact = BINARY[name]
    assert contains(ours(a, b, width), exact(x, y, width), width)


UNARY: dict[str, tuple[Callable[[Interval, int, int], Interval], Callable[[int, int, int], int]]] = {
    "shift_left": (iv.shift_left, lambda a, n, w: a << n),
    "shift_right": (iv.shift_right, lambda a, n, w: a >> n),
    "shift_right_signed": (iv.shift_right_signed, lambda a, n, w: signed(a, w) >> n),
    "rotate_right": (iv.rotate_right, lambda a, n, w: a >> n | a << w - n),
    "truncate": (lambda a, n, w: iv.truncate(a, n or 1), lambda a, n, w: a & (1 << (n or 1)) - 1),
    "invert": (lambda a, n, w: iv.invert(a, w), lambda a, n, w: ~a),
    "sign_extend": (
        lambda a, n, w: iv.sign_extend(iv.truncate(a, n or 1), n or 1, w),
        lambda a, n, w: signed(a & (1 << (n or 1)) - 1, n or 1),
    ),
}  # fmt: skip


@given(st.sampled_from(sorted(UNARY)), PAIRS, st.integers(0, 63))
def test_one_operand(name: str, pair: Pair, amount: int) -> None:
    width, (a, x), _ = pair
    amount %= width
    ours, exact = UNARY[name]
    assert contains(ours(a, amount, width), exact(x, amount, width), width)


def nzcv(kind: int, a: int, b: int, width: int) -> tuple[bool, bool, bool, bool]:
    """By the definition (AddWithCarry), with Python's integers."""
    if kind == fl.LOGIC:
        return bool(signed(a, width) < 0), a == 0, False, False
    result = a - b if kind == fl.SUB else a + b
    exact = (
        signed(a, width) - signed(b, width)
        if kind == fl.SUB
        else signed(a, width) + signed(b, width)
    )
    low = result & (1 << width) - 1
    carry = a >= b if kind == fl.SUB else result >> width != 0
    return signed(low, width) < 0, low == 0, carry, signed(low, width) != exact


@given(st.sampled_from((fl.SUB, fl.ADD, fl.LOGIC)), PAIRS, st.integers(0, 15))
def test_a_decided_condition_holds_for_every_value(kind: int, pair: Pair, condition: int) -> None:
    width, (a, x), (b, y) = pair
    n, z, c, v = nzcv(kind, x, y, width)
    exact = (z, c, n, v, c and not z, n == v, n == v and not z, True)[condition >> 1]
    if condition < 14 and condition & 1:
        exact = not exact
    try:
        answer = fl.holds((kind, width, a, b), condition)
    except fl.UndecidedError:
        return
    assert answer is exact


@given(st.sampled_from((fl.SUB, fl.ADD, fl.LOGIC)), PAIRS)
def test_flags_of_one_value_are_a_number(kind: int, pair: Pair) -> None:
    width, (_, x), (_, y) = pair
    n, z, c, v = nzcv(kind, x, y, width)
    assert fl.number((kind, width, (x, x), (y, y))) == n << 3 | z << 2 | c << 1 | v


def test_a_result_that_wraps_for_some_values_is_anything() -> None:
    assert iv.add((0, 2), (MASK64 - 1, MASK64 - 1), 64) == iv.ANYTHING
    assert iv.add((2, 3), (MASK64 - 1, MASK64 - 1), 64) == (0, 1)
    assert iv.subtract((0, 2), (1, 1), 32) == (0, (1 << 32) - 1)


def test_values_with_both_signs_are_anything() -> None:
    assert iv.sign_extend((0x7F, 0x80), 8, 64) == iv.top(64)
    assert iv.sign_extend((0x80, 0xFF), 8, 64) == ((1 << 64) - 0x80, (1 << 64) - 1)
    assert iv.sign_extend((0, 0x7F), 8, 64) == (0, 0x7F)
