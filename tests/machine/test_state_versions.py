"""A version that differs, anywhere in a saved state, is refused before anything is loaded."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

import pytest
from conftest import sampled

from armvirt import Machine
from armvirt.hyp.kvm import Kvm
from armvirt.state import StateError, check_versions

Path = tuple[str | int, ...]


def versions(state: object, path: Path = ()) -> Iterator[Path]:
    """The paths of all versions in a state."""
    items: Any = ()
    if isinstance(state, dict):
        items = state.items()
        if "version" in state:
            yield (*path, "version")
    elif isinstance(state, list):
        items = enumerate(state)
    for name, part in items:
        yield from versions(part, (*path, name))


def changed(state: Any, path: Path, value: object) -> Any:
    """A copy of a state with another value at ``path``; None: without the value."""
    other = copy.deepcopy(state)
    place = other
    for step in path[:-1]:
        place = place[step]
    if value is None:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return other


MACHINES = {
    "GICv3": {"image": "vtimer-tick", "cpus": 2, "pcpus": 2},
    "GICv2": {"image": "vtimer-tick", "gic": 2},
    "VHE": {"image": "vtimer-tick", "vhe": True, "its": False},
}


def started(name: str) -> tuple[Machine, Any]:
    machine = Machine(trace_hash=False, **MACHINES[name])  # type: ignore[arg-type]
    machine.run_until(ns=1_200_000)
    return machine, json.loads(json.dumps(machine.state()))


@pytest.mark.parametrize("name", sampled(MACHINES, 1))
def test_each_version_of_a_machine_is_checked(name: str) -> None:
    machine, state = started(name)
    with machine:
        found = list(versions(state))
        deep = {path[-2] for path in found if len(path) > 1}
        assert {"vm", "host", "clock", "arch_timer", "registers", "event_wait", "engine"} <= deep
        machine.run_until(ns=1_400_000)
        before = machine.state()
        for path in found:
            for value in (99, "1", None):
                with pytest.raises(StateError, match="save it again with this armvirt"):
                    machine.load(changed(state, path, value))
            assert machine.state() == before, f"{path} was refused too late"
        machine.load(state)
        assert json.loads(json.dumps(machine.state())) == state


def test_each_version_of_a_host_is_checked() -> None:
    kvm = Kvm(pcpus=2)
    for vm in (kvm.create_vm(), kvm.create_vm()):
        vm.create_vcpu(0).init()
    state = json.loads(json.dumps(kvm.state()))
    kvm.host.clock.advance_to(5)
    before = kvm.state()
    for path in versions(state):
        with pytest.raises(StateError):
            kvm.load(changed(state, path, 99))
        assert kvm.state() == before
    kvm.load(state)
    assert json.loads(json.dumps(kvm.state())) == state


def test_the_message_names_the_part() -> None:
    present = {"version": 1, "parts": [{"timer": {"version": 2}}], "numbers": [1, 2]}
    saved = changed(present, ("parts", 0, "timer", "version"), 3)
    with pytest.raises(StateError) as caught:
        check_versions(saved, present, "VM 0")
    assert str(caught.value) == (
        "the saved state of VM 0, part parts[0].timer has version 3, and this armvirt loads version 2; "
        "save it again with this armvirt"
    )


def test_another_shape_is_left_to_others() -> None:
    """A part that only one state has, and a value where the other has a part."""
    present = {"version": 1, "gic": {"version": 1}, "cpus": [{"version": 1}, {"version": 1}]}
    for saved in (
        {"version": 1},
        {"version": 1, "gic": None, "cpus": []},
        {"version": 1, "gic": 5, "cpus": {"version": 7}},
        {"version": 1, "more": {"version": 9}},
    ):
        check_versions(saved, present, "VM 0")
