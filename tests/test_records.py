"""`armvirt.records.NamedTuple` makes the classes that `typing.NamedTuple` makes."""

from __future__ import annotations

import copy
import pickle
from typing import Any
from typing import NamedTuple as TypingNamedTuple

import pytest

from armvirt.records import NamedTuple


def made(base: Any) -> Any:
    """A class of tuples with named fields, made by ``base``."""

    class Record(base):  # type: ignore[misc]
        """A record."""

        first: int
        second: str | None = None
        third: tuple[int, ...] = ()

        @property
        def twice(self) -> int:
            return 2 * self.first

        def plus(self, other: int) -> int:
            return self.first + other

    return Record


class Record(NamedTuple):
    """A record at the top of a module, which pickle can find."""

    first: int


Ours, Reference = made(NamedTuple), made(TypingNamedTuple)


@pytest.mark.parametrize(
    "name", ["_fields", "_field_defaults", "__match_args__", "__module__", "__doc__", "__slots__"]
)
def test_an_attribute_of_the_class(name: str) -> None:
    assert getattr(Ours, name) == getattr(Reference, name)


def test_an_instance() -> None:
    record, reference = Ours(3, third=(1,)), Reference(3, third=(1,))
    assert record == reference == (3, None, (1,))
    assert repr(record) == repr(reference)
    assert record._replace(second="x") == reference._replace(second="x")
    assert record._asdict() == reference._asdict()
    assert (record.twice, record.plus(4)) == (6, 7)
    assert not hasattr(record, "__dict__")


def test_a_missing_argument() -> None:
    with pytest.raises(TypeError, match="first"):
        Ours()


def test_copies() -> None:
    record = Record(1)
    assert pickle.loads(pickle.dumps(record)) == copy.copy(record) == record
    assert type(pickle.loads(pickle.dumps(record))) is Record


def test_a_nested_class_has_its_qualified_name() -> None:
    class Inner(NamedTuple):
        value: int

    assert Inner.__qualname__.endswith("<locals>.Inner")


def test_annotations_remain_strings() -> None:
    assert Ours.__annotations__ == {
        "first": "int",
        "second": "str | None",
        "third": "tuple[int, ...]",
    }
