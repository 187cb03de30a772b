"""Rules for the rooms of the hypervisor that import-linter cannot express."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import armvirt.hyp

HYP = Path(armvirt.hyp.__file__).parent
FORBIDDEN = {
    "the engine of a context": r"\bcontext\.engine\b|\bimport Engine\b",
    "a stub of a base class": r"\bNotImplementedError\b",
    "a cast of self": r"\bcast\([^)]*\bself\)|return self  # type: ignore",
}


@pytest.mark.parametrize("what", FORBIDDEN)
def test_hyp_has_no(what: str) -> None:
    pattern = re.compile(FORBIDDEN[what])
    found = [
        f"{path.relative_to(HYP)}: {line.strip()}"
        for path in sorted(HYP.rglob("*.py"))
        for line in path.read_text(encoding="utf-8").splitlines()
        if pattern.search(line)
    ]
    assert found == []
