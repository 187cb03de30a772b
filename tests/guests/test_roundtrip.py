"""After every bundled guest, each object loads the state that it saved: in the same machine and in
a new one."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest
from guest_runs import BUNDLED, campaign, reference, subject

from armvirt.machine import Machine


class Part(NamedTuple):
    """One stateful object: how it is saved and loaded."""

    name: str
    state: Callable[[], object]
    load: Callable[[object], None]


def parts(machine: Machine) -> Iterator[Part]:
    """Every stateful object of a machine, from the silicon up."""
    board, vm, host = machine.board, machine.board.vm, machine.host
    objects = {
        "clock": host.clock, "physical gic": host.gic, "comparators": host.pe.timer, "virtual interface": host.pe.vif,
        "timers": vm.timer_data, "smccc": vm.smccc, "psci": vm.smccc.psci, "trng": vm.smccc.trng,
        **board.own_parts,
    }  # fmt: skip
    for vcpu in board.vcpus:
        objects[f"context {vcpu.id}"] = vcpu.context
        objects[f"timer {vcpu.id}"] = vcpu.timer
    for name, thing in objects.items():
        yield Part(name, thing.state, thing.load)
    assert vm.vgic is not None
    yield Part("vgic", vm.vgic.state, vm.vgic.load_state)
    yield Part("machine", machine.state, machine.load)


def plain(state: object) -> object:
    """As a file would hold it."""
    return json.loads(json.dumps(state, allow_nan=False))


@pytest.fixture(params=["middle", "end"])
def where(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.parametrize("name", BUNDLED)
def test_every_object(name: str, where: str) -> None:
    whole = reference(name)
    with subject(name).machine("auto", campaign.Recorder()) as machine:
        if where == "middle":
            assert machine.run_until(insns=whole.insns // 2) is None
        else:
            machine.run(max_time_ns=subject(name).limit_ns)
        for part in parts(machine):
            state = part.state()
            assert isinstance(state, dict) and state["version"] >= 1, part.name
            saved = plain(state)
            assert saved == state, f"{part.name} is not plain data"
            part.load(saved)
            assert part.state() == saved, part.name


@pytest.mark.parametrize("name", ["vtimer-tick", "sgi-spi", "psci4", "sgi-smp", "console-echo"])
def test_a_fresh_machine(name: str) -> None:
    """The whole and, through it, every object."""
    with subject(name).machine("auto", campaign.Recorder()) as machine:
        assert machine.run_until(insns=reference(name).insns // 3) is None
        with subject(name).machine("auto", campaign.Recorder()) as fresh:
            fresh.load(campaign.saved(machine))
            ours, theirs = list(parts(fresh)), list(parts(machine))
            assert [part.name for part in ours] == [part.name for part in theirs]
            for one, other in zip(ours, theirs, strict=True):
                assert one.state() == other.state(), one.name
            assert (fresh.ns, fresh.insns) == (machine.ns, machine.insns)


def test_another_machine_is_refused() -> None:
    """State of a machine with other CPUs is no state of this one."""
    with subject("psci").machine("auto", campaign.Recorder()) as two:
        with subject("hello").machine("auto", campaign.Recorder()) as one:
            with pytest.raises((ValueError, KeyError)):
                one.load(two.state())
