"""The timers against the oracle of the architecture, under hypothesis.

The oracle (tests/timermodel) was derived from the architecture by somebody who had not seen the
implementation, and shares no code with it. ARMVIRT_REFERENCE_STEPS asks for another number of steps
(`make timer-reference`).
"""

from __future__ import annotations

import random

import pytest
import reference
from conftest import sampled
from hypothesis import strategies as st
from hypothesis.stateful import initialize, rule
from timer_driver import ACTION_BITS, FORMS, SNAPSHOT, Action, decoded, random_shape
from timer_rig import Shape
from timer_twin import Form, Twin

#: Steps of all state machines together.
STEPS = reference.totals(15_000, 45_000)
STEPS_PER_EXAMPLE = 400  # at least, as hypothesis makes them: 400 to 640
BATCH, RULES = 40, 40  # actions a rule, rules an example
ACTION_BYTES = ACTION_BITS // 8
NAMES = ("nVHE", "VHE", "VHE with CNTPOFF")

_BATCH = st.binary(min_size=BATCH * ACTION_BYTES, max_size=BATCH * ACTION_BYTES)


class ReferenceMachine(reference.CountingMachine):
    """Where a case has come to the end of virtual time, a new one takes over."""

    form = Form(False, False)

    @initialize(seed=st.integers(0, (1 << 32) - 1))
    def start(self, seed: int) -> None:
        self.shape: Shape = random_shape(random.Random(seed), self.form)
        self.twin = Twin(self.shape)

    @rule(batch=_BATCH)
    def act(self, batch: bytes) -> None:
        for at in range(0, len(batch), ACTION_BYTES):
            self._step(decoded(int.from_bytes(batch[at : at + ACTION_BYTES], "big")))

    @rule()
    def snapshot(self) -> None:
        self._step(SNAPSHOT)

    def _step(self, action: Action) -> None:
        type(self).steps += 1
        if not self.twin.step(*action):
            self.twin.close()
            self.twin = Twin(self.shape)

    def teardown(self) -> None:
        if hasattr(self, "twin"):
            self.twin.close()


@pytest.mark.parametrize("total", STEPS)
@pytest.mark.parametrize("form", sampled(FORMS), ids=NAMES)
def test_the_timers_do_what_the_architecture_says(form: Form, total: int) -> None:
    class Machine(ReferenceMachine):
        pass

    Machine.form = form
    steps = total // len(FORMS)
    reference.run(
        Machine, NAMES[FORMS.index(form)], steps, steps_per_example=STEPS_PER_EXAMPLE, rules=RULES
    )
