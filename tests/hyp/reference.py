"""Long runs of a hypothesis state machine against a reference model."""

from __future__ import annotations

import os
import sys

import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test

ASKED = os.environ.get("ARMVIRT_REFERENCE_STEPS")


class CountingMachine(RuleBasedStateMachine):
    """A state machine that counts its steps in the class."""

    steps = 0


def totals(usual: int, long: int) -> list[object]:
    """The numbers of steps of make test and of a long run, for `pytest.mark.parametrize`; or the
    number that ARMVIRT_REFERENCE_STEPS asks for."""
    return [int(ASKED)] if ASKED else [usual, pytest.param(long, marks=pytest.mark.long)]


def run(
    machine: type[CountingMachine], name: str, steps: int, *, steps_per_example: int, rules: int
) -> None:
    """Run ``machine`` for ``steps`` steps, in examples of ``rules`` rules. AssertionError if
    the run was much shorter."""
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        machine,
        settings=settings(
            max_examples=-(-steps // steps_per_example), stateful_step_count=rules, deadline=None, derandomize=True,
            database=None,
        ),
    )  # fmt: skip
    print(f"{name}: {machine.steps:,} steps, no difference", file=sys.stderr)
    assert machine.steps >= steps * 4 // 5, "the campaign was shorter than it should be"
