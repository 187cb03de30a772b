"""A VM on the KVM API alone, and a guest that executes one access at a time as the test asks.

`Puppet` is a vCPU whose program reads a word from a device; the word is the address of a few
instructions that it then executes. So a test is written as the guest's own sequence of accesses,
every one of which is a real instruction, and the VMM can act between any two of them, as the
GUEST_SYNC of KVM's selftests lets it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hyp_tools import DATA, DEVICE, GICD, GICR, RAM, RAM_SIZE, Asm

from armvirt.arch.gic import ICC_REGISTERS
from armvirt.hyp.kvm import HostMemory, Kvm, MmioExit, Start, VgicAddress, VgicCtrl, VgicGroup, Vm

SPURIOUS = 1023
NR_IRQS = 96
SGI_BASE = 0x1_0000
IPA_BITS = 40
IPA_END = 1 << IPA_BITS
ISENABLER, ICENABLER, ISPENDR, ICPENDR, ISACTIVER, ICACTIVER = (
    0x100,
    0x180,
    0x200,
    0x280,
    0x300,
    0x380,
)


def make_vm(vcpus: Sequence[int] = (0,), **host: int) -> Vm:
    """A VM with RAM and these vCPUs, created in this order."""
    vm = Kvm(**host).create_vm()  # type: ignore[arg-type]
    vm.set_user_memory_region(0, RAM, HostMemory(RAM_SIZE))
    for n in vcpus:
        vm.create_vcpu(n)
    return vm


def run_vcpu(vm: Vm, vcpu_id: int) -> object:
    """KVM_RUN of a vCPU that does nothing but power the VM off."""
    a = Asm(RAM)
    a.mov(0, 0x8400_0008)
    a.hvc(0)
    vm.write_memory(RAM, a.code())
    vm.vcpu(vcpu_id).start(Start(RAM, 0))
    return vm.vcpu(vcpu_id).run()


def make_gic(vm: Vm, nr_irqs: int = NR_IRQS) -> object:
    gic = vm.create_device("arm-vgic-v3")
    gic.set_attr(VgicGroup.NR_IRQS, 0, nr_irqs)
    gic.set_attr(VgicGroup.ADDR, VgicAddress.V3_DIST, GICD)
    gic.set_attr(VgicGroup.ADDR, VgicAddress.V3_REDIST, GICR)
    gic.set_attr(VgicGroup.CTRL, VgicCtrl.INIT)
    return gic


class Puppet:
    """vCPU 0 of ``vm``, at rest between two of its accesses. Interrupts are masked but for
    `take`."""

    def __init__(self, vm: Vm) -> None:
        self.vm, self.vcpu = vm, vm.vcpu(0)
        self._exit: MmioExit | None = None
        a = self._code = Asm(RAM)
        self._write(a)
        vm.write_memory(RAM, a.code())
        self.vcpu.start(Start(RAM, 0))
        self._resume()

    def _write(self, a: Asm) -> None:
        a.set_vectors()
        a.mov(20, DEVICE)
        a.mov(21, DATA)
        a.label("next")
        a.ldr(1, 20)  # the VMM answers with the address of what to do
        a.ldr(2, 21)
        a.ldr(3, 21, 8)
        a.br(1)
        self._snippet("load", lambda: a.ldr_w(4, 2))
        self._snippet("store", lambda: a.str_w(3, 2))
        self._snippet("wfi", lambda: a.wfi())
        self._snippet(
            "take", lambda: (a.mov(4, 0xFFFF_FFFF), a.daifclr(2), a.nop(), a.nop(), a.daifset(2))
        )
        for name in ("IAR1", "HPPIR1", "RPR", "AP1R0", "CTLR", "PMR", "BPR0", "BPR1", "IGRPEN1"):
            self._snippet(
                f"read {name}", lambda name=name: a.mrs(4, ICC_REGISTERS[f"ICC_{name}_EL1"])
            )
        for name in ("EOIR1", "DIR", "AP1R0", "CTLR", "PMR", "BPR0", "BPR1", "IGRPEN1", "SGI1R"):
            self._snippet(
                f"write {name}", lambda name=name: a.msr(ICC_REGISTERS[f"ICC_{name}_EL1"], 3)
            )
        for name in ("CNTV_CTL_EL0", "CNTV_CVAL_EL0"):
            self._snippet(f"write {name}", lambda name=name: a.msr(name, 3))
        a.vectors(self._vector)

    def _snippet(self, label: str, write: Callable[[], object]) -> None:
        self._code.label(label)
        write()
        self._code.str_(4, 21, 16)
        self._code.b("next")

    @staticmethod
    def _vector(a: Asm, offset: int) -> None:
        """IRQ from EL1: acknowledge, and go back with interrupts masked. Anything else is a
        mistake: hang."""
        if offset != 0x280:
            a.udf()
            return
        a.mrs(4, ICC_REGISTERS["ICC_IAR1_EL1"])
        a.mrs(6, "SPSR_EL1")
        a.mov(7, 0x80)
        a.orr(6, 6, 7)
        a.msr("SPSR_EL1", 6)
        a.eret()

    def _resume(self) -> None:
        exit = self.vcpu.run()
        assert isinstance(exit, MmioExit) and exit.phys_addr == DEVICE, exit
        self._exit = exit

    def do(self, what: str, address: int = 0, value: int = 0) -> int:
        """Let the guest do one thing; the result is what it read."""
        self.vm.write_memory(DATA, address.to_bytes(8, "little") + value.to_bytes(8, "little"))
        assert self._exit is not None
        self._exit.data = self._code[what]
        self._resume()
        return int.from_bytes(self.vm.read_memory(DATA + 16, 8), "little")

    # What a guest does

    def icc(self, name: str, value: int | None = None) -> int:
        return self.do(f"read {name}") if value is None else self.do(f"write {name}", value=value)

    def load(self, address: int) -> int:
        return self.do("load", address) & 0xFFFF_FFFF

    def store(self, address: int, value: int) -> None:
        self.do("store", address, value)

    def take(self) -> int | None:
        """Open the interrupt window: the INTID that was taken and acknowledged, None if there was
        no IRQ."""
        intid = self.do("take")
        return None if intid == 0xFFFF_FFFF else intid

    @staticmethod
    def frame(intid: int) -> int:
        return GICR + SGI_BASE if intid < 32 else GICD

    def bit(self, register: int, intid: int) -> int:
        return self.load(self.frame(intid) + register + intid // 32 * 4) >> intid % 32 & 1

    def set_bit(self, register: int, intid: int) -> None:
        self.store(self.frame(intid) + register + intid // 32 * 4, 1 << intid % 32)

    def set_priority(self, intid: int, priority: int) -> None:
        at = self.frame(intid) + 0x400 + intid // 4 * 4
        shift = intid % 4 * 8
        self.store(at, self.load(at) & ~(0xFF << shift) | priority << shift)

    def start_gic(
        self, level: bool, eoimode: int, intids: Sequence[int], priority: int = 0xA0
    ) -> None:
        """What a guest does first: distributor, interface, triggers, priorities, enables."""
        self.store(GICD, 2)
        self.icc("PMR", 0xF8)
        self.icc("CTLR", 2 * eoimode)
        self.icc("IGRPEN1", 1)
        for word in range(2, NR_IRQS // 16):
            self.store(GICD + 0xC00 + 4 * word, 0 if level else 0xAAAA_AAAA)
        for intid in intids:
            self.set_priority(intid, priority)
            self.set_bit(ISENABLER, intid)

    def end(self, intid: int, eoimode: int) -> None:
        self.icc("EOIR1", intid)
        if eoimode:
            self.icc("DIR", intid)
