"""The registers of a GICv2 (kvm/vgic/vgic-mmio-v2.c, vgic-v2.c): the distributor GICD (IHI 0048
4.3) and the CPU interface GICC. The guest accesses both; user space saves and restores both.

The GICD fields of INTIDs 0 to 31 are banked: a vCPU accesses the fields of its own private
interrupts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from armvirt.arch import gic as arch
from armvirt.arch.gic import (
    GICC_DIR_OFFSET,
    ICH_HCR_TDIR,
    VMCR_BPR_MASK,
    VMCR_VBPR0_SHIFT,
    VMCR_VBPR1_SHIFT,
    VMCR_VPMR_SHIFT,
)
from armvirt.errors import KvmError
from armvirt.events import GicAccess
from armvirt.hw import gicv
from armvirt.hyp.vgic import deactivation, sgi
from armvirt.hyp.vgic import spi_routing as routing
from armvirt.hyp.vgic.cpu import VgicCpu
from armvirt.hyp.vgic.distributor import Distributor
from armvirt.hyp.vgic.irq import UNKNOWN_SENDER, VgicIrq
from armvirt.hyp.vgic.registers.irq_registers import irq_banks, restored
from armvirt.hyp.vgic.registers.mmio_v3 import REVISIONS
from armvirt.hyp.vgic.registers.register_map import (
    Binding,
    IrqBank,
    Register,
    RegisterMap,
    UserBank,
    bind,
)
from armvirt.records import NamedTuple


def _read_ctlr(dist: Distributor, _: VgicCpu) -> int:
    return dist.enables


def _write_ctlr(dist: Distributor, _: VgicCpu, value: int) -> None:
    """Write EnableGrp0 and EnableGrp1 of a GIC without the Security Extensions (IHI 0048 4.3.1).
    KVM has only bit 0, which enables both groups."""
    dist.set_enables(value & (arch.GICD_CTLR_ENABLE_GRP0 | arch.GICD_CTLR_ENABLE_GRP1))


def _read_typer(dist: Distributor, _: VgicCpu) -> int:
    return (dist.nr_irqs // 32 - 1) & 31 | len(dist.vcpus) - 1 << arch.GICV2_TYPER_CPUS_SHIFT


def _read_iidr(dist: Distributor, _: VgicCpu) -> int:
    return arch.iidr(dist.revision)


def _restore_iidr(dist: Distributor, _: VgicCpu, value: int) -> None:
    """Restore GICD_IIDR, which selects the revision of the vGIC. After this write user space may
    restore the groups of interrupts (kvm vgic_mmio_uaccess_write_v2_misc). KvmError EINVAL if the
    vGIC does not have this revision."""
    revision = arch.iidr_revision(value)
    if value != arch.iidr(revision) or revision not in REVISIONS:
        raise KvmError("EINVAL", f"GICD_IIDR {value:#x} is not a revision of this vGIC")
    dist.revision, dist.v2_groups_user_writable = revision, True


# Arrays -----------------------------------------------------------------------------------------


def _restore_group(dist: Distributor, irq: VgicIrq, value: int) -> None:
    """Restore the group of an interrupt. The write is ignored if user space has not written
    GICD_IIDR before. Without the write of GICD_IIDR, the value can come from an old KVM, in which a
    read of GICD_IGROUPR returned a wrong value."""
    if dist.v2_groups_user_writable:
        irq.group = value
        restored(irq)
        dist.queue(irq)


def _restore_pending(dist: Distributor, irq: VgicIrq, _: int) -> None:
    """Make an interrupt pending for a restore of ISPENDR. ISPENDR has no field for the sender of an
    SGI, so the target vCPU itself becomes the sender (kvm __set_pending)."""
    if irq.carries_cpuid and irq.target is not None:
        irq.source |= 1 << irq.target
    irq.pending_latch = True
    dist.queue(irq)


def _restore_not_pending(dist: Distributor, irq: VgicIrq, _: int) -> None:
    """Clear the pending state of an interrupt for a restore of ICPENDR. For an SGI, the pending
    state of all senders is cleared (kvm __clear_pending)."""
    irq.pending_latch, irq.source = False, 0
    dist.queue(irq)


def _active_source(irq: VgicIrq, source: int) -> None:
    """Set the sender of an SGI that a write of ISACTIVER makes active (kvm
    vgic_mmio_change_active).

    If the guest writes, the caller passes the SGI's target vCPU as the sender, as in KVM. If user
    space restores, the caller passes `UNKNOWN_SENDER`. The guest will end the SGI with the CPUID
    that it read before the save, but ISACTIVER does not contain this CPUID. (KVM sets CPUID 0, so
    an SGI of another sender stays active for ever.)
    """
    if irq.carries_cpuid and not irq.active:
        irq.active_source = source


def _targets(irq: VgicIrq) -> int:
    return irq.targets


def _single_cpu(dist: Distributor) -> bool:
    """Whether the VM has a single vCPU. In this case GICD_ITARGETSR is RAZ/WI for the guest (IHI
    0048 4.3.12). (In KVM bit 0 reads as 1.)"""
    return len(dist.vcpus) == 1


def _pending_banks(banks: dict[str, IrqBank]) -> Iterator[IrqBank]:
    """The arrays ISPENDR and ICPENDR. A guest's write to the bit of an SGI is ignored, because the
    guest changes the pending state of an SGI with SPENDSGIR and CPENDSGIR (IHI 0048 4.3.7).

    User space reads the same values as the guest. User space can set and clear the pending state of
    any interrupt: a 1 in ISPENDR sets the state, and a 1 in ICPENDR clears it.
    """
    for name, restore in (
        ("GICD_ISPENDR", _restore_pending),
        ("GICD_ICPENDR", _restore_not_pending),
    ):
        bank = banks[name]

        def put(dist: Distributor, irq: VgicIrq, value: int, bank: IrqBank = bank) -> None:
            if not irq.carries_cpuid and bank.put is not None:
                bank.put(dist, irq, value)

        yield bank._replace(put=put, user=UserBank(bank.get, restore, True))


def _active_bank(bank: IrqBank) -> IrqBank:
    """The array ISACTIVER. If a guest's write makes an SGI active, the sender of the SGI is the
    target vCPU itself. If a restore by user space makes an SGI active, the sender is unknown."""
    put, user = bank.put, bank.user
    assert put is not None and user is not None and user.put is not None
    restore_active = user.put

    def activate(dist: Distributor, irq: VgicIrq, value: int) -> None:
        _active_source(irq, irq.target or 0)
        put(dist, irq, value)

    def restore(dist: Distributor, irq: VgicIrq, value: int) -> None:
        _active_source(irq, UNKNOWN_SENDER)
        restore_active(dist, irq, value)

    return bank._replace(put=activate, user=user._replace(put=restore))


def _banks() -> list[IrqBank]:
    """The register arrays that both GICv2 and GICv3 have. Some arrays of a GICv2 behave
    differently; these arrays have other functions for read and write."""
    banks = {bank.name: bank for bank in irq_banks("GICD", "") if bank.name != "GICD_IGRPMODR"}
    group = banks["GICD_IGROUPR"]
    changed = [
        group._replace(user=UserBank(group.get, _restore_group)),
        *_pending_banks(banks),
        _active_bank(banks["GICD_ISACTIVER"]),
    ]
    return list({**banks, **{bank.name: bank for bank in changed}}.values())


GICD_BINDINGS: tuple[Binding, ...] = (
    Register("GICD_CTLR", _read_ctlr, _write_ctlr),
    Register("GICD_TYPER", _read_typer),
    Register("GICD_IIDR", _read_iidr, user_write=_restore_iidr),
    *_banks(),
    IrqBank("GICD_ITARGETSR", _targets, routing.set_targets, hidden=_single_cpu),
    Register("GICD_SGIR", write=sgi.send),
    IrqBank("GICD_CPENDSGIR", sgi.sources, sgi.clear_sources, ones=True, folds=True),
    IrqBank("GICD_SPENDSGIR", sgi.sources, sgi.set_sources, ones=True, folds=True),
    Register("GICD_ID"),
    Register("GICD_ICPIDR2", lambda _dist, _cpu: arch.PIDR2_GICV2),
    Register("GICD_CIDR"),
)


def _banked(dist: Distributor, cpu: VgicCpu, first: int, count: int) -> Sequence[VgicIrq]:
    return (
        cpu.private[first : first + count] if first < arch.NR_PRIVATE else dist.spis(first, count)
    )


GICD_MAP = RegisterMap(bind(arch.GICV2_GICD_ROWS, GICD_BINDINGS), _banked)


class CpuInterfaceFrame:
    """The frame GICC. In KVM, stage 2 maps the frame GICV at the address of GICC, so an access
    causes no exit. The exception is GICV_DIR, which is in a page without a stage-2 mapping. A write
    of GICV_DIR exits to KVM, so that KVM can deactivate an interrupt that is active on another
    vCPU.

    In armvirt each access exits, and the virtual CPU interface of the PE completes the access
    without a fold or a flush. The vGIC handles a write of GICV_DIR only if ICH_HCR_EL2.TDIR is 1.
    The same rule applies to a write of ICC_DIR_EL1.
    """

    name = "GICC"

    def __init__(self, dist: Distributor) -> None:
        self._dist = dist

    def read(self, vcpu_id: int, offset: int, size: int) -> int:
        dist = self._dist
        vif = dist.vcpus[vcpu_id].vif
        assert vif is not None  # a vCPU that accesses the frame is loaded
        value = gicv.read(vif, offset, size)
        if dist.bus.active:
            dist.bus.emit(GicAccess(self.name, offset, size, value, 0))
        return value

    def stable(self, offset: int, size: int) -> bool:
        return False

    def write(self, vcpu_id: int, offset: int, size: int, value: int) -> None:
        dist = self._dist
        vif = dist.vcpus[vcpu_id].vif
        assert vif is not None
        if dist.bus.active:
            dist.bus.emit(GicAccess(self.name, offset, size, value, 1))
        if offset == GICC_DIR_OFFSET and size == 4 and vif.hcr & ICH_HCR_TDIR:
            deactivation.dir(dist, dist.vcpus[vcpu_id], value)
        else:
            gicv.write(vif, offset, size, value)


# Save and restore -------------------------------------------------------------------------------


class UserRegister(NamedTuple):
    """A register of GICC that user space saves and restores. If ``write`` is None, the register is
    WI."""

    name: str
    read: Callable[[VgicCpu], int]
    write: Callable[[VgicCpu, int], None] | None = None


def _field(name: str, shift: int, mask: int) -> UserRegister:
    def write(cpu: VgicCpu, value: int) -> None:
        cpu.vmcr = cpu.vmcr & ~(mask << shift) | (value & mask) << shift

    return UserRegister(name, lambda cpu: cpu.vmcr >> shift & mask, write)


#: For user space, GICC_PMR has the value of GICH_VMCR.VMPriMask: the upper five bits of the
#: priority mask (Documentation/virt/kvm/devices/arm-vgic.rst).
_PMR_SHIFT, _PMR_MASK = VMCR_VPMR_SHIFT + 3, 0x1F


def _active_priorities(n: int) -> UserRegister:
    """The register GICC_APR<n>, which is ICH_AP1R<n>_EL2 and contains both groups (kvm
    vgic_mmio_read_apr). The register is RAZ/WI if the CPU interface has no active-priority register
    ``n``."""

    def read(cpu: VgicCpu) -> int:
        return cpu.active_priorities(1)[n] if n < cpu.nr_aprs else 0

    def write(cpu: VgicCpu, value: int) -> None:
        if n < cpu.nr_aprs:
            cpu.set_active_priorities(1, n, value & 0xFFFF_FFFF)

    return UserRegister(f"GICC_APR{n}", read, write)


USER_REGISTERS: tuple[UserRegister, ...] = (
    _field("GICC_CTLR", 0, arch.GICC_CTLR_BITS),
    _field("GICC_PMR", _PMR_SHIFT, _PMR_MASK),
    _field("GICC_BPR", VMCR_VBPR0_SHIFT, VMCR_BPR_MASK),
    _field("GICC_ABPR", VMCR_VBPR1_SHIFT, VMCR_BPR_MASK),
    *(_active_priorities(n) for n in range(4)),
    UserRegister("GICC_IIDR", lambda _: arch.GICC_IIDR),
)
_OFFSETS: dict[str, int] = {row.name: row.offset for row in arch.GICC_ROWS}
USER_BY_OFFSET: dict[int, UserRegister] = {
    _OFFSETS[register.name]: register for register in USER_REGISTERS
}
