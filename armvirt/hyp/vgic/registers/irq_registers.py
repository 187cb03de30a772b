"""The registers of GICD and GICR that have a field for each INTID (kvm/vgic/vgic-mmio.c): enable,
pending, active, priority, group, configuration.

Every write ends in a call of `Distributor.queue`. Before an access to pending or active state,
`RegisterMap` folds the list registers. Therefore the functions of this module read up-to-date
fields of `VgicIrq`.
"""

from __future__ import annotations

from operator import attrgetter

from armvirt.arch.gic import FIRST_SPI
from armvirt.hyp.vgic import deactivation, flush
from armvirt.hyp.vgic import list_registers as lr
from armvirt.hyp.vgic import spi_routing as routing
from armvirt.hyp.vgic.distributor import Distributor
from armvirt.hyp.vgic.irq import PRIORITY_MASK, VgicIrq
from armvirt.hyp.vgic.registers.register_map import GetField, IrqBank, UserBank


def _group(irq: VgicIrq) -> int:
    return irq.group


def _set_group(dist: Distributor, irq: VgicIrq, value: int) -> None:
    irq.group = value
    if irq.any_cpu:
        irq.target = routing.one_of_n(dist, irq)
    dist.queue(irq)


def _restore_group(dist: Distributor, irq: VgicIrq, value: int) -> None:
    _set_group(dist, irq, value)
    restored(irq)


def restored(irq: VgicIrq) -> None:
    """Set ``running`` to the present priority and group after user space has restored the priority,
    the group or the active state of an interrupt. User space may restore these three in any order,
    so ``running`` is computed after each restore."""
    irq.running = lr.priority_and_group(irq)


_enabled: GetField = attrgetter("enabled")  # fast, for 32 calls in one read of the guest


def _enable(dist: Distributor, irq: VgicIrq, _: int) -> None:
    """Enable an interrupt. If the interrupt is level-sensitive and mapped to a host interrupt, its
    line is read first, because the line may have changed while the interrupt was disabled. If the
    line fell, the host interrupt is deactivated, so that the host interrupt can fire again."""
    if irq.hw and irq.level:
        flush.sync_owner(dist, irq)
        was_high = irq.line_level
        if not irq.sample_line() and was_high and not irq.active:
            dist.set_phys_active(irq, False)
    irq.enabled = True
    dist.queue(irq)


def _restore_enable(dist: Distributor, irq: VgicIrq, _: int) -> None:
    irq.enabled = True
    dist.queue(irq)


def _disable(dist: Distributor, irq: VgicIrq, _: int) -> None:
    irq.enabled = False
    dist.queue(irq)


def _pending(irq: VgicIrq) -> int:
    """1 if the latch is set or the line is high, else 0. If the interrupt is level-sensitive and
    mapped to a host interrupt, the line is read now, because ``line_level`` is out of date while a
    list register holds the interrupt."""
    if irq.mapped_level and irq.get_input_level is not None:
        return int(irq.pending_latch or irq.get_input_level())
    return int(irq.pending)


def _raw_latch(irq: VgicIrq) -> int:
    return int(irq.pending_latch)


def _set_pending(dist: Distributor, irq: VgicIrq, _: int) -> None:
    """Set the latch for a write of ISPENDR. If the interrupt is mapped to a host interrupt, make
    the host interrupt active, because the guest's end of interrupt will deactivate the host
    interrupt."""
    irq.pending_latch = True
    if irq.hw:
        dist.set_phys_active(irq, True)
    dist.queue(irq)


def _clear_pending(dist: Distributor, irq: VgicIrq, _: int) -> None:
    """Clear the latch for a write of ICPENDR. If the line is high, the interrupt stays pending."""
    irq.pending_latch = False
    if irq.mapped_level:
        irq.sample_line()
    if irq.hw and not irq.active and not irq.pending:
        dist.set_phys_active(irq, False)
    dist.queue(irq)


def _restore_pending(dist: Distributor, irq: VgicIrq, value: int) -> None:
    """Restore the latch. The latch is restored even if the interrupt is level-sensitive at this
    moment, because user space may restore the trigger (ICFGR) later."""
    irq.pending_latch = bool(value)
    dist.queue(irq)


def _active(irq: VgicIrq) -> int:
    return int(irq.active)


def _set_active(dist: Distributor, irq: VgicIrq, _: int) -> None:
    deactivation.change_active(dist, irq, True)


def _clear_active(dist: Distributor, irq: VgicIrq, _: int) -> None:
    deactivation.change_active(dist, irq, False)


def _restore_active(dist: Distributor, irq: VgicIrq, _: int) -> None:
    """Make an interrupt active for a restore by user space. ``acked`` becomes the vCPU whose
    ap_list has the interrupt, as if this vCPU had acknowledged the interrupt."""
    irq.active = True
    restored(irq)
    dist.queue(irq)
    irq.acked = irq.vcpu


def _restore_inactive(dist: Distributor, irq: VgicIrq, _: int) -> None:
    irq.active, irq.acked = False, None
    dist.queue(irq)


def _priority(irq: VgicIrq) -> int:
    return irq.priority


def _set_priority(dist: Distributor, irq: VgicIrq, value: int) -> None:
    irq.priority = value & PRIORITY_MASK
    dist.queue(irq)


def _restore_priority(dist: Distributor, irq: VgicIrq, value: int) -> None:
    _set_priority(dist, irq, value)
    restored(irq)


def _config(irq: VgicIrq) -> int:
    return 0 if irq.level else 2


def _set_config(dist: Distributor, irq: VgicIrq, value: int) -> None:
    """Set the trigger of an SPI for a write of ICFGR. The write is ignored for SGIs (always
    edge-triggered) and PPIs (always level-sensitive)."""
    if irq.intid >= FIRST_SPI:
        flush.fold_irq(dist, irq)  # a fold uses the old trigger
        irq.level = not value & 2
        dist.queue(irq)


def irq_banks(prefix: str, suffix: str) -> list[IrqBank]:
    """The register arrays that both GICD and GICR have, with a field for each INTID. ``prefix`` and
    ``suffix`` are parts of the name of an array. For example, "GICR" and "0" make the name
    GICR_IGROUPR0.

    The set register and the clear register of the enable, pending or active state read the same
    value. User space clears pending state by a restore of ISPENDR, as in KVM, so ICPENDR is RAZ/WI
    for user space.
    """
    name = f"{prefix}_{{}}{suffix}".format
    return [
        IrqBank(name("IGROUPR"), _group, _set_group, user=UserBank(_group, _restore_group)),
        IrqBank(
            name("ISENABLER"),
            _enabled,
            _enable,
            ones=True,
            user=UserBank(_enabled, _restore_enable, True),
        ),
        IrqBank(name("ICENABLER"), _enabled, _disable, ones=True),
        IrqBank(
            name("ISPENDR"),
            _pending,
            _set_pending,
            ones=True,
            folds=True,
            user=UserBank(_raw_latch, _restore_pending),
        ),
        IrqBank(
            name("ICPENDR"),
            _pending,
            _clear_pending,
            ones=True,
            folds=True,
            user=UserBank(None, None),
        ),
        IrqBank(
            name("ISACTIVER"),
            _active,
            _set_active,
            ones=True,
            folds=True,
            user=UserBank(_active, _restore_active, True),
        ),
        IrqBank(
            name("ICACTIVER"),
            _active,
            _clear_active,
            ones=True,
            folds=True,
            user=UserBank(_active, _restore_inactive, True),
        ),
        IrqBank(
            name("IPRIORITYR"),
            _priority,
            _set_priority,
            user=UserBank(_priority, _restore_priority),
        ),
        IrqBank(name("ICFGR"), _config, _set_config),
        IrqBank(name("IGRPMODR")),  # RES0 with a single Security state
        IrqBank(name("NSACR")),
    ]
