"""Random guests with timers and interrupts move, and end at the same instruction as without the
move."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import random_guests
from asm import Asm

from armvirt.machine import Machine, migrate

SEEDS, MOVES = (*range(30), 62), 4
LIMIT_NS = 20_000_000


def _moved(make: Callable[..., Machine], times: list[int]) -> list[tuple[int, list[str]]]:
    """Which of the moves at these times change the rest of the run, and how."""
    with make() as machine:
        straight = migrate.finish(machine, max_time_ns=LIMIT_NS)
    differ, machine = [], make()
    for at in sorted(each for each in times if each < straight.result.ns):
        assert machine.run_until(ns=at) is None
        moved = migrate.go_on(make, migrate.save(machine), max_time_ns=LIMIT_NS)
        found = migrate.differences(straight, moved)
        if moved.result.ns != straight.result.ns:
            found.append(f"it ends at {moved.result.ns} ns, not {straight.result.ns}")
        if found:
            differ.append((at, found))
    machine.close()
    return differ


def _machine(guest: Path, options: dict[str, Any], **more: Any) -> Machine:
    return Machine(
        guest, load_addr=random_guests.BASE, memory="64M", trace_hash=False, **{**options, **more}
    )


@pytest.mark.parametrize("seed", SEEDS)
def test_a_random_guest_does_not_notice(seed: int, tmp_path: Path) -> None:
    source = random.Random(seed)
    options = random_guests.options(seed)
    make = partial(_machine, random_guests.write(seed, options["gic"], tmp_path), options)
    with make() as machine:
        end = migrate.finish(machine, max_time_ns=LIMIT_NS).result.ns
    assert _moved(make, [source.randrange(1, max(2, end)) for _ in range(MOVES)]) == []


def test_between_load_and_store_exclusive(tmp_path: Path) -> None:
    """The monitor goes along: the store succeeds as it would have."""
    a = Asm(random_guests.BASE)
    a.mov(1, random_guests.LOCK)
    a.mov(3, 40)
    a.label("again")
    a.ldxr(2, 1)
    a.add_imm(2, 2, 1)
    a.stxr(4, 2, 1)
    a.cbnz(4, "again")
    a.subs_imm(3, 3, 1)
    a.cbnz(3, "again")
    a.mov(0, random_guests.SYSTEM_OFF)
    a.hvc(0)
    guest = tmp_path / "exclusive.bin"
    guest.write_bytes(a.code())
    assert _moved(partial(_machine, guest, {}), list(range(20, 40))) == []


def test_a_guest_is_a_function_of_its_seed() -> None:
    first, again, other = (random_guests.Guest(seed, 3).a.code() for seed in (5, 5, 6))
    assert first == again != other


@pytest.mark.parametrize("gic", [2, 3])
def test_the_guests_do_something(gic: int, tmp_path: Path) -> None:
    """Most of them reach their end, take interrupts and do not fault."""
    ends = []
    for seed in range(12):
        with _machine(random_guests.write(seed, gic, tmp_path), {"gic": gic}) as machine:
            result = machine.run(max_time_ns=LIMIT_NS)
            ends.append(
                (
                    result.verdict,
                    machine.board.vcpus[0].context.x(random_guests.COUNT),
                    result.console,
                )
            )
    assert sum(verdict == "pass" for verdict, _, _ in ends) >= 9
    assert sum(count > 0 for _, count, _ in ends) >= 9
    assert not [console for _, _, console in ends if "!" in console]
