"""The vGIC's side of one vCPU (struct vgic_cpu in include/kvm/arm_vgic.h)."""

from __future__ import annotations

from armvirt.arch.gic import NR_PRIVATE, VMCR_VPMR_SHIFT
from armvirt.hw.ich import VirtualCpuInterface
from armvirt.hyp.vgic.irq import VgicIrq

APRS = 4  # as many as the architecture has; the interface takes those that it implements


class VgicCpu:
    """Private interrupts, the ap_list, and the CPU interface while it is not loaded. ``model`` is 2
    or 3.

    ``ap_list`` has the interrupts as its keys, in order of arrival: each leaves at the same cost,
    however many LPIs a guest lets pend. ``resident`` are those in list registers 0, 1 and so on of
    ``vif``, ``outside`` those that found none at the last flush. ``dirty``: the list registers no
    longer say what the lists say, so flush has to run. ``used`` is False while the list registers
    of ``vif`` are known to be empty. ``groups``: the group enables of the interface when 1-of-N
    interrupts were last given away. ``running_before``: the active-priority registers at the last
    flush that left something outside. ``cleared``: interrupts that were acknowledged here and made
    inactive by hand before they were ended. ``num_pri_bits``: the priority bits that user space
    sees: those of the host's interface, until it restores an ICC_CTLR_EL1 with fewer. ``prebits``:
    what the host's interface has, then too. ``lpis_enabled`` is GICR_CTLR.EnableLPIs, ``pendbaser``
    GICR_PENDBASER. ``lpis_wanted`` is what the guest has written to EnableLPIs,
    ``invalidate_wanted`` says that it has written GICR_INVALLR, while other work was under way.
    """

    __slots__ = (
        "_vmcr", "ap0r", "ap1r", "ap_list", "cleared", "dirty", "groups", "invalidate_wanted", "lpis_enabled",
        "lpis_wanted", "mapped", "model", "mpidr",
        "num_pri_bits", "outside", "pendbaser", "prebits", "private", "redist_base", "redist_index", "redist_region",
        "resident", "running_before", "used", "vcpu_id", "vif",
    )  # fmt: skip

    def __init__(self, vcpu_id: int, mpidr: int, model: int = 3, num_pri_bits: int = 5) -> None:
        self.vcpu_id, self.mpidr, self.model = vcpu_id, mpidr, model
        self.private = [VgicIrq(intid, vcpu_id, model) for intid in range(NR_PRIVATE)]
        self.redist_base: int | None = None
        self.redist_region, self.redist_index = -1, 0
        self.vif: VirtualCpuInterface | None = None
        self.prebits = self.num_pri_bits = num_pri_bits
        self.reset()

    def reset(self) -> None:
        """Interrupts and interface as after initialisation. Not while it is loaded."""
        for irq in self.private:
            irq.reset(self.vcpu_id)
        self.clear_lists()
        self._vmcr = self.groups = self.pendbaser = 0
        self.lpis_enabled = self.lpis_wanted = self.invalidate_wanted = False
        self.ap0r, self.ap1r = [0] * APRS, [0] * APRS

    def reset_interface(self) -> None:
        """ICC_*_EL1 as after a warm reset (IHI 0069 12.2), loaded or not; the list registers have
        been folded. What was acknowledged here will not be ended any more."""
        for irq in [*self.ap_list, *self.cleared]:
            if irq.acked == self.vcpu_id:
                irq.acked = None
        self.cleared.clear()
        self.ap0r, self.ap1r, self._vmcr = [0] * APRS, [0] * APRS, 0
        if self.vif is not None:
            self.vif.restore(0, self.ap0r, self.ap1r)
        self.dirty = True

    def clear_lists(self) -> None:
        self.ap_list: dict[VgicIrq, None] = {}
        self.resident: list[VgicIrq] = []
        self.outside: list[VgicIrq] = []
        self.mapped: list[VgicIrq] = []
        self.running_before: list[int] = []
        self.cleared: list[VgicIrq] = []
        self.dirty, self.used = True, True

    @property
    def nr_aprs(self) -> int:
        """Active-priority registers per group that the priority bits need (kvm
        vgic_v3_max_apr_idx)."""
        return 1 << self.num_pri_bits - 5

    @property
    def vmcr(self) -> int:
        """ICH_VMCR_EL2 of this vCPU, wherever it is."""
        return self.vif.vmcr if self.vif is not None else self._vmcr

    @vmcr.setter
    def vmcr(self, value: int) -> None:
        self._vmcr = value
        if self.vif is not None:
            self.vif.restore(value, self.vif.ap0r, self.vif.ap1r)

    @property
    def priority_mask(self) -> int:
        return self.vmcr >> VMCR_VPMR_SHIFT & 0xFF

    def active_priorities(self, group: int) -> list[int]:
        """ICH_AP0R<n>_EL2 or ICH_AP1R<n>_EL2, wherever they are."""
        if self.vif is not None:
            return self.vif.ap1r if group else self.vif.ap0r
        return self.ap1r if group else self.ap0r

    def set_active_priorities(self, group: int, index: int, value: int) -> None:
        self.active_priorities(group)[index] = value
        if self.vif is not None:
            self.vif.update()

    def take_interface(self, vif: VirtualCpuInterface) -> None:
        """Copy the interface's registers into this vCPU's saved context (kvm vgic_v3_put)."""
        self._vmcr = vif.vmcr
        self.ap0r[: len(vif.ap0r)] = vif.ap0r
        self.ap1r[: len(vif.ap1r)] = vif.ap1r

    def state(self) -> dict[str, object]:
        """Lists are saved as INTIDs, in order."""
        vif = self.vif
        return {
            "vcpu_id": self.vcpu_id,
            "vmcr": self.vmcr,
            "num_pri_bits": self.num_pri_bits,
            "ap0r": _padded(vif.ap0r if vif else self.ap0r),
            "ap1r": _padded(vif.ap1r if vif else self.ap1r),
            "private": [irq.state() for irq in self.private],
            "ap_list": [irq.intid for irq in self.ap_list],
            "resident": [irq.intid for irq in self.resident],
            "outside": [irq.intid for irq in self.outside],
            "groups": self.groups,
            "running_before": list(self.running_before),
            "cleared": [irq.intid for irq in self.cleared],
            "dirty": self.dirty,
            "used": self.used,
            "lpis_enabled": self.lpis_enabled,
            "lpis_wanted": self.lpis_wanted,
            "invalidate_wanted": self.invalidate_wanted,
            "pendbaser": self.pendbaser,
        }


def _padded(registers: list[int]) -> list[int]:
    """All active-priority registers of the architecture, whatever the interface implements."""
    return registers + [0] * (APRS - len(registers))
