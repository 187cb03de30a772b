"""One interrupt of the vGIC (struct vgic_irq in include/kvm/arm_vgic.h) and the decisions about
it."""

from __future__ import annotations

from collections.abc import Callable

from armvirt.arch.gic import is_ppi, is_sgi

#: KVM implements five priority bits (VGIC_PRI_BITS); the rest of a priority byte reads as zero.
PRIORITY_MASK = 0xF8
UNKNOWN_SENDER = 0xFF
"""`VgicIrq.active_source` of an SGI that user space has made active: no register says whose it
was."""

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
    """The state of one INTID: one object per vCPU for private ones, one per VM for SPIs and LPIs.

    ``vcpu`` is the id of the vCPU on whose ap_list it is, ``target`` the one that it is routed to
    (None: nobody). ``level`` is the configuration, ``line_level`` the input. ``lr`` is the list
    register that holds it, -1 for none; while it is in one, ``active`` and the pending state are
    what they were when it was put there. ``offered``: the list register that holds it offered it as
    pending; when it no longer does, the guest took it. ``acked`` is the vCPU that acknowledged it
    and has not ended it yet, None for none. ``running``: the priority and group that it became
    active with, as a list register has them (`list_registers.priority_and_group`). ``owner`` may
    inject it (None: user space). ``hw`` with ``hwintid`` and ``get_input_level`` make it a mapped
    interrupt. ``any_cpu`` is GICD_IROUTER.Interrupt_Routing_Mode: ``target`` is then this vGIC's
    choice. GICv2 alone has ``targets`` (GICD_ITARGETSR) and, for SGIs (``carries_cpuid``),
    ``source``: a bit per vCPU that sent it and was not taken yet, and ``active_source``, the one
    whose SGI is active.
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
        """The state after vGIC initialisation: SGIs enabled, PPIs level, everything else edge,
        priority 0.

        Who owns it and what it is mapped to are wiring, which stays. The group is 0 in a GICv2,
        else 1. (For SPIs the specification leaves the configuration UNKNOWN; KVM starts them as
        edge.)
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
        """Edge: the latch. Level: the line, or the latch that a write of ISPENDR sets (kvm
        irq_is_pending)."""
        return self.pending_latch or (self.level and self.line_level)

    @property
    def mapped_level(self) -> bool:
        """A level interrupt with a host interrupt behind it: its line is sampled, not reported."""
        return self.hw and self.level

    @property
    def sender_is_unknown(self) -> bool:
        """Whether it is active, and the guest will end it with a CPUID that nobody here knows."""
        return self.active and self.active_source == UNKNOWN_SENDER

    def sample_line(self) -> bool:
        """Read the input of a mapped level interrupt into ``line_level``."""
        if self.get_input_level is not None:
            self.line_level = self.get_input_level()
        return self.line_level

    def state(self) -> dict[str, object]:
        """Everything but wiring; ``vcpu`` and ``lr`` follow from the vCPUs' lists."""
        saved: dict[str, object] = {name: getattr(self, name) for name in (*_FLAGS, *_NUMBERS)}
        return {"intid": self.intid, "target": self.target, "acked": self.acked, **saved}

    def load(self, state: dict[str, object]) -> None:
        """Restore `state`. What it is mapped to has to be mapped by its user; the flag alone is
        restored."""
        for name in (*_FLAGS, *_NUMBERS):
            setattr(self, name, state[name])
        target, acked = state["target"], state["acked"]
        assert target is None or isinstance(target, int)
        assert acked is None or isinstance(acked, int)
        self.target, self.acked, self.vcpu, self.lr = target, acked, None, -1


def target_oracle(irq: VgicIrq, enables: int) -> int | None:
    """The vCPU whose ap_list an interrupt belongs on, None for nobody's (kvm vgic_target_oracle).

    An active interrupt never migrates: it stays where it is active. The distributor's group enables
    (bit n of ``enables`` for group n) gate what is pending, not what is active.
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
    """Whether an injection changes anything (kvm vgic_validate_injection); one by a stranger never
    does."""
    if irq.owner is not owner:
        return False
    return level != irq.line_level if irq.level else level
