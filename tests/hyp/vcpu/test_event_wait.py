"""WFE: what ends it, at which instruction, and when nothing can end it (DDI 0487 D1.6.1)."""

from __future__ import annotations

from collections.abc import Callable

import pytest
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
    wake_by_timer,
)

from armvirt.arch.encoding import sysreg
from armvirt.hyp.kvm import MpState, Stop, StuckExit, SystemEventExit
from armvirt.hyp.vcpu.event_wait import EVENT_NS, UNSEEN_TURNS

CNTV_CVAL, CNTV_CTL = sysreg(3, 3, 14, 3, 2), sysreg(3, 3, 14, 3, 1)
IAR1, EOIR1 = sysreg(3, 0, 12, 12, 0), sysreg(3, 0, 12, 12, 1)
Write = Callable[[Asm], None]


def loop(a: Asm, rounds: int) -> None:
    """2 * ``rounds`` instructions and one to three before."""
    a.mov(20, rounds)
    a.label("loop")
    a.subs_imm(20, 20, 1)
    a.b_cond(NE, "loop")


def drain(a: Asm) -> None:
    """The event register is clear afterwards: the start has set it."""
    a.sevl()
    a.wfe()


def waiter(a: Asm) -> None:
    drain(a)
    a.wfe()
    power_off(a)


def cause(rig: Rig) -> StuckExit:
    assert rig.run() is Stop.HANDLER
    assert isinstance(rig.end, StuckExit), rig.end
    return rig.end


# -- SEV --


@both_engines
@pytest.mark.parametrize("pcpus", [1, 2, 3])
@pytest.mark.parametrize("after", [0, 3])
def test_sev_wakes_a_waiter_an_instant_later(kind: str, pcpus: int, after: int) -> None:
    """To the ns, wherever in its block the SEV stands, and wherever the run was stopped."""

    def sender(a: Asm) -> None:
        loop(a, 1000)
        a.nop()
        a.sev()
        for _ in range(after):
            a.nop()
        cpu_off(a)

    ends = set()
    for step in (None, 1, 7, 1000):
        rig = two_vcpus(waiter, sender, kind=kind, pcpus=pcpus)
        while step is not None and rig.run(rig.host.clock.now + step) is Stop.UNTIL:
            pass
        if step is None:
            rig.run()
        assert isinstance(rig.end, SystemEventExit)
        ends.add(rig.host.clock.now)
    waited = 3  # CPU 0, before CPU 1 begins
    [end] = ends
    assert end == waited + 1 + 2000 + 2 + EVENT_NS + 3


@both_engines
def test_an_event_is_remembered(kind: str) -> None:
    """SEV comes while the other still works."""

    def late(a: Asm) -> None:
        drain(a)
        loop(a, 100_000)
        a.wfe()
        power_off(a)

    rig = two_vcpus(late, lambda a: (a.sev(), cpu_off(a)), kind=kind)
    assert isinstance(rig.finish().end, SystemEventExit)
    assert rig.vcpu.context.insns == 2 + 3 + 200_000 - 1 + 1 + 3


@both_engines
def test_sevl_is_for_nobody_else(kind: str) -> None:
    stuck = cause(two_vcpus(waiter, lambda a: (a.sevl(), cpu_off(a)), kind=kind))
    assert stuck.cpu == 0 and stuck.cause == "waits for an event (WFE) that nothing will send"


def test_sev_stays_in_its_vm() -> None:
    from armvirt.hyp.kvm import HostMemory, Start

    rig = Rig(assembled(waiter))
    vm = rig.kvm.create_vm()
    vm.set_user_memory_region(0, RAM, HostMemory(1 << 20))
    vm.write_memory(RAM, assembled(lambda a: (a.sev(), cpu_off(a))).code())
    for n in range(2):
        vcpu = vm.create_vcpu(n)
        vcpu.exit_handler = rig.handle
        vcpu.start(Start(RAM, 0))
    assert cause(rig).cpu is None, "the VM with one CPU"


# -- exclusive monitors --


def lock_waiter(a: Asm, offset: int = 0) -> None:
    """Wait until the word at DATA + offset is not 0, as Linux and xv6 do."""
    a.mov(1, DATA + offset)
    a.sevl()
    a.label("wait")
    a.wfe()
    a.ldxr(2, 1)
    a.cbz(2, "wait")
    a.clrex()
    power_off(a)


def storer(offset: int, value: int, then: Write = cpu_off, rounds: int = 1000) -> Write:
    def write(a: Asm) -> None:
        a.mov(1, DATA + offset)
        a.mov(2, value)
        loop(a, rounds)
        a.str_(2, 1)
        then(a)

    return write


def spin(a: Asm) -> None:
    """For ever, and not as a branch to itself."""
    a.label("spin")
    a.nop()
    a.b("spin")


@both_engines
@pytest.mark.parametrize("pcpus", [1, 2])
@pytest.mark.parametrize("then", [cpu_off, spin], ids=["stops", "spins"])
def test_a_store_to_the_marked_granule(kind: str, pcpus: int, then: Write) -> None:
    """Whether its CPU goes to sleep then or never does: its turn is over some time."""
    rig = two_vcpus(lock_waiter, storer(0, 1, then), kind=kind, pcpus=pcpus)
    assert isinstance(rig.finish().end, SystemEventExit)
    assert rig.vcpu.context.insns < 40 and rig.host.clock.now < 200_000


@native_first
@pytest.mark.parametrize(("offset", "turns"), [(56, 1), (64, UNSEEN_TURNS)])
def test_any_store_to_the_granule_is_an_event(kind: str, offset: int, turns: int) -> None:
    """Another word of it, which the guest does not look at, counts at the turn's end. The next
    granule does not: the waiter is let go when its monitor may have been lost unseen."""

    def once(a: Asm) -> None:
        drain(a)
        a.mov(1, DATA)
        a.ldxr(2, 1)
        a.wfe()
        power_off(a)

    rig = two_vcpus(once, storer(offset, 7, spin), kind=kind)
    assert isinstance(rig.finish().end, SystemEventExit)
    assert turns * 100_000 <= rig.host.clock.now < turns * 100_000 + 100


@native_first
@pytest.mark.parametrize("then", [cpu_off, spin], ids=["stops", "spins"])
def test_a_store_of_the_same_value(kind: str, then: Write) -> None:
    """The monitor is lost, and nothing else shows it. It takes longer, but it is not waited for
    ever."""

    def once(a: Asm) -> None:
        drain(a)
        a.mov(1, DATA)
        a.ldxr(2, 1)
        a.wfe()
        power_off(a)

    rig = two_vcpus(once, storer(0, 0, then), kind=kind)
    assert isinstance(rig.finish().end, SystemEventExit)
    assert rig.host.clock.now < (UNSEEN_TURNS + 2) * 100_000


@both_engines
@pytest.mark.parametrize("pcpus", [1, 2])
def test_a_turn_that_ends_between_load_and_wfe(kind: str, pcpus: int) -> None:
    """The store comes when the waiter has loaded and not begun to wait: the loss of the monitor is
    remembered."""

    def slow(a: Asm) -> None:
        drain(a)
        a.mov(1, DATA)
        a.ldxr(2, 1)
        loop(a, 100_000)
        a.wfe()
        power_off(a)

    rig = two_vcpus(slow, storer(0, 1), kind=kind, pcpus=pcpus)
    assert isinstance(rig.finish().end, SystemEventExit)


@pytest.mark.parametrize("value", [b"\x00", b"\x01"])
def test_a_device_writes_the_granule(value: bytes) -> None:
    """Of the same value too: such writes are seen."""

    def once(a: Asm) -> None:
        drain(a)
        a.mov(1, DATA)
        a.ldxr(2, 1)
        a.wfe()
        power_off(a)

    rig = Rig(assembled(once))
    rig.vm.timers.register("device", lambda kind: rig.vm.write_memory(DATA + 60, value))
    rig.vm.timers.arm(5000, "device")
    rig.finish()
    assert 5000 + EVENT_NS <= rig.host.clock.now <= 5000 + EVENT_NS + 4


@both_engines
@pytest.mark.parametrize("pcpus", [1, 2])
def test_locks_of_xv6_cost_no_turns(kind: str, pcpus: int) -> None:
    """Uncontended, on two CPUs: no acquire waits for anything."""
    rounds = 200

    def acquire(a: Asm, word: int) -> None:
        a.mov(1, DATA + word)
        a.mov(5, 1)
        a.mov(20, rounds)
        a.label("acquire")
        a.sevl()
        a.label("wait")
        a.wfe()
        a.ldxr(2, 1)
        a.cbnz(2, "wait")
        a.stxr(3, 5, 1)
        a.cbnz(3, "wait")
        a.str_(31, 1)
        a.subs_imm(20, 20, 1)
        a.b_cond(NE, "acquire")
        cpu_off(a)

    rig = two_vcpus(lambda a: acquire(a, 0), lambda a: acquire(a, 4096), kind=kind, pcpus=pcpus)
    assert rig.run() is Stop.IDLE and rig.host.clock.now == 2 * (9 * rounds + 7)


@both_engines
@pytest.mark.parametrize("pcpus", [1, 2])
def test_many_waiters_wake_for_little(kind: str, pcpus: int) -> None:
    """Seven wait for one word. Those that wait on go to sleep at once: none of them keeps its
    turn."""
    rig = Rig(vcpus=8, kind=kind, pcpus=pcpus)
    for n in range(7):
        a = Asm(RAM + 0x1000 * n)
        a.mov(1, DATA)
        a.mov(3, n + 1)
        a.sevl()
        a.label("wait")
        a.wfe()
        a.ldxr(2, 1)
        a.subs(4, 2, 3)
        a.b_cond(NE, "wait")
        a.add_imm(2, 2, 1)
        a.str_(2, 1)
        cpu_off(a)
        rig.start(a, n)
    last = Asm(RAM + 0x7000)
    storer(0, 1)(last)
    rig.start(last, 7)
    assert rig.run() is Stop.IDLE and rig.word(DATA) == 8
    assert rig.host.clock.now < 3000 and rig.host.insns < 2100 + 7 * 40


# -- interrupts --


@both_engines
@pytest.mark.parametrize("masked", [False, True])
def test_a_timer_ends_it_where_it_can_be_taken(kind: str, masked: bool) -> None:
    """A virtual interrupt that PSTATE masks is no wake-up event for WFE."""

    def handler(a: Asm) -> None:
        a.mrs(2, IAR1)
        a.msr_const(CNTV_CTL, 2)
        a.msr(EOIR1, 2)
        a.eret()

    def write(a: Asm) -> None:
        wake_by_timer(a)  # enables the interrupt, and lets the timer fire once, masked
        drain(a)
        a.mov(6, 0)
        a.msr("VBAR_EL1", 7)
        if not masked:
            a.msr_const(CNTV_CTL, 2)
            a.daifclr(2)
            a.msr_const(sysreg(3, 3, 14, 3, 0), 625)
            a.msr_const(CNTV_CTL, 1)
        a.wfe()
        a.movz(6, 1)
        a.wfe()
        a.movz(6, 2)
        power_off(a)
        a.vectors(lambda each, offset: handler(each))

    a = assembled(write)
    rig = Rig(kind=kind, gic=True)
    rig.start(a)
    rig.vcpu.context.set_x(7, a["vectors"])
    if masked:
        assert cause(rig).pc and rig.x(6) == 0
        return
    rig.finish()
    assert rig.x(6) == 2, "the exception return is an event for the second one"


# -- dead ends --


@both_engines
@pytest.mark.parametrize("cpus", [1, 2, 4])
@pytest.mark.parametrize("pcpus", [1, 2])
def test_all_wait_for_each_other(kind: str, cpus: int, pcpus: int) -> None:
    """In lock loops, each for a word that none writes; wherever one looks, it is the same end."""
    ends = set()
    for step in (None, 211):
        rig = Rig(vcpus=cpus, kind=kind, pcpus=pcpus)
        for n in range(cpus):
            a = Asm(RAM + 0x1000 * n)
            lock_waiter(a, 64 * n)
            rig.start(a, n)
        while step is not None and rig.run(rig.host.clock.now + step) is Stop.UNTIL:
            rig.vm.load(rig.vm.state())
        if step is None:
            rig.run()
        assert isinstance(rig.end, StuckExit) and rig.end.cause.startswith("waits for an event")
        ends.add((rig.host.clock.now, rig.end))
    [(when, end)] = ends
    assert end.cpu == (0 if cpus > 1 else None) and when < 100_000


def test_one_sleeps_and_one_waits() -> None:
    stuck = cause(two_vcpus(lambda a: (a.wfi(), power_off(a)), waiter))
    assert stuck.cpu == 1


def test_the_vmm_ends_a_wait() -> None:
    """It makes the vCPU sleep, and run: a WFE may end at any time."""
    rig = Rig(assembled(waiter))
    assert cause(rig)
    rig.vcpu.set_mp_state(MpState.SUSPENDED)
    rig.vcpu.set_mp_state(MpState.RUNNABLE)
    rig.finish()
