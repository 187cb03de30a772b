"""The vGIC beside the reference model of a GIC, under hypothesis.

The model (tests/gicmodel) was written from the specification by somebody who had not seen the
implementation, and shares no code with it. ARMVIRT_REFERENCE_STEPS asks for another number of steps
(`make gic-reference`).
"""

from __future__ import annotations

import pytest
import reference
from hypothesis import strategies as st
from hypothesis.stateful import initialize, rule
from reference_driver import ACTION_BITS, KINDS, SHAPES, Shape, decoded

#: Steps of all state machines together.
STEPS = reference.totals(40_000, 120_000)
STEPS_PER_EXAMPLE = 520  # as hypothesis makes them
BATCH, RULES = 40, 40  # actions a rule, rules an example
ACTION_BYTES = ACTION_BITS // 8

_BATCH = st.binary(min_size=BATCH * ACTION_BYTES, max_size=BATCH * ACTION_BYTES)


class ReferenceMachine(reference.CountingMachine):
    """Where the specification leaves a case open, a new pair of machines takes over."""

    kind = ""

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
    reference.run(Machine, kind, steps, steps_per_example=STEPS_PER_EXAMPLE, rules=RULES)
