"""The comparison of the vGIC with the reference model finds each planted bug."""

from __future__ import annotations

import pytest
from conftest import sampled
from planted_bugs import BY_NAME
from reference_driver import campaign

STEPS = 400_000


@pytest.mark.parametrize("name", sampled(BY_NAME))
def test_a_planted_bug_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    bug = BY_NAME[name]
    bug.plant(monkeypatch)
    with pytest.raises((AssertionError, LookupError, ValueError)):
        campaign(bug.kind, STEPS, bug.seed)
