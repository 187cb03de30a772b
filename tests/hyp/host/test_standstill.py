"""Dead ends: vCPUs that stand still, vectors that fault for ever, timers that are due when nobody
waits any more."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from conftest import sampled
from hyp_tools import (
    DATA,
    NE,
    RAM,
    Asm,
    Rig,
    assembled,
    both_engines,
    cpu_off,
    native_first,
    power_off,
    two_vcpus,
)

from armvirt.hyp.kvm import Stop, StuckExit, SystemEventExit, Vcpu

Write = Callable[[Asm], None]
VECTORS = RAM + 0x8000
UNMAPPED = 0x7000_0000
STEPS = (None, 1000, 77_777)


def faults(a: Asm, vectors: int = UNMAPPED) -> None:
    """No vectors there."""
    a.mov(1, vectors)
    a.msr("VBAR_EL1", 1)
    a.svc(0)


def endless(a: Asm) -> None:
    a.label("here")
    a.b("here")


def work(rounds: int, then: Write) -> Write:
    def write(a: Asm) -> None:
        a.mov(20, rounds)
        a.label("work")
        a.subs_imm(20, 20, 1)
        a.b_cond(NE, "work")
        then(a)

    return write


def end_of(make: Callable[[], Rig]) -> tuple[int, object]:
    """(ns, last exit) of a run, the same wherever it is stopped."""
    ends = set()
    for step in STEPS:
        rig = make()
        while step is not None and rig.run(rig.host.clock.now + step) is Stop.UNTIL:
            rig.vm.load(rig.vm.state())
        if step is None:
            assert rig.run() is Stop.HANDLER
        ends.add((rig.host.clock.now, rig.end))
    [end] = ends
    return end


@native_first
@pytest.mark.parametrize("pcpus", sampled([1, 2], 2))
def test_one_that_faults_for_ever_is_nobody_elses_matter(kind: str, pcpus: int) -> None:
    """The other works for 3 ms, and ends the VM in order."""
    _, end = end_of(lambda: two_vcpus(work(1_500_000, power_off), faults, kind=kind, pcpus=pcpus))
    assert isinstance(end, SystemEventExit)


@both_engines
@pytest.mark.parametrize("first", [cpu_off, endless, lambda a: a.wfi(), lambda a: (a.sevl(), a.wfe(), a.wfe())],
                         ids=["off", "spins", "sleeps", "waits"])  # fmt: skip
def test_nobody_can_go_on(kind: str, first: Write) -> None:
    """The diagnosis comes when the last one stops, and names the one at fault."""
    ns, end = end_of(lambda: two_vcpus(work(100_000, first), faults, kind=kind))
    assert isinstance(end, StuckExit) and end.cpu == 1 and ns >= 200_000
    assert end.cause.startswith("faults in its exception vectors again and again")


@both_engines
@pytest.mark.parametrize("pcpus", [1, 2])
def test_another_repairs_the_vectors(kind: str, pcpus: int) -> None:
    """They are zero, which is UNDEFINED, until CPU 0 writes a branch there; then it stands
    still."""
    rescue = Asm(RAM + 0x9000)
    power_off(rescue)
    branch = 0x1400_0000 | (rescue.base - (VECTORS + 0x200)) // 4

    def repair(a: Asm) -> None:
        a.mov(1, VECTORS + 0x200)
        a.mov(2, branch)
        a.str_w(2, 1)
        a.word(0xD50B_7521)  # IC IVAU, X1
        a.isb()
        endless(a)

    def make() -> Rig:
        rig = two_vcpus(work(150_000, repair), lambda a: faults(a, VECTORS), kind=kind, pcpus=pcpus)
        rig.vm.write_memory(rescue.base, rescue.code())
        return rig

    ns, end = end_of(make)
    assert isinstance(end, SystemEventExit) and ns < 800_000


def test_a_store_just_before_standing_still() -> None:
    """CPU 1 stands still already when CPU 0 does what wakes it and stands still too."""

    def waits(a: Asm) -> None:
        a.mov(1, DATA)
        a.label("wait")
        a.ldr(2, 1)
        a.cbz(2, "wait")
        power_off(a)

    def writes(a: Asm) -> None:
        a.mov(1, DATA)
        a.str_(1, 1)
        endless(a)

    rig = two_vcpus(work(100_000, writes), waits)
    assert isinstance(rig.finish().end, SystemEventExit)


@both_engines
def test_a_timer_goes_on_while_one_faults(kind: str) -> None:
    """CPU 0 sleeps, and a device's timer will wake it: CPU 1 passes the time."""
    rig = two_vcpus(lambda a: (a.wfi(), power_off(a)), faults, kind=kind)
    rig.vm.timers.register("device", lambda kind: rig.vcpu.wake())
    rig.vm.timers.arm(30_000_000, "device")
    rig.finish()
    assert 30_000_000 <= rig.host.clock.now < 30_200_000


def test_the_host_has_the_cause() -> None:
    """The VMM of the vCPU at fault gets it; if it is about all, the caller reads it from the
    host."""
    at_fault = two_vcpus(endless, faults)
    assert at_fault.host.stuck is None and at_fault.run() is Stop.HANDLER
    stuck, end = at_fault.host.stuck, at_fault.end
    assert stuck is not None and isinstance(end, StuckExit)
    assert (stuck.vcpu, stuck.cause) == (at_fault.vm.vcpu(1), end.cause)
    asleep = two_vcpus(lambda a: a.wfi(), lambda a: a.wfi())
    assert asleep.run() is Stop.IDLE and asleep.host.stuck == ("waits for ever", None)
    assert asleep.run(asleep.host.clock.now) is Stop.UNTIL and asleep.host.stuck is None


@pytest.mark.parametrize("cpus", [3, 8])
def test_the_one_at_fault_is_named_among_many(cpus: int) -> None:
    rig = Rig(vcpus=cpus)
    for n in range(cpus):
        rig.start(assembled(faults if n == cpus - 1 else endless, RAM + 0x1000 * n), n)
    assert rig.run() is Stop.HANDLER and isinstance(rig.end, StuckExit) and rig.end.cpu == cpus - 1


# -- the end of time --


def park(timer: str, cval: int) -> Write:
    def write(a: Asm) -> None:
        a.mov(1, cval)
        a.msr(f"CNT{timer}_CVAL_EL0", 1)
        a.mov(1, 1)
        a.msr(f"CNT{timer}_CTL_EL0", 1)
        a.daifclr(3)

    return write


FAR = [1 << 63, (1 << 64) - 1]


@both_engines
@pytest.mark.parametrize(("vhe", "gic"), [(False, True), (True, False)])
@pytest.mark.parametrize("timer", ["V", "P"])
@pytest.mark.parametrize("cval", FAR)
@pytest.mark.parametrize("wait", ["wfi", "wfe", "spin"])
def test_a_timer_that_is_parked(
    kind: str, vhe: bool, gic: bool, timer: str, cval: int, wait: str
) -> None:
    """It is due after the end of the host's time: nothing is due, and the clock does not run
    there."""

    def write(a: Asm) -> None:
        park(timer, cval)(a)
        a.label("here")
        if wait != "spin":
            getattr(a, wait)()
        a.b("here")

    rig = Rig(assembled(write), kind=kind, vhe=vhe, gic=gic)
    assert rig.host.run() is (Stop.IDLE if wait == "wfi" else Stop.HANDLER)
    assert rig.host.clock.now < 1000 and (wait == "wfi" or isinstance(rig.end, StuckExit))


@pytest.mark.parametrize("cpus", [2, 8])
def test_parked_timers_of_many(cpus: int) -> None:
    rig = Rig(vcpus=cpus, gic=True)
    for n in range(cpus):
        rig.start(
            assembled(lambda a: (park("V", FAR[0])(a), a.wfi(), cpu_off(a)), RAM + 0x1000 * n), n
        )
    assert rig.host.run() is Stop.IDLE and rig.host.clock.now < 10_000
    assert all(
        "the virtual timer fires in 4,679 years, nothing else will" in cause.text
        for cause in rig.vm.why_idle()
    )


@pytest.mark.parametrize("word", [0xD503_1020, 0xD503_1000], ids=["wfit", "wfet"])
def test_a_wait_with_a_far_end(word: int) -> None:
    """WFIT, WFET until 2**63 ticks."""
    from armvirt.hyp.kvm import HostMemory, Kvm, Start

    kvm = Kvm(cpu_features=("wfxt",))
    vm = kvm.create_vm()
    vm.set_user_memory_region(0, RAM, HostMemory(1 << 20))
    vm.write_memory(
        RAM, assembled(lambda a: (a.sevl(), a.wfe(), a.mov(1, 1 << 63), a.word(word | 1))).code()
    )
    vcpu: Vcpu = vm.create_vcpu(0)
    vcpu.start(Start(RAM, 0))
    assert isinstance(vcpu.run(), StuckExit) and kvm.host.clock.now < 1000


def test_a_hundred_years_are_waited_for() -> None:
    """A host's time is 584 years: what is due in the first 146 of them comes."""
    rig = Rig(
        assembled(lambda a: (park("V", 100 * 365 * 86400 * 62_500_000)(a), a.wfi(), power_off(a)))
    )
    assert rig.host.run() in (Stop.HANDLER, Stop.IDLE)
    assert rig.host.clock.now > 99 * 365 * 86400 * 10**9
