"""A planted bug finds its place by meaning, and is refused where there are none or several."""

from __future__ import annotations

import pytest
from planting import Bug, by_name, mutated, resolve


def sample(n: int, limit: int = 3) -> list[int]:
    """Numbers to the limit."""
    found = []
    while n < limit:  # a comment that no bug depends on
        found.append(n * 2)
        n += 1
    return found


def planted(right: str, wrong: str) -> object:
    def copy(n: int, limit: int = 3) -> list[int]:
        return []

    copy.__code__ = mutated(sample, right, wrong, "bug")
    return copy(0)


def test_an_expression() -> None:
    assert planted("n  <  limit", "n <= limit") == [0, 2, 4, 6]


def test_a_statement() -> None:
    assert planted("found.append(n * 2)", "pass") == []


def test_statements_that_follow_each_other() -> None:
    assert planted("found.append(n * 2)\nn += 1", "n += 1\nfound.append(n * 2)") == [2, 4, 6]


@pytest.mark.parametrize(("right", "count"), [("n", 2), ("n + 7", 0), ("found = 1", 0)])
def test_the_place_is_there_once(right: str, count: int) -> None:
    with pytest.raises(ValueError, match=rf"^bug: its place is in sample {count} times$"):
        mutated(sample, right, "0", "bug")


def test_names_of_functions() -> None:
    assert resolve("planting:Bug.plant") is Bug.plant
    assert resolve("armvirt.board.console:Console.fed").__name__ == "fed"
    with pytest.raises(ValueError, match="is no function"):
        resolve("planting:Bug")


def test_names_of_bugs_are_unique() -> None:
    bug = Bug("twice", "planting:resolve", "a", "b")
    with pytest.raises(ValueError, match="the same name"):
        by_name((bug, bug))
