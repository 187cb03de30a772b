"""A stop at any instruction does not change a run, and both engines give the same run."""

from __future__ import annotations

import json

import pytest
from asm import Asm
from hypothesis import given, settings
from hypothesis import strategies as st

from armvirt.hw.engine import EngineFactory
from engine.bench import DATA, Bench, same
from engine.programs import ATOMS, compose, play, set_up, stepping_program

RICH = (
    "alu", "loop", "svc", "unmask", "counter", "store", "timer", "icc", "el0", "abort", "mask", "misaligned",
    "exclusive", "ic", "wfi", "window", "debug", "fp", "brk", "eret-h", "tlbi", "udf", "spsel", "el0", "eret-t", "hvc",
    "msr-daif", "alu", "wfe", "wait", "wfe",
)  # fmt: skip
INTERRUPTS = (3, 40, 41, 90, 150, 155, 230, 300, 333)


@pytest.fixture(scope="module")
def rich() -> Asm:
    return compose(RICH)


def count_of(result: tuple[object, int, object, object]) -> int:
    return result[1]


def test_both_engines_are_one_machine(factories: list[EngineFactory], rich: Asm) -> None:
    """Log, counts, every saved register and all of RAM, with interrupts on the way."""
    results = [play(factory, rich, interrupts=INTERRUPTS) for factory in factories]
    same(results)
    assert count_of(results[0]) > 350
    taken = [line for line in results[0][0] if line[0] == "entry" and line[1] == 1]
    assert len(taken) >= 6, "the interrupts are taken"


@pytest.mark.parametrize("move", [False, True], ids=["stop", "save-load"])
def test_stopping_at_every_count_of_one_run(factory: EngineFactory, rich: Asm, move: bool) -> None:
    reference = play(factory, rich, interrupts=INTERRUPTS)
    same(
        [
            reference,
            play(
                factory, rich, interrupts=INTERRUPTS, stops=range(1, count_of(reference)), move=move
            ),
        ]
    )


def test_one_stop_at_each_count(factory: EngineFactory, rich: Asm) -> None:
    """One stop in an otherwise free run; each third in a fresh engine. The portable engine, 30
    times slower, does a seventh of the counts: its arithmetic of blocks is that of the other."""
    reference = play(factory, rich, interrupts=INTERRUPTS)
    step = 1 if factory.kind == "native" else 7
    for stop in range(0, count_of(reference), step):
        same(
            [
                reference,
                play(factory, rich, interrupts=INTERRUPTS, stops=[stop], move=stop % 3 == 0),
            ]
        )


def test_equal_at_every_count(factories: list[EngineFactory], rich: Asm) -> None:
    """Stopped together, the engines agree on everything there and then, not only at the end."""
    native, portable = (set_up(factory, rich) for factory in factories)
    for count in range(1, 350):
        for guest in (native, portable):
            guest.run(count)
        assert native.engine.save() == portable.engine.save(), count
    assert native.ram[:] == portable.ram[:]
    for guest in (native, portable):
        guest.close()


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    atoms=st.lists(st.sampled_from(sorted(ATOMS)), min_size=1, max_size=12),
    interrupts=st.sets(st.integers(0, 150), max_size=4),
    stops=st.sets(st.integers(0, 250), max_size=12),
    move=st.booleans(),
)
def test_any_program_stopped_anywhere(
    factories: list[EngineFactory],
    atoms: list[str],
    interrupts: set[int],
    stops: set[int],
    move: bool,
) -> None:
    """Free native, stopped native, stopped portable: one result."""
    program = compose(["unmask", *atoms])
    native, portable = factories
    same(
        [
            play(native, program, interrupts=interrupts),
            play(native, program, interrupts=interrupts, stops=stops, move=move),
            play(portable, program, interrupts=interrupts, stops=stops, move=move),
        ]
    )


STEPS = 13


def steps_seen(guest_ram: bytes) -> list[int]:
    at = DATA - 0x4000_0000
    words = (int.from_bytes(guest_ram[at + 8 * i : at + 8 * i + 8], "little") for i in range(40))
    return [word for word in words if word]


@pytest.mark.parametrize("same_level", [False, True], ids=["EL0", "EL1"])
def test_a_guest_that_steps_itself(factory: EngineFactory, same_level: bool) -> None:
    """MDSCR_EL1.SS and SPSR.SS are the guest's, although the engine's own exact stops are made of
    the same thing: one instruction each step, wherever stops fall, in one engine or from one to the
    next."""
    program = stepping_program(STEPS, same_level)
    reference = play(factory, program)
    first = program["stepped"]
    expected = [first + 4, first + 12, first + 16, first + 20]  # after add, cbz (taken), mrs, str
    seen = steps_seen(reference[3])
    assert seen[:4] == expected and len(seen) == STEPS
    every = range(1, count_of(reference))
    same(
        [
            reference,
            play(factory, program, stops=every),
            play(factory, program, stops=every, move=True),
        ]
    )
    for stop in range(0, count_of(reference), 1 if factory.kind == "native" else 5):
        same([reference, play(factory, program, stops=[stop], move=stop % 3 == 0)])


def test_stepping_is_equal_in_both(factories: list[EngineFactory]) -> None:
    program = stepping_program(STEPS, False)
    same([play(factory, program, stops=range(0, 300, 3)) for factory in factories])


def test_a_deadline_that_has_passed(factory: EngineFactory, rich: Asm) -> None:
    guest = set_up(factory, rich)
    for deadline in (50, 50, 10, 0):
        guest.run(deadline)
        assert guest.count == 50
    guest.close()


def test_saved_state_is_plain_data(factory: EngineFactory, rich: Asm) -> None:
    """It goes through JSON, and a load gives back what a save gave."""
    guest = set_up(factory, rich)
    guest.run(123)
    saved = guest.engine.save()
    guest.run(456)
    other = Bench(factory, rich)
    other.engine.load(json.loads(json.dumps(saved)))
    assert other.engine.save() == saved
    guest.engine.load(saved)
    assert guest.engine.save() == saved
    guest.close()
    other.close()
