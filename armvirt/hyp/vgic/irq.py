"""One interrupt of the vGIC (struct vgic_irq). `target_oracle` decides which vCPU gets the
interrupt. `accepts` decides whether an injection changes the interrupt."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from armvirt.arch.gic import is_ppi, is_sgi
from armvirt.state import State, fields_of, load_fields

#: KVM implements five priority bits (VGIC_PRI_BITS); the low three bits of a priority are zero.
PRIORITY_MASK = 0xF8
UNKNOWN_SENDER = 0xFF
"""The value of `VgicIrq.active_source` for a GICv2 SGI that user space made active. The sender is
unknown, because ISACTIVER has no field for the CPUID of the sender."""


class VgicIrq:
    """The state of one INTID. A private INTID has one object per vCPU. An SPI has one object per
    VM.

    Configuration: ``enabled``, ``priority``, ``group``, and ``level`` (True for level-sensitive).

    Routing: ``target`` is the vCPU that gets the interrupt, None if no vCPU gets the interrupt.
    ``mpidr`` (affinity) and ``any_cpu`` (Interrupt_Routing_Mode) are fields of GICD_IROUTER.
    ``targets`` is GICD_ITARGETSR of a GICv2.

    State: ``pending_latch``, ``line_level`` (the level of the input), ``active``. ``acked`` is the
    vCPU that has acknowledged the interrupt and not ended it, None if there is no such vCPU.
    ``running`` has the priority and the group that the interrupt had when it last became active.
    ``running`` has the format of a list register (`list_registers.priority_and_group`). An SGI of a
    GICv2 (``carries_cpuid``) also has ``source``, with a bit for each vCPU whose SGI is pending,
    and ``active_source``, the sender of the active SGI.

    List register: ``vcpu`` is the vCPU whose ap_list has the interrupt, None if no ap_list has the
    interrupt. ``lr`` is the index of the list register that holds the interrupt, -1 if no list
    register holds the interrupt. While ``lr`` is not -1, the list register has the present active
    and pending state, because the guest changes only the list register. In this time ``active`` and
    ``pending_latch`` can be out of date; the next sync corrects them. ``offered`` is True if the
    flush wrote the list register as pending. If the list register is later not pending any more,
    the guest has acknowledged the interrupt.

    Injection: ``owner`` is the only object that may inject the interrupt; None means that user
    space injects it. If ``hw`` is True, the interrupt is mapped to a host interrupt. ``hwintid`` is
    the INTID of the host interrupt, and ``get_input_level()`` reads the line.
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
        """Reset to the state after initialisation. SGIs are enabled. PPIs are level-sensitive,
        other interrupts are edge-triggered. The priority is 0. The group is 0 (GICv2) or 1 (GICv3).
        The owner (the only object that may inject the interrupt) and the mapping to a host
        interrupt do not change.

        In the architecture, the trigger of an SPI is UNKNOWN at reset. In KVM, SPIs are
        edge-triggered at reset.
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
        """Whether the interrupt is pending (kvm irq_is_pending): ``pending_latch`` is set, or the
        interrupt is level-sensitive and its line is high."""
        return self.pending_latch or (self.level and self.line_level)

    @property
    def mapped_level(self) -> bool:
        """Whether the interrupt is level-sensitive and mapped to a host interrupt. The vGIC reads
        the line of such an interrupt with ``get_input_level``."""
        return self.hw and self.level

    @property
    def sender_is_unknown(self) -> bool:
        """Whether the interrupt is an active GICv2 SGI and the vGIC does not have the CPUID of its
        sender."""
        return self.active and self.active_source == UNKNOWN_SENDER

    def sample_line(self) -> bool:
        """Read the line of a level-sensitive interrupt that is mapped to a host interrupt. Store
        the level in ``line_level``, and return the level (True for high)."""
        if self.get_input_level is not None:
            self.line_level = self.get_input_level()
        return self.line_level

    def state(self) -> dict[str, object]:
        """The attributes in ``SAVED``: configuration, routing and state. The ap_list and the list
        register of the interrupt are saved with the vCPU (`armvirt.hyp.vgic.state`)."""
        return fields_of(self, self.SAVED)

    def load(self, state: State) -> None:
        """Restore the result of `state`. ``get_input_level`` is a function and cannot be saved, so
        its value does not change. The ap_list and the list register of the interrupt are restored
        with the vCPU (`armvirt.hyp.vgic.state`)."""
        load_fields(self, self.SAVED, state)
        self.vcpu, self.lr = None, -1


class Lpi(VgicIrq):
    """An LPI to which an ITS translates at least one event. An LPI is edge-triggered, is in group
    1, and has no active state.

    ``home`` is the vCPU whose redistributor holds the LPI, None if the collection is not mapped.
    ``target`` equals ``home`` if LPIs are enabled on that redistributor, else ``target`` is None.
    ``references`` is the number of events that ITSs translate to the LPI. ``target`` and
    ``references`` are not saved; `armvirt.hyp.vgic.its.its.load_all` computes them at a restore.
    """

    SAVED = ("intid", "priority", "enabled", "pending_latch", "offered", "home")
    __slots__ = ("home", "references")

    def __init__(self, intid: int) -> None:
        super().__init__(intid, None)
        self.home: int | None = None
        self.references = 0


def target_oracle(irq: VgicIrq, enables: int) -> int | None:
    """The vCPU whose ap_list must have the interrupt. None if the interrupt must be on no ap_list
    (kvm vgic_target_oracle).

    An active interrupt stays on the ap_list of the vCPU on which it is active, even if its group is
    disabled. A pending interrupt of a disabled group is on no ap_list. Bit n of ``enables`` is the
    distributor's enable of group n.
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
    """Whether an injection changes the interrupt (kvm vgic_validate_injection). ``level`` is the
    new level of the line of a level-sensitive interrupt. For an edge-triggered interrupt, the
    injection is an edge if ``level`` is True, and has no effect if ``level`` is False. ``owner`` is
    the object that injects, None for user space. The result is False if ``owner`` is not the owner
    of the interrupt (`VgicIrq.owner`)."""
    if irq.owner is not owner:
        return False
    return level != irq.line_level if irq.level else level
