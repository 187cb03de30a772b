"""The state of a VM through the KVM API: saved at any instruction and loaded here or in another VM,
the guest ends the same."""

from __future__ import annotations

import json

import pytest
from hyp_tools import DATA, DEVICE, GICD, NE, RAM, RAM_SIZE, Asm, Rig, both_engines, program
from hypothesis import given, settings
from hypothesis import strategies as st

from armvirt.hyp.kvm import SemihostingExit, Stop, VgicAddress, VgicGroup


def busy_program(a: Asm) -> None:
    """A bit of everything: memory, exclusives, MMIO of one and of two transfers, pending
    exceptions."""
    a.mov(10, DATA)
    a.mov(11, DEVICE)
    a.mov(12, 40)
    a.label("loop")
    a.ldxr(1, 10)
    a.add_imm(1, 1, 3)
    a.stxr(2, 1, 10)
    a.cbnz(2, "loop")
    a.str_(1, 11)
    a.word(0xA9400D62)  # ldp x2, x3, [x11]
    a.add(5, 5, 2)
    a.mrs(4, "ID_AA64PFR0_EL1")
    a.yield_()
    a.subs_imm(12, 12, 1)
    a.b_cond(NE, "loop")


def answering(kind: str = "auto") -> Rig:
    rig = Rig(program(busy_program), kind=kind, gic=True)
    rig.devices = {DEVICE: 5, DEVICE + 8: 6}
    return rig


def outcome(rig: Rig) -> object:
    return rig.x(5), rig.word(DATA), rig.host.insns, rig.host.clock.now, rig.vm.state()


def saved(rig: Rig) -> dict[str, object]:
    state: dict[str, object] = json.loads(json.dumps(rig.vm.state()))
    return state


WHOLE_INSNS = 5 + 40 * 11 + 3


@pytest.fixture(scope="module")
def whole() -> object:
    rig = answering().finish()
    assert rig.host.insns == WHOLE_INSNS
    return outcome(rig)


@given(stops=st.lists(st.integers(0, WHOLE_INSNS - 1), max_size=6))
@settings(max_examples=25, deadline=None)
def test_anywhere(whole: object, stops: list[int]) -> None:
    rig = answering()
    for insns in sorted(stops):
        assert rig.host.run(insns=insns) is Stop.UNTIL
        state = saved(rig)
        rig.vm.load(state)
        assert saved(rig) == state
    assert outcome(rig.finish()) == whole
    rig.close()


@both_engines
def test_in_another_vm(whole: object, kind: str) -> None:
    """From each instruction of a round, in a VM of the same shape with the same memory."""
    for insns in range(200, 200 + 12):
        rig, other = answering(), answering(kind)
        rig.host.run(insns=insns)
        other.ram.map[:] = rig.ram.map[:]
        other.vm.load(saved(rig))
        assert outcome(other.finish()) == whole
        rig.close()
        other.close()


def test_between_an_exit_and_its_answer() -> None:
    """`Vcpu.run` came back with a read; the state is of before the instruction, which traps again
    elsewhere."""
    rig, other = answering(), answering()
    rig.vcpu.exit_handler = None
    exit = rig.vcpu.run()
    exit = rig.vcpu.run()
    assert exit is not None and not exit.is_write  # type: ignore[union-attr]
    other.ram.map[:] = rig.ram.map[:]
    other.vm.load(saved(rig))
    again = other.vcpu.run()
    assert (again.phys_addr, again.size) == (exit.phys_addr, exit.size)  # type: ignore[union-attr]


def test_asleep() -> None:
    """A vCPU in WFI stays there, and its timer wakes it at the same ns."""

    def write(a: Asm) -> None:
        a.hlt(0xF000)
        a.movz(5, 1)

    def handle(vcpu: object, exit: object) -> bool:
        if isinstance(exit, SemihostingExit) and rig.host.clock.now < 5000:
            exit.retry_at = 5000
            return False
        return not isinstance(exit, SemihostingExit)

    states = []
    for stop in (0, 10, 2500, 4999):
        rig = Rig(program(write))
        rig.vm.semihosting, rig.vcpu.exit_handler = True, handle
        rig.host.run(until=stop)
        rig.vm.load(saved(rig))
        assert rig.run() is Stop.HANDLER
        states.append((rig.host.clock.now, rig.x(5), rig.vm.state()))
    assert all(state == states[0] for state in states)
    assert states[0][0] > 5000


def test_two_on_one_cpu() -> None:
    """Saved in the turn of the one, and of the other."""

    def make() -> Rig:
        rig = Rig(vcpus=2)
        for n in range(2):
            a = Asm(RAM + 0x1000 * n)
            a.label("loop")
            a.add_imm(1, 1, n + 1)
            a.b("loop")
            rig.start(a, n)
        return rig

    whole = make()
    whole.run(1_000_000)
    for ns in (50_000, 100_000, 150_000, 999_999):
        rig, other = make(), make()
        rig.run(ns)
        other.vm.load(saved(rig))
        other.run(1_000_000)
        assert other.vm.state() == whole.vm.state()


def test_from_before_the_first_run() -> None:
    """Taken back to its start, the VM maps its timers' interrupts again."""
    rig = answering()
    start = saved(rig)
    for _ in range(2):
        rig.run()
        irq = rig.vm.vgic_of().dist.irq(0, 27)
        assert irq.hw and irq.get_input_level is not None
        rig.vm.load(start)
        rig.ram.map[:] = answering().ram.map[:]


def test_of_a_gicv2_that_its_first_use_initialises() -> None:
    def make() -> Rig:
        rig = Rig()
        device = rig.vm.create_device("arm-vgic-v2")
        device.set_attr(VgicGroup.ADDR, VgicAddress.V2_DIST, GICD)
        device.set_attr(VgicGroup.ADDR, VgicAddress.V2_CPU, GICD + 0x1_0000)
        rig.start(program(lambda a: a.movz(5, 7)))
        return rig

    rig, other = make(), make()
    rig.host.run(insns=1)
    other.ram.map[:] = rig.ram.map[:]
    other.vm.load(saved(rig))
    other.finish()
    assert other.x(5) == 7 and other.vm.vgic_of().dist.nr_irqs == 256


def test_it_holds_no_memory() -> None:
    rig = answering().finish()
    assert len(json.dumps(rig.vm.state())) < RAM_SIZE // 10
