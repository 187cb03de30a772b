"""The names of INTIDs, for input and for display.

``vtimer`` and ``ptimer`` are the PPIs of the EL1 timers (BSA, level 1). The devices of a board have
names such as ``uart`` and ``rtc`` (``INTIDS`` of the board's memory map). In addition, each class
of interrupts has its own numbers, as in a device tree (Linux,
Documentation/devicetree/bindings/interrupt-controller/arm,gic-v3.yaml): ``sgi0``, ``ppi11``,
``spi1``, ``lpi0``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cached_property
from typing import TYPE_CHECKING

from armvirt import units
from armvirt.arch.bits import MASK32
from armvirt.arch.gic import FIRST_LPI, FIRST_PPI, FIRST_SPECIAL, FIRST_SPI, NR_PRIVATE, NR_SGIS
from armvirt.arch.timer import PPI_PTIMER, PPI_VTIMER
from armvirt.errors import UserError
from armvirt.hyp.diagnosis.register_names import kind_of

if TYPE_CHECKING:
    from armvirt.board.memmap import MemoryMap

#: The first INTID of each class, and its maximum number of INTIDs (IHI 0069 2.2).
_CLASSES = {
    "sgi": (0, NR_SGIS),
    "ppi": (FIRST_PPI, NR_PRIVATE - FIRST_PPI),
    "spi": (FIRST_SPI, FIRST_SPECIAL - FIRST_SPI),
    "lpi": (FIRST_LPI, 1 << 24),
}
_NUMBERED = re.compile(r"(sgi|ppi|spi|lpi)(\d{1,8})", re.ASCII)


class IntidNames:
    """The names of the INTIDs of a board: the names of the timers, and the names of the board's
    devices. ``memmap`` is the memory map of the board."""

    def __init__(self, memmap: MemoryMap) -> None:
        self._intids = {"vtimer": PPI_VTIMER, "ptimer": PPI_PTIMER, **memmap.INTIDS}
        self.names = {intid: name for name, intid in self._intids.items()}

    def __repr__(self) -> str:
        return f"<IntidNames: {', '.join(self._intids)}>"

    def get(self, intid: int) -> str | None:
        """The name of an INTID; None if the INTID has no name."""
        return self.names.get(intid)

    def parse(self, text: str) -> int:
        """Return the INTID that a text names: a number, a name of the board, or a number in a
        class, such as spi1. UserError for any other text; the message lists the names of the
        board."""
        word = text.strip().lower()
        if word in self._intids:
            return self._intids[word]
        if match := _NUMBERED.fullmatch(word):
            first, most = _CLASSES[match[1]]
            number = int(match[2])
            if number >= most:
                raise UserError(
                    f"{word} does not exist: there is {match[1]}0 to {match[1]}{most - 1}"
                )
            return first + number
        if not word[:1].isdigit():
            names = ", ".join(self._intids)
            raise UserError(
                f"{text[:40]!r} is not an INTID; write a number, {names}, or for example sgi0, ppi11, spi1"
            )
        return units.parse_count(text, 0, MASK32, what="INTID")

    def named(self, intid: int) -> str:
        """Return an INTID with its name as text: ``INTID 27, vtimer``. If the INTID has no name,
        return only ``INTID 40``."""
        name = self.get(intid)
        return f"INTID {intid}, {name}" if name else f"INTID {intid}"

    def described(self, intid: int) -> str:
        """Return an INTID with its name as text: ``INTID 27, vtimer``. If the INTID has no name,
        return it with its class: ``INTID 40, SPI``."""
        return self.named(intid) if intid in self.names else f"INTID {intid}, {kind_of(intid)}"

    def short(self, intid: object) -> str:
        """Return an INTID with its name as text for a column of a table: ``27 vtimer``. If the
        INTID has no name, return only the number."""
        name = self.get(intid) if isinstance(intid, int) else None
        return f"{intid} {name}" if name else str(intid)

    def with_names(self, text: str) -> str:
        """Return a text with the name after each INTID that has a name: ``INTID 27 (vtimer) is
        held``."""
        return self._unnamed.sub(self._add_name, text)

    @cached_property
    def _unnamed(self) -> re.Pattern[str]:
        """A pattern that finds each INTID in a text, except an INTID that is followed by its
        name."""
        names = "|".join(self._intids)
        return re.compile(rf"\bINTID (\d+)\b(?! \((?:[A-Z]+, )?(?:{names})\)|, (?:{names}))")

    def _add_name(self, match: re.Match[str]) -> str:
        name = self.get(int(match[1]))
        return f"{match[0]} ({name})" if name else match[0]


def any_intid(text: str, maps: Iterable[MemoryMap]) -> str:
    """Return ``text`` if it names an INTID of at least one board (see `IntidNames.parse`). ``maps``
    are the memory maps of the boards. UserError if ``text`` names an INTID of no board."""
    for memmap in maps:
        try:
            IntidNames(memmap).parse(text)
        except UserError as error:
            problem = error
        else:
            return text
    raise problem
