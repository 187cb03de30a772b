"""The names of INTIDs, for input and for display.

``vtimer`` and ``ptimer`` are the PPIs of the EL1 timers (BSA, level 1). The devices of a board have
names such as ``uart`` and ``rtc`` (``INTIDS`` of its memory map). Each class of interrupts also has
its own numbers, as in a device tree (Linux,
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
    """The names of the INTIDs of a board. The memory map of the board has the names of its
    devices."""

    def __init__(self, memmap: MemoryMap) -> None:
        self._intids = {"vtimer": PPI_VTIMER, "ptimer": PPI_PTIMER, **memmap.INTIDS}
        self.names = {intid: name for name, intid in self._intids.items()}

    def __repr__(self) -> str:
        return f"<IntidNames: {', '.join(self._intids)}>"

    def get(self, intid: int) -> str | None:
        """The name of an INTID; None without a name."""
        return self.names.get(intid)

    def parse(self, text: str) -> int:
        """The INTID for a number or a name. UserError for an unknown name; the message lists the
        names of the board."""
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
        """An INTID as text: ``INTID 27, vtimer``; without a name, the number alone."""
        name = self.get(intid)
        return f"INTID {intid}, {name}" if name else f"INTID {intid}"

    def described(self, intid: int) -> str:
        """An INTID as text: ``INTID 27, vtimer``; without a name, the class of the INTID."""
        return self.named(intid) if intid in self.names else f"INTID {intid}, {kind_of(intid)}"

    def short(self, intid: object) -> str:
        """An INTID as text for a column of INTIDs: ``27 vtimer``."""
        name = self.get(intid) if isinstance(intid, int) else None
        return f"{intid} {name}" if name else str(intid)

    def with_names(self, text: str) -> str:
        """A sentence in which each INTID gets its name, if it has a name: ``INTID 27 (vtimer) is
        held``."""
        return self._unnamed.sub(self._add_name, text)

    @cached_property
    def _unnamed(self) -> re.Pattern[str]:
        """A pattern that finds an INTID in a text, unless the name of the INTID follows."""
        names = "|".join(self._intids)
        return re.compile(rf"\bINTID (\d+)\b(?! \((?:[A-Z]+, )?(?:{names})\)|, (?:{names}))")

    def _add_name(self, match: re.Match[str]) -> str:
        name = self.get(int(match[1]))
        return f"{match[0]} ({name})" if name else match[0]


def any_intid(text: str, maps: Iterable[MemoryMap]) -> str:
    """Check that `IntidNames.parse` can read a text for at least one of several boards. UserError
    if no board has this INTID."""
    for memmap in maps:
        try:
            IntidNames(memmap).parse(text)
        except UserError as error:
            problem = error
        else:
            return text
    raise problem
