"""A host with PEs, a vGICv3 and guests that do one instruction on demand: the timers' machine, with
a hand on it.

Everything goes the way that it goes for any guest: instructions are executed by the engine, trap or
do not, and exits are handled by the run loop. Between two instructions a guest waits in a branch to
itself, or in a loop of NOPs.
"""

from __future__ import annotations

from typing import NamedTuple

from hyp_tools import GICD, GICR, RAM, Asm

from armvirt.arch.encoding import sysreg
from armvirt.arch.gic import ICC_REGISTERS
from armvirt.arch.sysregs import encoding_of
from armvirt.hw.engine.state import Stat
from armvirt.hw.exit import ExitKind
from armvirt.hyp.host.pcpu import Pcpu
from armvirt.hyp.kvm import (
    ONE_REG_ARM64_CORE,
    ONE_REG_ARM64_SYSREG,
    Exit,
    HostMemory,
    Kvm,
    Start,
    Vcpu,
    VgicAddress,
    VgicCtrl,
    VgicGroup,
)

QUANTUM_NS = 1 << 62  # a turn ends when the driver says so
TURN_FOREVER = 1 << 63
RAM_SIZE = 1 << 16
X0, X1, PC, PSTATE = (ONE_REG_ARM64_CORE | n for n in (0, 2, 0x40, 0x42))
VBAR_EL1, ESR_EL1 = (ONE_REG_ARM64_SYSREG | sysreg(3, 0, *rest) for rest in ((12, 0, 0), (5, 2, 0)))
EL1_MASKED, EL1_OPEN, EL0_MASKED = (
    0x385,
    0x305,
    0x380,
)  # FIQs are open: with both masked a spin is a dead end
BRANCH_TO_ITSELF = 0x1400_0000
VECTOR_IRQ, VECTOR_SYNC_EL0 = 0x280, 0x400
BUSY_NOPS = 13
MANY_INTERRUPTS = 100  # between two comparisons
ALARM = "timer-rig-alarm"

TIMER_REGISTERS = tuple(
    f"CNT{letter}_{register}_EL0" for letter in "VP" for register in ("CTL", "CVAL", "TVAL")
)
COUNTERS = ("CNTVCT_EL0", "CNTPCT_EL0", "CNTVCTSS_EL0", "CNTPCTSS_EL0")
ICC_READ, ICC_WRITTEN = (
    ("IAR1", "RPR", "HPPIR1"),
    ("EOIR1", "DIR", "PMR", "IGRPEN1", "CTLR", "BPR1"),
)


class Form(NamedTuple):
    """What kind of host it is."""

    vhe: bool
    cntpoff: bool


class Shape(NamedTuple):
    """The machine: everything that is decided when it is built. ``watched``: by a trace, so that
    every access of a timer is the Python of this side (docs/engine.md, "Shadow registers")."""

    form: Form = Form(False, False)
    vcpus: int = 1
    pcpus: int = 1
    frequency_hz: int = 62_500_000
    counter_start: int = 0
    virtual_start: int = 0
    list_registers: int = 4
    ecv: bool = False
    watched: bool = False


def _take(a: Asm, _: int) -> None:
    """An exception masks FIQs too."""
    a.daifclr(1)
    a.word(BRANCH_TO_ITSELF)


def _program() -> Asm:
    """The vectors, the two places to wait, and every instruction that a guest can be asked for."""
    a = Asm(RAM)
    a.vectors(_take)
    a.label("idle")
    a.word(BRANCH_TO_ITSELF)
    a.label("busy")
    for _ in range(BUSY_NOPS):
        a.nop()
    a.b("busy")
    for name in (*TIMER_REGISTERS, *COUNTERS):
        a.label("mrs " + name)
        a.mrs(
            0,
            encoding_of(name)
            if not name.endswith("SS_EL0")
            else sysreg(3, 3, 14, 0, 5 + (name[3] == "V")),
        )
    for name in (*TIMER_REGISTERS, "CNTKCTL_EL1"):
        a.label("msr " + name)
        a.msr(name, 0)
    for name in ICC_READ:
        a.label("mrs " + name)
        a.mrs(0, ICC_REGISTERS[f"ICC_{name}_EL1"])
    for name in ICC_WRITTEN:
        a.label("msr " + name)
        a.msr(ICC_REGISTERS[f"ICC_{name}_EL1"], 0)
    a.label("wfi")
    a.wfi()
    a.label("ldr")
    a.ldr_w(0, 1)
    a.label("str")
    a.str_w(0, 1)
    a.nop()
    return a


def _to_nobody(_: Vcpu, exit: Exit) -> bool:
    raise AssertionError(f"an exit to the VMM: {exit}")


PROGRAM = _program()
CODE, IDLE, BUSY, VECTORS = PROGRAM.code(), PROGRAM["idle"], PROGRAM["busy"], PROGRAM["vectors"]


class Rig:
    """The machine of a shape. Time is where its clock is; vCPUs that could run start on no PE."""

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        self.kvm = Kvm(
            frequency_hz=shape.frequency_hz, pcpus=shape.pcpus, counter_start=shape.counter_start,
            vhe=shape.form.vhe, cntpoff=shape.form.cntpoff, list_registers=shape.list_registers,
            cpu_features=("ecv",) if shape.ecv else (), quantum_ns=QUANTUM_NS,
        )  # fmt: skip
        self.host, self.clock = self.kvm.host, self.kvm.host.clock
        if shape.watched:
            self.host.bus.subscribe(lambda stamp, event: None)
        self.vm = self.kvm.create_vm(virtual_start=shape.virtual_start)
        self.vm.set_user_memory_region(0, RAM, HostMemory(RAM_SIZE))
        self.vcpus = [self.vm.create_vcpu(n) for n in range(shape.vcpus)]
        gic = self.vm.create_device("arm-vgic-v3")
        gic.set_attr(VgicGroup.ADDR, VgicAddress.V3_DIST, GICD)
        gic.set_attr(VgicGroup.ADDR, VgicAddress.V3_REDIST, GICR)
        gic.set_attr(VgicGroup.CTRL, VgicCtrl.INIT)
        self.vgic = self.vm.vgic_of()
        self.clock.register(ALARM, lambda _: None)
        self._acknowledge, self._host_interrupts = self.host.gic.acknowledge, 0
        self.host.gic.acknowledge = self._count_interrupt  # type: ignore[method-assign]
        self.vm.write_memory(RAM, CODE)
        for vcpu in self.vcpus:
            vcpu.exit_handler = _to_nobody
            vcpu.start(Start(IDLE, 0))
            vcpu.set_one_reg(PSTATE, EL1_MASKED)
            vcpu.set_one_reg(VBAR_EL1, VECTORS)

    def close(self) -> None:
        for vcpu in self.vcpus:
            vcpu.context.engine.close()

    def successor(self) -> Rig:
        """Another host to which everything here has moved."""
        other = Rig(self.shape)
        other.kvm.load(self.kvm.state())
        self.close()
        return other

    def _count_interrupt(self, pe: int) -> int:
        """A host that is interrupted for ever lets no time pass."""
        self._host_interrupts += 1
        assert self._host_interrupts < MANY_INTERRUPTS, f"PE {pe} is interrupted again and again"
        return self._acknowledge(pe)

    @property
    def now(self) -> int:
        return self.clock.now

    def runnable(self) -> list[int]:
        return [n for n, vcpu in enumerate(self.vcpus) if vcpu.runnable]

    def blocked(self, n: int) -> bool:
        return self.vcpus[n].is_blocked

    # The host's scheduler

    def place(self, n: int, pe: int) -> None:
        """Let vCPU ``n`` run next, on a PE."""
        vcpu, pcpu = self.vcpus[n], self.host.pcpus[pe]
        if vcpu.pe is not pcpu.pe:
            if vcpu.pe is not None:
                vcpu.put()
            self._move(vcpu, pcpu)
        self.host.turn, self.host.turn_end = pcpu, TURN_FOREVER

    def _move(self, vcpu: Vcpu, pcpu: Pcpu) -> None:
        if vcpu.sched.home is not None and vcpu.sched.home != pcpu.index:
            self.host.pcpus[vcpu.sched.home].leave(vcpu)
        vcpu.sched.home = pcpu.index
        pcpu.switch(vcpu, self.now)

    def turn_to(self, n: int) -> Vcpu:
        """Let it run next, where it is at home."""
        vcpu = self.vcpus[n]
        self.place(n, vcpu.sched.home or 0)
        return vcpu

    def settle(self) -> None:
        """What has to be done at this instant before any guest goes on: timers that are due, and
        for every loaded vCPU an exit, and the entry up to its first instruction. (A line that falls
        because its count rolls over is seen at an exit.)"""
        self._host_interrupts = 0
        self.clock.run_due()
        for vcpu in self.vcpus:
            if vcpu.pe is not None:
                vcpu.timer.sync()
            while vcpu.pe is not None and vcpu.enter(self.now).kind is ExitKind.IRQ:
                pass

    # Time

    def run_until(self, when: int) -> None:
        """The host's loop until ``when`` ns, whoever runs; a guest that waits for nothing does not
        stop it."""
        self.clock.arm(when, ALARM)
        self.host.run(when)
        self.clock.cancel(ALARM)

    def wait(self, n: int, when: int, *, busy: bool, opened: bool) -> bool:
        """vCPU ``n`` waits until ``when`` ns; ``opened``: PSTATE.I is 0. Whether it took an
        interrupt."""
        vcpu = self.turn_to(n)
        vcpu.set_one_reg(PC, BUSY if busy else IDLE)
        vcpu.set_one_reg(PSTATE, EL1_OPEN if opened else EL1_MASKED)
        self.run_until(when)
        taken = vcpu.get_one_reg(PC) - VECTORS - VECTOR_IRQ in (0, 4)
        vcpu.set_one_reg(PC, IDLE)
        vcpu.set_one_reg(PSTATE, EL1_MASKED)
        return taken

    # Guests

    def execute(self, n: int, instruction: str, x0: int = 0, x1: int = 0) -> int:
        """vCPU ``n`` executes one instruction at EL1; X0 afterwards."""
        vcpu = self.turn_to(n)
        self._step(vcpu, instruction, x0, x1)
        assert vcpu.get_one_reg(PC) == PROGRAM[instruction] + 4, f"{instruction} did not retire"
        vcpu.set_one_reg(PC, IDLE)
        return vcpu.get_one_reg(X0)

    def execute_el0(self, n: int, instruction: str, x0: int = 0) -> int | None:
        """The same at EL0; None where it is an exception to EL1 with EC 0x18."""
        vcpu = self.turn_to(n)
        vcpu.set_one_reg(PSTATE, EL0_MASKED)
        self._step(vcpu, instruction, x0, 0)
        answer: int | None = vcpu.get_one_reg(X0)
        if vcpu.get_one_reg(PC) != PROGRAM[instruction] + 4:
            assert (
                vcpu.get_one_reg(PC) == VECTORS + VECTOR_SYNC_EL0
                and vcpu.get_one_reg(ESR_EL1) >> 26 == 0x18
            )
            answer = None
        vcpu.set_one_reg(PC, IDLE)
        vcpu.set_one_reg(PSTATE, EL1_MASKED)
        return answer

    def _step(self, vcpu: Vcpu, instruction: str, x0: int, x1: int) -> None:
        vcpu.set_one_reg(X0, x0)
        vcpu.set_one_reg(X1, x1)
        vcpu.set_one_reg(PC, PROGRAM[instruction])
        self.host.run(insns=self.host.insns + 1)

    def traps(self, n: int) -> tuple[int, int]:
        """How often the engine of a vCPU has called EL2, and the exception class of the last
        time."""
        state = self.vcpus[n].context.engine.state
        return state.stats[Stat.EL2], state.esr >> 26
