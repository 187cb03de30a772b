"""Random actions for the timers' comparison, by seed: for campaigns and for planted bugs."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from shrinking import shortest
from timer_actions import ACTIONS, snapshot
from timer_rig import Form, Shape
from timer_twin import NVHE, VHE, VHE_CNTPOFF, Act, Twin

CASE_STEPS = 300
ACTION_BITS = 64
FORMS = (NVHE, VHE, VHE_CNTPOFF)
#: Beside any other. The last three have no whole number of ns in a tick, and one is prime.
FREQUENCIES = (
    1_000_000,
    1_000_000_000,
    62_500_000,
    100_000_000,
    19_200_000,
    24_000_000,
    998_244_353,
)
STARTS = (0, 0x1000_0000, (1 << 32) - 50, (1 << 63) - 2000, (1 << 64) - 1, (1 << 64) - 3000)
ROLLING_OVER = 4  # from here on
VIRTUAL_STARTS = (0, 0, (1 << 64) - 500)

_TABLE = [act for weight, act in ACTIONS for _ in range(weight)]


class Action(NamedTuple):
    """What is done, a vCPU, and two values whose meaning is the action's (16 and 32 bits)."""

    act: Act
    vcpu: int = 0
    x: int = 0
    y: int = 0

    def __repr__(self) -> str:
        return f"{self.act.__name__}({self.vcpu}, {self.x:#x}, {self.y:#x})"


SNAPSHOT = Action(snapshot)


def decoded(bits: int) -> Action:
    """An action from a number of 64 bits: what it is, by weight, and its three operands."""
    return Action(
        _TABLE[(bits >> 56) % len(_TABLE)],
        bits >> 48 & 0xFF,
        bits >> 32 & 0xFFFF,
        bits & 0xFFFF_FFFF,
    )


def random_shape(rng: random.Random, form: Form) -> Shape:
    """Where the physical timer is direct and has its offset in CVAL, the physical count must not
    roll over: KVM's addition has no answer to that, and no machine lives so long. (The guests'
    counts do, everywhere.)"""
    return Shape(
        form, rng.choice((1, 2)), rng.choice((1, 2, 3)), rng.choice((*FREQUENCIES, rng.randint(10**6, 10**9))),
        rng.choice(STARTS[:ROLLING_OVER] if form == VHE else STARTS), rng.choice(VIRTUAL_STARTS),
        rng.choice((4, 1, 2)), rng.random() < 0.5,
    )  # fmt: skip


class Case(NamedTuple):
    """One case: the machine's shape, and the actions that the seed makes."""

    seed: int
    shape: Shape

    @classmethod
    def of(cls, seed: int) -> Case:
        return cls(seed, random_shape(random.Random(~seed), FORMS[seed % len(FORMS)]))

    def actions(self) -> Iterator[Action]:
        rng = random.Random(self.seed)
        for _ in range(CASE_STEPS):
            yield decoded(rng.getrandbits(ACTION_BITS)) if rng.random() > 0.004 else SNAPSHOT


def run_case(case: Case, actions: Iterable[Action] | None = None) -> int:
    """Run it to its end; returns the steps done. AssertionError at a difference, with the case to
    repeat."""
    twin = Twin(case.shape)
    done: list[Action] = []
    try:
        for action in case.actions() if actions is None else actions:
            done.append(action)
            if not twin.step(*action):
                break
    except AssertionError as error:
        raise AssertionError(f"{case}, step {len(done)}: {error}; last: {done[-6:]}") from error
    finally:
        twin.close()
    return twin.steps


def campaign(steps: int, first_seed: int = 0, watched: bool = False) -> int:
    """At least so many steps; returns how many."""
    done, seed = 0, first_seed
    while done < steps:
        case = Case.of(seed)
        done += run_case(case._replace(shape=case.shape._replace(watched=watched)))
        seed += 1
    return done


def fails(case: Case, actions: Iterable[Action]) -> bool:
    try:
        run_case(case, actions)
    except AssertionError:
        return True
    return False


def shrink(case: Case) -> list[Action]:
    """The fewest actions of a failing case that fail still."""
    return shortest(case.actions(), lambda actions: fails(case, actions))
