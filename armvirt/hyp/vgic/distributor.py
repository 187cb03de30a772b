"""The Distributor (struct vgic_dist): the state of one VM's vGIC, the look-up of interrupts, and
the ap_lists.

An interrupt that is active, or that has to be delivered, is on the ap_list of exactly one vCPU. The
exception is an active interrupt without a target vCPU, which is on no ap_list. Every change of an
interrupt ends in one call of `Distributor.queue`, which updates the ap_lists. Before a vCPU enters
the guest, `armvirt.hyp.vgic.flush` writes the interrupts of the vCPU's ap_list into list registers.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from armvirt.arch.gic import FIRST_LPI, FIRST_SPI, MAX_SPI, MPIDR_AFFINITY, NR_PRIVATE
from armvirt.errors import KvmError
from armvirt.events import EventBus
from armvirt.hyp.vgic.backlog import Backlog
from armvirt.hyp.vgic.cpu import VgicCpu
from armvirt.hyp.vgic.irq import Lpi, VgicIrq, target_oracle
from armvirt.hyp.vgic.placement import Placement
from armvirt.hyp.vgic.vm_interface import GuestMemory, NoMemory, VgicCallbacks

DEFAULT_NR_IRQS = 256
LATEST_REVISION = 3


class Distributor:
    """All interrupts of a VM, and the vGIC's state of each vCPU (``vcpus``, by vCPU id).

    ``model`` is 2 or 3. ``enables`` has the group enables of GICD_CTLR, bit n for group n.
    ``any_cpu`` has the SPIs with GICD_IROUTER.Interrupt_Routing_Mode = 1 (1-of-N). ``stray_active``
    has the active interrupts that have no target and are on no ap_list. ``watched`` has the INTIDs
    of level-sensitive SPIs. When the guest ends one of these SPIs, the vGIC calls
    `VgicCallbacks.irq_ended`.

    ``lpis`` has the LPIs that an ITS maps, by INTID. ``has_its`` is True if there is an ITS.
    ``propbaser`` is GICR_PROPBASER, which all redistributors share. ``memory`` is the guest memory,
    which contains the tables of LPIs and ITSs.

    ``id_base`` is added to vCPU ids in trace events, so that the ids are unique on the host.
    ``num_pri_bits`` is the number of priority bits in the host's ICH_VTR_EL2.
    """

    #: ``SAVED`` has the attributes that are saved and restored. The attributes in ``SHAPE`` must
    #: have the saved values before a restore.
    SAVED = ("ready", "enables", "revision", "v2_groups_user_writable", "propbaser")
    SHAPE = ("model", "initialized", "nr_irqs")

    def __init__(
        self, bus: EventBus, vm: VgicCallbacks, model: int = 3, num_pri_bits: int = 5
    ) -> None:
        self.bus, self.vm, self.model, self.num_pri_bits = bus, vm, model, num_pri_bits
        self.id_base = 0
        self.initialized = self.ready = False
        self.enables = self.nr_spis = 0
        self.revision = LATEST_REVISION
        self.v2_groups_user_writable = False
        self.placement = Placement()
        self.vcpus: dict[int, VgicCpu] = {}
        self._spis: list[VgicIrq] = []
        self.any_cpu: set[VgicIrq] = set()
        self.stray_active: set[VgicIrq] = set()
        self.watched: frozenset[int] = frozenset()
        self.memory: GuestMemory = NoMemory()
        self.has_its = False
        self.lpis: dict[int, Lpi] = {}
        self.propbaser = 0
        self.backlog = Backlog(vm.lpi_work_left)

    def __repr__(self) -> str:
        return (
            f"GICv{self.model}, {len(self.vcpus)} CPUs, {self.nr_irqs} INTIDs, "
            f"{len(self.lpis)} LPIs"
        )

    # Creation ------------------------------------------------------------------------------------

    @property
    def nr_irqs(self) -> int:
        """The number of INTIDs from 0 up to the last SPI. The number is 32 (no SPIs) until user
        space or `create_spis` sets the number of SPIs."""
        return self.nr_spis + NR_PRIVATE

    @property
    def nr_irqs_after_init(self) -> int:
        """The value of `nr_irqs` after `create_spis`: the number that user space has set, or
        256."""
        return (self.nr_spis or DEFAULT_NR_IRQS - NR_PRIVATE) + NR_PRIVATE

    def add_vcpu(self, vcpu_id: int, mpidr: int) -> None:
        """Create the vGIC's state of a vCPU with this MPIDR_EL1."""
        cpu = self.vcpus[vcpu_id] = VgicCpu(vcpu_id, mpidr, self.model, self.num_pri_bits)
        self.placement.place(cpu)

    def create_spis(self) -> None:
        """Fix the number of INTIDs, and create the SPIs. The target of every SPI is the first
        vCPU."""
        self.nr_spis = self.nr_irqs_after_init - NR_PRIVATE
        boot = next(iter(self.vcpus))
        last = min(self.nr_irqs - 1, MAX_SPI)
        self._spis = [VgicIrq(intid, boot, self.model) for intid in range(FIRST_SPI, last + 1)]
        self.initialized = True

    def reset(self) -> None:
        """Reset to the state after `create_spis`, and remove the LPIs. The caller makes sure that
        no vCPU is loaded. The addresses of frames, the owners of interrupts (the objects that may
        inject the interrupts) and the mappings to host interrupts do not change."""
        self.enables = 0
        self.any_cpu.clear()
        self.stray_active.clear()
        self.lpis.clear()
        self.backlog.jobs.clear()
        boot = next(iter(self.vcpus), None)
        for irq in self._spis:
            irq.reset(boot)
        for cpu in self.vcpus.values():
            cpu.reset()

    # Look-up -------------------------------------------------------------------------------------

    def cpus(self) -> Collection[VgicCpu]:
        return self.vcpus.values()

    def cpu(self, vcpu_id: int) -> VgicCpu:
        return self.vcpus[vcpu_id]

    def has_vcpu(self, vcpu_id: int) -> bool:
        return vcpu_id in self.vcpus

    def vcpu_with_affinity(self, affinity: int) -> int | None:
        """The id of the vCPU with these affinity fields of MPIDR_EL1. None if no vCPU has these
        fields."""
        for cpu in self.vcpus.values():
            if cpu.mpidr & MPIDR_AFFINITY == affinity & MPIDR_AFFINITY:
                return cpu.vcpu_id
        return None

    def spi(self, intid: int) -> VgicIrq | None:
        """The SPI with this INTID; None if the INTID is private or not implemented."""
        index = intid - FIRST_SPI
        return self._spis[index] if 0 <= index < len(self._spis) else None

    def spis(self, first: int, count: int) -> list[VgicIrq]:
        """The implemented SPIs from INTID ``first`` on, at most ``count`` SPIs. The list is empty
        if ``first`` is private."""
        index = first - FIRST_SPI
        return self._spis[index : index + count] if index >= 0 else []

    def irq(self, vcpu_id: int | None, intid: int) -> VgicIrq:
        """The interrupt with this INTID (kvm vgic_get_irq). KvmError EINVAL if the INTID does not
        exist, or if the INTID is private and there is no vCPU ``vcpu_id``."""
        if 0 <= intid < NR_PRIVATE:
            cpu = None if vcpu_id is None else self.vcpus.get(vcpu_id)
            if cpu is None:
                raise KvmError("EINVAL", f"INTID {intid} is private: it needs an existing vCPU")
            return cpu.private[intid]
        found = self.spi(intid) if intid < FIRST_LPI else self.lpis.get(intid)
        if found is None:
            raise KvmError("EINVAL", f"INTID {intid} does not exist; there are {self.nr_irqs}")
        return found

    def all_irqs(self) -> Iterator[VgicIrq]:
        """The private interrupts of every vCPU, then the SPIs, then the LPIs."""
        for cpu in self.vcpus.values():
            yield from cpu.private
        yield from self._spis
        yield from self.lpis.values()

    # The ap_lists --------------------------------------------------------------------------------

    def queue(self, irq: VgicIrq, sampled: bool = False) -> None:
        """Move an interrupt to the ap_list of the vCPU that `target_oracle` returns (kvm
        vgic_queue_irq_unlock). Every change of an interrupt must be followed by a call of this
        function. ``sampled`` is True if the interrupt is mapped to a host interrupt and the caller
        has just read its line. Then this function does not read the line again.

        If the interrupt is in a list register of a vCPU, the interrupt stays on that vCPU's ap_list
        until the vCPU's next sync. The vCPU whose ap_list had the interrupt, and the vCPU whose
        ap_list gets the interrupt, are marked dirty: a flush runs before their next guest entry.
        The target vCPU is kicked.
        """
        if irq.hw and not sampled:
            self.resample(irq)
        target = target_oracle(irq, self.enables)
        if target is None and irq.active:
            self.stray_active.add(irq)
        elif self.stray_active:
            self.stray_active.discard(irq)
        holder = irq.vcpu
        if holder is not None:
            cpu = self.vcpus[holder]
            cpu.dirty = True
            if target == holder or irq.lr >= 0:
                if target is not None:
                    self.vm.kick(holder)
                return
            del cpu.ap_list[irq]
            irq.vcpu = None
        if target is not None:
            cpu = self.vcpus[target]
            cpu.ap_list[irq] = None
            irq.vcpu = target
            if len(self.vcpus) > 1 and FIRST_SPI <= irq.intid < FIRST_LPI:
                self.mark_dirty()  # with EOImode 1 any vCPU may deactivate the SPI: set TDIR
            else:
                cpu.dirty = True
            self.vm.kick(target)

    def mark_dirty(self) -> None:
        """Mark every vCPU dirty. Then a flush runs before the next guest entry of each vCPU."""
        for cpu in self.vcpus.values():
            cpu.dirty = True

    def look_again(self, cpu: VgicCpu) -> None:
        """Request a flush of the vCPU's list registers before its next guest entry, and wake the
        vCPU from WFI. The caller has changed GICD_CTLR or a register of the vCPU's CPU interface.
        This change can allow the vCPU to take a pending interrupt that was masked before."""
        cpu.dirty = True
        self.vm.kick(cpu.vcpu_id)

    def set_enables(self, enables: int) -> None:
        """Write the group enables of GICD_CTLR: EnableGrp0 (bit 0) and EnableGrp1 (bit 1). KVM has
        a single enable bit, which applies to both groups."""
        if enables == self.enables:
            return
        self.enables = enables
        for irq in [*self._spis, *(i for c in self.cpus() for i in c.private), *self.lpis.values()]:
            if irq.vcpu is not None or irq.pending:
                self.queue(irq)
        for cpu in self.vcpus.values():
            self.look_again(cpu)

    # Host interrupts and irqfds ------------------------------------------------------------------

    def resample(self, irq: VgicIrq) -> None:
        """Read the line of a level-sensitive interrupt that is mapped to a host interrupt, if the
        interrupt is pending, not active, and in no list register. The vGIC has to read the line
        itself, because the owner of the interrupt injects nothing when the line falls.

        If the line fell, the host interrupt is deactivated, so that the host interrupt can fire
        again. But if ``pending_latch`` keeps the interrupt pending, the host interrupt stays
        active. (KVM delivers the interrupt although the line fell, and samples the line at the next
        exit.)
        """
        if not (irq.hw and irq.level and irq.line_level) or irq.active or irq.lr >= 0:
            return
        if not irq.sample_line() and not irq.pending_latch:
            self.set_phys_active(irq, False)

    def set_phys_active(self, irq: VgicIrq, active: bool) -> None:
        """Write the active state of the host interrupt to which ``irq``, an interrupt of the guest,
        is mapped. The host interrupt belongs to the PE of the vCPU whose ap_list has ``irq``. If
        ``irq`` is on no ap_list, the host interrupt belongs to the PE of the target vCPU of
        ``irq``."""
        vcpu_id = irq.vcpu if irq.vcpu is not None else irq.target
        if vcpu_id is not None:
            self.vm.set_phys_active(vcpu_id, irq.hwintid, active)

    def ended(self, irq: VgicIrq) -> None:
        """Report that the guest has deactivated an interrupt. `VgicCallbacks.irq_ended` is called
        if an irqfd resamples the line of this interrupt (the INTID is in ``watched``)."""
        if irq.intid in self.watched and irq.level and not irq.hw:
            self.vm.irq_ended(irq.intid)
