"""One interrupt of the vGIC (struct vgic_irq in include/kvm/arm_vgic.h) and the decisions about it."""

from __future__ import annotations

from collections.abc import Callable

from armvirt.arch.gic import is_sgi

#: KVM implements five priority bits (VGIC_PRI_BITS); the rest of a priority byte reads as zero.
PRIORITY_MASK = 0xF8

_FLAGS = ("pending_latch", "line_level", "active", "enabled", "hw", "level")
_NUMBERS = ("hwintid", "mpidr", "priority", "group")


class VgicIrq:
    """The state of one INTID: one object per vCPU for private ones, one per VM for SPIs.

    ``vcpu`` is the id of the vCPU on whose ap_list it is, ``target`` the one that it is routed to (None: nobody).
    ``level`` is the configuration, ``line_level`` the input. ``lr`` is the list register that holds it, -1 for none;
    while it is in one, ``active`` and the pending state are what they were when it was put there.
    ``owner`` may inject it (None: user space). ``hw`` with ``hwintid`` and ``get_input_level`` make it a mapped
    interrupt.
    """

    __slots__ = (
        "active", "enabled", "get_input_level", "group", "hw", "hwintid", "intid", "level", "line_level", "lr", "mpidr",
        "owner", "pending_latch", "priority", "target", "vcpu",
    )  # fmt: skip

    def __init__(self, intid: int, target: int | None) -> None:
        self.intid = intid
        self.owner: object = None
        self.get_input_level: Callable[[], bool] | None = None
        self.hw, self.hwintid = False, 0
        self.reset(target)

    def reset(self, target: int | None) -> None:
        """The state after vGIC initialisation: SGIs enabled and edge, PPIs level, SPIs edge, all group 1, priority 0.

        Who owns it and what it is mapped to are wiring, which stays.
        """
        self.vcpu: int | None = None
        self.target, self.mpidr = target, 0
        self.pending_latch = self.line_level = self.active = False
        self.enabled = is_sgi(self.intid)
        self.level = 16 <= self.intid < 32
        self.priority, self.group, self.lr = 0, 1, -1

    @property
    def pending(self) -> bool:
        """Edge: the latch. Level: the line, or the latch that a write of ISPENDR sets (kvm irq_is_pending)."""
        return self.pending_latch or (self.level and self.line_level)

    @property
    def mapped_level(self) -> bool:
        """A level interrupt with a host interrupt behind it: its line is sampled, not reported."""
        return self.hw and self.level

    def sample_line(self) -> bool:
        """Read the input of a mapped level interrupt into ``line_level``."""
        if self.get_input_level is not None:
            self.line_level = self.get_input_level()
        return self.line_level

    def state(self) -> dict[str, object]:
        """Everything but wiring; ``vcpu`` and ``lr`` follow from the vCPUs' lists."""
        saved: dict[str, object] = {name: getattr(self, name) for name in (*_FLAGS, *_NUMBERS)}
        return {"intid": self.intid, "target": self.target, **saved}

    def load(self, state: dict[str, object]) -> None:
        """Restore `state`. What it is mapped to has to be mapped by its user; the flag alone is restored."""
        for name in (*_FLAGS, *_NUMBERS):
            setattr(self, name, state[name])
        target = state["target"]
        assert target is None or isinstance(target, int)
        self.target, self.vcpu, self.lr = target, None, -1


def target_oracle(irq: VgicIrq, distributor_enabled: bool) -> int | None:
    """The vCPU whose ap_list an interrupt belongs on, None for nobody's (kvm vgic_target_oracle).

    An active interrupt never migrates: it stays where it is active. The distributor's enable gates what is pending,
    not what is active.
    """
    if irq.active:
        return irq.vcpu if irq.vcpu is not None else irq.target
    if irq.enabled and distributor_enabled and (irq.pending_latch or (irq.level and irq.line_level)):
        return irq.target
    return None


def accepts(irq: VgicIrq, level: bool, owner: object) -> bool:
    """Whether an injection changes anything (kvm vgic_validate_injection); one by a stranger never does."""
    if irq.owner is not owner:
        return False
    return level != irq.line_level if irq.level else level
