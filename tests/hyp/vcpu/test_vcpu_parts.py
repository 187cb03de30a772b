"""The table of a vCPU's parts: what it calls, in which order, and what it saves."""

from __future__ import annotations

import inspect
import pkgutil
from importlib import import_module

import pytest
from hyp_tools import Rig

import armvirt.hyp.vcpu
from armvirt.errors import KvmError
from armvirt.hw.pe import Pe
from armvirt.hyp.vcpu.parts import VcpuGroup, VcpuPart, VcpuParts
from armvirt.state import State, StateError

CALLS: list[str] = []


class Quiet(VcpuPart):
    """Overrides nothing."""


class Loud(VcpuPart):
    """Records its calls."""

    def __init__(self, name: str) -> None:
        self.name = name

    def reset(self) -> None:
        CALLS.append(f"{self.name}.reset")

    def vcpu_load(self, pe: Pe) -> None:
        CALLS.append(f"{self.name}.vcpu_load")

    def vcpu_put(self) -> None:
        CALLS.append(f"{self.name}.vcpu_put")

    def attach(self, pe: Pe) -> None:
        CALLS.append(f"{self.name}.attach")

    def detach(self) -> None:
        CALLS.append(f"{self.name}.detach")

    def state(self) -> State:
        return {"version": 1, "name": self.name}

    def load(self, state: State) -> None:
        self.name = state["name"]


class WithAttributes(Quiet):
    group = VcpuGroup.PVTIME_CTRL


def table() -> VcpuParts:
    parts = VcpuParts()
    for part in ("first", "second"):
        parts.add(f"{part}, quiet", Quiet())
        parts.add(part, Loud(part))
    CALLS.clear()
    return parts


def test_the_order_of_the_calls() -> None:
    parts, pe = table(), Rig().host.pe
    parts.reset()
    for load in parts.loads:
        load(pe)
    for put in parts.puts:
        put()
    parts.attach(pe)
    parts.detach()
    assert CALLS == [
        "first.reset", "second.reset", "first.vcpu_load", "second.vcpu_load", "second.vcpu_put", "first.vcpu_put",
        "first.attach", "second.attach", "second.detach", "first.detach",
    ]  # fmt: skip


def test_only_parts_with_state_are_saved() -> None:
    parts = table()
    state = parts.state()
    assert list(state) == ["first", "second"]
    state["first"]["name"] = "renamed"
    parts.load(state)
    assert parts.state() == state
    with pytest.raises(StateError, match="another machine"):
        parts.load({"first": state["first"]})


def test_attribute_groups() -> None:
    parts = VcpuParts()
    part = parts.add("part", WithAttributes())
    assert parts.of_group(VcpuGroup.PVTIME_CTRL) is part
    for call in (lambda: part.get_attr(0), lambda: part.set_attr(0, 1), lambda: parts.of_group(7)):
        with pytest.raises(KvmError, match="ENXIO"):
            call()


def test_a_part_with_state_saves_and_loads() -> None:
    """`state` and `load` belong together, and so do `attach` and `detach`."""
    kinds = {
        thing
        for module in pkgutil.iter_modules(armvirt.hyp.vcpu.__path__)
        for thing in vars(import_module(f"armvirt.hyp.vcpu.{module.name}")).values()
        if inspect.isclass(thing) and issubclass(thing, VcpuPart) and thing is not VcpuPart
    }
    assert len(kinds) >= 8
    for kind in kinds:
        for one, other in (("state", "load"), ("attach", "detach")):
            own = [getattr(kind, name) is not getattr(VcpuPart, name) for name in (one, other)]
            assert own[0] == own[1], f"{kind.__name__} has only one of {one} and {other}"


def test_the_parts_of_a_vcpu() -> None:
    """A new part has its place among these."""
    parts = Rig(gic=True).vcpu.parts
    names = list(parts.state())
    known = ["event_wait", "registers", "traps", "sched", "stolen_time", "timer", "power"]
    assert [name for name in names if name in known] == known
    assert repr(parts) == f"<VcpuParts: {', '.join(names)}>"
