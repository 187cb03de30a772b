"""Random actions for the comparison of the vGIC with the reference model, by seed: for long
campaigns."""

from __future__ import annotations

import random
import time
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from shrinking import shortest
from twin import Action, Twin
from twin_its import ItsTwin
from twin_v2 import V2Twin

CASE_STEPS = 400
ACTION_BITS = 48
SHAPES = tuple(
    (cpus, lrs, bits)
    for cpus in (1, 2, 4)
    for lrs, bits in ((4, 5), (1, 5), (2, 6), (4, 7), (16, 5))
)
KINDS: dict[str, type[Twin]] = {"v3": Twin, "v2": V2Twin, "its": ItsTwin}

Shape = tuple[int, int, int]
"""vCPUs, list registers, priority bits."""

_TABLES = {
    kind: [n for n, act in enumerate(made.actions) for _ in range(act.weight)]
    for kind, made in KINDS.items()
}


def decoded(kind: str, bits: int) -> Action:
    """An action from a number of 48 bits: what it is, by weight, and its three operands."""
    table = _TABLES[kind]
    return table[(bits >> 40) % len(table)], bits >> 32 & 0xFF, bits >> 16 & 0xFFFF, bits & 0xFFFF


class Case(NamedTuple):
    """One case: the kind of GIC, the machine's shape, and the actions that the seed makes."""

    kind: str
    seed: int
    shape: Shape

    @classmethod
    def of(cls, kind: str, seed: int) -> Case:
        return cls(kind, seed, SHAPES[seed % len(SHAPES)])

    def twin(self) -> Twin:
        return KINDS[self.kind](*self.shape)

    def actions(self) -> Iterator[Action]:
        rng = random.Random(self.seed)
        return (decoded(self.kind, rng.getrandbits(ACTION_BITS)) for _ in range(CASE_STEPS))


def run_case(case: Case) -> int:
    """Run it to its end; returns the steps done. AssertionError at a difference, with the case to
    repeat."""
    twin = case.twin()
    done: list[Action] = []
    try:
        for action in case.actions():
            done.append(action)
            if not twin.step(action):
                break
    except AssertionError as error:
        last = ", ".join(f"{twin.actions[n].name}{rest}" for n, *rest in done[-6:])
        raise AssertionError(f"{case}, step {len(done)}: {error}; last: {last}") from error
    return twin.steps


def campaign(kind: str, steps: int, first_seed: int = 0) -> tuple[int, int, float]:
    """At least so many steps; returns (steps, cases, seconds)."""
    begin, done, seed = time.perf_counter(), 0, first_seed
    while done < steps:
        done += run_case(Case.of(kind, seed))
        seed += 1
    return done, seed - first_seed, time.perf_counter() - begin


def fails(case: Case, actions: Iterable[Action]) -> bool:
    """Whether these actions lead to a difference before the specification leaves them."""
    twin = case.twin()
    try:
        for action in actions:
            if not twin.step(action, full=True):
                return False
    except AssertionError:
        return True
    return False


def shrink(case: Case) -> list[Action]:
    """The fewest actions of a failing case that fail still."""
    return shortest(case.actions(), lambda actions: fails(case, actions))
