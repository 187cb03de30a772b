"""The repr of each public object is one short line that says what the object is."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Iterator

import pytest

import armvirt
import armvirt.trace
from armvirt.board.virt import memmap
from armvirt.intids import IntidNames
from armvirt.machine import Machine, Result
from armvirt.script import Script
from armvirt.trace.jsonl import JsonLines
from armvirt.trace.timeline import Timeline
from armvirt.views.explain import LastWriters

LONGEST = 300
#: Values with a field for each of many settings: the default repr of a NamedTuple is what a person
#: wants.
LONG = {"BoardConfig", "Life"}
MODULES = ["armvirt",
           "armvirt.machine.machine", "armvirt.machine.result", "armvirt.machine.run", "armvirt.machine.watch",
           "armvirt.views.explain", "armvirt.views.gic", "armvirt.script", "armvirt.bundled",
           "armvirt.suite.case", "armvirt.machine.migrate", "armvirt.tables", "armvirt.hyp.kvm", "armvirt.places",
           "armvirt.settings", "armvirt.board.board", "armvirt.board.config",
           *(f"armvirt.trace.{module.name}" for module in pkgutil.iter_modules(armvirt.trace.__path__))]  # fmt: skip
#: Public names of these modules that nobody gets hold of: bases, protocols, and parts without facts
#: of their own.
PARTS = {"Arrival", "FileSink", "MmioDevice", "Receiver", "Stateful", "Wired", "Shown",
         "Event", "Showable", "SupportsWrite", "Frame", "VmIrq", "VmMemory", "VmServices", "Capabilities",
         "BusMaster", "ArchTimerVmData", "IoEventFds", "IrqRouter", "Mmu", "NamedTuple", "Smccc",
         "Parking", "Rom"}  # fmt: skip


def short(thing: object) -> str:
    shown = repr(thing)
    assert " object at 0x" not in shown and "\n" not in shown, type(thing)
    assert len(shown) <= LONGEST or type(thing).__name__ in LONG, shown
    return shown


def reachable(thing: object, depth: int, seen: set[int]) -> Iterator[object]:
    """Objects of armvirt that public attributes lead to."""
    if id(thing) in seen:
        return
    seen.add(id(thing))
    if type(thing).__module__.startswith("armvirt"):
        yield thing
    for name in dir(thing) if depth else ():
        value = None if name.startswith("_") else getattr(thing, name, None)
        items = value if isinstance(value, (list, tuple)) else [value]
        for item in items:
            if type(item).__module__.startswith("armvirt") and not inspect.isclass(item):
                yield from reachable(item, depth - 1, seen)


def test_every_public_class_says_what_it_is() -> None:
    for name in MODULES:
        for thing in vars(importlib.import_module(name)).values():
            if (
                inspect.isclass(thing)
                and thing.__module__.startswith("armvirt")
                and thing.__name__[0] != "_"
            ):
                assert thing.__repr__ is not object.__repr__ or thing.__name__ in PARTS, thing


@pytest.mark.parametrize("gic", [2, 3])
def test_what_a_machine_leads_to(gic: int) -> None:
    sinks = [LastWriters(), JsonLines(), Timeline(lambda row: None, 62_500_000, IntidNames(memmap))]
    with Machine("vtimer-tick", gic=gic, sinks=sinks) as machine:
        machine.run_until(ns=1_500_000)
        found = list(reachable(machine, 2, set()))
        assert len({type(thing) for thing in found}) > 20
        for thing in (*found, *sinks, machine.explain("vtimer"), *machine.gic.tables()):
            short(thing)


def test_the_repr_of_a_machine() -> None:
    machine = Machine("vtimer-tick")
    assert repr(machine) == "<Machine vtimer-tick.elf: GICv3, 1 CPU, 512M of RAM, at 0 ns>"
    result = machine.run()
    assert repr(machine).endswith(f"at {result.ns:,} ns, ended: pass>")
    machine.close()
    assert repr(machine).endswith("ended: pass>"), "a closed machine still says what it was"


def test_the_repr_of_a_result() -> None:
    result = Machine("vtimer-tick").run()
    shown = short(result)
    assert shown.startswith(f"Result(verdict='pass', ns={result.ns}, insns={result.insns}, ")
    assert "VERDICT: PASS" in shown and shown.endswith(f"recent=<{len(result.recent)} events>)")
    assert (
        repr(Result("off", 1, 2, "hi"))
        == "Result(verdict='off', ns=1, insns=2, console='hi', recent=<0 events>)"
    )
    assert "diagnosis='why', pc=0x10" in repr(Result("stuck", 1, 2, "", diagnosis="why", pc=16))


def test_the_repr_of_others() -> None:
    assert repr(Script.from_pairs([("a", "b")])) == "<Script of 2 steps>"
    with Machine("wfi-forever") as machine:
        machine.run()
        assert repr(machine.explain(27)).startswith("<Explanation: INTID 27")
        assert repr(machine.gic).startswith("<GicView: GICv3 at ")
        assert repr(machine.board.vcpus[0]) == "<Vcpu 0: blocked>"
