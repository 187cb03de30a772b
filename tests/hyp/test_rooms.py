"""Rules for the rooms of the hypervisor, and for the floors above hw, that import-linter cannot
express."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import armvirt
import armvirt.hyp

ROOT = Path(armvirt.__file__).parent
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


def test_only_hw_uses_the_engine_of_a_context() -> None:
    found = [
        f"{path.relative_to(ROOT)}: {ast.unparse(node)}"
        for path in sorted(ROOT.rglob("*.py"))
        if ROOT / "hw" not in path.parents
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute)
        and node.attr == "engine"
        and not ast.unparse(node.value).endswith("config")  # the setting of this name
    ]
    assert found == []
