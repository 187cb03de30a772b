"""The rules about missing and misaligned vector tables."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

import pytest

from armvirt.views.causes import vectors


class Symbols:
    """Two symbols; the name of one has a plus sign."""

    table: ClassVar[dict[str, int]] = {"operator+": 0x1000, "vectors": 0x1080}

    def lookup(self, address: int) -> str | None:
        below = [(at, name) for name, at in self.table.items() if at <= address]
        if not below:
            return None
        at, name = max(below)
        return f"{name}+{address - at:#x}" if address > at else name

    def names(self) -> Iterable[str]:
        return self.table

    def address_of(self, name: str) -> int | None:
        return self.table.get(name)

    def addresses_of(self, name: str) -> list[int]:
        return [at for each, at in self.table.items() if each == name]


@pytest.mark.parametrize(
    ("address", "name"),
    [(0x1000, "operator+"), (0x1004, None), (0x1080, "vectors"), (0x1084, None), (0xFFC, None)],
)
def test_the_symbol_that_begins_at_an_address(address: int, name: str | None) -> None:
    assert vectors._symbol_at(Symbols(), address) == name
