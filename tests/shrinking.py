"""Shortens a failing list of actions."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

Action = TypeVar("Action")


def shortest(case: Iterable[Action], fails: Callable[[list[Action]], bool]) -> list[Action]:
    """The fewest actions of a failing case that fail still, by leaving out what can be left out."""
    actions, before = list(case), -1
    while len(actions) != before:
        before, size = len(actions), max(1, len(actions) // 2)
        while size:
            at = 0
            while at < len(actions):
                rest = actions[:at] + actions[at + size :]
                if fails(rest):
                    actions = rest
                else:
                    at += size
            size //= 2
    return actions
