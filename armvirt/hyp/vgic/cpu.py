"""The vGIC's state of one vCPU (struct vgic_cpu): private interrupts, ap_list, CPU interface."""

from __future__ import annotations

from armvirt.arch.gic import NR_PRIVATE, VMCR_VPMR_SHIFT, active_priority_registers
from armvirt.hw.ich import VirtualCpuInterface
from armvirt.hyp.vgic.irq import VgicIrq

APRS = 4  # active-priority registers per group in the architecture; an interface has 1, 2 or 4


class VgicCpu:
    """Interrupts and CPU interface of one vCPU. ``model`` is 2 or 3.

    ``ap_list`` has the interrupts as keys, in order of arrival; removing an interrupt costs the
    same at any length. ``resident`` are the interrupts in list registers 0, 1, ... of ``vif``;
    ``mapped`` are the mapped level-sensitive interrupts among ``resident``. ``outside`` are the
    interrupts for which the last flush had no list register. ``cleared`` are interrupts that this
    vCPU acknowledged and that a write of ICACTIVER made inactive before their end of interrupt.

    ``vif`` is the virtual CPU interface of the PE on which the vCPU is loaded, None if the vCPU is
    not loaded. ``dirty``: an interrupt changed since the last flush, and flush has to run before
    the next entry; `Distributor.queue` and a fold set ``dirty``, a flush clears it. ``used``: a
    list register or a maintenance enable of ``vif`` may be non-zero. ``running_before``: the
    active-priority registers at the last flush that left an interrupt outside. ``groups``: the
    group enables for which 1-of-N SPIs were last routed.

    ``num_pri_bits`` are the priority bits that user space sees: those of the host's interface
    (``prebits``), or fewer after a restore of ICC_CTLR_EL1.

    ``lpis_enabled`` is GICR_CTLR.EnableLPIs in effect, ``lpis_wanted`` the value that the guest
    wrote. ``invalidate_wanted``: the guest wrote GICR_INVALLR while a job was under way.
    ``pendbaser`` is GICR_PENDBASER. ``redist_base`` is the address of the redistributor.
    """

    #: The attributes that are saved: plain values, then lists of interrupts, which are saved as
    #: INTIDs. `armvirt.hyp.vgic.state` also saves ``private`` and the active priorities, and
    #: computes ``mapped``.
    SAVED = (
        "vcpu_id", "num_pri_bits", "vmcr", "groups", "running_before", "dirty", "used", "lpis_enabled", "lpis_wanted",
        "invalidate_wanted", "pendbaser",
    )  # fmt: skip
    SAVED_LISTS = ("ap_list", "resident", "outside", "cleared")
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
        """Reset interrupts and CPU interface to the state after creation. The vCPU is not
        loaded."""
        for irq in self.private:
            irq.reset(self.vcpu_id)
        self.clear_lists()
        self._vmcr = self.groups = self.pendbaser = 0
        self.lpis_enabled = self.lpis_wanted = self.invalidate_wanted = False
        self.ap0r, self.ap1r = [0] * APRS, [0] * APRS

    def reset_interface(self) -> None:
        """Reset ICC_*_EL1 (warm reset, IHI 0069 12.2), also if the vCPU is loaded. The caller syncs
        first. The vCPU will not end the interrupts that it acknowledged, so their ``acked`` is
        cleared, and ``cleared`` is emptied."""
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

    # The CPU interface ---------------------------------------------------------------------------

    def load(self, vif: VirtualCpuInterface) -> None:
        """Load the CPU interface registers into the interface of a PE (kvm vgic_v3_load); a flush
        has to follow."""
        self.vif = vif
        vif.sre = self.model != 2  # before ICH_VMCR_EL2: the effect of VFIQEn depends on SRE
        vif.restore(self._vmcr, self.ap0r, self.ap1r)
        self.dirty = self.used = True

    def put(self) -> None:
        """Save the CPU interface registers, and disable the interface (kvm vgic_v3_put)."""
        vif = self.vif
        assert vif is not None
        self._vmcr = vif.vmcr
        self.ap0r[: len(vif.ap0r)] = vif.ap0r
        self.ap1r[: len(vif.ap1r)] = vif.ap1r
        self.vif = None
        vif.sre = True
        vif.restore(0, [0] * len(vif.ap0r), [0] * len(vif.ap1r))
        vif.program(0, ())

    @property
    def nr_aprs(self) -> int:
        """Active-priority registers per group for ``num_pri_bits`` (kvm vgic_v3_max_apr_idx)."""
        return active_priority_registers(self.num_pri_bits)

    @property
    def vmcr(self) -> int:
        """ICH_VMCR_EL2: the register of the PE if the vCPU is loaded, else the saved value."""
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
        """ICH_AP0R<n>_EL2 or ICH_AP1R<n>_EL2: the registers of the PE if the vCPU is loaded, else
        the saved values."""
        if self.vif is not None:
            return self.vif.ap1r if group else self.vif.ap0r
        return self.ap1r if group else self.ap0r

    def set_active_priorities(self, group: int, index: int, value: int) -> None:
        self.active_priorities(group)[index] = value
        if self.vif is not None:
            self.vif.update()
