"""A hundred thousand random accesses raise nothing and break no law, and a seed gives one run."""

from __future__ import annotations

import pytest
from gic_fuzz import SHAPES, Fuzzer, LawError
from gic_fuzz_its import ItsFuzzer

from armvirt.arch.gic import LR_PRIORITY_SHIFT
from armvirt.hyp.vgic import list_registers
from armvirt.hyp.vgic.irq import VgicIrq

MACHINES, STEPS = 24, 4200  # every shape twice


@pytest.mark.parametrize("seed", range(MACHINES))
def test_random_accesses_break_no_law(seed: int) -> None:
    assert Fuzzer(seed).run(STEPS) == STEPS


@pytest.mark.parametrize("seed", range(8))
def test_random_use_of_an_its_breaks_no_law(seed: int) -> None:
    fuzzer = ItsFuzzer(seed)
    assert fuzzer.run(STEPS) == STEPS


def test_events_are_mapped_in_a_fuzzed_its() -> None:
    lpis = 0
    for seed in range(8):
        fuzzer = ItsFuzzer(seed)
        fuzzer.run(STEPS)
        lpis += len(fuzzer.vgic.dist.lpis)
    assert lpis, "no event was ever mapped"


def test_every_shape_is_used() -> None:
    used = {
        (fuzzer.list_registers, fuzzer.priority_bits) for fuzzer in map(Fuzzer, range(MACHINES))
    }
    assert used == set(SHAPES)


@pytest.mark.parametrize("model", [2, 3])
def test_interrupts_are_taken(model: int) -> None:
    """The accesses are not all turned away: dozens of interrupts get to a guest in every few
    machines."""
    machines = [fuzzer for fuzzer in map(Fuzzer, range(MACHINES)) if fuzzer.model == model][:6]
    for fuzzer in machines:
        fuzzer.run(STEPS)
    assert sum(fuzzer.acknowledged for fuzzer in machines) > 60


def test_a_run_is_a_function_of_its_seed() -> None:
    first, second, other = Fuzzer(3), Fuzzer(3), Fuzzer(4)
    for fuzzer in (first, second, other):
        fuzzer.run(500)
    assert list(first.log) == list(second.log) != list(other.log)
    assert first.vgic.state() == second.vgic.state()


def test_a_broken_law_is_told_with_seed_step_and_history(monkeypatch: pytest.MonkeyPatch) -> None:
    """A vGIC that puts the wrong priority into list registers is found out."""
    populate = list_registers.populate

    def wrong(irq: VgicIrq, may_pend: bool, come_back: bool = False) -> int:
        return populate(irq, may_pend, come_back) ^ 0x80 << LR_PRIORITY_SHIFT

    monkeypatch.setattr(list_registers, "populate", wrong)
    with pytest.raises(
        LawError, match=r"(?s)seed 1, step \d+: AssertionError: LR.*priority; the last actions:\n  "
    ):
        Fuzzer(1).run(STEPS)


def test_an_exception_is_a_broken_law(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(list_registers, "fold", lambda irq, value: 1 // 0)
    with pytest.raises(LawError, match="ZeroDivisionError"):
        Fuzzer(1).run(STEPS)
