"""One interrupt of the vGIC (struct vgic_irq), and the pure decisions about one interrupt."""

from __future__ import annotations

from collections.abc import Callable

from armvirt.arch.gic import is_ppi, is_sgi
from armvirt.state import State

#: KVM implements five priority bits (VGIC_PRI_BITS); the low bits of a priority byte read as zero.
PRIORITY_MASK = 0xF8
UNKNOWN_SENDER = 0xFF
"""`VgicIrq.active_source` of a GICv2 SGI that user space made active: no register has the
sender."""

_FLAGS = ("pending_latch", "line_level", "active", "enabled", "hw", "level", "any_cpu", "offered")
_NUMBERS = (
    "hwintid",
    "mpidr",
    "priority",
    "group",
    "running",
    "targets",
    "source",
    "active_source",
)


class VgicIrq:
    """The state of one INTID: an object per vCPU for a private INTID, one per VM for an SPI.

    Configuration: ``enabled``, ``priority``, ``group``, and ``level`` (True for level-sensitive).

    Routing: ``target`` is the vCPU that gets the interrupt, None for no vCPU. ``mpidr`` and
    ``any_cpu`` are GICD_IROUTER (affinity, Interrupt_Routing_Mode); ``targets`` is GICD_ITARGETSR
    of a GICv2.

    State: ``pending_latch``, ``line_level`` (the input), ``active``. ``acked`` is the vCPU that
    acknowledged the interrupt and has not ended it, None for no vCPU. ``running`` has the priority
    and the group of the last activation, as list register fields
    (`list_registers.priority_and_group`). GICv2 SGIs (``carries_cpuid``) have ``source``, a bit for
    each vCPU whose SGI is pending, and ``active_source``, the sender of the active SGI.

    Place: ``vcpu`` is the vCPU whose ap_list has the interrupt, None for no list. ``lr`` is the
    index of the list register that holds it, -1 for none; as long as a list register holds it, the
    active and pending fields here are those of the last flush. ``offered`` is True if that list
    register was pending when the flush filled it: not pending any more means acknowledged.

    Wiring: only ``owner`` may inject the interrupt (None: user space). ``hw``, ``hwintid`` and
    ``get_input_level`` map it to a host interrupt.
    """

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
        """The state after initialisation: SGIs enabled, PPIs level-sensitive, others edge-triggered,
        priority 0, group 0 (GICv2) or 1 (GICv3). The wiring stays.

        The trigger of an SPI is UNKNOWN at reset; KVM starts with edge-triggered SPIs.
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
        """The latch; of a level-sensitive interrupt also the line (kvm irq_is_pending)."""
        return self.pending_latch or (self.level and self.line_level)

    @property
    def mapped_level(self) -> bool:
        """Whether this is a level-sensitive interrupt that is mapped to a host interrupt: the vGIC
        samples its line with ``get_input_level``."""
        return self.hw and self.level

    @property
    def sender_is_unknown(self) -> bool:
        """Whether this is an active GICv2 SGI, and the guest will end it with a CPUID that the vGIC
        does not know."""
        return self.active and self.active_source == UNKNOWN_SENDER

    def sample_line(self) -> bool:
        """Read the input of a mapped level-sensitive interrupt into ``line_level``."""
        if self.get_input_level is not None:
            self.line_level = self.get_input_level()
        return self.line_level

    def state(self) -> dict[str, object]:
        """Configuration, routing and state. The vCPUs' lists have the place."""
        saved: dict[str, object] = {name: getattr(self, name) for name in (*_FLAGS, *_NUMBERS)}
        return {"intid": self.intid, "target": self.target, "acked": self.acked, **saved}

    def load(self, state: State) -> None:
        """Restore `state`. ``hw`` is restored, ``get_input_level`` is set by the owner."""
        for name in (*_FLAGS, *_NUMBERS):
            setattr(self, name, state[name])
        target, acked = state["target"], state["acked"]
        assert target is None or isinstance(target, int)
        assert acked is None or isinstance(acked, int)
        self.target, self.acked, self.vcpu, self.lr = target, acked, None, -1


_LPI_SAVED = ("intid", "priority", "enabled", "pending_latch", "offered", "home")


class Lpi(VgicIrq):
    """An LPI that at least one event of an ITS is translated to: edge-triggered, group 1, without
    active state.

    ``home`` is the vCPU whose redistributor holds the LPI, None if its collection is not mapped.
    ``target`` equals ``home`` if LPIs are enabled on that redistributor, else it is None.
    ``references`` counts the events.
    """

    __slots__ = ("home", "references")

    def __init__(self, intid: int) -> None:
        super().__init__(intid, None)
        self.home: int | None = None
        self.references = 0

    def state(self) -> dict[str, object]:
        """The fields in which LPIs differ; ITSs have the references, redistributors the target."""
        return {name: getattr(self, name) for name in _LPI_SAVED}

    def load(self, state: State) -> None:
        for name in _LPI_SAVED:
            setattr(self, name, state[name])


def target_oracle(irq: VgicIrq, enables: int) -> int | None:
    """The vCPU whose ap_list an interrupt belongs on, None for no list (kvm vgic_target_oracle).

    An active interrupt stays on the list of the vCPU on which it is active. The group enables of
    the distributor (bit n of ``enables`` for group n) gate pending interrupts, not active ones.
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
    """Whether an injection changes the interrupt (kvm vgic_validate_injection). False for an
    injection by anyone but the owner."""
    if irq.owner is not owner:
        return False
    return level != irq.line_level if irq.level else level
