"""PSTATE.NZCV on intervals: what set the flags last, and what a condition says of it.

Flags are a tuple (kind, width, a, b): NZCV is that of a - b (`SUB`), a + b (`ADD`), or of the
result ``a`` of a logical instruction (`LOGIC`); or it is the number ``a[0]`` (`KNOWN`).
"""

from __future__ import annotations

from armvirt.hw.polling import interval as iv
from armvirt.hw.polling.interval import Interval

KNOWN, SUB, ADD, LOGIC = range(4)
Flags = tuple[int, int, Interval, Interval]
N, Z, C, V = 8, 4, 2, 1


class UndecidedError(Exception):
    """A condition holds for some of the values only.

    The values are those of ``values``, and the condition changes at ``threshold``, if both are
    known.
    """

    def __init__(self, values: Interval | None = None, threshold: int = 0) -> None:
        super().__init__()
        self.values, self.threshold = values, threshold


def known(nzcv: int) -> Flags:
    """The flags N, Z, C, V as the bits 3 to 0 of ``nzcv``."""
    return KNOWN, 64, (nzcv, nzcv), iv.ZERO


def number(flags: Flags) -> int | None:
    """NZCV as a number, None if it is not the same for all values."""
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
    """Whether the condition (its code in an instruction) holds. `UndecidedError` if it holds for
    some of the values only."""
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
    """EQ, HS, MI, VS, HI, GE, GT after a - b."""
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
    """Signed values in unsigned order."""
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
