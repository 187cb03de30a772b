"""The host's loop: why and when `run` returns, idle time, runs that cannot go on, and errors in
handlers."""

from __future__ import annotations

import pytest
from hyp_tools import (
    DATA,
    DEVICE,
    NE,
    RAM,
    Asm,
    Rig,
    both_engines,
    native_first,
    power_off,
    program,
    wake_by_timer,
)

from armvirt.arch.encoding import sysreg
from armvirt.events import Event, EventBus, Schedule, Stamp
from armvirt.hw.config import HostConfig
from armvirt.hyp.host.host import Host
from armvirt.hyp.kvm import Exit, HostMemory, Start, Stop, StuckExit, SystemEventExit, Vcpu, Vm

CNTV_TVAL, CNTV_CTL, CNTVCT = sysreg(3, 3, 14, 3, 0), sysreg(3, 3, 14, 3, 1), sysreg(3, 3, 14, 0, 2)


def counting(rounds: int) -> Asm:
    def write(a: Asm) -> None:
        a.mov(1, rounds)
        a.label("loop")
        a.subs_imm(1, 1, 1)
        a.b_cond(NE, "loop")

    return program(write)


def cause(rig: Rig) -> str:
    """Why the guest cannot go on."""
    assert rig.run() is Stop.HANDLER
    assert isinstance(rig.end, StuckExit), rig.end
    return rig.end.cause


# -- why it comes back --


@both_engines
@pytest.mark.parametrize("ns", [0, 1, 2, 3, 1000, 4242])
def test_until_a_time(kind: str, ns: int) -> None:
    rig = Rig(counting(5000), kind=kind)
    assert rig.run(ns) is Stop.UNTIL
    assert rig.host.clock.now == rig.host.insns == ns


@both_engines
@pytest.mark.parametrize("insns", [0, 1, 7, 4001])
def test_until_an_instruction(kind: str, insns: int) -> None:
    rig = Rig(counting(5000), kind=kind)
    assert rig.host.run(insns=insns) is Stop.UNTIL
    assert rig.host.insns == insns
    assert rig.host.run(insns=insns) is Stop.UNTIL and rig.host.insns == insns


def test_until_both() -> None:
    rig = Rig(counting(5000))
    assert rig.host.run(until=100, insns=50) is Stop.UNTIL and rig.host.insns == 50
    assert rig.host.run(until=100, insns=500) is Stop.UNTIL and rig.host.clock.now == 100


@both_engines
def test_to_the_end(kind: str) -> None:
    rig = Rig(counting(5000), kind=kind)
    assert rig.run() is Stop.HANDLER
    assert rig.log == [SystemEventExit("shutdown", 0)]
    assert rig.host.insns == 1 + 2 * 5000 + 3
    assert rig.run() is Stop.IDLE, "all vCPUs are off"


def test_a_poll_that_always_stops() -> None:
    """Where the host's clock falls makes no difference to the guest."""
    rig = Rig(counting(2_000_000))
    rig.host.add_poll(lambda: True)
    stops = 0
    while not rig.log:
        assert rig.run() is Stop.HANDLER
        stops += 1
    assert rig.host.insns == 2 + 2 * 2_000_000 + 3 and stops >= 1


def test_a_stop_from_a_handler() -> None:
    """`Host.stop` in an exit handler: the run comes back after that exit."""

    def handle(vcpu: Vcpu, exit: Exit) -> bool:
        rig.log.append(exit)
        rig.host.stop()
        return False

    rig = Rig(program(lambda a: (a.mov(1, DEVICE), a.str_(1, 1), a.str_(1, 1))))
    rig.vcpu.exit_handler = handle
    for count in (1, 2, 3):
        assert rig.run() is Stop.HANDLER and len(rig.log) == count


class OwnError(Exception):
    pass


@both_engines
def test_an_error_in_a_handler(kind: str) -> None:
    """It comes out of `Host.run` as it was raised, whatever callback of the engine it passed."""

    def handle(vcpu: Vcpu, exit: Exit) -> bool:
        raise OwnError("from the VMM")

    rig = Rig(program(lambda a: (a.mov(1, DEVICE), a.ldr(1, 1))), kind=kind)
    rig.vcpu.exit_handler = handle
    with pytest.raises(OwnError, match="from the VMM"):
        rig.run()


def test_an_error_in_a_sink() -> None:
    def sink(stamp: object, event: object) -> None:
        raise OwnError("from a sink")

    rig = Rig(program(lambda a: a.svc(0)))
    rig.host.bus.subscribe(sink)
    with pytest.raises(OwnError, match="from a sink"):
        rig.run()


def test_an_error_in_a_timer() -> None:
    def handler(kind: str) -> None:
        raise OwnError(kind)

    rig = Rig(counting(5000))
    rig.vm.timers.register("device", handler)
    rig.vm.timers.arm(1000, "device", "tick")
    with pytest.raises(OwnError, match="tick"):
        rig.run()
    assert rig.host.clock.now == 1000
    assert rig.finish().host.insns == 1 + 2 * 5000 + 3, "the guest can go on"


@both_engines
def test_a_device_s_timer_is_exact(kind: str) -> None:
    seen: list[int] = []
    rig = Rig(counting(5000), kind=kind)
    rig.vm.timers.register("device", lambda kind: seen.append(rig.host.insns))
    for n, ns in enumerate((5, 1, 4444)):
        rig.vm.timers.arm(ns, "device", str(n))
    rig.finish()
    assert seen == [1, 5, 4444]


# -- idle time --


def test_idle_for_ever() -> None:
    rig = Rig(program(lambda a: a.wfi()))
    assert rig.run() is Stop.IDLE
    assert (rig.host.clock.now, rig.vcpu.context.pc) == (1, RAM + 4)
    assert rig.run() is Stop.IDLE


def test_idle_until_a_time() -> None:
    """A queue entry that wakes nobody: time passes, the guest sleeps."""
    rig = Rig(program(lambda a: a.wfi()))
    rig.vm.timers.register("device", lambda kind: None)
    rig.vm.timers.arm(1000, "device")
    assert rig.run(600) is Stop.UNTIL and rig.host.clock.now == 600
    assert rig.run() is Stop.IDLE and rig.host.clock.now == 1000


def test_idle_time_belongs_to_the_caller() -> None:
    """`add_idle`: the function decides how far it jumps; None gives up."""
    asked: list[tuple[int, int | None]] = []

    def on_idle(now: int, due: int | None) -> int | None:
        asked.append((now, due))
        return None if due is None or now >= 500 else now + 250

    rig = Rig(program(lambda a: a.wfi()))
    rig.host.add_idle(on_idle)
    rig.vm.timers.register("device", lambda kind: None)
    rig.vm.timers.arm(1000, "device")
    assert rig.run() is Stop.IDLE
    assert asked == [(1, 1000), (251, 1000), (501, 1000)]


def test_functions_for_idle_time_are_asked_in_order_until_they_are_removed() -> None:
    asked: list[tuple[str, int | None]] = []

    def first(now: int, due: int | None) -> int | None:
        asked.append(("first", due))
        return due and due // 2

    def second(now: int, due: int | None) -> int | None:
        asked.append(("second", due))
        return None

    rig = Rig(program(lambda a: a.wfi()))
    remove = rig.host.add_idle(first)
    rig.host.add_idle(second)
    rig.vm.timers.register("device", lambda kind: None)
    rig.vm.timers.arm(1000, "device")
    assert rig.run() is Stop.IDLE and asked == [("first", 1000), ("second", 500)]
    remove()
    assert rig.run() is Stop.IDLE and asked[2:] == [("second", 1000)]


def test_each_poll_is_called_until_it_is_removed() -> None:
    rig, called = Rig(counting(1000)), []
    removes = [rig.host.add_poll(lambda n=n: called.append(n)) for n in range(2)]  # type: ignore[misc]
    rig.host._look()
    removes[0]()
    rig.host._look()
    assert called == [0, 1, 1]


@both_engines
def test_idle_until_the_guest_s_timer(kind: str) -> None:
    rig = Rig(program(wake_by_timer), kind=kind, gic=True)
    rig.finish()
    assert 625 <= rig.x(6) - rig.x(5) <= 626
    assert rig.host.insns < 70 and rig.host.clock.now > 10_000


# -- dead ends --


@both_engines
def test_a_branch_to_itself_with_interrupts_masked(kind: str) -> None:
    def write(a: Asm) -> None:
        a.label("here")
        a.b("here")

    assert cause(Rig(program(write), kind=kind)) == "branches to itself with interrupts masked"


def test_a_branch_to_itself_that_nothing_interrupts() -> None:
    def write(a: Asm) -> None:
        a.daifclr(3)
        a.label("here")
        a.b("here")

    assert cause(Rig(program(write))) == "branches to itself and no interrupt will come"


def test_a_branch_to_itself_that_time_passes() -> None:
    """With another vCPU at work it is no dead end, and costs nothing."""
    rig = Rig(counting(200_000), vcpus=2)
    a = Asm(RAM + 0x1000)
    a.label("here")
    a.b("here")
    rig.start(a, 1)
    rig.finish()
    assert isinstance(rig.end, SystemEventExit)
    assert rig.vcpus[1].context.insns > 100_000


@both_engines
def test_faults_in_the_vectors(kind: str) -> None:
    def write(a: Asm) -> None:
        a.mov(1, 0x7000_0000)
        a.msr("VBAR_EL1", 1)
        a.svc(0)

    assert cause(Rig(program(write), kind=kind)).startswith(
        "faults in its exception vectors again and again"
    )


@both_engines
def test_wfe_that_nothing_wakes(kind: str) -> None:
    def write(a: Asm) -> None:
        a.label("here")
        a.wfe()
        a.b("here")

    assert (
        cause(Rig(program(write), kind=kind)) == "waits for an event (WFE) that nothing will send"
    )


@both_engines
def test_wfe_between_two_vcpus(kind: str) -> None:
    """A lock's other side: WFE gives the CPU away until the word that the monitor marks changes."""

    def write(a: Asm) -> None:
        a.mov(1, DATA)
        a.label("wait")
        a.wfe()
        a.ldxr(2, 1)
        a.cbz(2, "wait")

    rig = Rig(program(write), kind=kind, vcpus=2)
    other = Asm(RAM + 0x1000)
    other.mov(1, DATA)
    other.mov(3, 10_000)
    other.label("loop")
    other.subs_imm(3, 3, 1)
    other.b_cond(NE, "loop")
    other.movz(2, 1)
    other.str_(2, 1)
    other.label("end")
    other.wfi()
    other.b("end")
    rig.start(other, 1)
    rig.finish()
    assert rig.vcpus[0].context.insns < 1000


def test_the_first_stop_counts() -> None:
    """A guest that powers off is not called stuck."""

    def write(a: Asm) -> None:
        power_off(a)
        a.label("here")
        a.b("here")

    rig = Rig(program(write)).finish()
    assert rig.log == [SystemEventExit("shutdown", 0)]


# -- several physical CPUs --


def waits_for_word(a: Asm) -> None:
    a.mov(1, DATA)
    a.label("wait")
    a.wfe()
    a.ldr(2, 1)
    a.cbz(2, "wait")


@both_engines
@pytest.mark.parametrize("pcpus", [1, 2, 3])
def test_two_in_wfe_that_nothing_wakes(kind: str, pcpus: int) -> None:
    """Each waits for the other: a dead end as for one alone."""
    rig = Rig(program(waits_for_word), kind=kind, vcpus=2, pcpus=pcpus)
    rig.start(program(waits_for_word, RAM + 0x1000), 1)
    assert cause(rig) == "waits for an event (WFE) that nothing will send"


def test_the_dead_end_of_two_is_where_it_is_however_often_one_looks() -> None:
    ends = set()
    for step in (None, 7, 100):
        rig = Rig(program(waits_for_word), vcpus=2, pcpus=2)
        rig.start(program(waits_for_word, RAM + 0x1000), 1)
        while step is not None and rig.run(rig.host.clock.now + step) is Stop.UNTIL:
            rig.vm.load(rig.vm.state())
        if step is None:
            rig.run()
        assert isinstance(rig.end, StuckExit)
        ends.add((rig.host.clock.now, rig.end.pc))
    assert len(ends) == 1


def test_a_device_s_timer_while_one_spins_beside_another() -> None:
    """A branch to itself is skipped up to the next event, not to the end of the turn."""
    seen: list[int] = []
    rig = Rig(counting(200_000), vcpus=2)
    a = Asm(RAM + 0x1000)
    a.label("here")
    a.b("here")
    rig.start(a, 1)
    rig.vm.timers.register("device", lambda kind: seen.append(rig.host.clock.now))
    rig.vm.timers.arm(150_000, "device")
    rig.finish()
    assert seen == [150_000]


def load_exclusive_over_a_turn(a: Asm) -> None:
    """LDXR, wait for longer than a turn, STXR; X5 is its status."""
    a.mov(1, DATA)
    a.word(0xC85F7C22)  # LDXR X2, [X1]
    a.mov(3, 100_000)
    a.label("loop")
    a.subs_imm(3, 3, 1)
    a.b_cond(NE, "loop")
    a.word(0xC8057C22)  # STXR W5, X2, [X1]


@both_engines
@pytest.mark.parametrize("pcpus", [1, 2])
def test_the_end_of_a_turn_clears_the_monitor(kind: str, pcpus: int) -> None:
    """The other one stores A, B, A between LDXR and STXR, which a monitor by value would miss."""
    rig = Rig(program(load_exclusive_over_a_turn), kind=kind, vcpus=2, pcpus=pcpus)
    other = Asm(RAM + 0x1000)
    other.mov(1, DATA)
    other.movz(2, 1)
    other.str_(2, 1)
    other.str_(31, 1)
    other.wfi()
    rig.start(other, 1)
    rig.finish()
    assert rig.x(5) == 1
    assert Rig(program(load_exclusive_over_a_turn), kind=kind).finish().x(5) == 0, (
        "alone nothing ends the turn"
    )


# -- several VMs --


class Loads:
    """The vCPU of each load, as the trace names it, and who was stamped."""

    def __init__(self, rig: Rig) -> None:
        self.loads: set[int] = set()
        rig.host.bus.subscribe(self)

    def __call__(self, stamp: Stamp, event: Event) -> None:
        if isinstance(event, Schedule) and event.what == "load":
            assert stamp.vcpu == event.target
            self.loads.add(event.target)


def second_vm(rig: Rig, vcpus: int, rounds: int) -> Vm:
    """Another VM on the host, whose vCPUs count to ``rounds`` in memory of their own at the same
    IPA."""
    vm = rig.kvm.create_vm()
    vm.set_user_memory_region(0, RAM, HostMemory(1 << 20))
    code = counting(rounds)
    vm.write_memory(RAM, code.code())
    for n in range(vcpus):
        vcpu = vm.create_vcpu(n)
        vcpu.exit_handler = rig.handle
        vcpu.start(Start(RAM, 0))
    return vm


@both_engines
@pytest.mark.parametrize("pcpus", [1, 2])
def test_two_vms(kind: str, pcpus: int) -> None:
    """Same IPAs, other memory, VMIDs of their own; power-off ends one of them only."""
    rig = Rig(counting(500_000), kind=kind, pcpus=pcpus)
    watch, vm = Loads(rig), second_vm(rig, 2, 100_000)
    assert rig.run() is Stop.HANDLER and [v.power.value for v in vm.vcpus] == ["off", "off"]
    assert rig.vcpu.runnable and rig.vcpu.context.insns < 1_000_000
    assert vm.mmu.stage2.vttbr >> 48 != rig.vm.mmu.stage2.vttbr >> 48
    assert rig.run() is Stop.HANDLER and rig.host.insns > 1_000_000
    assert watch.loads == {0, 1 << 16, 1 << 16 | 1}


def counter_reader(rounds: int) -> Asm:
    """X20: how far CNTVCT_EL0 is behind CNTPCT_EL0; X21: in how many of the rounds that was not so.
    Reads are an instruction apart, so that a tick may lie between them: V, P, V finds one pair
    without."""
    a = Asm(RAM)
    a.mov(22, rounds)
    a.mrs(1, "CNTPCT_EL0")
    a.mrs(2, CNTVCT)
    a.label("round")
    a.mrs(3, CNTVCT)
    a.mrs(4, "CNTPCT_EL0")
    a.mrs(5, CNTVCT)
    a.subs(6, 5, 3)
    a.cbnz(6, "round")
    a.subs(7, 4, 3)
    a.cbnz(20, "known")
    a.movr(20, 7)
    a.label("known")
    a.subs(8, 7, 20)
    a.cbz(8, "same")
    a.add_imm(21, 21, 1)
    a.label("same")
    a.subs_imm(22, 22, 1)
    a.b_cond(NE, "round")
    power_off(a)
    return a


@native_first
@pytest.mark.parametrize("pcpus", [1, 2])
def test_two_vms_whose_counters_keep_their_difference(kind: str, pcpus: int) -> None:
    """Each has a CNTVOFF of its own, loaded with its vCPU: whoever had the PE meanwhile, on
    whichever it is."""
    rig = Rig(counter_reader(30_000), kind=kind, pcpus=pcpus, quantum_ns=5_000)
    rig.run(100_000)  # the second VM is created later, and so its virtual count starts later
    other = second_vm(rig, 2, 1)
    code = counter_reader(30_000)
    other.write_memory(RAM, code.code())
    for vcpu in other.vcpus:
        vcpu.start(Start(RAM, 0))
    while any(v.runnable for v in rig.host.vcpus):
        assert rig.run(rig.host.clock.now + 50_000_000) is Stop.HANDLER
    offsets = [rig.x(20), *(v.context.x(20) for v in other.vcpus)]
    assert offsets == [rig.vm.timer_data.voffset, *[other.timer_data.voffset] * 2]
    assert offsets[1] - offsets[0] == 100_000 // 16
    assert [v.context.x(21) for v in rig.host.vcpus] == [0, 0, 0]


def test_two_vms_saved_and_restored() -> None:
    def build() -> Rig:
        rig = Rig(counting(500_000), pcpus=2)
        second_vm(rig, 2, 500_000)
        return rig

    whole, split = build(), build()
    whole.run(1_000_000)
    for ns in range(90_000, 1_000_000, 90_000):
        split.run(ns)
        split.kvm.load(split.kvm.state())
    split.run(1_000_000)
    assert [v.context.state() for v in whole.host.vcpus] == [
        v.context.state() for v in split.host.vcpus
    ]


def test_maintenance_stays_in_its_vm() -> None:
    rig = Rig(counting(10), vcpus=2)
    vm = second_vm(rig, 1, 10)
    contexts = [vcpu.context for vcpu in rig.vcpus]
    assert rig.vm.domain.contexts == contexts and vm.vcpu(0).context not in contexts


def test_a_saved_host_needs_as_many_pes() -> None:
    with pytest.raises(ValueError, match="physical CPUs"):
        Rig(pcpus=2).vm.load(Rig().vm.state())


def test_two_hosts_on_one_bus_stamp_their_own_events() -> None:
    """The second host does not replace the stamp of the first."""
    bus, stamps = EventBus(), []
    hosts = [Host(HostConfig(), bus=bus) for _ in range(2)]
    bus.subscribe(lambda stamp, event: stamps.append(stamp.ns))
    for host, now in zip(hosts, (100, 200), strict=True):
        host.clock.advance_to(now)
    for host in hosts:
        host.bus.emit(Schedule(0, "load"))
    assert stamps == [100, 200]
    for host in hosts:
        host.close()
