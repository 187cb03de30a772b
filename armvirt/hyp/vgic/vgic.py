"""The vGIC of one VM: the functions that the VM, its vCPUs and its devices call (kvm/vgic/vgic.c,
vgic-init.c).

The run loop calls `Vgic.load` when a vCPU is loaded on a PE, `Vgic.put` when the vCPU leaves the
PE, and `Vgic.refresh` before each guest entry. The state is in the `Distributor`.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from armvirt.arch.gic import (
    FIRST_LPI,
    GICC_SIZE,
    GICD_SIZE,
    GICV2_GICD_SIZE,
    GITS_SIZE,
    LR_ACTIVE,
    MAX_CPUS_GICV2,
    MAX_SPI,
    NR_PRIVATE,
    SgiRequest,
    is_ppi,
    is_spi,
)
from armvirt.errors import KvmError
from armvirt.events import EventBus, VgicInject
from armvirt.hw.ich import VirtualCpuInterface
from armvirt.hyp.vgic import deactivation, flush, sgi, state
from armvirt.hyp.vgic.distributor import Distributor
from armvirt.hyp.vgic.irq import VgicIrq, accepts
from armvirt.hyp.vgic.registers.frames import DistributorFrame, PlacedFrame, RedistributorFrame
from armvirt.hyp.vgic.vm_interface import VgicCallbacks

if TYPE_CHECKING:
    from armvirt.hyp.vgic.its.its import Its

MAX_VCPUS = {2: MAX_CPUS_GICV2, 3: 512}


class Vgic:
    """A GIC of ``model`` 2 (KVM_DEV_TYPE_ARM_VGIC_V2) or 3 (KVM_DEV_TYPE_ARM_VGIC_V3). ``its`` is
    the list of ITSs.

    ``num_pri_bits`` is the number of priority bits in the host's ICH_VTR_EL2.
    """

    def __init__(
        self, bus: EventBus, vm: VgicCallbacks, model: int = 3, num_pri_bits: int = 5
    ) -> None:
        self.model, self.bus = model, bus
        self.dist = Distributor(bus, vm, model, num_pri_bits)
        self.its: list[Its] = []

    def __repr__(self) -> str:
        return f"<Vgic: {self.dist!r}>"

    # Creation ------------------------------------------------------------------------------------

    def add_vcpu(self, vcpu_id: int, mpidr: int) -> None:
        """Add a vCPU with this MPIDR_EL1 (kvm_vgic_vcpu_init). KvmError EEXIST if a vCPU with this
        id exists; the other errors are the errors of `precreate`."""
        if self.dist.has_vcpu(vcpu_id):
            raise KvmError("EEXIST", f"vCPU {vcpu_id} exists")
        self.precreate(vcpu_id)
        self.dist.add_vcpu(vcpu_id, mpidr)

    def precreate(self, vcpu_id: int) -> None:
        """Check that a vCPU can be added (kvm_arch_vcpu_precreate). KvmError EBUSY after `init`.
        KvmError EINVAL if the id is too high for the model, or if redistributors overlap the
        distributor or are beyond the IPA space."""
        if self.dist.initialized:
            raise KvmError("EBUSY", "no vCPU can be added once the vGIC is initialised")
        if vcpu_id >= MAX_VCPUS[self.model]:
            raise KvmError(
                "EINVAL", f"vCPU {vcpu_id}: a GICv{self.model} has at most {MAX_VCPUS[self.model]}"
            )
        if not self.dist.placement.fits():
            raise KvmError(
                "EINVAL", "the redistributors overlap the distributor, or are beyond the IPA space"
            )

    def add_its(self) -> Its:
        """Add an ITS to a GICv3. The first ITS enables support for LPIs, and sets GICR_PROPBASER to
        its reset value."""
        from armvirt.hyp.vgic.its.its import Its, enable_lpis

        enable_lpis(self.dist)
        self.its.append(Its(self.dist))
        return self.its[-1]

    def init(self) -> None:
        """Fix the number of INTIDs and create the SPIs (KVM_DEV_ARM_VGIC_CTRL_INIT). A second call
        has no effect. KvmError EBUSY if there is no vCPU, because the target of an SPI is a
        vCPU."""
        if self.dist.initialized:
            return
        if not self.dist.vcpus:
            raise KvmError("EBUSY", "the vGIC cannot be initialised before a vCPU exists")
        self.dist.create_spis()

    def lazy_init(self) -> None:
        """Initialise a GICv2 when the GICv2 is used for the first time (vgic_lazy_init). User space
        may use a GICv2 without KVM_DEV_ARM_VGIC_CTRL_INIT. KvmError EBUSY if the vGIC is a GICv3
        that is not initialised."""
        if not self.dist.initialized and self.model != 2:
            raise KvmError("EBUSY", "the vGIC is not initialised")
        self.init()

    def map_resources(self) -> None:
        """Check the addresses of the frames and make the vGIC ready, before a vCPU runs for the
        first time (kvm_vgic_map_resources). A GICv2 is initialised if user space has not
        initialised it. The errors are the errors of `check_resources` and `init`."""
        if self.dist.ready:
            return
        self.check_resources()
        self.lazy_init()
        self.dist.ready = True

    def check_resources(self) -> None:
        """Check that `map_resources` can succeed. KvmError ENXIO if a frame has no address.
        KvmError EINVAL if frames overlap or are beyond the IPA space. KvmError EBUSY for a GICv3
        before `init`."""
        self._check_placed()
        frames = sorted((frame.base, frame.size) for frame in self.mmio_frames())
        overlap = any(low + size > high for (low, size), (high, _) in pairwise(frames))
        if overlap or not self.dist.placement.fits():
            raise KvmError("EINVAL", "the vGIC's frames overlap, or are beyond the IPA space")
        if not self.dist.initialized and self.model != 2:
            raise KvmError("EBUSY", "the vGIC is not initialised")

    def _check_placed(self) -> None:
        if self.dist.placement.dist_base is None:
            raise KvmError("ENXIO", "the distributor has no address")
        if self.model == 2 and self.dist.placement.cpu_base is None:
            raise KvmError("ENXIO", "the CPU interface has no address")
        if self.model == 3 and any(cpu.redist_base is None for cpu in self.dist.cpus()):
            raise KvmError("ENXIO", "a vCPU's redistributor has no address")

    def mmio_frames(self) -> list[PlacedFrame]:
        """The register frames that have an address (GICD, GICC, the regions of redistributors, and
        ITSs)."""
        dist, place = self.dist, self.dist.placement
        frames = []
        if place.dist_base is not None:
            size = GICV2_GICD_SIZE if self.model == 2 else GICD_SIZE
            frames.append(PlacedFrame(place.dist_base, size, DistributorFrame(dist)))
        if place.cpu_base is not None:
            from armvirt.hyp.vgic.registers.mmio_v2 import CpuInterfaceFrame

            frames.append(PlacedFrame(place.cpu_base, GICC_SIZE, CpuInterfaceFrame(dist)))
        for region in place.regions:
            frames.append(PlacedFrame(region.base, region.size, RedistributorFrame(dist, region)))
        for its in self.its:
            if its.base is not None:
                from armvirt.hyp.vgic.its.frame import ItsFrame

                frames.append(PlacedFrame(its.base, GITS_SIZE, ItsFrame(its)))
        return frames

    def reset(self) -> None:
        """Reset interrupts, ITSs and CPU interfaces to the state after `init`. The caller makes
        sure that no vCPU is loaded. The addresses of frames, the owners of interrupts (the objects
        that may inject the interrupts) and the mappings to host interrupts do not change."""
        for its in self.its:
            its.forget()
        self.dist.reset()
        if self.its:
            from armvirt.arch.its import PROPBASER_RESET

            self.dist.propbaser = PROPBASER_RESET

    # Interrupts in -------------------------------------------------------------------------------

    def inject(self, vcpu_id: int | None, intid: int, level: bool, owner: object = None) -> None:
        """Change the input of an interrupt (kvm_vgic_inject_irq). For a level-sensitive interrupt,
        ``level`` is the new level of the line. For an edge-triggered interrupt, the injection is an
        edge if ``level`` is True, and has no effect if ``level`` is False. ``owner`` is the object
        that injects; None is user space. If the interrupt is mapped to a host interrupt, the caller
        must read the line immediately before the call, because this method does not read the line.

        An injection is ignored if the input does not change, or if ``owner`` is not the owner of
        the interrupt. KvmError EINVAL if the INTID does not exist or is an LPI, EBUSY for a GICv3
        before `init`.
        """
        dist = self.dist
        if not dist.initialized:
            self._check_line(vcpu_id, intid)
            self.lazy_init()
        if intid >= FIRST_LPI:
            raise KvmError("EINVAL", f"INTID {intid} is no line: an LPI comes as a message")
        irq = dist.irq(vcpu_id, intid)
        if irq.owner is not owner:
            return
        if not irq.level:
            irq.line_level = level  # used if the interrupt becomes level-sensitive
        if irq.lr >= 0 and (irq.mapped_level or accepts(irq, level, owner)):
            flush.sync_owner(
                dist, irq
            )  # a mapped interrupt in a list register has line_level False
        if not accepts(irq, level, owner):
            return
        if irq.level:
            irq.line_level = level
        else:
            irq.pending_latch = True
        if dist.bus.active:
            target = vcpu_id if intid < NR_PRIVATE else irq.target
            target = -1 if target is None else dist.id_base | target
            dist.bus.emit(VgicInject(intid, int(level), target))
        dist.queue(irq, sampled=True)

    def _check_line(self, vcpu_id: int | None, intid: int) -> None:
        """Check the INTID of an injection before `init`. The first KVM_IRQ_LINE initialises a
        GICv2. Therefore KvmError EINVAL is raised only if the INTID will not exist after `init`
        either."""
        count = self.dist.nr_irqs_after_init
        private = 0 <= intid < NR_PRIVATE
        absent = private and (vcpu_id is None or not self.dist.has_vcpu(vcpu_id))
        if self.model == 2 and (not 0 <= intid < min(count, MAX_SPI + 1) or absent):
            raise KvmError(
                "EINVAL",
                f"INTID {intid} does not exist; there will be {count}, private ones on a vCPU",
            )

    def signal_msi(self, address: int, data: int, devid: int | None) -> bool:
        """Handle a message from a device (KVM_SIGNAL_MSI). ``devid`` is the DeviceID of the device.
        ``address`` is the address to which the device writes, which must be a GITS_TRANSLATER.
        ``data`` is the written value, the EventID.

        Return True if an LPI became pending. Return False if the event is not mapped, the ITS is
        disabled, or LPIs are disabled on the target redistributor. KvmError ENODEV if the VM has no
        ITS. KvmError EINVAL if ``devid`` is None, or if no ITS has its GITS_TRANSLATER at
        ``address``.
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
        """Handle a vCPU's write of ICC_SGI1R_EL1, ICC_SGI0R_EL1 or ICC_ASGI1R_EL1. ``encoding`` is
        the packed encoding of the register."""
        sgi.dispatch(self.dist, self.dist.cpu(vcpu_id), encoding, value)

    def dir(self, vcpu_id: int, value: int) -> None:
        """Handle a vCPU's trapped write of ICC_DIR_EL1."""
        deactivation.dir(self.dist, self.dist.cpu(vcpu_id), value)

    # LPI work ------------------------------------------------------------------------------------

    def go_on(self) -> None:
        """Continue the work on LPIs and the ITS commands that guest accesses have not finished. One
        call does at most as much work as one guest access may do (`armvirt.hyp.vgic.backlog`)."""
        self.dist.backlog.begin()
        if self.its:
            from armvirt.hyp.vgic.its import commands

            for its in self.its:
                commands.process(its)

    def finish(self) -> None:
        """Complete all unfinished work on LPIs (`armvirt.hyp.vgic.backlog`). A guest access can
        leave such work, because its amount of work is limited. The device attributes that save,
        restore or reset the tables of LPIs and ITSs call this method, because they need the final
        state of the LPIs."""
        while self.dist.backlog.jobs:
            self.go_on()

    # Host interrupts and irqfds ------------------------------------------------------------------

    def watch(self, intids: frozenset[int]) -> None:
        """Tell the vGIC which level-sensitive SPIs the irqfds resample. ``intids`` has their
        INTIDs, and replaces the INTIDs of an earlier call. When the guest ends one of these SPIs,
        the vGIC calls `VgicCallbacks.irq_ended`."""
        self.dist.watched = intids

    def set_owner(self, vcpu_id: int, intid: int, owner: object) -> None:
        """Allow only ``owner`` to inject a PPI or SPI (kvm_vgic_set_owner). KvmError EINVAL if the
        INTID is not a PPI or SPI, EEXIST if the interrupt has another owner."""
        if not is_ppi(intid) and not is_spi(intid):
            raise KvmError("EINVAL", f"INTID {intid} cannot be wired to a device")
        irq = self.dist.irq(vcpu_id, intid)
        if irq.owner is not None and irq.owner is not owner:
            raise KvmError("EEXIST", f"INTID {intid} has an owner")
        irq.owner = owner

    def map_phys_irq(
        self,
        vcpu_id: int,
        intid: int,
        host_intid: int,
        get_input_level: Callable[[], bool] | None = None,
    ) -> None:
        """Map an interrupt to a host interrupt (kvm_vgic_map_phys_irq). When the guest deactivates
        the interrupt, the host interrupt is deactivated too. ``get_input_level()`` returns the
        level of the line. ``get_input_level`` is None if there is no function that reads the
        line."""
        irq = self.dist.irq(vcpu_id, intid)
        irq.hw, irq.hwintid, irq.get_input_level = True, host_intid, get_input_level

    def unmap(self, vcpu_id: int, intid: int) -> None:
        """Undo `map_phys_irq` (kvm_vgic_unmap_phys_irq)."""
        flush.sync_all(self.dist)
        irq = self.dist.irq(vcpu_id, intid)
        irq.hw, irq.hwintid, irq.get_input_level = False, 0, None
        self.dist.queue(irq)

    def reset_mapped_irq(self, vcpu_id: int, intid: int) -> None:
        """Clear the pending and the active state of an interrupt that is mapped to a host interrupt
        (kvm_vgic_reset_mapped_irq). No effect on an interrupt without a mapping."""
        irq = self.dist.irq(vcpu_id, intid)
        if not irq.hw:
            return
        flush.sync_all(self.dist)
        irq.active = irq.pending_latch = irq.line_level = False
        irq.acked = None
        self.dist.queue(irq)

    def is_active(self, vcpu_id: int, intid: int) -> bool:
        """Whether an interrupt that is mapped to a host interrupt is active
        (kvm_vgic_map_is_active). False if the interrupt is not mapped. If the interrupt is in a
        list register, the list register is read without a fold."""
        irq = self.dist.irq(vcpu_id, intid)
        if not irq.hw:
            return False
        vif = None if irq.vcpu is None else self.dist.cpu(irq.vcpu).vif
        return bool(vif.lr[irq.lr] & LR_ACTIVE) if vif is not None and irq.lr >= 0 else irq.active

    # Around the guest ----------------------------------------------------------------------------

    def load(self, vcpu_id: int, vif: VirtualCpuInterface) -> None:
        """Load a vCPU on the PE with this virtual CPU interface (kvm_vgic_load)."""
        self.dist.cpu(vcpu_id).load(vif)

    def put(self, vcpu_id: int) -> None:
        """Unload a vCPU from its PE: fold the list registers, save the CPU interface registers, and
        disable the CPU interface (kvm_vgic_put)."""
        cpu = self.dist.cpu(vcpu_id)
        if cpu.vif is not None:
            flush.sync(self.dist, cpu)
            cpu.put()

    def attach(self, vcpu_id: int, vif: VirtualCpuInterface) -> None:
        """Connect a vCPU to the virtual CPU interface of the PE on which the vCPU is loaded, after
        a restore. ``vif`` is this virtual CPU interface. The caller has already restored its
        registers."""
        self.dist.cpu(vcpu_id).vif = vif

    def detach(self, vcpu_id: int) -> None:
        """Remove the vCPU from its virtual CPU interface. The registers are not saved, because the
        caller then restores another state."""
        self.dist.cpu(vcpu_id).vif = None

    def flush(self, vcpu_id: int) -> None:
        """Write the list registers of a loaded vCPU from its ap_list. For each list register that
        changes, a trace event `ListRegisterWrite` is emitted."""
        flush.flush(self.dist, self.dist.vcpus[vcpu_id])

    def sync(self, vcpu_id: int) -> None:
        """Fold the list registers of a vCPU into the interrupts, and prune the vCPU's ap_list. The
        caller must call `flush` before the next guest entry."""
        flush.sync(self.dist, self.dist.vcpus[vcpu_id])

    def sync_all(self) -> None:
        """Call `sync` for every vCPU that has an interrupt in a list register."""
        flush.sync_all(self.dist)

    def dirty(self, vcpu_id: int) -> bool:
        """Whether `sync` and `flush` have to run before the vCPU's next guest entry."""
        return flush.stale(self.dist.vcpus[vcpu_id])

    def refresh(self, vcpu_id: int) -> None:
        """Call `sync` and `flush` for a loaded vCPU, if they have to run before the vCPU's next
        guest entry."""
        dist = self.dist
        cpu = dist.vcpus[vcpu_id]
        vif = cpu.vif
        if cpu.dirty or vif is None or vif.maintenance or cpu.mapped or vif.waiting:  # may be stale
            if cpu.dirty or flush.stale(cpu):
                flush.sync(dist, cpu)
                flush.flush(dist, cpu)

    def offers_only(self, vcpu_id: int, intid: int) -> bool:
        """Whether one interrupt is mapped to a host interrupt, and is the only interrupt that the
        vCPU can take (`flush.offers_only`). ``intid`` is the INTID of this interrupt."""
        return flush.offers_only(self.dist.vcpus[vcpu_id], intid, True)

    def offers_only_own_sgi(self, vcpu_id: int, value: int) -> bool:
        """Whether the only interrupt that the vCPU can take (`flush.offers_only`) is the SGI of its
        own write of ICC_SGI1R_EL1. ``value`` is the written value. The result is False if the SGI
        also has another target."""
        cpu, request = self.dist.vcpus[vcpu_id], SgiRequest.decode(value)
        if not flush.offers_only(cpu, request.intid, False):
            return False
        return [cpu] == [each for each in self.dist.cpus() if sgi.is_target(request, cpu, each)]

    def pending(self, vcpu_id: int) -> bool:
        """Whether the vCPU has a pending interrupt that ends WFI (kvm_vgic_vcpu_pending_irq). The
        interrupt must be enabled and have a higher priority than the priority mask. The group
        enables of the CPU interface and the running priority have no effect on the result."""
        cpu, enables = self.dist.vcpus[vcpu_id], self.dist.enables
        flush.sync(self.dist, cpu)
        mask = cpu.priority_mask
        return any(
            i.enabled
            and enables >> i.group & 1
            and i.pending
            and not i.active
            and i.priority < mask
            for i in cpu.ap_list
        )

    def power_off(self, vcpu_id: int) -> None:
        """Reset ICC_*_EL1 of a vCPU that is powered off. The reset clears the group enables, so
        1-of-N SPIs go to other vCPUs. Active interrupts stay active.

        KVM does not reset these registers. In a GICv2 this method has no effect, because the CPU
        interface of a GICv2 is not part of the PE.
        """
        if self.model == 3:
            cpu = self.dist.cpu(vcpu_id)
            flush.sync(self.dist, cpu)
            cpu.reset_interface()

    # State ---------------------------------------------------------------------------------------

    def rows(self) -> list[dict[str, object]]:
        """The interrupts that are enabled, pending, active, or on an ap_list. The result has one
        dict of plain data for each interrupt."""
        return [
            {**irq.state(), "vcpu": irq.vcpu, "lr": irq.lr}
            for irq in self.dist.all_irqs()
            if _interesting(irq)
        ]

    def state(self) -> dict[str, object]:
        """The state of the vGIC that the guest can observe, as plain data
        (`armvirt.hyp.vgic.state`)."""
        return state.save(self.dist, self.its)

    def check_shape(self, saved: dict[str, Any]) -> None:
        """Raise the errors that `load_state` would raise, and change nothing."""
        state.check_shape(self.dist, self.its, saved)

    def load_state(self, saved: dict[str, Any]) -> None:
        """Restore the result of `state`. StateError if the version in ``saved`` differs from the
        version that this code writes. ValueError if the saved vGIC and this vGIC have different
        models, vCPU ids, numbers of INTIDs or numbers of ITSs. The same vCPUs must be loaded as at
        the save. A GICv2 is initialised if the saved GICv2 was initialised."""
        self.check_shape(saved)
        if saved["initialized"] and self.model == 2:
            self.init()
        state.load(self.dist, self.its, saved)


def _interesting(irq: VgicIrq) -> bool:
    return irq.enabled or irq.pending or irq.active or irq.vcpu is not None
