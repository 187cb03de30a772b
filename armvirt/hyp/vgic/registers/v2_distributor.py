"""The GICv2 distributor's registers (IHI 0048 4.3; kvm/vgic/vgic-mmio-v2.c).

The fields of INTIDs 0 to 31 are banked: each vCPU finds its own private interrupts there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from armvirt.arch import gic as arch
from armvirt.errors import KvmError
from armvirt.hyp.vgic import v2_sgi
from armvirt.hyp.vgic.cpu import VgicCpu
from armvirt.hyp.vgic.irq import UNKNOWN_SENDER, VgicIrq
from armvirt.hyp.vgic.registers.irq_registers import irq_banks, restored
from armvirt.hyp.vgic.registers.register_map import (
    Binding,
    IrqBank,
    Register,
    RegisterMap,
    UserBank,
    bind,
)
from armvirt.hyp.vgic.registers.v3_distributor import REVISION_SHIFT, REVISIONS, iidr

if TYPE_CHECKING:
    from armvirt.hyp.vgic.vgic import Vgic

# Plain registers ---------------------------------------------------------------------------------


def _read_ctlr(vgic: Vgic, _: VgicCpu) -> int:
    return vgic.enables


def _write_ctlr(vgic: Vgic, _: VgicCpu, value: int) -> None:
    """EnableGrp0 and EnableGrp1, as without the Security Extensions (IHI 0048 4.3.1). KVM keeps bit
    0 alone, for both."""
    vgic.set_enables(value & (arch.GICD_CTLR_ENABLE_GRP0 | arch.GICD_CTLR_ENABLE_GRP1))


def _read_typer(vgic: Vgic, _: VgicCpu) -> int:
    return (vgic.nr_irqs // 32 - 1) & 31 | len(list(vgic.cpus())) - 1 << arch.GICV2_TYPER_CPUS_SHIFT


def _read_iidr(vgic: Vgic, _: VgicCpu) -> int:
    return iidr(vgic.revision)


def _restore_iidr(vgic: Vgic, _: VgicCpu, value: int) -> None:
    """As in a GICv3. User space that writes it knows that interrupts have groups, and may restore
    them from now on (kvm vgic_mmio_uaccess_write_v2_misc)."""
    revision = value >> REVISION_SHIFT & 15
    if value != iidr(revision) or revision not in REVISIONS:
        raise KvmError("EINVAL", f"GICD_IIDR {value:#x} is not a revision of this vGIC")
    vgic.revision, vgic.v2_groups_user_writable = revision, True


# Arrays -----------------------------------------------------------------------------------------


def _restore_group(vgic: Vgic, irq: VgicIrq, value: int) -> None:
    """Ignored until user space has written GICD_IIDR: before, KVM reported groups that were not
    so."""
    if vgic.v2_groups_user_writable:
        irq.group = value
        restored(irq)
        vgic.queue(irq)


def _restore_pending(vgic: Vgic, irq: VgicIrq, _: int) -> None:
    """The sender of an SGI is not in ISPENDR: the vCPU itself is made up for it (kvm
    __set_pending)."""
    if irq.carries_cpuid and irq.target is not None:
        irq.source |= 1 << irq.target
    irq.pending_latch = True
    vgic.queue(irq)


def _restore_not_pending(vgic: Vgic, irq: VgicIrq, _: int) -> None:
    """All senders of an SGI at once (kvm __clear_pending)."""
    irq.pending_latch, irq.source = False, 0
    vgic.queue(irq)


def _active_source(irq: VgicIrq, source: int) -> None:
    """An SGI is made active, which it was not: nothing says whose it is (kvm
    vgic_mmio_change_active).

    A guest's write makes it its own, as in KVM. After a restore the guest ends it with the CPUID
    that it read before; KVM takes 0 then, and the SGI can stay active for ever ("Oh well", says
    vgic_mmio_change_active).
    """
    if irq.carries_cpuid and not irq.active:
        irq.active_source = source


def _targets(irq: VgicIrq) -> int:
    return irq.targets


def _set_targets(vgic: Vgic, irq: VgicIrq, value: int) -> None:
    """An SPI goes to one of the CPUs in its mask: here as in KVM to the lowest. An empty mask is
    forwarded to nobody (IHI 0048 4.3.12), where KVM takes vCPU 0. The masks of private interrupts
    are read-only."""
    if irq.intid < arch.FIRST_SPI:
        return
    irq.targets = value & v2_sgi.existing(vgic)
    irq.target = (irq.targets & -irq.targets).bit_length() - 1 if irq.targets else None
    vgic.queue(irq)


def _pending_banks(banks: dict[str, IrqBank]) -> Iterator[IrqBank]:
    """ISPENDR and ICPENDR: their SGI bits are read-only to the guest (IHI 0048 4.3.7), which has
    SPENDSGIR and CPENDSGIR. What user space reads is what the guest does, and it sets and clears as
    the guest does, too."""
    for name, restore in (
        ("GICD_ISPENDR", _restore_pending),
        ("GICD_ICPENDR", _restore_not_pending),
    ):
        bank = banks[name]

        def put(vgic: Vgic, irq: VgicIrq, value: int, bank: IrqBank = bank) -> None:
            if not irq.carries_cpuid and bank.put is not None:
                bank.put(vgic, irq, value)

        yield bank._replace(put=put, user=UserBank(bank.get, restore, True))


def _active_bank(bank: IrqBank) -> IrqBank:
    """ISACTIVER: for an SGI the guest is its own sender, and user space's is CPU 0."""
    put, user = bank.put, bank.user
    assert put is not None and user is not None and user.put is not None
    restore_active = user.put

    def activate(vgic: Vgic, irq: VgicIrq, value: int) -> None:
        _active_source(irq, irq.target or 0)
        put(vgic, irq, value)

    def restore(vgic: Vgic, irq: VgicIrq, value: int) -> None:
        _active_source(irq, UNKNOWN_SENDER)
        restore_active(vgic, irq, value)

    return bank._replace(put=activate, user=user._replace(put=restore))


def _banks() -> list[IrqBank]:
    """The arrays that a GICv3 has too, with what is different here."""
    banks = {bank.name: bank for bank in irq_banks("GICD", "") if bank.name != "GICD_IGRPMODR"}
    group = banks["GICD_IGROUPR"]
    changed = [
        group._replace(user=UserBank(group.get, _restore_group)),
        *_pending_banks(banks),
        _active_bank(banks["GICD_ISACTIVER"]),
    ]
    return list({**banks, **{bank.name: bank for bank in changed}}.values())


BINDINGS: tuple[Binding, ...] = (
    Register("GICD_CTLR", _read_ctlr, _write_ctlr),
    Register("GICD_TYPER", _read_typer),
    Register("GICD_IIDR", _read_iidr, user_write=_restore_iidr),
    *_banks(),
    IrqBank("GICD_ITARGETSR", _targets, _set_targets),
    Register("GICD_SGIR", write=v2_sgi.send),
    IrqBank("GICD_CPENDSGIR", v2_sgi.sources, v2_sgi.clear_sources, ones=True, folds=True),
    IrqBank("GICD_SPENDSGIR", v2_sgi.sources, v2_sgi.set_sources, ones=True, folds=True),
    Register("GICD_ID"),
    Register("GICD_ICPIDR2", lambda _vgic, _cpu: arch.PIDR2_GICV2),
    Register("GICD_CIDR"),
)


def _banked(vgic: Vgic, cpu: VgicCpu, first: int, count: int) -> Sequence[VgicIrq]:
    return (
        cpu.private[first : first + count] if first < arch.NR_PRIVATE else vgic.spis(first, count)
    )


class DistributorMap(RegisterMap):
    """The registers of the 4 KiB distributor frame.

    With a single CPU there is nothing to choose: the guest finds GICD_ITARGETSR RAZ/WI (IHI 0048
    4.3.12), where KVM shows bit 0. User space sees the masks in any case.
    """

    def __init__(self) -> None:
        super().__init__(bind(arch.GICV2_GICD_ROWS, BINDINGS), _banked)

    def _hidden(self, vgic: Vgic, offset: int, size: int) -> bool:
        bound = self.lookup(offset, size)
        return (
            bound is not None and bound.row.name == "GICD_ITARGETSR" and len(list(vgic.cpus())) == 1
        )

    def read(self, vgic: Vgic, cpu: VgicCpu, offset: int, size: int, user: bool = False) -> int:
        if not user and self._hidden(vgic, offset, size):
            return 0
        return super().read(vgic, cpu, offset, size, user)

    def write(
        self, vgic: Vgic, cpu: VgicCpu, offset: int, size: int, value: int, user: bool = False
    ) -> None:
        if user or not self._hidden(vgic, offset, size):
            super().write(vgic, cpu, offset, size, value, user)
