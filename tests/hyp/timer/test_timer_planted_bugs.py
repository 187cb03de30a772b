"""The comparison of the timers with the oracle finds each planted bug."""

from __future__ import annotations

import pytest
from conftest import sampled
from timer_bugs import BY_NAME
from timer_driver import campaign

STEPS = 30_000


@pytest.mark.parametrize("name", sampled(BY_NAME))
def test_a_planted_bug_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    bug = BY_NAME[name]
    bug.plant(monkeypatch)
    with pytest.raises(AssertionError):
        campaign(STEPS, bug.seed, watched=True)
