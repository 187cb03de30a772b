"""A small VM on the KVM API: RAM, vCPUs, a program in words, and a VMM that answers from a table
and writes a log.

The program starts at `RAM` on vCPU 0 with the MMU off; other vCPUs start where `Rig.start` says. It
ends by `power_off`: PSCI SYSTEM_OFF.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from asm import EQ, NE, XZR, Asm
from conftest import require_native

from armvirt.arch.encoding import sysreg
from armvirt.errors import KvmError
from armvirt.hyp.kvm import (
    Exit,
    HostMemory,
    Kvm,
    MmioExit,
    SemihostingExit,
    Start,
    Stop,
    StuckExit,
    SystemEventExit,
    Vcpu,
    VgicAddress,
    VgicCtrl,
    VgicGroup,
)

__all__ = ["DATA", "DEVICE", "EQ", "GICD", "GICR", "KINDS", "NE", "NOWHERE", "OTHER", "RAM", "RAM_SIZE", "STACK", "XZR",
           "Asm", "Rig", "assembled", "both_engines", "cpu_off", "errno_of", "faulting", "native_first", "power_off",
           "program", "run", "two_vcpus", "wake_by_timer"]  # fmt: skip

RAM, RAM_SIZE = 0x4000_0000, 4 << 20
OTHER = RAM + 0x1000
DATA, STACK = RAM + 0x10_0000, RAM + 0x20_0000
DEVICE, NOWHERE = 0x0A00_0000, 0x0B00_0000
GICD, GICR = 0x0800_0000, 0x080A_0000
SYSTEM_OFF, SYSTEM_RESET, CPU_ON = 0x8400_0008, 0x8400_0009, 0xC400_0003
CPU_OFF = 0x8400_0002
CNTV_TVAL, CNTV_CTL, CNTVCT = sysreg(3, 3, 14, 3, 0), sysreg(3, 3, 14, 3, 1), sysreg(3, 3, 14, 0, 2)
KINDS = ("native", "portable")
LIMIT_NS = 50_000_000

both_engines = pytest.mark.parametrize("kind", KINDS)
native_first = pytest.mark.parametrize(
    "kind", ["native", pytest.param("portable", marks=pytest.mark.long)]
)
"""As `both_engines`, for guests that keep the portable engine busy for seconds."""


Write = Callable[[Asm], None]


def errno_of(call: Callable[..., object], *arguments: object) -> str:
    """The errno that a call of the API ends with."""
    with pytest.raises(KvmError) as caught:
        call(*arguments)
    return caught.value.errno


def power_off(a: Asm) -> None:
    a.mov(0, SYSTEM_OFF)
    a.hvc(0)


def cpu_off(a: Asm) -> None:
    """PSCI CPU_OFF."""
    a.mov(0, CPU_OFF)
    a.hvc(0)


def enable_stage1(a: Asm, table: int) -> None:
    """Enable the MMU of EL1 with TTBR0_EL1 = ``table``: a 39-bit space, 4 KiB granule."""
    a.msr_const("TTBR0_EL1", table)
    a.msr_const("TCR_EL1", 25 | 25 << 16 | 1 << 23)
    a.msr_const("MAIR_EL1", 0xFF)
    a.mrs(3, "SCTLR_EL1")
    a.add_imm(3, 3, 1)
    a.msr("SCTLR_EL1", 3)
    a.isb()


def program(write: Write, base: int = RAM) -> Asm:
    """``write``, then power off."""
    a = Asm(base)
    write(a)
    power_off(a)
    return a


def assembled(write: Write, base: int = RAM) -> Asm:
    """``write`` and nothing more."""
    a = Asm(base)
    write(a)
    return a


class Rig:
    """``devices`` maps an address in the page at `DEVICE` to what a read gives; everything else is
    nobody's."""

    def __init__(
        self,
        code: Asm | None = None,
        *,
        kind: str = "auto",
        vcpus: int = 1,
        gic: bool = False,
        frequency_hz: int = 62_500_000,
        pcpus: int = 1,
        quantum_ns: int = 100_000,
        vhe: bool = False,
    ) -> None:
        if kind == "native":
            require_native()
        self.kvm = Kvm(
            engine=kind, frequency_hz=frequency_hz, pcpus=pcpus, quantum_ns=quantum_ns, vhe=vhe
        )
        self.host = self.kvm.host
        self.vm = self.kvm.create_vm()
        self.ram = HostMemory(RAM_SIZE)
        self.vm.set_user_memory_region(0, RAM, self.ram)
        self.vcpus = [self.vm.create_vcpu(n) for n in range(vcpus)]
        if gic:
            self._create_gic()
        self.devices: dict[int, int] = {}
        self.log: list[Exit] = []
        self.on_mmio: Callable[[Vcpu, MmioExit], bool | None] | None = None
        for vcpu in self.vcpus:
            vcpu.exit_handler = self.handle
        if code is not None:
            self.start(code)

    def _create_gic(self) -> None:
        self.gic = self.vm.create_device("arm-vgic-v3")
        self.gic.set_attr(VgicGroup.ADDR, VgicAddress.V3_DIST, GICD)
        self.gic.set_attr(VgicGroup.ADDR, VgicAddress.V3_REDIST, GICR)
        self.gic.set_attr(VgicGroup.NR_IRQS, 0, 96)
        self.gic.set_attr(VgicGroup.CTRL, VgicCtrl.INIT)

    @property
    def vcpu(self) -> Vcpu:
        return self.vcpus[0]

    def start(self, code: Asm, vcpu: int = 0) -> None:
        """Write a program and start a vCPU at its first word."""
        self.vm.write_memory(code.base, code.code())
        self.vcpus[vcpu].start(Start(code.base, 0))

    def handle(self, vcpu: Vcpu, exit: Exit) -> bool | None:
        """The VMM: every exit goes into the log; an end stops the run."""
        self.log.append(exit)
        if isinstance(exit, MmioExit):
            if self.on_mmio is not None:
                return self.on_mmio(vcpu, exit)
            exit.abort = not DEVICE <= exit.phys_addr < DEVICE + 0x1000
            if not exit.is_write:
                exit.data = self.devices.get(exit.phys_addr, 0)
            return False
        return isinstance(exit, (SystemEventExit, StuckExit, SemihostingExit))

    def run(self, until: int = LIMIT_NS) -> Stop:
        return self.host.run(until)

    def finish(self) -> Rig:
        """Run to the end of the guest, which is no dead end."""
        assert self.run() is Stop.HANDLER, f"no end; pc {self.vcpu.context.pc:#x}"
        assert not self.log or not isinstance(self.end, StuckExit), self.end
        return self

    def x(self, n: int, vcpu: int = 0) -> int:
        return self.vcpus[vcpu].context.x(n)

    def word(self, address: int, size: int = 8) -> int:
        return int.from_bytes(self.vm.read_memory(address, size), "little")

    @property
    def mmio(self) -> list[tuple[int, int, bool, int]]:
        """(address, size, is_write, data) of each device access so far."""
        return [
            (e.phys_addr, e.size, e.is_write, e.data) for e in self.log if isinstance(e, MmioExit)
        ]

    @property
    def end(self) -> Exit:
        return self.log[-1]

    def close(self) -> None:
        for vcpu in self.vcpus:
            vcpu.context.engine.close()


def run(write: Write, kind: str = "auto", **options: object) -> Rig:
    """A VM of one vCPU that has run a program to its end."""
    return Rig(program(write), kind=kind, **options).finish()


def faulting(write: Write, kind: str = "auto", **options: object) -> Rig:
    """The same, but an exception to EL1 ends it: then ESR, FAR and ELR are in X20, X21, X22, and
    X19 is 1."""
    a = Asm(RAM)
    a.set_vectors()
    write(a)
    power_off(a)
    a.vectors(_end)
    return Rig(a, kind=kind, **options).finish()


def two_vcpus(first: Write, second: Write, **options: object) -> Rig:
    """CPU 0 runs ``first``, CPU 1 ``second``; each has to end by itself."""
    rig = Rig(assembled(first), vcpus=2, **options)  # type: ignore[arg-type]
    rig.start(assembled(second, OTHER), 1)
    return rig


def wake_by_timer(a: Asm) -> None:
    """Sleep 10 us (625 ticks) by the virtual timer; X5, X6: the count before and after."""
    a.mov(2, 0x0800_0000)  # GICD: affinity routing and group 1
    a.movz(3, 0x12)
    a.str_w(3, 2)
    a.mov(2, 0x080B_0000)  # GICR SGI frame: PPI 27 in group 1, enabled
    a.mov(3, 1 << 27)
    a.str_w(3, 2, 0x80)
    a.str_w(3, 2, 0x100)
    a.mov(2, 0x080A_0000)  # GICR_WAKER
    a.str_w(31, 2, 0x14)
    a.msr_const(sysreg(3, 0, 12, 12, 5), 7)
    a.isb()
    a.msr_const(sysreg(3, 0, 4, 6, 0), 0xFF)
    a.msr_const(sysreg(3, 0, 12, 12, 7), 1)
    a.mrs(5, CNTVCT)
    a.msr_const(CNTV_TVAL, 625)
    a.msr_const(CNTV_CTL, 1)
    a.wfi()
    a.mrs(6, CNTVCT)


def _end(a: Asm, offset: int) -> None:
    a.mov(19, 1)
    for register, name in ((20, "ESR_EL1"), (21, "FAR_EL1"), (22, "ELR_EL1")):
        a.mrs(register, name)
    power_off(a)
