"""What a register with a field per INTID does, in whichever frame it is (after
kvm/vgic/vgic-mmio.c).

Every store ends in ``vgic.queue``, which puts the interrupt where it now belongs and marks its vCPU
dirty. Interrupts in flight are folded before the access, so the fields here are the truth.
"""

from __future__ import annotations

from operator import attrgetter
from typing import TYPE_CHECKING

from armvirt.arch.gic import FIRST_SPI
from armvirt.hyp.vgic import deactivation
from armvirt.hyp.vgic import hw_irq as mapped
from armvirt.hyp.vgic import list_registers as lr
from armvirt.hyp.vgic import spi_routing as routing
from armvirt.hyp.vgic.irq import PRIORITY_MASK, VgicIrq
from armvirt.hyp.vgic.registers.register_map import GetField, IrqBank, UserBank

if TYPE_CHECKING:
    from armvirt.hyp.vgic.vgic import Vgic


def _group(irq: VgicIrq) -> int:
    return irq.group


def _set_group(vgic: Vgic, irq: VgicIrq, value: int) -> None:
    irq.group = value
    if irq.any_cpu:
        irq.target = routing.one_of_n(vgic, irq)
    vgic.queue(irq)


def _restore_group(vgic: Vgic, irq: VgicIrq, value: int) -> None:
    _set_group(vgic, irq, value)
    restored(irq)


def restored(irq: VgicIrq) -> None:
    """Priority, group and active state are restored in any order: together they are what was
    saved."""
    irq.running = lr.priority_and_group(irq)


_enabled: GetField = attrgetter("enabled")  # in C: a guest's read asks it for 32 interrupts


def _enable(vgic: Vgic, irq: VgicIrq, _: int) -> None:
    """The line of a mapped level interrupt may have changed unseen while it was disabled: look at
    it first. If it fell, the host interrupt has to be ready to fire again."""
    if irq.mapped_level:
        vgic.settle(irq)
        was_high = irq.line_level
        if not irq.sample_line() and was_high and not irq.active:
            mapped.set_phys_active(vgic, irq, False)
    irq.enabled = True
    vgic.queue(irq)


def _restore_enable(vgic: Vgic, irq: VgicIrq, _: int) -> None:
    irq.enabled = True
    vgic.queue(irq)


def _disable(vgic: Vgic, irq: VgicIrq, _: int) -> None:
    irq.enabled = False
    vgic.queue(irq)


def _pending(irq: VgicIrq) -> int:
    """Latch or line; the line of a mapped interrupt is lowered while it is in flight, so it is
    asked for."""
    if irq.mapped_level and irq.get_input_level is not None:
        return int(irq.pending_latch or irq.get_input_level())
    return int(irq.pending)


def _raw_latch(irq: VgicIrq) -> int:
    return int(irq.pending_latch)


def _set_pending(vgic: Vgic, irq: VgicIrq, _: int) -> None:
    """ISPENDR sets a latch apart from the line. For a mapped interrupt, the guest's end of
    interrupt has to find an active host interrupt, as if it had come from there."""
    irq.pending_latch = True
    if irq.hw:
        mapped.set_phys_active(vgic, irq, True)
    vgic.queue(irq)


def _clear_pending(vgic: Vgic, irq: VgicIrq, _: int) -> None:
    """ICPENDR clears the latch alone: a line that is high keeps the interrupt pending."""
    irq.pending_latch = False
    if irq.mapped_level:
        irq.sample_line()
    if irq.hw and not irq.active and not irq.pending:
        mapped.set_phys_active(vgic, irq, False)
    vgic.queue(irq)


def _restore_pending(vgic: Vgic, irq: VgicIrq, value: int) -> None:
    """The raw latch, whatever the configuration, which may be restored later."""
    irq.pending_latch = bool(value)
    vgic.queue(irq)


def _active(irq: VgicIrq) -> int:
    return int(irq.active)


def _set_active(vgic: Vgic, irq: VgicIrq, _: int) -> None:
    deactivation.change_active(vgic, irq, True)


def _clear_active(vgic: Vgic, irq: VgicIrq, _: int) -> None:
    deactivation.change_active(vgic, irq, False)


def _restore_active(vgic: Vgic, irq: VgicIrq, _: int) -> None:
    irq.active = True
    restored(irq)
    vgic.queue(irq)
    irq.acked = irq.vcpu  # what is restored was acknowledged before it was saved


def _restore_inactive(vgic: Vgic, irq: VgicIrq, _: int) -> None:
    irq.active, irq.acked = False, None
    vgic.queue(irq)


def _priority(irq: VgicIrq) -> int:
    return irq.priority


def _set_priority(vgic: Vgic, irq: VgicIrq, value: int) -> None:
    irq.priority = value & PRIORITY_MASK
    vgic.queue(irq)


def _restore_priority(vgic: Vgic, irq: VgicIrq, value: int) -> None:
    _set_priority(vgic, irq, value)
    restored(irq)


def _config(irq: VgicIrq) -> int:
    return 0 if irq.level else 2


def _set_config(vgic: Vgic, irq: VgicIrq, value: int) -> None:
    """Only SPIs can be configured; SGIs are edge and PPIs as they are wired."""
    if irq.intid >= FIRST_SPI:
        vgic.fold(irq)  # what is in a list register was put there by the old configuration
        irq.level = not value & 2
        vgic.queue(irq)


def irq_banks(prefix: str, suffix: str) -> list[IrqBank]:
    """The arrays that distributor and redistributor have in common. Enable, pending and active read
    the same through their set and their clear register; of the clear ones, user space may use those
    that KVM lets it."""
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
        IrqBank(name("IGRPMODR")),  # one Security state: RES0
        IrqBank(name("NSACR")),
    ]
