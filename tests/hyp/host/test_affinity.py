"""Where a vCPU may run: `Vcpu.set_affinity`, as a VMM that calls sched_setaffinity for its vCPU
threads."""

from __future__ import annotations

import pytest
from hyp_tools import DEVICE, NE, RAM, Asm, Rig, both_engines, program

from armvirt.errors import KvmError
from armvirt.events import Event, Schedule, Stamp
from armvirt.hyp.kvm import (
    IRQ_TYPE_CPU,
    MmioExit,
    MpState,
    Start,
    Stop,
    SystemEventExit,
    Vcpu,
    irq_line_word,
)


def busy(a: Asm) -> None:
    """Loads from the device, for ever."""
    a.mov(1, DEVICE)
    a.label("loop")
    a.mov(2, 100)
    a.label("spin")
    a.subs_imm(2, 2, 1)
    a.b_cond(NE, "spin")
    a.ldr(3, 1)
    a.b("loop")


def rig_of(vcpus: int, pcpus: int, kind: str = "auto", **more: int) -> Rig:
    rig = Rig(kind=kind, vcpus=vcpus, pcpus=pcpus, quantum_ns=2_000, **more)
    a = Asm(RAM)
    busy(a)
    rig.vm.write_memory(RAM, a.code())
    return rig


def where(rig: Rig) -> list[int | None]:
    return [None if v.pe is None else v.pe.index for v in rig.vcpus]


@both_engines
def test_a_vcpu_runs_where_it_is_pinned(kind: str) -> None:
    rig = rig_of(4, 2, kind)
    for n, pe in enumerate((1, 1, 1, 0)):
        rig.vcpus[n].pin(pe)
        rig.vcpus[n].start(Start(RAM, 0))
    seen: set[tuple[int, int]] = set()
    rig.on_mmio = lambda vcpu, exit: seen.add((vcpu.id, vcpu.pe.index if vcpu.pe else -1))
    rig.run(100_000)
    assert seen == {(0, 1), (1, 1), (2, 1), (3, 0)}, "nobody is pulled to the PE with less to do"
    assert all(v.run_delay_ns for v in rig.vcpus[:3]) and not rig.vcpus[3].run_delay_ns


def test_an_idle_cpu_pulls_only_who_may_come() -> None:
    rig = rig_of(3, 2)
    for n in range(3):
        rig.vcpus[n].set_affinity({0} if n < 2 else None)
        rig.vcpus[n].start(Start(RAM, 0))
    rig.run(50_000)
    assert [v.sched.home for v in rig.vcpus] == [0, 0, 1]
    rig.vcpus[2].set_mp_state(MpState.STOPPED)
    rig.run(100_000)
    assert [v.sched.home for v in rig.vcpus[:2]] == [0, 0] and rig.vcpus[1].run_delay_ns > 40_000


@both_engines
def test_it_moves_at_once_while_the_host_stands(kind: str) -> None:
    rig = rig_of(1, 3, kind)
    rig.vcpu.start(Start(RAM, 0))
    rig.run(5_000)
    for pe in (2, 0, 1):
        rig.vcpu.pin(pe)
        assert rig.vcpu.pe is None and rig.vcpu.sched.home == pe, "off the one that it was on"
        rig.run(rig.host.clock.now + 5_000)
        assert where(rig) == [pe]
    rig.vcpu.set_affinity({1, 2})
    rig.run(rig.host.clock.now + 5_000)
    assert where(rig) == [1], "it may stay"


@both_engines
def test_it_moves_from_its_own_exit_handler(kind: str) -> None:
    """The access is completed on the old CPU, the next instruction is executed on the new one."""
    rig = Rig(
        program(lambda a: (a.mov(1, DEVICE), a.ldr(2, 1), a.ldr(3, 1), a.add_imm(4, 3, 1))),
        kind=kind,
        pcpus=2,
    )
    events: list[str] = []

    def sink(stamp: Stamp, event: Event) -> None:
        if isinstance(event, Schedule) and event.what in ("put", "load"):
            events.append(event.what)

    def answer(vcpu: Vcpu, exit: MmioExit) -> None:
        assert vcpu.pe is not None
        events.append(f"on {vcpu.pe.index}")
        exit.data = 40 + vcpu.pe.index
        vcpu.pin(1)

    rig.host.bus.subscribe(sink)
    rig.on_mmio = answer
    rig.finish()
    assert (rig.x(2), rig.x(3), rig.x(4)) == (40, 41, 42)
    assert events == ["load", "on 0", "put", "load", "on 1", "put"]


def test_it_moves_from_anothers_exit_handler() -> None:
    rig = rig_of(2, 2)
    for vcpu in rig.vcpus:
        vcpu.start(Start(RAM, 0))
    rig.run(20_000)
    seen: list[tuple[int, int]] = []

    def answer(vcpu: Vcpu, exit: MmioExit) -> bool:
        assert vcpu.pe is not None
        seen.append((vcpu.id, vcpu.pe.index))
        rig.vcpus[1 - vcpu.id].pin(len(seen) // 5 % 2)
        return len(seen) >= 200

    rig.on_mmio = answer
    assert rig.run() is Stop.HANDLER
    assert set(seen) == {(vcpu, pe) for vcpu in (0, 1) for pe in (0, 1)}


@both_engines
def test_one_that_sleeps_wakes_elsewhere(kind: str) -> None:
    """In WFI, and in WFE with nobody beside it, for which time itself makes events."""
    for wait, stop in (("wfi", Stop.IDLE), ("wfe", Stop.UNTIL)):
        a = Asm(RAM)
        a.mov(2, 10 << 4 | 1 << 2)  # an event each time bit 10 of the count rises
        a.msr("CNTKCTL_EL1", 2)
        a.label("loop")
        getattr(a, wait)()
        a.b("loop")
        rig = Rig(a, kind=kind, pcpus=2)
        assert rig.run(5_000) is stop and rig.vcpu.power.value == "blocked"
        before = rig.host.insns
        rig.vcpu.pin(1)
        rig.vm.irq_line_raw(irq_line_word(IRQ_TYPE_CPU, 0), wait == "wfi")
        assert rig.run(100_000) is Stop.UNTIL
        assert rig.vcpu.sched.home == 1 and rig.host.insns > before


def test_affinities_that_there_are_not() -> None:
    rig = rig_of(1, 2)
    rig.vcpu.pin(1)
    for pes in ((), (2,), (0, 2), (-1,)):
        with pytest.raises(KvmError, match="EINVAL"):
            rig.vcpu.set_affinity(pes)
        assert (
            rig.vcpu.sched.affinity == {1} and rig.vcpu.may_be_on(1) and not rig.vcpu.may_be_on(0)
        )
    rig.vcpu.set_affinity(None)
    assert rig.vcpu.sched.affinity is None and rig.vcpu.may_be_on(0)


@both_engines
def test_affinity_is_state(kind: str) -> None:
    """Saved in the middle, the rest of the run is the same to the instruction."""
    old, new = rig_of(3, 2, kind), rig_of(3, 2, kind)
    for n, vcpu in enumerate(old.vcpus):
        vcpu.start(Start(RAM, 0))
        vcpu.set_affinity({0} if n < 2 else {0, 1})
    old.run(33_333)
    new.kvm.load(old.kvm.state())
    assert [v.sched.affinity for v in new.vcpus] == [{0}, {0}, {0, 1}]
    for rig in (old, new):
        rig.log.clear()
        rig.run(99_999)
    assert new.kvm.state() == old.kvm.state() and new.mmio == old.mmio


def test_the_guest_does_not_notice() -> None:
    """A vCPU that is moved around all the time does the same in the same time."""
    ends = []
    for moves in (False, True):
        rig = Rig(program(lambda a: [a.mov(1, DEVICE), *[a.ldr(2, 1) for _ in range(9)]]), pcpus=3)
        rig.on_mmio = lambda vcpu, exit, moves=moves: (
            vcpu.pin(exit.phys_addr % 3 or vcpu.index) if moves else None
        )
        rig.finish()
        assert isinstance(rig.end, SystemEventExit)
        ends.append((rig.host.clock.now, rig.host.insns))
    assert ends[0] == ends[1]
