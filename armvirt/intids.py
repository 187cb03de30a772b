"""The names of INTIDs, for input and for display.

``vtimer`` and ``ptimer`` are the PPIs of the EL1 timers (BSA, level 1), ``uart`` and ``rtc`` the
SPIs of the board (`armvirt.board.virt.memmap`). Each class of interrupts also has its own numbers,
as in a device tree (Linux, Documentation/devicetree/bindings/interrupt-controller/arm,gic-v3.yaml):
``sgi0``, ``ppi11``, ``spi1``, ``lpi0``.
"""

from __future__ import annotations

import re

from armvirt import units
from armvirt.arch.gic import FIRST_LPI, FIRST_PPI, FIRST_SPECIAL, FIRST_SPI, NR_PRIVATE, NR_SGIS
from armvirt.arch.timer import PPI_PTIMER, PPI_VTIMER
from armvirt.board.boards import BOARDS
from armvirt.errors import UserError

NAMES = {
    PPI_VTIMER: "vtimer",
    PPI_PTIMER: "ptimer",
    **{intid: name for name, intid in BOARDS["virt"].memmap.INTIDS.items()},
}
_BY_NAME = {name: intid for intid, name in NAMES.items()}
#: The first INTID of each class, and its maximum number of INTIDs (IHI 0069 2.2).
_CLASSES = {
    "sgi": (0, NR_SGIS),
    "ppi": (FIRST_PPI, NR_PRIVATE - FIRST_PPI),
    "spi": (FIRST_SPI, FIRST_SPECIAL - FIRST_SPI),
    "lpi": (FIRST_LPI, 1 << 24),
}
_NUMBERED = re.compile(r"(sgi|ppi|spi|lpi)(\d{1,8})", re.ASCII)
_INTID = (1 << 32) - 1


def parse_intid(text: str) -> int:
    """An INTID by number or by name; UserError lists the names."""
    word = text.strip().lower()
    if word in _BY_NAME:
        return _BY_NAME[word]
    if match := _NUMBERED.fullmatch(word):
        first, most = _CLASSES[match[1]]
        number = int(match[2])
        if number >= most:
            raise UserError(f"{word} does not exist: there is {match[1]}0 to {match[1]}{most - 1}")
        return first + number
    if not word[:1].isdigit():
        names = ", ".join(_BY_NAME)
        raise UserError(
            f"{text[:40]!r} is not an INTID; write a number, {names}, or for example sgi0, ppi11, spi1"
        )
    return units.parse_count(text, 0, _INTID, what="INTID")


def named(intid: int) -> str:
    """``INTID 27, vtimer``, or the number alone for an INTID without a name."""
    name = NAMES.get(intid)
    return f"INTID {intid}, {name}" if name else f"INTID {intid}"


_UNNAMED = re.compile(
    rf"\bINTID (\d+)\b(?! \((?:[A-Z]+, )?(?:{'|'.join(_BY_NAME)})\)|, (?:{'|'.join(_BY_NAME)}))"
)


def with_names(text: str) -> str:
    """A sentence with the name added after each INTID that has a name: ``INTID 27 (vtimer) is
    held``."""
    return _UNNAMED.sub(lambda match: match[0] + _named_so(int(match[1])), text)


def _named_so(intid: int) -> str:
    return f" ({NAMES[intid]})" if intid in NAMES else ""


def short(intid: object) -> str:
    """``27 vtimer``, for a column of INTIDs."""
    name = NAMES.get(intid) if isinstance(intid, int) else None
    return f"{intid} {name}" if name else str(intid)
