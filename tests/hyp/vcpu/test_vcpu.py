"""vCPUs: reset state, PSCI, sleep and wake-up by interrupt, the exclusive monitor, two vCPUs on one
physical CPU."""

from __future__ import annotations

import struct

import pytest
from hyp_tools import (
    CPU_ON,
    DATA,
    DEVICE,
    GICD,
    NE,
    RAM,
    SYSTEM_RESET,
    Asm,
    Rig,
    both_engines,
    enable_stage1,
    faulting,
    power_off,
    program,
)

from armvirt.arch.encoding import sysreg
from armvirt.arch.gic import ICC_REGISTERS
from armvirt.events import Event, Schedule, Stamp
from armvirt.hyp.host.sched import QUANTUM_NS
from armvirt.hyp.kvm import MmioExit, Start, Stop, SystemEventExit, Vcpu
from armvirt.hyp.vcpu.power import Power

CPU_OFF, AFFINITY_INFO = 0x8400_0002, 0xC400_0004
SECOND = RAM + 0x1_0000
SPI = 40
SUCCESS, ALREADY_ON = 0, (1 << 64) - 4


def second(write: object, base: int = SECOND) -> Asm:
    a = Asm(base)
    write(a)  # type: ignore[operator]
    a.mov(0, CPU_OFF)
    a.hvc(0)
    return a


def call(a: Asm, function: int, *arguments: int) -> None:
    a.mov(0, function)
    for n, value in enumerate(arguments, 1):
        a.mov(n, value)
    a.hvc(0)


# -- reset --


def test_the_state_at_reset() -> None:
    rig = Rig()
    rig.vcpu.start(Start(RAM, 0x1234))
    state = rig.vcpu.context.engine.save()
    assert (state["pc"], state["pstate"]) == (RAM, 0x3C5)
    assert state["x"] == [0x1234] + [0] * 30 and state["q"] == [0] * 32
    assert rig.vcpu.context.system(sysreg(3, 0, 1, 0, 0)) & 1 == 0, "the MMU is off"


@both_engines
def test_nothing_survives_a_reset(kind: str) -> None:
    def write(a: Asm) -> None:
        for n in range(1, 30):
            a.mov(n, 0x1111 * n)
        a.msr("VBAR_EL1", 3)
        a.msr("TPIDR_EL0", 4)
        a.spsel(0)
        a.daifclr(15)
        power_off(a)

    rig, fresh = Rig(program(write), kind=kind).finish(), Rig(kind=kind)
    for vcpu in (rig.vcpu, fresh.vcpu):
        vcpu.start(Start(RAM, 7))
    saved = [vcpu.context.engine.save() for vcpu in (rig.vcpu, fresh.vcpu)]
    counts = [state.pop("count") for state in saved]
    for state in saved:
        del state["event_cleared"]  # the moment of the start
    assert saved[0] == saved[1] and counts[0]


def test_a_start_in_big_endian() -> None:
    rig = Rig()
    rig.vcpu.start(Start(RAM, 0, big_endian=True))
    assert rig.vcpu.context.system(sysreg(3, 0, 1, 0, 0)) >> 25 & 1


# -- PSCI --


@both_engines
def test_cpu_on(kind: str) -> None:
    """The second vCPU starts at its entry with its context id, in the caller's endianness; twice is
    refused."""

    def first(a: Asm) -> None:
        call(a, CPU_ON, 1, SECOND, 0xABCD)
        a.movr(19, 0)
        call(a, CPU_ON, 1, SECOND, 0)
        a.movr(20, 0)
        a.label("wait")
        call(a, AFFINITY_INFO, 1, 0)
        a.cbz(0, "wait")

    rig = Rig(program(first), kind=kind, vcpus=2)
    loop = second(lambda a: (a.mov(9, DATA), a.str_(0, 9), a.mrs(3, "MPIDR_EL1"), a.str_(3, 9, 8)))
    rig.vm.write_memory(SECOND, loop.code())
    rig.vcpus[1].init(power_off=True)
    rig.finish()
    assert (rig.x(19), rig.x(20)) == (SUCCESS, ALREADY_ON)
    assert (rig.word(DATA), rig.word(DATA + 8)) == (0xABCD, 1 << 31 | 1)
    assert all(vcpu.power is Power.OFF for vcpu in rig.vcpus)


def test_what_a_cpu_interface_is_after_off_and_on() -> None:
    """CPU_OFF in an interrupt handler; the same CPU, when it is on again, has no running priority
    and no mask."""

    def handler(a: Asm) -> None:
        for name, value in (("PMR", 0xF8), ("IGRPEN1", 1), ("SGI1R", 3 << 24 | 2)):
            a.msr_const(ICC_REGISTERS[f"ICC_{name}_EL1"], value)
        a.mrs(7, ICC_REGISTERS["ICC_IAR1_EL1"])
        a.mrs(8, ICC_REGISTERS["ICC_RPR_EL1"])
        a.mov(9, DATA + 24)
        a.str_(8, 9)

    def report(a: Asm) -> None:
        a.mov(9, DATA)
        for n, name in enumerate(("RPR", "PMR", "IGRPEN1")):
            a.mrs(8, ICC_REGISTERS[f"ICC_{name}_EL1"])
            a.str_(8, 9, 8 * n)

    def first(a: Asm) -> None:
        a.mov(10, GICD)
        a.mov(0, 3)
        a.str_w(0, 10)
        for entry in (SECOND, SECOND + 0x1000):
            call(a, CPU_ON, 1, entry, 0)
            a.label(f"on at {entry:#x}")
            call(a, AFFINITY_INFO, 1, 0)
            a.cbz(0, f"on at {entry:#x}")

    rig = Rig(program(first), vcpus=2, gic=True)
    for code in (second(handler), second(report, SECOND + 0x1000)):
        rig.vm.write_memory(code.base, code.code())
    rig.vcpus[1].init(power_off=True)
    rig.finish()
    assert [rig.word(DATA + 8 * n) for n in range(4)] == [0xFF, 0, 0, 0]


def test_a_guest_without_a_gic_has_no_cpu_interface() -> None:
    rig = faulting(lambda a: a.mrs(5, ICC_REGISTERS["ICC_PMR_EL1"]))
    assert rig.x(19) == 1 and rig.x(20) >> 26 == 0


def test_system_reset_is_the_vmm_s() -> None:
    """All vCPUs are off; the VMM may start them again. Time goes on."""
    a = Asm(RAM)
    a.mov(0, SYSTEM_RESET)
    a.hvc(0)
    rig = Rig(a, vcpus=2)
    rig.finish()
    assert rig.log == [SystemEventExit("reset", 0)]
    ns = rig.host.clock.now
    rig.vm.reset()
    rig.vcpu.start(Start(RAM, 0))
    rig.finish()
    assert rig.log[1:] == [SystemEventExit("reset", 0)] and rig.host.clock.now == 2 * ns


# -- interrupts --


def enable_spi(a: Asm) -> None:
    """SPI 40, level, group 1, to vCPU 0; PSTATE.I stays set."""
    a.mov(2, GICD)
    a.movz(3, 0x12)
    a.str_w(3, 2)
    a.mov(3, 1 << SPI - 32)
    a.str_w(3, 2, 0x84)
    a.str_w(3, 2, 0x104)
    a.msr_const(ICC_REGISTERS["ICC_SRE_EL1"], 7)
    a.isb()
    a.msr_const(ICC_REGISTERS["ICC_PMR_EL1"], 0xF0)
    a.msr_const(ICC_REGISTERS["ICC_IGRPEN1_EL1"], 1)


@both_engines
def test_wfi_until_a_line_rises(kind: str) -> None:
    """The VMM raises it between runs; the guest acknowledges, the device lowers it, it is gone."""

    def write(a: Asm) -> None:
        enable_spi(a)
        a.wfi()
        a.mrs(5, ICC_REGISTERS["ICC_IAR1_EL1"])
        a.mov(9, DEVICE)
        a.str_(5, 9)
        a.msr(ICC_REGISTERS["ICC_EOIR1_EL1"], 5)
        a.mrs(6, ICC_REGISTERS["ICC_IAR1_EL1"])

    def lower(vcpu: Vcpu, exit: MmioExit) -> None:
        rig.vm.irq_line(SPI, False)

    rig = Rig(program(write), kind=kind, gic=True)
    rig.on_mmio = lower
    assert rig.run() is Stop.IDLE
    assert rig.vcpu.power is Power.BLOCKED
    rig.vm.irq_line(SPI, True)
    rig.finish()
    assert (rig.x(5), rig.x(6)) == (SPI, 1023)


def test_an_interrupt_from_a_device_s_timer() -> None:
    """Taken at the first instruction at which it is unmasked and pending: the one after the ns it
    was raised in."""
    a = Asm(RAM)
    a.set_vectors()
    enable_spi(a)
    a.daifclr(2)
    a.label("loop")
    a.add_imm(10, 10, 1)
    a.b("loop")
    a.vectors(lambda a, offset: (a.mrs(20, "ELR_EL1"), power_off(a)))
    rig = Rig(a, gic=True)
    rig.vm.timers.register("device", lambda kind: rig.vm.irq_line(SPI, True))
    rig.vm.timers.arm(5000, "device")
    entries: list[int] = []
    rig.host.bus.subscribe(
        lambda stamp, event: entries.append(stamp.ns) if event.kind == "exception" else None
    )
    rig.finish()
    assert rig.x(20) in (a["loop"], a["loop"] + 4)
    assert 5000 <= entries[0] <= 5001


# -- two on one CPU --


@both_engines
def test_an_exclusive_does_not_survive_a_switch(kind: str) -> None:
    """7 is loaded exclusively, another vCPU writes 8 and then 7 again: the store must fail, though
    the word is 7."""

    def first(a: Asm) -> None:
        a.mov(1, DATA)
        a.mov(9, DATA + 64)
        a.movz(2, 7)
        a.str_(2, 1)
        a.ldxr(3, 1)
        a.movz(4, 1)
        a.str_(4, 9)  # your turn
        a.label("wait")
        a.ldr(4, 9, 8)
        a.cbz(4, "wait")
        a.movz(5, 99)
        a.stxr(6, 5, 1)
        a.ldxr(3, 1)
        a.stxr(7, 5, 1)  # nobody came between: this one succeeds

    def other(a: Asm) -> None:
        a.mov(1, DATA)
        a.mov(9, DATA + 64)
        a.label("wait")
        a.ldr(4, 9)
        a.cbz(4, "wait")
        for value in (8, 7):
            a.movz(2, value)
            a.str_(2, 1)
        a.str_(4, 9, 8)

    rig = Rig(program(first), kind=kind, vcpus=2)
    rig.start(second(other), 1)
    rig.finish()
    assert (rig.x(6), rig.x(7)) == (1, 0)
    assert rig.word(DATA) == 99


@both_engines
def test_each_keeps_its_registers(kind: str) -> None:
    """General, vector and system registers, over many switches."""

    def write(seed: int, rounds: int) -> object:
        def body(a: Asm) -> None:
            a.msr_const("CPACR_EL1", 3 << 20)
            a.isb()
            for n in range(10, 19):
                a.mov(n, seed * n)
            a.fmov_d(5, 17)
            a.msr("TPIDR_EL1", 18)
            a.mov(1, rounds)
            a.label("loop")
            a.subs_imm(1, 1, 1)
            a.b_cond(NE, "loop")
            a.mrs(3, "TPIDR_EL1")

        return body

    rig = Rig(program(write(3, 200_000)), kind=kind, vcpus=2)  # type: ignore[arg-type]
    rig.start(second(write(5, 120_000)), 1)
    rig.host.run(until=6 * QUANTUM_NS)
    rig.run()
    for seed, vcpu in ((3, 0), (5, 1)):
        assert [rig.x(n, vcpu) for n in range(10, 19)] == [seed * n for n in range(10, 19)]
        assert rig.x(3, vcpu) == seed * 18
        assert rig.vcpus[vcpu].context.engine.q(5) == seed * 17


def test_what_is_told_about_a_vcpu() -> None:
    seen: list[tuple[int, str]] = []

    def sink(stamp: Stamp, event: Event) -> None:
        if isinstance(event, Schedule):
            seen.append((event.target, event.what))

    rig = Rig(vcpus=1)
    rig.host.bus.subscribe(sink)
    rig.start(program(lambda a: a.wfi()))
    rig.run()
    assert seen == [(0, "runnable"), (0, "load"), (0, "put"), (0, "blocked")]
    rig.vcpu.wake()
    rig.run()
    assert seen[4:] == [(0, "runnable"), (0, "load"), (0, "off"), (0, "put")]


@pytest.mark.parametrize("mapped", [True, False])
def test_translate(mapped: bool) -> None:
    """KVM_TRANSLATE through stage 1, where stage 2 knows nothing of the page yet."""
    rig = Rig()
    table = RAM + 0x30_0000
    rig.vm.write_memory(table + 8, struct.pack("<Q", RAM | 0x705))  # a 1 GiB block at VA 1 GiB

    def write(a: Asm) -> None:
        enable_stage1(a, table)

    rig.start(program(write))
    rig.run(17)
    va = 0x4035_0123 if mapped else 0x9000_0000
    assert rig.vcpu.translate(va) == (va if mapped else None)
