"""KVM's arch_timer selftest on several vCPUs, ported: one program for all of them, `host.run`
drives them all, each has its exit handler, and what the selftest's migration thread does is
`Vcpu.pin` between two slices of the run."""

from __future__ import annotations

import random
from itertools import pairwise
from typing import NamedTuple

import pytest
from gic_vm import make_gic, make_vm
from hyp_tools import DATA, DEVICE, GICD, GICR, NE, RAM, Asm
from timer_vm import HOSTS, ticks_of_us

from armvirt.arch.gic import ICC_REGISTERS
from armvirt.arch.timer import CTL_ENABLE, CTL_IMASK, CTL_ISTATUS
from armvirt.hyp.kvm import Exit, MmioExit, Start, Vcpu, VcpuGroup, Vm

ITERATIONS = 5
PERIOD = ticks_of_us(10)
STAGES = (("V", "cval"), ("V", "tval"), ("P", "cval"), ("P", "tval"))
SYNC, YIELD, DONE = DEVICE, DEVICE + 8, DEVICE + 16
QUANTUM_NS = 5_000
VTIMER, PTIMER = 0, 1
RECORD = 32  # bytes in a vCPU's log for each interrupt: INTID, count, CVAL, CTL


class Irq(NamedTuple):
    intid: int
    count: int
    cval: int
    ctl: int


def log_of(vcpu: int) -> int:
    return DATA + 0x1000 * (vcpu + 1)


def guest(ppis: tuple[int, int], wait: str) -> Asm:
    """X0 is the vCPU's number. X19 its log, X20 the device, X23 how many interrupts it took."""
    a = Asm(RAM)
    a.set_vectors()
    a.mov(20, DEVICE)
    a.mov(1, 0x1000)
    a.mov(19, log_of(0))
    a.mov(22, GICR + 0x1_0100)  # GICR_ISENABLER0 of the first frame
    a.mov(2, 0x2_0000)
    a.label("mine")
    a.cbz(0, "there")
    a.add(19, 19, 1)
    a.add(22, 22, 2)
    a.subs_imm(0, 0, 1)
    a.b("mine")
    a.label("there")
    a.mov(1, 1 << ppis[0] | 1 << ppis[1])
    a.str_w(1, 22)
    a.mov(23, 0)
    for name, value in (("PMR", 0xF0), ("IGRPEN1", 1)):
        a.mov(1, value)
        a.msr(ICC_REGISTERS[f"ICC_{name}_EL1"], 1)
    a.daifclr(2)
    for stage, (letter, register) in enumerate(STAGES):
        _stage(a, stage, letter, register, wait)
    a.str_(23, 20, DONE - DEVICE)
    a.label("end")
    a.wfi()
    a.b("end")
    a.vectors(lambda a, offset: a.b("handler") if offset == 0x280 else a.udf())
    _handler(a, ppis)
    return a


def _stage(a: Asm, stage: int, letter: str, register: str, wait: str) -> None:
    a.mov(24, ITERATIONS)
    a.label(f"stage {stage}")
    a.movr(25, 23)
    if register == "cval":
        a.mrs(1, f"CNT{letter}CT_EL0")
        a.mov(2, PERIOD)
        a.add(1, 1, 2)
        a.msr(f"CNT{letter}_CVAL_EL0", 1)
    else:
        a.mov(1, PERIOD)
        a.msr(f"CNT{letter}_TVAL_EL0", 1)
    a.mov(1, CTL_ENABLE)
    a.msr(f"CNT{letter}_CTL_EL0", 1)
    a.label(f"wait {stage}")
    a.eor(5, 23, 25)
    a.cbnz(5, f"next {stage}")
    {"wfi": a.wfi, "poll": a.nop, "yield": lambda: a.ldr(5, 20, YIELD - DEVICE)}[wait]()
    a.b(f"wait {stage}")
    a.label(f"next {stage}")
    a.subs_imm(24, 24, 1)
    a.b_cond(NE, f"stage {stage}")
    a.mov(1, stage)
    a.str_(1, 20)


def _handler(a: Asm, ppis: tuple[int, int]) -> None:
    a.label("handler")
    a.mrs(10, ICC_REGISTERS["ICC_IAR1_EL1"])
    a.cmp_imm(10, ppis[0])
    a.b_cond(NE, "physical")
    for letter in "VP":
        if letter == "P":
            a.label("physical")
        for n, name in enumerate(("CT", "_CVAL", "_CTL"), start=11):
            a.mrs(n, f"CNT{letter}{name}_EL0")
        a.mov(14, CTL_IMASK)
        a.msr(f"CNT{letter}_CTL_EL0", 14)
        if letter == "V":
            a.b("log")
    a.label("log")
    for n in (10, 11, 12, 13):
        a.str_post(n, 19, 8)
    a.add_imm(23, 23, 1)
    a.msr(ICC_REGISTERS["ICC_EOIR1_EL1"], 10)
    a.eret()


class Selftest:
    """The VMM: its vCPUs' exit handlers, and what each vCPU has reported."""

    def __init__(
        self, vcpus: int, pcpus: int, host: str, wait: str, ppis: tuple[int, int] = (27, 30)
    ) -> None:
        self.vm: Vm = make_vm(range(vcpus), pcpus=pcpus, quantum_ns=QUANTUM_NS, **HOSTS[host])  # type: ignore[arg-type]
        self.gic = make_gic(self.vm)
        self.gic.set_attr(1, 0, 2)  # type: ignore[attr-defined]  # GICD_CTLR: both groups go to EL1 as one
        self.ppis, self.pcpus = ppis, pcpus
        for attr, ppi in zip((VTIMER, PTIMER), ppis, strict=True):
            self.vm.vcpu(0).set_device_attr(VcpuGroup.TIMER_CTRL, attr, ppi)
        code = guest(ppis, wait)
        self.vm.write_memory(RAM, code.code())
        self.stages: dict[int, list[int]] = {n: [] for n in range(vcpus)}
        self.irqs: dict[int, int] = {}
        self.visited: dict[int, set[int]] = {n: set() for n in range(vcpus)}
        for vcpu in self.vm.vcpus:
            vcpu.exit_handler = self.handle
            vcpu.start(Start(RAM, vcpu.id))

    def handle(self, vcpu: Vcpu, exit: Exit) -> bool:
        assert isinstance(exit, MmioExit), exit
        assert vcpu.pe is not None
        self.visited[vcpu.id].add(vcpu.pe.index)
        if exit.phys_addr == SYNC:
            self.stages[vcpu.id].append(exit.data)
        elif exit.phys_addr == DONE:
            self.irqs[vcpu.id] = exit.data
        return len(self.irqs) == len(self.stages)

    def run(self, seed: int | None = None) -> None:
        """To the end; with a seed, every vCPU goes to another CPU after each slice."""
        rng = random.Random(seed)
        while len(self.irqs) < len(self.stages):
            assert self.vm.timers.now < 100_000_000, f"no end: {self.stages}"
            self.vm.host.run(self.vm.timers.now + 3_333)
            for vcpu in self.vm.vcpus if seed is not None else ():
                vcpu.pin(rng.randrange(self.pcpus))

    def log(self, vcpu: int) -> list[Irq]:
        data = self.vm.read_memory(log_of(vcpu), RECORD * self.irqs[vcpu])
        words = [int.from_bytes(data[n : n + 8], "little") for n in range(0, len(data), 8)]
        return [Irq(*words[n : n + 4]) for n in range(0, len(words), 4)]

    def check(self, rounds: int = 2) -> None:
        """Stages in order; one interrupt for each program, of the timer that was programmed, not
        early, and late by no more than so many ``rounds`` of everybody's turns: one that the dice
        send to and fro waits longer."""
        margin = ticks_of_us(1) * QUANTUM_NS // 1000 * rounds * len(self.stages)
        for vcpu, stages in self.stages.items():
            assert stages == list(range(len(STAGES)))
            log = self.log(vcpu)
            ppi = dict(zip("VP", self.ppis, strict=True))
            assert [irq.intid for irq in log] == [
                ppi[letter] for letter, _ in STAGES for _ in range(ITERATIONS)
            ]
            for irq in log:
                assert irq.cval <= irq.count <= irq.cval + margin
                assert irq.ctl == CTL_ENABLE | CTL_ISTATUS
            assert all(later.count >= earlier.count for earlier, later in pairwise(log))


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("wait", ["wfi", "poll", "yield"])
@pytest.mark.parametrize(("vcpus", "pcpus"), [(1, 1), (2, 1), (4, 2), (4, 4)])
def test_four_stages_on_every_vcpu(vcpus: int, pcpus: int, wait: str, host: str) -> None:
    test = Selftest(vcpus, pcpus, host, wait)
    test.run()
    test.check()


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("wait", ["wfi", "poll", "yield"])
@pytest.mark.parametrize(("vcpus", "pcpus"), [(1, 2), (2, 3), (4, 2)])
def test_the_same_with_vcpus_that_migrate(vcpus: int, pcpus: int, wait: str, host: str) -> None:
    test = Selftest(vcpus, pcpus, host, wait)
    test.run(seed=vcpus * 8 + pcpus)
    test.check(rounds=8)
    assert all(len(pes) == pcpus for pes in test.visited.values()) or wait != "yield"


@pytest.mark.parametrize("offset", [12345, (1 << 64) - 5])
def test_the_same_with_a_counter_offset(offset: int) -> None:
    test = Selftest(2, 2, "nvhe", "wfi")
    test.vm.set_counter_offset(offset)
    test.run(seed=1)
    test.check()
    first = test.log(0)[0]
    assert first.count - (test.vm.host.pe.timer.counter.start - offset) & (
        1 << 64
    ) - 1 < ticks_of_us(1000)


def test_the_same_with_other_ppis() -> None:
    test = Selftest(2, 2, "nvhe", "wfi", ppis=(20, 21))
    assert all(v.get_device_attr(VcpuGroup.TIMER_CTRL, VTIMER) == 20 for v in test.vm.vcpus)
    test.run(seed=2)
    test.check()


def test_the_distributor_is_where_it_is_said_to_be() -> None:
    """The program above counts on the frames of `make_gic`."""
    assert GICR - GICD == 0xA_0000
