"""One interrupt of the vGIC (struct vgic_irq), the decision which vCPU gets the interrupt, and the
decision whether an injection changes the interrupt."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from armvirt.arch.gic import is_ppi, is_sgi
from armvirt.state import State, fields_of, load_fields

#: KVM implements five priority bits (VGIC_PRI_BITS); the low three bits of a priority are zero.
PRIORITY_MASK = 0xF8
UNKNOWN_SENDER = 0xFF
"""`VgicIrq.active_source` of a GICv2 SGI that user space made active: no register has the
sender."""


class VgicIrq:
    """The state of one INTID. A private INTID has one object per vCPU, an SPI one object per VM.

    Configuration: ``enabled``, ``priority``, ``group``, and ``level`` (True for level-sensitive).

    Routing: ``target`` is the vCPU that gets the interrupt, None for no vCPU. ``mpidr`` (affinity)
    and ``any_cpu`` (Interrupt_Routing_Mode) are fields of GICD_IROUTER. ``targets`` is
    GICD_ITARGETSR of a GICv2.

    State: ``pending_latch``, ``line_level`` (the input), ``active``. ``acked`` is the vCPU that has
    acknowledged the interrupt and not ended it, None for no vCPU. ``running`` has the priority and
    the group of the last activation, as fields of a list register
    (`list_registers.priority_and_group`). An SGI of a GICv2 (``carries_cpuid``) also has
    ``source``, with a bit for each vCPU whose SGI is pending, and ``active_source``, the sender of
    the active SGI.

    Place: ``vcpu`` is the vCPU whose ap_list has the interrupt, None for no ap_list. ``lr`` is the
    index of the list register that holds the interrupt, -1 for no list register. While ``lr`` is
    not -1, the active and pending fields have the values of the last flush. ``offered`` is True if
    the flush wrote the list register as pending. If the list register is then not pending any more,
    the guest has acknowledged the interrupt.

    Wiring: only ``owner`` may inject the interrupt; None is user space. ``hw``, ``hwintid`` and
    ``get_input_level`` map the interrupt to a host interrupt.
    """

    SAVED: ClassVar[tuple[str, ...]] = (
        "intid", "target", "acked", "pending_latch", "line_level", "active", "enabled", "hw", "level", "any_cpu",
        "offered", "hwintid", "mpidr", "priority", "group", "running", "targets", "source", "active_source",
    )  # fmt: skip
    __slots__ = (
        "acked", "active", "active_source", "any_cpu", "carries_cpuid", "enabled", "get_input_level", "group", "hw",
        "hwintid", "intid", "level", "line_level", "lr", "mpidr", "offered", "owner", "pending_latch", "priority",
        "reset_group", "running", "source", "target", "targets", "vcpu",
    )  # fmt: skip

    def __init__(self, intid: int, target: int | None, model: int = 3) -> None:
        self.intid = intid
        self.carries_cpuid = model == 2 and is_sgi(intid)
        self.reset_group = int(model != 2)
        self.owner: object = None
        self.get_input_level: Callable[[], bool] | None = None
        self.hw, self.hwintid = False, 0
        self.reset(target)

    def reset(self, target: int | None) -> None:
        """Reset to the state after initialisation. SGIs are enabled; PPIs are level-sensitive,
        other interrupts edge-triggered; the priority is 0; the group is 0 (GICv2) or 1 (GICv3). The
        owner (the only object that may inject the interrupt) and the mapping to a host interrupt
        stay.

        The trigger of an SPI is UNKNOWN at reset in the architecture; KVM starts with
        edge-triggered SPIs.
        """
        self.vcpu: int | None = None
        self.target, self.mpidr, self.any_cpu = target, 0, False
        self.targets = 0 if target is None else 1 << target & 0xFF
        self.pending_latch = self.line_level = self.active = self.offered = False
        self.acked: int | None = None
        self.source = self.active_source = 0
        self.enabled = is_sgi(self.intid)
        self.level = is_ppi(self.intid)
        self.priority, self.group, self.lr = 0, self.reset_group, -1
        self.running = 0

    @property
    def pending(self) -> bool:
        """Whether ``pending_latch`` is set or, for a level-sensitive interrupt, its line is high
        (kvm irq_is_pending)."""
        return self.pending_latch or (self.level and self.line_level)

    @property
    def mapped_level(self) -> bool:
        """Whether the interrupt is level-sensitive and mapped to a host interrupt. The vGIC samples
        the line of this interrupt with ``get_input_level``."""
        return self.hw and self.level

    @property
    def sender_is_unknown(self) -> bool:
        """Whether the interrupt is an active GICv2 SGI whose CPUID the vGIC does not know."""
        return self.active and self.active_source == UNKNOWN_SENDER

    def sample_line(self) -> bool:
        """Read the line of a level-sensitive interrupt that is mapped to a host interrupt. Store
        the level in ``line_level``, and return it."""
        if self.get_input_level is not None:
            self.line_level = self.get_input_level()
        return self.line_level

    def state(self) -> dict[str, object]:
        """The attributes in ``SAVED``: configuration, routing and state. The state of the vCPU has
        the ap_list and the list register of the interrupt."""
        return fields_of(self, self.SAVED)

    def load(self, state: State) -> None:
        """Restore the result of `state`. The result has no ``get_input_level``, so the owner of the
        interrupt sets it again. The restore of the vCPU sets the ap_list and the list register of
        the interrupt."""
        load_fields(self, self.SAVED, state)
        self.vcpu, self.lr = None, -1


class Lpi(VgicIrq):
    """An LPI to which an ITS translates at least one event. An LPI is edge-triggered, is in group
    1, and has no active state.

    ``home`` is the vCPU whose redistributor holds the LPI, None if the collection is not mapped.
    ``target`` equals ``home`` if LPIs are enabled on that redistributor, else ``target`` is None.
    ``references`` counts the events. `armvirt.hyp.vgic.its.its.load_all` computes ``target`` and
    ``references`` at a restore, because they are not saved.
    """

    SAVED = ("intid", "priority", "enabled", "pending_latch", "offered", "home")
    __slots__ = ("home", "references")

    def __init__(self, intid: int) -> None:
        super().__init__(intid, None)
        self.home: int | None = None
        self.references = 0


def target_oracle(irq: VgicIrq, enables: int) -> int | None:
    """The vCPU whose ap_list must have the interrupt, None for no ap_list (kvm vgic_target_oracle).

    An active interrupt stays on the ap_list of the vCPU on which it is active. Bit n of ``enables``
    is the distributor's enable of group n. A disabled group stops pending interrupts, not active
    interrupts.
    """
    if irq.active:
        return irq.vcpu if irq.vcpu is not None else irq.target
    if (
        irq.enabled
        and enables >> irq.group & 1
        and (irq.pending_latch or (irq.level and irq.line_level))
    ):
        return irq.target
    return None


def accepts(irq: VgicIrq, level: bool, owner: object) -> bool:
    """Whether an injection changes the interrupt (kvm vgic_validate_injection). False for
    an ``owner`` that is not the owner of the interrupt: only the owner may inject."""
    if irq.owner is not owner:
        return False
    return level != irq.line_level if irq.level else level
