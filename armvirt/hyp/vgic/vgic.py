"""The vGIC of one VM: who has which interrupt, and how one gets in (kvm/vgic/vgic.c, vgic-init.c).

An interrupt that has to be delivered, or is active, is on the ap_list of exactly one vCPU; before
that vCPU runs, the list is put into list registers (`armvirt.hyp.vgic.flush`). The protocol with
the run loop:

* ``load(vcpu, vif)`` when a vCPU gets a PE, ``put`` when it leaves it (``attach`` and ``detach``
  around `load_state`);
* before an entry, if ``dirty(vcpu)``: ``sync`` then ``flush``. Otherwise the list registers still
  say the truth, and what the guest did to them since (acknowledge, end of interrupt) is theirs to
  know;
* anything that reads or writes pending or active state folds all loaded vCPUs first, through
  ``before_access``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from armvirt.arch.gic import (
    FIRST_LPI,
    FIRST_SPI,
    MAX_CPUS_GICV2,
    MAX_SPI,
    MPIDR_AFFINITY,
    NR_PRIVATE,
)
from armvirt.errors import KvmError
from armvirt.events import EventBus, VgicInject
from armvirt.hw.ich import VirtualCpuInterface
from armvirt.hyp.vgic import deactivation, sgi
from armvirt.hyp.vgic import flush as entry
from armvirt.hyp.vgic import hw_irq as mapped
from armvirt.hyp.vgic import state as saved
from armvirt.hyp.vgic.backlog import Backlog
from armvirt.hyp.vgic.cpu import VgicCpu
from armvirt.hyp.vgic.irq import VgicIrq, accepts, target_oracle
from armvirt.hyp.vgic.its.guest_memory import GuestMemory, NoMemory
from armvirt.hyp.vgic.registers import v2_distributor as v2_dist
from armvirt.hyp.vgic.registers.frames import PlacedFrame, bases_fit, placed_frames
from armvirt.hyp.vgic.registers.v3_distributor import distributor_map
from armvirt.hyp.vgic.registers.v3_redistributor import RedistRegion, RedistributorMap, assign

if TYPE_CHECKING:
    from armvirt.hyp.vgic.its.its import Its
    from armvirt.hyp.vgic.its.lpi import Lpi

DEFAULT_NR_IRQS = 256
MAX_VCPUS = {2: MAX_CPUS_GICV2, 3: 512}
LATEST_REVISION = 3


def _no_host(vcpu_id: int, host_intid: int, active: bool) -> None:
    """For a vGIC without mapped interrupts."""


class Vgic:
    """A GIC of ``model`` 2 or 3 (KVM_DEV_TYPE_ARM_VGIC_V2, _V3). ``enables`` are GICD_CTLR's group
    enables, a bit each.

    ``kick(vcpu_id)`` is called when a vCPU has something new to take: it must leave the guest, or
    wake, and look at ``dirty``. ``set_phys_active(vcpu_id, host_intid, active)`` writes the active
    state of the host interrupt behind a mapped one, on the PE of that vCPU. ``before_access`` is
    called before pending and active state is looked at; by default it folds the list registers of
    all loaded vCPUs. ``memory`` is where LPIs and ITSs (``its``) have their tables; ``propbaser``
    is GICR_PROPBASER, one for all redistributors. ``num_pri_bits`` is what the host's ICH_VTR_EL2
    says. ``id_base`` makes the vCPU ids in events unique on the host.
    """

    def __init__(
        self,
        bus: EventBus,
        kick: Callable[[int], None],
        set_phys_active: Callable[[int, int, bool], None] = _no_host,
        model: int = 3,
        num_pri_bits: int = 5,
    ) -> None:
        self.model, self.num_pri_bits = model, num_pri_bits
        self.bus, self.kick, self.set_phys_active = bus, kick, set_phys_active
        self.before_access: Callable[[], None] = self.sync_all
        self.id_base = 0
        self.initialized = False
        self.ready = False
        self.enables = 0
        self.revision = LATEST_REVISION
        self.nr_spis = 0
        self.ipa_bits = 40
        self.dist_base: int | None = None
        self.cpu_base: int | None = None  # GICC of a GICv2
        self.v2_groups_user_writable = False
        self.regions: list[RedistRegion] = []
        self.dist_map = v2_dist.DistributorMap() if model == 2 else distributor_map()
        self.redist_map = RedistributorMap()
        self._cpus: dict[int, VgicCpu] = {}
        self._spis: list[VgicIrq] = []
        self.any_cpu: set[VgicIrq] = set()  # 1-of-N SPIs
        self.stray_active: set[VgicIrq] = set()  # active, and routed to nobody: on no ap_list
        self.memory: GuestMemory = NoMemory()
        self.its: list[Its] = []
        self.lpis: dict[int, Lpi] = {}  # those that an ITS maps
        self.propbaser = 0
        self.backlog = Backlog(self)
        self.watched: frozenset[int] = (
            frozenset()
        )  # level SPIs whose end of interrupt goes to `on_end`
        self.on_end: Callable[[int], None] = lambda intid: None

    def __repr__(self) -> str:
        return f"<Vgic: GICv{self.model}, {len(self._cpus)} CPUs, {self.nr_irqs} INTIDs, {len(self.lpis)} LPIs>"

    # Creation ------------------------------------------------------------------------------------

    @property
    def nr_irqs(self) -> int:
        """How many INTIDs there are, private ones included; 32 while nobody has said it."""
        return self.nr_spis + NR_PRIVATE

    @property
    def nr_irqs_after_init(self) -> int:
        """`nr_irqs` once it is initialised, as things are."""
        return (self.nr_spis or DEFAULT_NR_IRQS - NR_PRIVATE) + NR_PRIVATE

    def add_vcpu(self, vcpu_id: int, mpidr: int) -> None:
        """A vCPU is created, with this MPIDR_EL1. KvmError EEXIST, or those of `precreate`."""
        if vcpu_id in self._cpus:
            raise KvmError("EEXIST", f"vCPU {vcpu_id} exists")
        self.precreate(vcpu_id)
        cpu = self._cpus[vcpu_id] = VgicCpu(vcpu_id, mpidr, self.model, self.num_pri_bits)
        assign(self.regions, cpu)

    def precreate(self, vcpu_id: int) -> None:
        """Whether a vCPU of this id can be added (kvm_arch_vcpu_precreate): KvmError EBUSY after
        `init`, EINVAL for an id beyond what the model can address, or if the redistributors that
        there are have no room already."""
        if self.initialized:
            raise KvmError("EBUSY", "no vCPU can be added once the vGIC is initialised")
        if vcpu_id >= MAX_VCPUS[self.model]:
            raise KvmError(
                "EINVAL", f"vCPU {vcpu_id}: a GICv{self.model} has at most {MAX_VCPUS[self.model]}"
            )
        if not bases_fit(self):
            raise KvmError(
                "EINVAL", "the redistributors overlap the distributor, or are beyond the IPA space"
            )

    def lazy_init(self) -> None:
        """vgic_lazy_init: a GICv2 is initialised by its first use, as it was before there were
        device attributes for it. KvmError EBUSY for a GICv3 that nobody has initialised."""
        if not self.initialized and self.model != 2:
            raise KvmError("EBUSY", "the vGIC is not initialised")
        self.init()

    def init(self) -> None:
        """KVM_DEV_ARM_VGIC_CTRL_INIT: fix the number of interrupts and create the SPIs. A second
        call does nothing.

        KvmError EBUSY without vCPUs: the SPIs need somebody to be routed to.
        """
        if self.initialized:
            return
        if not self._cpus:
            raise KvmError("EBUSY", "the vGIC cannot be initialised before a vCPU exists")
        self.nr_spis = self.nr_spis or DEFAULT_NR_IRQS - NR_PRIVATE
        boot = next(iter(self._cpus))
        last = min(self.nr_irqs - 1, MAX_SPI)
        self._spis = [VgicIrq(intid, boot, self.model) for intid in range(FIRST_SPI, last + 1)]
        self.initialized = True

    def map_resources(self) -> None:
        """First run (kvm_vgic_map_resources). KvmError ENXIO for a missing frame, EINVAL for
        overlaps and for what is beyond the IPA space, EBUSY before init.
        """
        if self.ready:
            return
        self.check_resources()
        self.lazy_init()
        self.ready = True

    def check_resources(self) -> None:
        """Whether `map_resources` can be done: its errors, and nothing is changed."""
        self._check_placed()
        frames = sorted((frame.base, frame.size) for frame in self.mmio_frames())
        if any(low + size > high for (low, size), (high, _) in pairwise(frames)) or not bases_fit(
            self
        ):
            raise KvmError("EINVAL", "the vGIC's frames overlap, or are beyond the IPA space")
        if not self.initialized and self.model != 2:
            raise KvmError("EBUSY", "the vGIC is not initialised")

    def _check_placed(self) -> None:
        if self.dist_base is None:
            raise KvmError("ENXIO", "the distributor has no address")
        if self.model == 2 and self.cpu_base is None:
            raise KvmError("ENXIO", "the CPU interface has no address")
        if self.model == 3 and any(cpu.redist_base is None for cpu in self.cpus()):
            raise KvmError("ENXIO", "a vCPU's redistributor has no address")

    def mmio_frames(self) -> list[PlacedFrame]:
        """(base, size, frame) of everything that has an address; frame.read and .write take
        vcpu_id, offset, size."""
        return placed_frames(self)

    def reset(self) -> None:
        """Interrupts, distributor and interfaces as after `init`. Not while a vCPU is loaded.
        Addresses and wiring stay.
        """
        self.enables = 0
        self.any_cpu.clear()
        self.stray_active.clear()
        if self.its:
            from armvirt.hyp.vgic.its import its

            its.reset_all(self)
        boot = next(iter(self._cpus), None)
        for irq in self._spis:
            irq.reset(boot)
        for cpu in self.cpus():
            cpu.reset()

    # Look-up -------------------------------------------------------------------------------------

    def cpus(self) -> Iterable[VgicCpu]:
        return self._cpus.values()

    def cpu(self, vcpu_id: int) -> VgicCpu:
        return self._cpus[vcpu_id]

    def has_vcpu(self, vcpu_id: int) -> bool:
        return vcpu_id in self._cpus

    def vcpu_with_affinity(self, affinity: int) -> int | None:
        """The vCPU with these affinity fields of MPIDR_EL1, None if there is none."""
        for cpu in self.cpus():
            if cpu.mpidr & MPIDR_AFFINITY == affinity & MPIDR_AFFINITY:
                return cpu.vcpu_id
        return None

    def spi(self, intid: int) -> VgicIrq | None:
        """An SPI by INTID; None for a private INTID or one that is not implemented."""
        index = intid - FIRST_SPI
        return self._spis[index] if 0 <= index < len(self._spis) else None

    def spis(self, first: int, count: int) -> list[VgicIrq]:
        """The SPIs that exist from INTID ``first`` on, at most ``count``; none for a private
        INTID."""
        index = first - FIRST_SPI
        return self._spis[index : index + count] if index >= 0 else []

    def irq(self, vcpu_id: int | None, intid: int) -> VgicIrq:
        """An interrupt by INTID. KvmError EINVAL: there is none, or it is private and no vCPU is
        named."""
        if 0 <= intid < NR_PRIVATE:
            if vcpu_id is None or vcpu_id not in self._cpus:
                raise KvmError("EINVAL", f"INTID {intid} is private: it needs an existing vCPU")
            return self._cpus[vcpu_id].private[intid]
        found = self.spi(intid) if intid < FIRST_LPI else self.lpis.get(intid)
        if found is None:
            raise KvmError("EINVAL", f"INTID {intid} does not exist; there are {self.nr_irqs}")
        return found

    # Interrupts in -------------------------------------------------------------------------------

    def inject(self, vcpu_id: int | None, intid: int, level: bool, owner: object = None) -> None:
        """An input changes (kvm_vgic_inject_irq): a line's level, or a pulse (``level`` True) for
        edge interrupts.

        What changes nothing, and what comes from a stranger to an owned interrupt, is dropped
        silently. KvmError EINVAL for an INTID that does not exist or is an LPI, EBUSY before `init`
        of a GICv3.
        """
        if not self.initialized:
            self._check_line(vcpu_id, intid)
            self.lazy_init()
        if intid >= FIRST_LPI:
            raise KvmError("EINVAL", f"INTID {intid} is no line: an LPI comes as a message")
        irq = self.irq(vcpu_id, intid)
        if not irq.level and irq.owner is owner:
            irq.line_level = (
                level  # if it is configured as level-sensitive later, its wire is what counts
            )
        if irq.owner is owner and (irq.mapped_level or accepts(irq, level, owner)):
            self.settle(
                irq
            )  # a mapped line is lowered while it is in flight: this raises or retracts it
        if not accepts(irq, level, owner):
            return
        if irq.level:
            irq.line_level = level
        else:
            irq.pending_latch = True
        if self.bus.active:
            target = vcpu_id if intid < NR_PRIVATE else irq.target
            self.bus.emit(
                VgicInject(intid, int(level), -1 if target is None else self.id_base | target)
            )
        self.queue(irq)

    def _check_line(self, vcpu_id: int | None, intid: int) -> None:
        """Before a GICv2 is initialised by its first line: EINVAL for one that it will not have."""
        count = self.nr_irqs_after_init
        private = 0 <= intid < NR_PRIVATE
        if self.model == 2 and (
            not 0 <= intid < min(count, MAX_SPI + 1) or (private and vcpu_id not in self._cpus)
        ):
            raise KvmError(
                "EINVAL",
                f"INTID {intid} does not exist; there will be {count}, private ones on a vCPU",
            )

    def signal_msi(self, address: int, data: int, devid: int | None) -> bool:
        """KVM_SIGNAL_MSI: a device writes ``data``, an EventID, to the GITS_TRANSLATER at
        ``address``. Whether an LPI became pending; False if the guest blocks it. KvmError ENODEV
        without an ITS, EINVAL without ``devid`` or if no ITS is there.
        """
        if not self.its:
            raise KvmError("ENODEV", "this VM has no ITS")
        if devid is None:
            raise KvmError("EINVAL", "an ITS needs the DeviceID of a message")
        its = next((its for its in self.its if its.doorbell == address), None)
        if its is None:
            raise KvmError("EINVAL", f"no ITS has its GITS_TRANSLATER at {address:#x}")
        return its.trigger(devid, data) == 0

    def sgi(self, vcpu_id: int, encoding: int, value: int) -> None:
        """A trapped write of ICC_SGI1R_EL1, ICC_SGI0R_EL1 or ICC_ASGI1R_EL1 (packed encoding) by a
        vCPU."""
        sgi.dispatch(self, self._cpus[vcpu_id], encoding, value)

    def go_on(self) -> None:
        """A slice of the work that was too long for one access of the guest
        (`armvirt.hyp.vgic.backlog`)."""
        self.backlog.begin()
        if self.its:
            from armvirt.hyp.vgic.its import commands as its_cmd

            for its in self.its:
                its_cmd.process(its)

    def finish(self) -> None:
        """User space saves what the guest has in memory: no job may be under way."""
        while self.backlog.jobs:
            self.go_on()

    def settle(self, irq: VgicIrq) -> None:
        """What the guest did to the list register that holds an interrupt comes before what happens
        to it now.

        An interrupt that the guest has ended, and that comes again, arrives behind what waits,
        whether or not the hypervisor was entered in between. An edge-triggered interrupt that is
        alone on the ap_list has nothing to arrive behind: the next sync folds it in any case.
        """
        if irq.lr >= 0 and irq.vcpu is not None:
            cpu = self._cpus[irq.vcpu]
            if irq.level or len(cpu.ap_list) > 1:
                entry.sync(self, cpu)

    def fold(self, irq: VgicIrq) -> None:
        """Take an interrupt out of the list register that holds it, before the register's
        configuration changes."""
        if irq.lr >= 0 and irq.vcpu is not None:
            entry.sync(self, self._cpus[irq.vcpu])

    def queue(self, irq: VgicIrq) -> None:
        """Put an interrupt where the oracle wants it, after any change to it (kvm
        vgic_queue_irq_unlock).

        One that is in a list register is left for the next sync of its vCPU, which is marked dirty.
        One that is not can change lists at once.
        """
        if irq.hw:
            mapped.resample(self, irq)
        target = target_oracle(irq, self.enables)
        if target is None and irq.active:
            self.stray_active.add(irq)
        elif self.stray_active:
            self.stray_active.discard(irq)
        holder = irq.vcpu
        if holder is not None:
            cpu = self._cpus[holder]
            cpu.dirty = True
            if target == holder or irq.lr >= 0:
                if target is not None:
                    self.kick(holder)
                return
            del cpu.ap_list[irq]
            irq.vcpu = None
        if target is not None:
            self._append(self._cpus[target], irq)

    def _append(self, cpu: VgicCpu, irq: VgicIrq) -> None:
        cpu.ap_list[irq] = None
        irq.vcpu = cpu.vcpu_id
        cpu.dirty = True
        if FIRST_SPI <= irq.intid < FIRST_LPI and len(self._cpus) > 1:
            self._watch_deactivation(cpu)
        self.kick(cpu.vcpu_id)

    def _watch_deactivation(self, holder: VgicCpu) -> None:
        """With EOImode 1 another vCPU may deactivate this SPI: its ICC_DIR_EL1 has to trap from its
        next entry on."""
        for cpu in self.cpus():
            if cpu is not holder:
                cpu.dirty = True

    def interface_restored(self, cpu: VgicCpu) -> None:
        """User space has written registers of a CPU interface, which may let through what waits: a
        vCPU in WFI has to look again (it leaves KVM_RUN for such an access in any case)."""
        cpu.dirty = True
        self.kick(cpu.vcpu_id)

    def power_off(self, vcpu_id: int) -> None:
        """A PE is powered off: it will find ICC_*_EL1 as after a reset, disabled and with no
        priority active.

        KVM keeps them. Nobody gets 1-of-N interrupts there meanwhile; what is active stays so in
        the GIC. A GICv2's CPU interface is no part of the PE, and stays as it is.
        """
        if self.model == 3:
            cpu = self._cpus[vcpu_id]
            entry.sync(self, cpu)
            cpu.reset_interface()

    @property
    def enabled(self) -> bool:
        """Whether the distributor forwards anything."""
        return self.enables != 0

    def set_enables(self, enables: int) -> None:
        """GICD_CTLR.EnableGrp0 and EnableGrp1, a bit each. A change looks at every interrupt again
        and kicks every vCPU. (KVM has one enable for both groups.)"""
        if enables == self.enables:
            return
        self.enables = enables
        for irq in [
            *self._spis,
            *(irq for cpu in self.cpus() for irq in cpu.private),
            *self.lpis.values(),
        ]:
            if irq.vcpu is not None or irq.pending:
                self.queue(irq)
        for cpu in self.cpus():
            cpu.dirty = True
            self.kick(cpu.vcpu_id)

    def dir(self, vcpu_id: int, value: int) -> None:
        """A trapped write of ICC_DIR_EL1 or GICV_DIR by a vCPU."""
        deactivation.dir(self, self._cpus[vcpu_id], value)

    # Mapped interrupts ---------------------------------------------------------------------------

    def set_owner(self, vcpu_id: int, intid: int, owner: object) -> None:
        """Claim a PPI or SPI: from now on only ``owner`` can inject it. EINVAL for an SGI, EEXIST
        if it is taken."""
        mapped.set_owner(self, vcpu_id, intid, owner)

    def map_phys_irq(
        self,
        vcpu_id: int,
        intid: int,
        host_intid: int,
        get_input_level: Callable[[], bool] | None = None,
    ) -> None:
        """Tie an interrupt to a host one: the guest's deactivation deactivates that
        (kvm_vgic_map_phys_irq)."""
        irq = self.irq(vcpu_id, intid)
        irq.hw, irq.hwintid, irq.get_input_level = True, host_intid, get_input_level

    def unmap(self, vcpu_id: int, intid: int) -> None:
        """Undo `map_phys_irq`."""
        mapped.unmap(self, vcpu_id, intid)

    def reset_mapped_irq(self, vcpu_id: int, intid: int) -> None:
        """A vCPU is reset: forget what its mapped interrupt was doing
        (kvm_vgic_reset_mapped_irq)."""
        mapped.reset(self, vcpu_id, intid)

    def is_active(self, vcpu_id: int, intid: int) -> bool:
        """Whether a mapped interrupt is active, in a list register or not
        (kvm_vgic_map_is_active)."""
        return mapped.is_active(self, vcpu_id, intid)

    # Around the guest ----------------------------------------------------------------------------

    def load(self, vcpu_id: int, vif: VirtualCpuInterface) -> None:
        """A vCPU gets a PE's virtual CPU interface."""
        entry.load(self._cpus[vcpu_id], vif)

    def attach(self, vcpu_id: int, vif: VirtualCpuInterface) -> None:
        """Be loaded on an interface that holds this vCPU's registers already (restored state)."""
        self._cpus[vcpu_id].vif = vif

    def detach(self, vcpu_id: int) -> None:
        """Be loaded nowhere, without saving: the state is about to be replaced."""
        self._cpus[vcpu_id].vif = None

    def put(self, vcpu_id: int) -> None:
        """A vCPU leaves its PE: everything is folded and saved, the interface is left disabled."""
        entry.put(self, self._cpus[vcpu_id])

    def flush(self, vcpu_id: int) -> None:
        """Fill the list registers of a loaded vCPU. Emits ListRegisterWrite for those that
        change."""
        entry.flush(self, self._cpus[vcpu_id])

    def sync(self, vcpu_id: int) -> None:
        """Fold the list registers of a vCPU and prune its list; `flush` has to come before the next
        entry."""
        entry.sync(self, self._cpus[vcpu_id])

    def sync_all(self) -> None:
        """`sync` for every loaded vCPU."""
        for cpu in self.cpus():
            if cpu.resident:
                entry.sync(self, cpu)

    def dirty(self, vcpu_id: int) -> bool:
        """Whether `sync` and `flush` have to run before the next entry: something changed for this
        vCPU, the maintenance interrupt asks for it, or the line of a mapped interrupt fell before
        the guest took it."""
        cpu = self._cpus[vcpu_id]
        if cpu.dirty or (cpu.vif is not None and cpu.vif.maintenance):
            return True
        return cpu.vif is not None and bool(cpu.mapped or cpu.vif.waiting) and entry.retracted(cpu)

    def refresh(self, vcpu_id: int) -> None:
        """`sync` and `flush` if they have to run before the next entry."""
        if self.dirty(vcpu_id):
            cpu = self._cpus[vcpu_id]
            entry.sync(self, cpu)
            entry.flush(self, cpu)

    def offers_only(self, vcpu_id: int, intid: int) -> bool:
        """Whether one interrupt is offered to a loaded vCPU, and nothing else asks for an entry of
        its own."""
        return entry.offers_only(self._cpus[vcpu_id], intid)

    def pending(self, vcpu_id: int) -> bool:
        """Whether WFI ends (kvm_vgic_vcpu_pending_irq): something enabled and pending is more
        urgent than the mask.

        Group enables and the running priority are not considered.
        """
        cpu = self._cpus[vcpu_id]
        entry.sync(self, cpu)
        mask = cpu.priority_mask
        return any(
            i.enabled
            and self.enables >> i.group & 1
            and i.pending
            and not i.active
            and i.priority < mask
            for i in cpu.ap_list
        )

    # State ---------------------------------------------------------------------------------------

    def rows(self) -> list[dict[str, object]]:
        """Every interrupt that is enabled, pending, active or on a list, as plain data for a
        table."""
        irqs = [
            *(irq for cpu in self.cpus() for irq in cpu.private),
            *self._spis,
            *self.lpis.values(),
        ]
        return [
            {**irq.state(), "vcpu": irq.vcpu, "lr": irq.lr} for irq in irqs if _interesting(irq)
        ]

    def state(self) -> dict[str, object]:
        """Everything the guest can tell; see `armvirt.hyp.vgic.state`."""
        return saved.state(self)

    def check_shape(self, state: dict[str, Any]) -> None:
        """The ValueError of `load_state`, and nothing is changed."""
        saved.check_shape(self, state)

    def load_state(self, state: dict[str, Any]) -> None:
        """Restore `state` into a vGIC of the same vCPUs and number of interrupts, with the same
        vCPUs loaded.

        ValueError for the state of another one. A GICv2 that its first use initialised is
        initialised by this.
        """
        saved.load(self, state)


def _interesting(irq: VgicIrq) -> bool:
    return irq.enabled or irq.pending or irq.active or irq.vcpu is not None
