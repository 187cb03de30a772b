"""PSTATE.NZCV in the evaluation of a polling loop, where each register value is an interval.

`Flags` is a tuple (kind, width, a, b) that describes the last instruction that set NZCV. ``width``
is the width of the operands in bits, and ``a`` and ``b`` are intervals. ``kind`` says how they give
NZCV:

* `SUB`: NZCV is the NZCV of a - b.
* `ADD`: NZCV is the NZCV of a + b.
* `LOGIC`: ``a`` is the result of a logical instruction, which sets NZCV.
* `KNOWN`: NZCV is the number ``a[0]``.
"""

from __future__ import annotations

from armvirt.hw.polling import interval as iv
from armvirt.hw.polling.interval import Interval

KNOWN, SUB, ADD, LOGIC = range(4)
Flags = tuple[int, int, Interval, Interval]
N, Z, C, V = 8, 4, 2, 1


class UndecidedError(Exception):
    """A condition holds for some values of an interval, but not for all of them.

    ``values`` is the interval. ``threshold`` is the value at which the result of the condition
    changes. ``values`` is None if the interval or the threshold is not known.
    """

    def __init__(self, values: Interval | None = None, threshold: int = 0) -> None:
        super().__init__()
        self.values, self.threshold = values, threshold


def known(nzcv: int) -> Flags:
    """Return a `Flags` tuple of the kind `KNOWN`. It means that NZCV has the value ``nzcv``, where
    N is bit 3, Z is bit 2, C is bit 1 and V is bit 0."""
    return KNOWN, 64, (nzcv, nzcv), iv.ZERO


def number(flags: Flags) -> int | None:
    """Return NZCV as a number, where N is bit 3, Z is bit 2, C is bit 1 and V is bit 0. Returns
    None if NZCV is not the same for all values of the intervals in ``flags``."""
    kind, width, a, b = flags
    if kind == KNOWN:
        return a[0]
    if a[0] != a[1] or b[0] != b[1]:
        return None
    x, y = a[0], b[0]
    mask, sign = (1 << width) - 1, width - 1
    if kind == LOGIC:
        return (N if x >> sign else 0) | (0 if x else Z)
    if kind == SUB:
        y ^= mask
    total = x + y + (kind == SUB)
    result = total & mask
    overflow = (x ^ result) & (y ^ result)
    return (
        (N if result >> sign else 0)
        | (0 if result else Z)
        | (C if total > mask else 0)
        | (V if overflow >> sign & 1 else 0)
    )


def holds(flags: Flags, condition: int) -> bool:
    """Return whether a condition holds: True if it holds for all values of the intervals, False if
    it holds for none. Raises `UndecidedError` if it holds for some of the values. ``condition`` is
    the 4-bit condition code of the instruction."""
    if condition >= 14:
        return True
    nzcv = number(flags)
    if nzcv is not None:
        answer = _holds_now(nzcv, condition >> 1)
    else:
        answer = _holds_for_all(flags, condition >> 1)
    return answer ^ bool(condition & 1)


def _holds_now(nzcv: int, condition: int) -> bool:
    n, z, c, v = bool(nzcv & N), bool(nzcv & Z), bool(nzcv & C), bool(nzcv & V)
    return (z, c, n, v, c and not z, n == v, n == v and not z)[condition]


def _holds_for_all(flags: Flags, condition: int) -> bool:
    kind, width, a, b = flags
    if kind == SUB:
        return _compare(a, b, width, condition)
    result = a if kind == LOGIC else iv.add(a, b, width)
    if condition == 0:
        return _equal(result, iv.ZERO)
    if condition == 2:
        return _at_least(result, (1 << width - 1, 1 << width - 1))
    raise UndecidedError


def _compare(a: Interval, b: Interval, width: int, condition: int) -> bool:
    """Return whether a condition holds after the subtraction a - b. ``condition`` is bits 3 to 1 of
    the condition code: 0 EQ, 1 HS, 2 MI, 3 VS, 4 HI, 5 GE, 6 GT."""
    if condition == 0:
        return _equal(a, b)
    if condition == 1:
        return _at_least(a, b)
    if condition == 4:
        return not _at_least(b, a)
    if condition == 2:
        return _at_least(iv.subtract(a, b, width), (1 << width - 1, 1 << width - 1))
    if condition == 3:
        raise UndecidedError
    x, y = _biased(a, width), _biased(b, width)
    return _at_least(x, y) if condition == 5 else not _at_least(y, x)


def _biased(a: Interval, width: int) -> Interval:
    """Add 2**(width - 1) to signed values. An unsigned comparison of the sums gives the same result
    as a signed comparison of the values."""
    sign = 1 << width - 1
    return iv.wrap(a[0] + sign, a[1] + sign, width)


def _at_least(a: Interval, b: Interval) -> bool:
    if a[0] >= b[1]:
        return True
    if a[1] < b[0]:
        return False
    raise _undecided(a, b)


def _equal(a: Interval, b: Interval) -> bool:
    if a[1] < b[0] or b[1] < a[0]:
        return False
    if a[0] == a[1] == b[0] == b[1]:
        return True
    raise _undecided(a, b)


def _undecided(a: Interval, b: Interval) -> UndecidedError:
    if b[0] == b[1]:
        return UndecidedError(a, b[0])
    return UndecidedError(b, a[0]) if a[0] == a[1] else UndecidedError()
