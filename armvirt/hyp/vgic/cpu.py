"""The vGIC's state of one vCPU (struct vgic_cpu): private interrupts, ap_list, CPU interface."""

from __future__ import annotations

from armvirt.arch.gic import NR_PRIVATE, VMCR_PMR_MASK, VMCR_VPMR_SHIFT, active_priority_registers
from armvirt.hw.ich import VirtualCpuInterface
from armvirt.hyp.vgic.irq import VgicIrq

APRS = 4  # the most active-priority registers that a group can have; an interface has 1, 2 or 4


class VgicCpu:
    """The interrupts and the CPU interface of one vCPU. ``model`` is 2 or 3.

    ``ap_list`` is a dict. Its keys are the interrupts, in the order in which the interrupts were
    added. (A dict can remove an interrupt in constant time.) ``resident`` has the interrupts that
    are in list registers of ``vif``: the interrupt with index n is in list register n. ``mapped``
    has the level-sensitive interrupts of ``resident`` that are mapped to a host interrupt.
    ``outside`` has the interrupts for which the last flush had no list register. ``cleared`` has
    the interrupts that this vCPU has acknowledged and not ended, although a write of ICACTIVER has
    made them inactive.

    ``vif`` is the virtual CPU interface of the PE on which the vCPU is loaded, None if the vCPU is
    not loaded. ``dirty`` is True if a flush has to run before the next guest entry, for example
    because an interrupt has changed. A flush clears ``dirty``. ``used`` is False if all list
    registers and maintenance enables of ``vif`` are zero. While ``outside`` or ``cleared`` is not
    empty, ``running_before`` has the values that the active-priority registers had at the last
    flush. ``groups`` has the group enables of the CPU interface at the last call of
    `spi_routing.groups_changed`.

    ``num_pri_bits`` is the number of priority bits that user space reads. ``prebits`` is the number
    of priority bits of the PE's virtual CPU interface. The two numbers are equal, unless user space
    has restored ICC_CTLR_EL1 with a lower number.

    ``lpis_wanted`` is the GICR_CTLR.EnableLPIs that the guest wrote. ``lpis_enabled`` is the value
    that is in effect. A write takes effect after earlier work on LPIs is done
    (`armvirt.hyp.vgic.backlog`). ``invalidate_wanted`` is True if the guest wrote GICR_INVALLR
    during such work. ``pendbaser`` is GICR_PENDBASER. ``redist_base`` is the address of the
    redistributor, None before user space sets the address.
    """

    #: The attributes that are saved. ``SAVED`` has plain values. ``SAVED_LISTS`` has lists of
    #: interrupts, which are saved as INTIDs. `armvirt.hyp.vgic.state` also saves ``private`` and
    #: the active-priority registers, and computes ``mapped`` at a restore.
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
        """Reset the interrupts and the CPU interface to the state after creation. The vCPU must not
        be loaded."""
        for irq in self.private:
            irq.reset(self.vcpu_id)
        self.clear_lists()
        self._vmcr = self.groups = self.pendbaser = 0
        self.lpis_enabled = self.lpis_wanted = self.invalidate_wanted = False
        self.ap0r, self.ap1r = [0] * APRS, [0] * APRS

    def reset_interface(self) -> None:
        """Reset ICC_*_EL1 (warm reset, IHI 0069 12.2). The vCPU may be loaded or not. The caller
        syncs the vCPU first.

        The reset clears the active priorities. After that, the vCPU's writes of EOIR end none of
        the interrupts that it acknowledged before the reset. Therefore ``acked`` of these
        interrupts becomes None, and ``cleared`` of the vCPU becomes empty.
        """
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
        """Copy the saved CPU interface registers into the virtual CPU interface of a PE (kvm
        vgic_v3_load). The caller must flush before the guest entry."""
        self.vif = vif
        vif.sre = self.model != 2  # set before ICH_VMCR_EL2: VFIQEn depends on SRE
        vif.restore(self._vmcr, self.ap0r, self.ap1r)
        self.dirty = self.used = True

    def put(self) -> None:
        """Save the registers of the PE's virtual CPU interface, and disable this interface (kvm
        vgic_v3_put)."""
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
        """The number of active-priority registers of each group. The number depends on
        ``num_pri_bits`` (kvm vgic_v3_max_apr_idx)."""
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
        return self.vmcr >> VMCR_VPMR_SHIFT & VMCR_PMR_MASK

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
