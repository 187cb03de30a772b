"""The structure of the source: no circles of imports, and a reason for each ignored type error."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import grimp
import pytest

import armvirt

ROOT = Path(armvirt.__file__).parent
MAX_IGNORES = 10
IGNORE = re.compile(r"#\s*type:\s*ignore")
IGNORE_WITH_REASON = re.compile(r"#\s*type:\s*ignore\[[\w,-]+\]\s+#\s+\S")


@pytest.fixture(scope="module")
def imports() -> dict[str, set[str]]:
    """The modules that each module imports; a type-only import counts."""
    graph = grimp.build_graph("armvirt", exclude_type_checking_imports=False)
    return {name: graph.find_modules_directly_imported_by(name) for name in graph.modules}


def circles(arrows: Mapping[str, Iterable[str]]) -> list[list[str]]:
    """The strongly connected components with more than one node (Tarjan)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in arrows.get(node, ()):
            if other not in index:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            at = stack.index(node)
            component = stack[at:]
            del stack[at:]
            if len(component) > 1:
                found.append(sorted(component))

    for node in arrows:
        if node not in index:
            visit(node)
    return found


def rooms(imports: Mapping[str, set[str]], package: str) -> dict[str, set[str]]:
    """The imports between the modules and packages directly inside ``package``."""
    prefix = package + "."
    arrows: dict[str, set[str]] = {}
    for name, others in imports.items():
        if name.startswith(prefix):
            room = name[len(prefix) :].split(".")[0]
            inside = {o[len(prefix) :].split(".")[0] for o in others if o.startswith(prefix)}
            arrows.setdefault(room, set()).update(inside - {room})
    return arrows


def test_circles_are_found() -> None:
    assert circles({"a": ["b"], "b": ["c"], "c": ["b"]}) == [["b", "c"]]
    assert circles({"a": ["b", "c"], "b": ["c"], "c": []}) == []


def test_no_modules_import_each_other(imports: dict[str, set[str]]) -> None:
    assert circles(imports) == []


def test_no_rooms_import_each_other(imports: dict[str, set[str]]) -> None:
    packages = {name.rsplit(".", 1)[0] for name in imports if "." in name}
    assert {p: found for p in packages if (found := circles(rooms(imports, p)))} == {}


def test_each_ignored_type_error_has_a_reason() -> None:
    lines = [line for path in ROOT.rglob("*.py") for line in path.read_text().splitlines()]
    ignored = [line.strip() for line in lines if IGNORE.search(line)]
    assert [line for line in ignored if not IGNORE_WITH_REASON.search(line)] == []
    assert len(ignored) <= MAX_IGNORES
