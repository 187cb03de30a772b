"""The vGIC against the reference model of a GIC, under hypothesis.

The model (tests/gicmodel) was written from the specification by somebody who had not seen the implementation, and
shares no code with it. ARMVIRT_REFERENCE_STEPS asks for more steps than a run of the tests makes
(`make gic-reference`).
"""

from __future__ import annotations

import os

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test
from reference_driver import ACTION_BITS, SHAPES, decoded
from twin import ACTIONS, Twin

STEPS = int(os.environ.get("ARMVIRT_REFERENCE_STEPS", "60000"))
STEPS_PER_EXAMPLE = 400  # as hypothesis makes them
BATCH, RULES = 40, 40  # actions a rule, rules an example

_BATCH = st.binary(min_size=BATCH * ACTION_BITS // 8, max_size=BATCH * ACTION_BITS // 8)


class ReferenceMachine(RuleBasedStateMachine):
    """Where the specification leaves a case open, a new pair of machines takes over."""

    steps = 0

    @initialize(shape=st.sampled_from(SHAPES))
    def start(self, shape: tuple[int, int, int]) -> None:
        self.shape = shape
        self.twin = Twin(*shape)

    @rule(batch=_BATCH)
    def act(self, batch: bytes) -> None:
        for at in range(0, len(batch), ACTION_BITS // 8):
            type(self).steps += 1
            if not self.twin.step(decoded(int.from_bytes(batch[at : at + ACTION_BITS // 8], "big"))):
                self.twin = Twin(*self.shape)

    @rule()
    def snapshot(self) -> None:
        self.twin.step((SNAPSHOT, 0, 0, 0), full=True)


SNAPSHOT = next(number for number, act in enumerate(ACTIONS) if act.name == "snapshot")


def test_the_vgic_does_what_the_reference_model_does() -> None:
    examples = -(-STEPS // STEPS_PER_EXAMPLE)
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        ReferenceMachine,
        settings=settings(
            max_examples=examples, stateful_step_count=RULES, deadline=None, derandomize=True, database=None
        ),
    )
    print(f"{ReferenceMachine.steps:,} steps")
    assert ReferenceMachine.steps >= STEPS * 9 // 10, "the campaign was shorter than it should be"
