"""The files and modules that the documents name exist."""

from __future__ import annotations

import pkgutil
import re
from pathlib import Path

import pytest
from conftest import ROOT

FOLDERS = (ROOT, ROOT / "armvirt")
DOCUMENTS = [
    path
    for path in (
        *sorted((ROOT / "docs").glob("*.md")),
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
    )
    if path.is_file()
]
NAMED = re.compile(r"`([\w./-]+(?:\.(?:py|c|h|S|md|toml)|/))`")
MODULE = re.compile(r"`(armvirt(?:\.\w+)+)`")
MEMBER = re.compile(r"`([A-Z]\w+)\.(\w+)`")
PLACEHOLDER = re.compile(r"\bNAME\b")
OF_THE_USER = {"armvirt.toml"}


def exists(name: str) -> bool:
    """A path of the project or of the package; a name without a folder may be anywhere in them."""
    if any((folder / name).exists() for folder in FOLDERS):
        return True
    places = ("armvirt", "docs", "firmware", "tests", "tools")
    return "/" not in name and any(any((ROOT / place).rglob(name)) for place in places)


def can_import(name: str) -> bool:
    try:
        pkgutil.resolve_name(name)
    except (ImportError, AttributeError):
        return False
    return True


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_files_that_a_document_names_exist(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    named = {name for name in NAMED.findall(text) if not PLACEHOLDER.search(name)} - OF_THE_USER
    assert sorted(name for name in named if not exists(name)) == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_modules_that_a_document_names_exist(document: Path) -> None:
    named = set(MODULE.findall(document.read_text(encoding="utf-8"))) - OF_THE_USER
    assert sorted(name for name in named if not can_import(name)) == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_members_that_a_document_names_exist(document: Path) -> None:
    named = set(MEMBER.findall(document.read_text(encoding="utf-8")))
    sources = [path.read_text(encoding="utf-8") for path in (ROOT / "armvirt").rglob("*.py")]
    missing = [
        f"{owner}.{member}"
        for owner, member in sorted(named)
        if any(re.search(rf"^class {owner}\b", source, re.MULTILINE) for source in sources)
        and not any(re.search(rf"\b{member}\b *[(:=]", source) for source in sources)
    ]
    assert missing == []


def test_a_file_that_is_not_there() -> None:
    assert NAMED.findall("`hyp/kvm.py` and `board/virt/`, `make test`") == [
        "hyp/kvm.py",
        "board/virt/",
    ]
    assert exists("hyp/kvm.py") and exists("tests/planting.py") and exists("native.c")
    assert not exists("hyp/nothing.py") and not exists("nothing.py")
    assert can_import("armvirt.hyp.kvm.Vm") and not can_import("armvirt.hyp.nothing.at_all")
