"""Save and restore of ICC_*_EL1, the GICv3 CPU interface registers (kvm/vgic/vgic-sys-reg-v3.c).

The values come from ICH_VMCR_EL2 and the active-priority registers. User space gets the values in
the format of ICC_*_EL1. In these values, priority bits that are not implemented are zero, and
binary points are at least the minimum. It does not matter whether the vCPU is loaded or has ever
been loaded. (KVM makes these two corrections only after the first load of the vCPU.)
"""

from __future__ import annotations

from collections.abc import Callable

from armvirt.arch import gic as arch
from armvirt.arch.gic import (
    ICC_REGISTERS,
    VMCR_BPR_MASK,
    VMCR_VBPR0_SHIFT,
    VMCR_VBPR1_SHIFT,
    VMCR_VCBPR,
    VMCR_VEOIM,
    VMCR_VPMR,
    VMCR_VPMR_SHIFT,
)
from armvirt.errors import KvmError
from armvirt.hyp.vgic.cpu import VgicCpu
from armvirt.records import NamedTuple


class SysRegAccess(NamedTuple):
    """The functions with which user space reads and writes one ICC_*_EL1 of a vCPU."""

    name: str
    read: Callable[[VgicCpu], int]
    write: Callable[[VgicCpu, int], None]


def _field(name: str, shift: int, mask: int) -> SysRegAccess:
    def write(cpu: VgicCpu, value: int) -> None:
        cpu.vmcr = cpu.vmcr & ~(mask << shift) | (value & mask) << shift

    return SysRegAccess(name, lambda cpu: cpu.vmcr >> shift & mask, write)


def _read_pmr(cpu: VgicCpu) -> int:
    return cpu.priority_mask & arch.implemented_priority(cpu.num_pri_bits)


def _write_pmr(cpu: VgicCpu, value: int) -> None:
    pmr = value & arch.implemented_priority(cpu.num_pri_bits)
    cpu.vmcr = cpu.vmcr & ~VMCR_VPMR | pmr << VMCR_VPMR_SHIFT


def _read_bpr(group: int) -> Callable[[VgicCpu], int]:
    return lambda cpu: arch.read_bpr(cpu.vmcr, cpu.num_pri_bits, group)


def _write_bpr(group: int) -> Callable[[VgicCpu, int], None]:
    shift = VMCR_VBPR1_SHIFT if group else VMCR_VBPR0_SHIFT

    def write(cpu: VgicCpu, value: int) -> None:
        if group and cpu.vmcr & VMCR_VCBPR:
            return
        bpr = max(value & VMCR_BPR_MASK, arch.minimum_bpr(cpu.num_pri_bits, group))
        cpu.vmcr = cpu.vmcr & ~(VMCR_BPR_MASK << shift) | bpr << shift

    return write


def _read_ctlr(cpu: VgicCpu) -> int:
    """ICC_CTLR_EL1 for user space. RSS and ExtRange are 0, as in KVM. (The guest reads the RSS and
    ExtRange of the PE.)"""
    value = arch.CTLR_A3V | cpu.num_pri_bits - 1 << arch.CTLR_PRIBITS_SHIFT
    value |= arch.CTLR_CBPR if cpu.vmcr & VMCR_VCBPR else 0
    return value | (arch.CTLR_EOIMODE if cpu.vmcr & VMCR_VEOIM else 0)


def _write_ctlr(cpu: VgicCpu, value: int) -> None:
    """Restore ICC_CTLR_EL1. KvmError EINVAL if the value has more priority bits or INTID bits than
    this interface, or another SEIS or A3V.

    The value may have fewer priority bits than this interface. User space then reads the restored
    number of priority bits (kvm set_gic_ctlr). A number below five becomes five, the minimum of the
    architecture. (KVM has no minimum.)
    """
    own = _read_ctlr(cpu)
    if any(
        value >> shift & 7 > own >> shift & 7
        for shift in (arch.CTLR_PRIBITS_SHIFT, arch.CTLR_IDBITS_SHIFT)
    ):
        raise KvmError(
            "EINVAL", f"ICC_CTLR_EL1 {value:#x} has more priority or INTID bits than this interface"
        )
    if (value ^ own) & (arch.CTLR_SEIS | arch.CTLR_A3V):
        raise KvmError("EINVAL", f"ICC_CTLR_EL1 {value:#x} differs in SEIS or A3V")
    vmcr = cpu.vmcr & ~(VMCR_VCBPR | VMCR_VEOIM)
    vmcr |= VMCR_VCBPR if value & arch.CTLR_CBPR else 0
    cpu.vmcr = vmcr | (VMCR_VEOIM if value & arch.CTLR_EOIMODE else 0)
    cpu.num_pri_bits = max(
        arch.MIN_PRIORITY_BITS, (value >> arch.CTLR_PRIBITS_SHIFT & arch.CTLR_PRIBITS_MASK) + 1
    )


def _write_sre(_: VgicCpu, value: int) -> None:
    if not value & 1:
        raise KvmError("EINVAL", "ICC_SRE_EL1.SRE is 1 in a GICv3 guest")


def _apr(group: int, index: int) -> SysRegAccess:
    """The functions that read and write ICC_AP<group>R<index>_EL1. The number of these registers in
    each group is 1, 2 or 4 and depends on the number of priority bits (kvm vgic_v3_max_apr_idx). An
    access raises KvmError EINVAL if the register does not exist."""
    name = f"ICC_AP{group}R{index}_EL1"

    def check(cpu: VgicCpu) -> None:
        if index >= cpu.nr_aprs:
            raise KvmError("EINVAL", f"{name} does not exist with {cpu.num_pri_bits} priority bits")

    def read(cpu: VgicCpu) -> int:
        check(cpu)
        return cpu.active_priorities(group)[index]

    def write(cpu: VgicCpu, value: int) -> None:
        check(cpu)
        cpu.set_active_priorities(group, index, value & 0xFFFF_FFFF)

    return SysRegAccess(name, read, write)


#: Every register that user space can save, in the order of KVM's table.
ACCESSES: tuple[SysRegAccess, ...] = (
    SysRegAccess("ICC_PMR_EL1", _read_pmr, _write_pmr),
    SysRegAccess("ICC_BPR0_EL1", _read_bpr(0), _write_bpr(0)),
    *(_apr(0, n) for n in range(4)),
    *(_apr(1, n) for n in range(4)),
    SysRegAccess("ICC_BPR1_EL1", _read_bpr(1), _write_bpr(1)),
    SysRegAccess("ICC_CTLR_EL1", _read_ctlr, _write_ctlr),
    SysRegAccess("ICC_SRE_EL1", lambda _: arch.SRE_ALL, _write_sre),
    _field("ICC_IGRPEN0_EL1", 0, 1),
    _field("ICC_IGRPEN1_EL1", 1, 1),
)
BY_ENCODING: dict[int, SysRegAccess] = {ICC_REGISTERS[access.name]: access for access in ACCESSES}


def read(cpu: VgicCpu, encoding: int) -> int:
    """Read a register for user space. ``encoding`` is the packed encoding of the register. KeyError
    if the encoding is not in `BY_ENCODING`."""
    return BY_ENCODING[encoding].read(cpu)


def write(cpu: VgicCpu, encoding: int, value: int) -> None:
    """Restore a register for user space. ``encoding`` is the packed encoding of the register.
    KeyError if the encoding is not in `BY_ENCODING`. KvmError EINVAL if the vCPU's CPU interface
    does not support ``value`` in this register, or does not have the register."""
    BY_ENCODING[encoding].write(cpu, value)
