"""INTIDs by number and by name."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from armvirt.board.boards import BOARDS
from armvirt.board.virt import memmap
from armvirt.errors import UserError
from armvirt.hyp.diagnosis.register_names import kind_of
from armvirt.intids import IntidNames, any_intid
from armvirt.machine import Machine

NAMES = IntidNames(memmap)
parse_intid, named, short, with_names = NAMES.parse, NAMES.named, NAMES.short, NAMES.with_names


@pytest.mark.parametrize(
    ("text", "intid"),
    [
        ("27", 27), ("0x1b", 27), ("vtimer", 27), ("VTimer ", 27), ("ppi11", 27), ("ptimer", 30), ("uart", 33),
        ("rtc", 34), ("spi1", 33), ("sgi15", 15), ("lpi0", 8192), ("spi987", 1019),
    ],
)  # fmt: skip
def test_intids(text: str, intid: int) -> None:
    assert parse_intid(text) == intid


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("timer", "write a number, vtimer, ptimer, uart, rtc, or for example sgi0"),
        ("", "is not an INTID"),
        ("sgi16", "sgi16 does not exist: there is sgi0 to sgi15"),
        ("ppi16", "there is ppi0 to ppi15"),
        ("spi988", "there is spi0 to spi987"),
        ("-1", "is not an INTID"),
        ("1x", "is not an INTID"),
        ("4294967296", "outside"),
    ],
)
def test_no_intids(text: str, says: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_intid(text)
    assert says in str(caught.value) and "\n" not in str(caught.value)


@given(st.sampled_from(["sgi", "ppi", "spi", "lpi"]), st.integers(0, 15))
def test_a_numbered_name_is_of_its_class(kind: str, number: int) -> None:
    assert kind_of(parse_intid(f"{kind}{number}")).lower() == kind


@given(st.text())
def test_any_text_is_an_intid_or_a_users_mistake(text: str) -> None:
    try:
        assert 0 <= parse_intid(text) <= 0xFFFF_FFFF
    except UserError as error:
        assert "\n" not in str(error)


def test_what_is_shown_can_be_typed() -> None:
    for intid, name in NAMES.names.items():
        assert parse_intid(name) == intid
        assert (named(intid), short(intid)) == (f"INTID {intid}, {name}", f"{intid} {name}")
    assert with_names("INTID 33 is behind INTID 27, and INTID 40 too") == (
        "INTID 33 (uart) is behind INTID 27 (vtimer), and INTID 40 too"
    )
    once = "INTID 27 (PPI, vtimer), INTID 30, ptimer, INTID 270, INTID 27 (vtimer)"
    assert with_names(once) == once
    assert (named(40), short(40), short(None)) == ("INTID 40", "40", "None")
    assert (NAMES.described(27), NAMES.described(40)) == ("INTID 27, vtimer", "INTID 40, SPI")


def test_names_are_those_of_the_board() -> None:
    """Its device tree has the same numbers: SPIs from 32, PPIs from 16."""
    with Machine("hello") as machine:
        assert {
            memmap.INTIDS["uart"]: "uart",
            memmap.INTIDS["rtc"]: "rtc",
        }.items() <= NAMES.names.items()
        rows = [row for vcpu in machine.board.vcpus for row in vcpu.timer.rows()]
        assert {NAMES.get(int(str(row["ppi"]))) for row in rows} == {
            str(row["timer"]) for row in rows
        }
        for name in ("vtimer", "uart"):
            assert machine.explain(name).intid == parse_intid(name)
        with pytest.raises(UserError, match="is not an INTID"):
            machine.explain("timer")
        with pytest.raises(UserError, match=r"intid=1\.5: write a whole number"):
            machine.explain(1.5)  # type: ignore[arg-type]


def test_each_board_has_names_of_its_own() -> None:
    """A name that only one of the boards has is an INTID, and its number is that board's."""
    other = SimpleNamespace(INTIDS={"uart": 40, "disk": 41})
    boards: list[Any] = [memmap, other]
    assert any_intid("disk", boards) == "disk" and any_intid("rtc", boards) == "rtc"
    assert [IntidNames(board).parse("uart") for board in boards] == [33, 40]
    assert IntidNames(boards[1]).with_names("INTID 33, INTID 40") == "INTID 33, INTID 40 (uart)"
    with pytest.raises(UserError, match="write a number, vtimer, ptimer, uart, disk, or"):
        any_intid("gpu", boards)


def test_an_interrupt_of_a_board_is_that_of_a_device() -> None:
    for model in BOARDS.values():
        assert model.memmap.INTIDS.keys() <= {slot.name for slot in model.slots()}
