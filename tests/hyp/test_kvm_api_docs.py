"""docs/kvm-api.md: its example runs, and every method that it names exists."""

from __future__ import annotations

import inspect
import re

import pytest
from conftest import ROOT
from test_bad_use import INTERNAL

from armvirt.hyp.kvm import Kvm, Vcpu, VgicGroup, Vm

TEXT = (ROOT / "docs" / "kvm-api.md").read_text(encoding="utf-8")


def test_the_example_runs(capsys: pytest.CaptureFixture[str]) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    exec(compile(example, "docs/kvm-api.md", "exec"), {"__name__": "example"})
    assert capsys.readouterr().out == "Hi shutdown\n" and "`Hi shutdown`" in TEXT


@pytest.mark.parametrize(("section", "owner"), [("Kvm", Kvm), ("Vm", Vm), ("Vcpu", Vcpu)])
def test_every_method_exists(section: str, owner: type) -> None:
    table = TEXT.split(f"\n## {section}\n")[1].split("\n## ")[0]
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    names = [name for row in rows for name in re.findall(r"`(\w+)", row)]
    assert len(names) >= 3
    assert all(name == owner.__name__ or hasattr(owner, name) for name in names), names


@pytest.mark.parametrize(("section", "owner"), [("Kvm", Kvm), ("Vm", Vm), ("Vcpu", Vcpu)])
def test_every_method_is_there(section: str, owner: type) -> None:
    """What a VMM can call (`test_bad_use` says what is not for it) has a row."""
    table = TEXT.split(f"\n## {section}\n")[1].split("\n## ")[0]
    public = {
        name
        for name, _ in inspect.getmembers(owner, inspect.isfunction)
        if not name.startswith("_")
    }
    own = {"own_state", "load_own", "check_shape"}
    assert {name for name in public - INTERNAL[section] - own if f"`{name}" not in table} == set()


def test_the_groups_of_attributes_are_there() -> None:
    table = TEXT.split("\n## Devices\n")[1].split("\n## ")[0]
    assert all(group.name in table for group in VgicGroup)
