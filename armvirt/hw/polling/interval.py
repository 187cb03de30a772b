"""Arithmetic on intervals of register values.

An interval is a pair (low, high) of unsigned integers, low <= high. The value of the register is
one of low..high. Each function returns an interval that contains every possible result, and perhaps
other values too. ``width`` is 32 or 64 bits. If a result wraps for some of the values but not for
all of them, the interval is (0, 2**width - 1), which means that nothing is known about the result.
"""

from __future__ import annotations

from collections.abc import Callable

Interval = tuple[int, int]

ZERO: Interval = (0, 0)
ANYTHING: Interval = (0, (1 << 64) - 1)


def top(width: int) -> Interval:
    """Return the interval of all values of ``width`` bits."""
    return 0, (1 << width) - 1


def wrap(low: int, high: int, width: int) -> Interval:
    """Return the integers low..high modulo 2**width. ``low`` and ``high`` may be negative, or
    greater than 2**width."""
    if low >> width == high >> width:
        mask = (1 << width) - 1
        return low & mask, high & mask
    return 0, (1 << width) - 1


def truncate(a: Interval, width: int) -> Interval:
    """Return the low ``width`` bits of the values."""
    return wrap(a[0], a[1], width)


def add(a: Interval, b: Interval, width: int) -> Interval:
    return wrap(a[0] + b[0], a[1] + b[1], width)


def subtract(a: Interval, b: Interval, width: int) -> Interval:
    return wrap(a[0] - b[1], a[1] - b[0], width)


def multiply(a: Interval, b: Interval, width: int) -> Interval:
    """Return the low ``width`` bits of the product."""
    return wrap(a[0] * b[0], a[1] * b[1], width)


def multiply_high(a: Interval, b: Interval) -> Interval:
    """Return bits 127:64 of the product of unsigned 64-bit values."""
    return a[0] * b[0] >> 64, a[1] * b[1] >> 64


def divide(a: Interval, b: Interval, width: int) -> Interval:
    """Divide unsigned values; a division by 0 gives 0 (DDI 0487 C6.2, UDIV)."""
    if b == ZERO:
        return ZERO
    if b[0] == 0:
        return 0, a[1]
    return a[0] // b[1], a[1] // b[0]


def divide_signed(a: Interval, b: Interval, width: int) -> Interval:
    """Divide signed values and round the quotient towards 0."""
    sign = 1 << width - 1
    if a[1] < sign and b[1] < sign:
        return divide(a, b, width)
    if a[0] != a[1] or b[0] != b[1]:
        return top(width)
    x, y = signed(a[0], width), signed(b[0], width)
    if y == 0:
        return ZERO
    quotient = abs(x) // abs(y) if (x < 0) == (y < 0) else -(abs(x) // abs(y))
    return wrap(quotient, quotient, width)


def signed(value: int, width: int) -> int:
    return value - (1 << width) if value >> width - 1 else value


def sign_extend(a: Interval, bits: int, width: int) -> Interval:
    """Sign-extend values of ``bits`` bits to ``width`` bits."""
    sign = 1 << bits - 1
    if a[1] < sign:
        return a
    if a[0] < sign:
        return top(width)
    extension = (1 << width) - (1 << bits)
    return a[0] | extension, a[1] | extension


def bitwise(a: Interval, b: Interval, operation: Callable[[int, int], int]) -> Interval:
    """Apply ``operation``, which is the bitwise AND, ORR or EOR. The low bits of an operand that
    differ between its values are unknown. In the result, the bits above the unknown bits of both
    operands are exact. All lower bits of the result are treated as unknown; an AND with a constant
    at least limits the highest value."""
    if a[0] == a[1] and b[0] == b[1]:
        result = operation(a[0], b[0])
        return result, result
    unknown = max((a[0] ^ a[1]).bit_length(), (b[0] ^ b[1]).bit_length())
    low = operation(a[0], b[0]) >> unknown << unknown
    high = low | (1 << unknown) - 1
    if b[0] == b[1] and operation(-1, 0) == 0:  # AND with a constant clears its zero bits
        high = low | b[0] & (1 << unknown) - 1
    return low, high


def invert(a: Interval, width: int) -> Interval:
    mask = (1 << width) - 1
    return a[1] ^ mask, a[0] ^ mask


def shift_left(a: Interval, amount: int, width: int) -> Interval:
    return wrap(a[0] << amount, a[1] << amount, width)


def shift_right(a: Interval, amount: int, width: int) -> Interval:
    return a[0] >> amount, a[1] >> amount


def shift_right_signed(a: Interval, amount: int, width: int) -> Interval:
    sign = 1 << width - 1
    if a[0] < sign <= a[1]:
        return top(width)
    return wrap(signed(a[0], width) >> amount, signed(a[1], width) >> amount, width)


def rotate_right(a: Interval, amount: int, width: int) -> Interval:
    if amount == 0:
        return a
    if a[0] != a[1]:
        return top(width)
    value = (a[0] >> amount | a[0] << width - amount) & (1 << width) - 1
    return value, value


def hull(a: Interval, b: Interval) -> Interval:
    """Return the smallest interval that contains both ``a`` and ``b``, which are intervals."""
    return min(a[0], b[0]), max(a[1], b[1])
