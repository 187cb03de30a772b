"""What a VM does for its vGIC: wake vCPUs, write host interrupts, resample lines, time LPI work."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from armvirt.hw.clock import Clock
from armvirt.hyp.vgic.backlog import SLICE_NS
from armvirt.hyp.vgic.vgic import Vgic
from armvirt.hyp.vm.irqfd import IrqRouter

if TYPE_CHECKING:
    from armvirt.hyp.vcpu.vcpu import Vcpu


class VmVgicCallbacks:
    """The `armvirt.hyp.vgic.vm_interface.VgicCallbacks` of one VM. ``owner`` names the timer of LPI
    work in the host's clock."""

    def __init__(
        self, vcpus: Mapping[int, Vcpu], irqs: IrqRouter, clock: Clock, owner: str
    ) -> None:
        self._vcpus, self._irqs, self._clock, self._owner = vcpus, irqs, clock, owner

    def connect(self, vgic: Vgic) -> None:
        """Let the host's clock call `Vgic.go_on`."""
        self._clock.register(self._owner, lambda _: vgic.go_on())

    def kick(self, vcpu_id: int) -> None:
        self._vcpus[vcpu_id].wake()

    def set_phys_active(self, vcpu_id: int, host_intid: int, active: bool) -> None:
        pe = self._vcpus[vcpu_id].pe
        if pe is not None:
            pe.gic.set_active(pe.index, host_intid, active)

    def irq_ended(self, intid: int) -> None:
        self._irqs.ended(intid)

    def lpi_work_left(self) -> None:
        """Do the next slice after `SLICE_NS` of guest time."""
        if self._clock.armed(self._owner) is None:
            self._clock.arm(self._clock.now + SLICE_NS, self._owner)
