"""The vGIC beside the reference model of a GIC, under hypothesis.

The model (tests/gicmodel) was written from the specification by somebody who had not seen the
implementation, and shares no code with it. ARMVIRT_REFERENCE_STEPS asks for another number of steps
(`make gic-reference`).
"""

from __future__ import annotations

import os
import sys

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test
from reference_driver import ACTION_BITS, KINDS, SHAPES, Shape, decoded

ASKED = os.environ.get("ARMVIRT_REFERENCE_STEPS")
#: Steps of all kinds together: those of make test, and those of a long run; or as many as are asked
#: for.
STEPS = [int(ASKED)] if ASKED else [40_000, pytest.param(120_000, marks=pytest.mark.long)]
STEPS_PER_EXAMPLE = 520  # as hypothesis makes them
BATCH, RULES = 40, 40  # actions a rule, rules an example
ACTION_BYTES = ACTION_BITS // 8

_BATCH = st.binary(min_size=BATCH * ACTION_BYTES, max_size=BATCH * ACTION_BYTES)


class ReferenceMachine(RuleBasedStateMachine):
    """Where the specification leaves a case open, a new pair of machines takes over."""

    kind = ""
    steps = 0

    @initialize(shape=st.sampled_from(SHAPES))
    def start(self, shape: Shape) -> None:
        self.shape = shape
        self.twin = KINDS[self.kind](*shape)

    @rule(batch=_BATCH)
    def act(self, batch: bytes) -> None:
        for at in range(0, len(batch), ACTION_BYTES):
            type(self).steps += 1
            if not self.twin.step(
                decoded(self.kind, int.from_bytes(batch[at : at + ACTION_BYTES], "big")), full=True
            ):
                self.twin = KINDS[self.kind](*self.shape)

    @rule()
    def snapshot(self) -> None:
        number = next(n for n, act in enumerate(self.twin.actions) if act.name == "snapshot")
        self.twin.step((number, 0, 0, 0), full=True)


@pytest.mark.parametrize("total", STEPS)
@pytest.mark.parametrize("kind", KINDS)
def test_the_vgic_does_what_the_reference_model_does(kind: str, total: int) -> None:
    class Machine(ReferenceMachine):
        pass

    Machine.kind = kind
    steps = total // len(KINDS)
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        Machine,
        settings=settings(
            max_examples=-(-steps // STEPS_PER_EXAMPLE), stateful_step_count=RULES, deadline=None, derandomize=True,
            database=None,
        ),
    )  # fmt: skip
    print(f"{kind}: {Machine.steps:,} steps, no difference", file=sys.stderr)
    assert Machine.steps >= steps * 4 // 5, "the campaign was shorter than it should be"
