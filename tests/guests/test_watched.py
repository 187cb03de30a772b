"""A trace does not change a run: with and without a trace, every bundled guest has the same state
wherever it is stopped.

Unwatched, the native engine keeps to itself what nobody else needs to know (docs/engine.md,
"Shadow registers").
"""

from __future__ import annotations

import random

import pytest
from conftest import require_native, sampled
from guest_runs import BUNDLED, ELSEWHERE, GUESTS

from armvirt.bundled import Guest, Setup
from armvirt.machine import Machine

STOPS = 12
STEPS_NS = (1, 50, 1_000, 20_000, 300_000, 3_000_000)
LAST_NS = 20_000_000  # one guest never ends


def machines(guest: Guest, setup: Setup) -> list[Machine]:
    return [
        Machine(guest.path, gic=setup.gic, cpus=setup.cpus, engine="native", trace_hash=watched)
        for watched in (False, True)
    ]


def compare(guest: Guest, setup: Setup, seed: int) -> list[Machine]:
    """Both to the same moments, ever farther apart."""
    require_native()
    chance, made, now = random.Random(seed), machines(guest, setup), 0
    for step in [*sorted(chance.choices(STEPS_NS, k=STOPS)), LAST_NS]:
        now += step * chance.randint(1, 9)
        ends = {each.run(max_time_ns=now).verdict for each in made}
        assert made[0].state() == made[1].state(), now
        if ends - {"limit"}:
            break
    return made


@pytest.mark.parametrize("name", BUNDLED)
def test_watching(name: str) -> None:
    guest = GUESTS[name]
    for each in compare(guest, Setup(max(guest.gics), guest.cpus), 1):
        each.close()


@pytest.mark.parametrize("name", sampled(ELSEWHERE, 2))
def test_watching_on_another_machine(name: str) -> None:
    guest, setup = ELSEWHERE[name]
    for each in compare(guest, setup, 2):
        each.close()


def test_the_run_that_nobody_watches_is_another_one() -> None:
    """Or the comparison would be of one thing with itself."""
    guest = GUESTS["vtimer-tick"]
    unwatched, watched = compare(guest, Setup(max(guest.gics), guest.cpus), 3)
    native = [
        list(m.board.vcpus[0].context.engine.state.stats)[16:18] for m in (unwatched, watched)
    ]
    assert min(native[0]) > 50 and native[1] == [0, 0]
    for each in (unwatched, watched):
        each.close()
