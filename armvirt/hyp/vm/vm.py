"""A virtual machine: its memory, vCPUs, interrupt controller and interrupts (struct kvm)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Literal, overload

from armvirt.arch.gic import NR_PRIVATE, is_ppi
from armvirt.errors import KvmError
from armvirt.hw.clock import Clock
from armvirt.hw.context import ShareableDomain
from armvirt.hyp.firmware.smccc import Smccc
from armvirt.hyp.firmware.smccc_services import SMCCC_FILTER, VM_SMCCC_CTRL, FilterRange
from armvirt.hyp.host.host import Host
from armvirt.hyp.memory.memslot import HostMemory, MemorySlot, check_call
from armvirt.hyp.memory.mmu import BusMaster, Mmu
from armvirt.hyp.timer.context import ArchTimerVmData, TimerVgic
from armvirt.hyp.vcpu.power import Power
from armvirt.hyp.vcpu.reset import Feature, VcpuInit, preferred_target
from armvirt.hyp.vcpu.vcpu import Vcpu
from armvirt.hyp.vgic.device import VgicDevice
from armvirt.hyp.vgic.vgic import MAX_VCPUS, Vgic
from armvirt.hyp.vm.capabilities import Cap, Capabilities, check_extension
from armvirt.hyp.vm.devices import Devices
from armvirt.hyp.vm.irqs import (
    CPU_LINES,
    IRQ_TYPE_CPU,
    IRQ_TYPE_PPI,
    IRQ_TYPE_SPI,
    GsiRoute,
    IrqRouter,
    irq_line_fields,
)
from armvirt.hyp.vm.services import NO_VGIC, VmSmcccHost, VmVgicCallbacks, add_calls
from armvirt.state import State, Stateful, check_versions, load_states, states_of

if TYPE_CHECKING:
    from armvirt.hyp.diagnosis.trace import Comparison, Finding
    from armvirt.hyp.diagnosis.vcpu import IdleCause
    from armvirt.hyp.vgic.device.its import ItsDevice

STATE_VERSION = 2

VM_ID_SHIFT = 16
"""The position of the VM number in the vCPU numbers of trace events: vCPU n of VM m is m << 16 |
n."""
MAX_VMID = 0xFF  # every CPU has VMIDs of at least 8 bits (ID_AA64MMFR1_EL1.VMIDBits = 0)
DEVICE_TYPES = {"arm-vgic-v2": 2, "arm-vgic-v3": 3}
ITS_DEVICE = "arm-its"


class _Part:
    """An adapter that makes the vGIC or a vCPU a `Stateful`, whose method `load` restores a saved
    state. The vGIC and the vCPU restore a saved state by `load_state`. Their own method `load` does
    something else: it loads a vCPU on a PE."""

    __slots__ = ("_part",)

    def __init__(self, part: Vgic | Vcpu) -> None:
        self._part = part

    def state(self) -> State:
        return self._part.state()

    def load(self, state: State) -> None:
        self._part.load_state(state)


class Vm:
    """A virtual machine. ``new_vcpu(vm, vcpu_id)`` creates a vCPU and its run loop.

    If ``semihosting`` is true, HLT #0xF000 is a semihosting call. ``wall_clock_start`` is the date
    at virtual time 0, in ns since 1970.
    """

    def __init__(
        self,
        host: Host,
        vm_id: int,
        virtual_start: int,
        trng_seed: int,
        wall_clock_start: int,
        new_vcpu: Callable[[Vm, int], Vcpu],
    ) -> None:
        self.host, self.id = host, vm_id
        self.id_base = vm_id << VM_ID_SHIFT
        self.domain = ShareableDomain(host.engines)
        self.mmu = Mmu(self.domain, vm_id % MAX_VMID + 1)
        self.timer_data = ArchTimerVmData(
            host.pe.timer.counter, virtual_start, vhe=host.config.vhe, cntpoff=host.config.cntpoff
        )
        self.caps = Capabilities(self.mmu)
        self.vcpu_features: Feature | None = None
        self.vgic: Vgic | None = None
        self.devices = Devices()
        self.smccc = Smccc(VmSmcccHost(self), trng_seed, host.bus)
        self.wall_clock_start = wall_clock_start
        add_calls(self.smccc, self, lambda: self.wall_clock_start + self.host.clock.now)
        self.semihosting = False
        self._new_vcpu = new_vcpu
        self._vcpus: dict[int, Vcpu] = {}
        self._its_devices: list[ItsDevice] = []
        self._irqs = IrqRouter(self._vgic_if_any)
        self._has_run = False

    def __repr__(self) -> str:
        return f"<Vm {self.id} with {len(self._vcpus)} vCPUs, {self.vgic!r}>"

    # -- capabilities and attributes --

    def check_extension(self, cap: int) -> int:
        """KVM_CHECK_EXTENSION on a VM. The result is the same as that of `Kvm.check_extension`, but
        MAX_VCPUS depends on the VM's interrupt controller."""
        return check_extension(
            cap, len(self.host.pcpus), None if self.vgic is None else self.vgic.model
        )

    def enable_cap(self, cap: int, argument: int = 0, flags: int = 0) -> None:
        """KVM_ENABLE_CAP. KvmError: the errors of `Capabilities.enable`."""
        self.caps.enable(cap, argument, flags)
        if cap == Cap.ARM_SYSTEM_SUSPEND:
            self.smccc.psci.suspend_enabled = True

    def has_device_attr(self, group: int, attr: int) -> None:
        """KVM_HAS_DEVICE_ATTR on a VM. KvmError ENXIO for an unknown group or attribute."""
        if (group, attr) != (VM_SMCCC_CTRL, SMCCC_FILTER):
            raise KvmError("ENXIO", f"a VM has no attribute {attr:#x} in group {group}")

    def set_device_attr(self, group: int, attr: int, value: FilterRange) -> None:
        """KVM_SET_DEVICE_ATTR on a VM: add a range to the SMCCC filter. KvmError: the errors of
        `has_device_attr` and of `SmcccFilter.add`."""
        self.has_device_attr(group, attr)
        self.smccc.filter.add(value, self._has_run)

    def preferred_target(self) -> VcpuInit:
        """The preferred target of the vCPUs (KVM_ARM_PREFERRED_TARGET)."""
        return preferred_target()

    @property
    def returns_nisv(self) -> bool:
        """Whether the VMM has enabled KVM_CAP_ARM_NISV_TO_USER."""
        return Cap.ARM_NISV_TO_USER in self.caps

    @property
    def has_run(self) -> bool:
        """Whether a vCPU of the VM has run (kvm_vm_has_ran_once)."""
        return self._has_run

    def set_counter_offset(self, offset: int, reserved: int = 0) -> None:
        """KVM_ARM_SET_COUNTER_OFFSET: subtract ``offset`` (in ticks, modulo 2**64) from the virtual
        and the physical counter of all vCPUs.

        Afterwards a write of a counter register by KVM_SET_ONE_REG has no effect. KvmError EINVAL
        if ``reserved`` is not 0. During `Host.run` (for example in an exit handler), KvmError EBUSY
        unless all vCPUs except the current one are powered off. KVM returns EBUSY because it cannot
        lock a vCPU that runs.
        """
        if reserved:
            raise KvmError("EINVAL", "reserved must be 0")
        self.host.check_thread()
        caller = self.host.current if self.host.driving else None
        if caller is not None and any(
            v is not caller and v.power is not Power.OFF for v in self._vcpus.values()
        ):
            raise KvmError("EBUSY", "another vCPU is running")
        self.timer_data.set_counter_offset(offset)

    @property
    def timers(self) -> Clock:
        """The clock of the emulated host, which has the virtual time and an event queue. The VMM's
        devices use this clock."""
        return self.host.clock

    def reset(self) -> None:
        """Reset the GIC and the hypercall services for a reboot. The VMM starts the vCPUs
        afterwards."""
        if self.vgic is not None:
            self.vgic.reset()
        self.smccc.reset()

    @property
    def parts(self) -> Mapping[str, Stateful]:
        """The parts of the VM that have a saved state: a dict by the name of the part. `load`
        restores the parts in the order of the dict."""
        vgic = {} if self.vgic is None else {"vgic": _Part(self.vgic)}
        vcpus = {f"vcpu{vcpu.id}": _Part(vcpu) for vcpu in self._vcpus.values()}
        return {"timers": self.timer_data, "smccc": self.smccc, **vgic, **vcpus}

    def state(self) -> dict[str, object]:
        """The state of this VM and of its host, without guest memory. For several VMs use
        `Kvm.state`."""
        return {**self.own_state(), "host": self.host.state()}

    def own_state(self) -> dict[str, object]:
        """The state of this VM, without guest memory and without the host."""
        return {
            "version": STATE_VERSION,
            "has_run": self._has_run,
            "parts": states_of(self.parts),
        }

    def load(self, state: State) -> None:
        """Restore the result of `state`. Before this call, the caller has created this VM by the
        same KVM calls that created the saved VM, and has restored the guest memory.

        The errors are those of `Kvm.load`; after an error nothing is changed.
        """
        self.host.check_standing()
        self.check_shape(state)
        self.host.check_shape(state["host"])
        self.host.unload()
        self.load_own(state)
        self.host.load(state["host"])

    def check_shape(self, state: State) -> None:
        """Check that `load_own` can restore ``state``. StateError if a version in ``state`` differs
        from the version that this code writes. ValueError if the saved VM did not have the same
        vCPU ids as this VM, or had another interrupt controller."""
        check_versions(state, self.own_state(), f"VM {self.id}")
        saved, present = sorted(state["parts"]), sorted(self.parts)
        if saved != present:
            raise ValueError(
                f"saved state is of another shape: it has {', '.join(saved)}, "
                f"and this VM has {', '.join(present)}"
            )
        if self.vgic is not None:
            self.vgic.check_shape(state["parts"]["vgic"])

    def load_own(self, state: State) -> None:
        """Restore what `own_state` returned. Before the call, the caller unloads all vCPUs
        (`Host.unload`); after the call, the caller restores the host's PEs."""
        self._has_run = bool(state["has_run"])
        load_states(self.parts, state["parts"], f"VM {self.id}")

    # -- vCPUs --

    def create_vcpu(self, vcpu_id: int) -> Vcpu:
        """Create a vCPU (KVM_CREATE_VCPU). The vCPU is off until `Vcpu.init`.

        KvmError in this order (kvm_vm_ioctl_create_vcpu): EINVAL for an id out of range, or if the
        VM has the maximum number of vCPUs already; EBUSY after the GIC was initialised; EINVAL for
        an id that the GIC cannot address; EEXIST if the id exists.
        """
        most = self.check_extension(Cap.MAX_VCPUS)
        if not 0 <= vcpu_id < self.check_extension(Cap.MAX_VCPU_ID) or len(self._vcpus) >= most:
            raise KvmError("EINVAL", f"vCPU {vcpu_id}: there are {most} at most, from 0")
        if self.vgic is not None:
            self.vgic.precreate(vcpu_id)
        if vcpu_id in self._vcpus:
            raise KvmError("EEXIST", f"vCPU {vcpu_id} exists")
        vcpu = self._new_vcpu(self, vcpu_id)
        self._vcpus[vcpu_id] = vcpu
        self.host.add(vcpu)
        if self.vgic is not None:
            self.vgic.add_vcpu(vcpu_id, vcpu.mpidr)
        return vcpu

    @property
    def vcpus(self) -> Iterable[Vcpu]:
        return self._vcpus.values()

    @property
    def online_vcpus(self) -> int:
        """The number of vCPUs."""
        return len(self._vcpus)

    def vcpu(self, vcpu_id: int) -> Vcpu:
        """The vCPU with the id ``vcpu_id``. KvmError ENOENT if the vCPU was not created."""
        if vcpu_id not in self._vcpus:
            raise KvmError("ENOENT", f"there is no vCPU {vcpu_id}")
        return self._vcpus[vcpu_id]

    # -- memory --

    def set_user_memory_region(
        self, slot: int, guest_phys_addr: int, memory: HostMemory | None, flags: int = 0, *,
        memory_size: int | None = None, offset: int = 0,
    ) -> None:  # fmt: skip
        """KVM_SET_USER_MEMORY_REGION: create, change or delete a memory slot. ``memory`` and
        ``offset`` (bytes) replace userspace_addr: the slot starts at ``offset`` in ``memory``.
        ``memory_size`` is in bytes; by default the slot ends at the end of ``memory``.

        An existing slot can be moved, and its flag LOG_DIRTY_PAGES can be changed. If ``memory`` is
        None or ``memory_size`` is 0, the slot is deleted. KvmError: the errors of `Mmu.set_slot`,
        and of `Host.check_open`.
        """
        check_call(slot, flags, guest_phys_addr)
        self.host.check_open()
        gone = memory is None or memory_size == 0
        new = (
            None
            if gone or memory is None
            else MemorySlot(slot, flags, guest_phys_addr, memory, offset, memory_size)
        )
        self.mmu.set_slot(new, slot)

    def get_dirty_log(self, slot: int) -> bytes:
        """KVM_GET_DIRTY_LOG: the bitmap of a slot, with one bit per page; bit 0 of byte 0 is the
        first page. KvmError: the errors of `Mmu.get_dirty_log`."""
        return self.mmu.get_dirty_log(slot)

    def clear_dirty_log(self, slot: int, first_page: int, num_pages: int, bitmap: bytes) -> None:
        """KVM_CLEAR_DIRTY_LOG: mark the pages whose bit in ``bitmap`` is 1 as clean. ``first_page``
        is the page number in the slot that belongs to bit 0 of ``bitmap``. KvmError: the errors of
        `Mmu.clear_dirty_log`."""
        self.mmu.clear_dirty_log(slot, first_page, num_pages, bitmap)

    def read_memory(self, ipa: int, size: int) -> bytes:
        """Read ``size`` bytes of guest memory at ``ipa``. KvmError EFAULT if the range is outside
        the memory slots."""
        return self.mmu.read(ipa, size)

    def write_memory(self, ipa: int, data: bytes) -> None:
        """Write guest memory at ``ipa``, also in a read-only slot, and mark the pages as dirty.
        KvmError EFAULT if the range is outside the memory slots."""
        self.mmu.write(ipa, data)

    def has_memory(self, ipa: int, size: int) -> bool:
        """Whether [ipa, ipa + size) is in one memory slot."""
        slot = self.mmu.find(ipa)
        return slot is not None and ipa + size <= slot.end

    def populated_pages(
        self, tick: Callable[[], None] = lambda: None
    ) -> Iterator[tuple[int, bytes]]:
        """The pages of guest RAM that are not all zero, as pairs of IPA and bytes. The search takes
        much time on the real machine. Therefore it calls ``tick()`` before each 2 MiB, so that the
        caller can end the search by an exception."""
        return self.mmu.populated_pages(tick)

    # -- the interrupt controller --

    @overload
    def create_device(self, kind: Literal["arm-its"]) -> ItsDevice: ...

    @overload
    def create_device(self, kind: Literal["arm-vgic-v2", "arm-vgic-v3"]) -> VgicDevice: ...

    @overload
    def create_device(self, kind: str) -> VgicDevice | ItsDevice: ...

    @overload
    def create_device(self, kind: str, *, test: bool) -> VgicDevice | ItsDevice | None: ...

    def create_device(self, kind: str, *, test: bool = False) -> VgicDevice | ItsDevice | None:
        """Create a device (KVM_CREATE_DEVICE). A VM can have one GIC (``arm-vgic-v2`` or
        ``arm-vgic-v3``) and any number of ITSs (``arm-its``). With ``test``
        (KVM_CREATE_DEVICE_TEST), only check that the kind exists, and create nothing.

        KvmError ENODEV for an unknown kind, EEXIST for a second GIC of either version, EBUSY after
        a vCPU has run, E2BIG for a GICv2 with too many vCPUs (kvm_vgic_create).
        """
        if kind == ITS_DEVICE:
            return None if test else self._create_its()
        if kind not in DEVICE_TYPES:
            raise KvmError(
                "ENODEV", f"no device {kind!r}; there is {', '.join((*DEVICE_TYPES, ITS_DEVICE))}"
            )
        if test:
            return None
        if self.vgic is not None:
            raise KvmError("EEXIST", "this VM has an interrupt controller")
        if self._has_run:
            raise KvmError("EBUSY", "a vCPU has run without an interrupt controller")
        model = DEVICE_TYPES[kind]
        if any(vcpu_id >= MAX_VCPUS[model] for vcpu_id in self._vcpus):
            raise KvmError("E2BIG", f"a GICv{model} has at most {MAX_VCPUS[model]} vCPUs")
        callbacks = VmVgicCallbacks(self._vcpus, self._irqs, self.host.clock, f"vm{self.id}-vgic")
        self.vgic = Vgic(self.host.bus, callbacks, model, self.host.pe.vif.prebits)
        self.devices.vgic = self.vgic
        self.vgic.dist.id_base = self.id_base
        for vcpu in self._vcpus.values():
            self.vgic.add_vcpu(vcpu.id, vcpu.mpidr)
            vcpu.set_vgic(self.vgic)
        self.vgic.dist.memory = BusMaster(self.mmu)
        callbacks.connect(self.vgic)
        for its in self._its_devices:
            its.connect()
        return VgicDevice(self.vgic)

    def _create_its(self) -> ItsDevice:
        from armvirt.hyp.vgic.device.its import ItsDevice

        its = ItsDevice(self._vgic_if_any, self.devices.forget_frames)
        self._its_devices.append(its)
        return its

    @property
    def timer_vgic(self) -> TimerVgic:
        """The vGIC that the timers of a new vCPU call; `NO_VGIC` in a VM without a vGIC."""
        return NO_VGIC if self.vgic is None else self.vgic

    def vgic_of(self) -> Vgic:
        """The vGIC of the VM. The caller must know that the VM has a vGIC."""
        assert self.vgic is not None
        return self.vgic

    def _vgic_if_any(self) -> Vgic | None:
        return self.vgic

    def first_run(self) -> None:
        """Before the first run of a vCPU, check the GIC's frames and map the timers' PPIs
        (kvm_arch_vcpu_run_pid_change). After the first call that succeeds, a call has no effect.

        KvmError: ENXIO or EINVAL for frames that are missing or overlap; EBUSY for a GIC that is
        not initialised; EINVAL for timers that share a PPI. After an error the VM has not run, and
        the next call repeats the checks.
        """
        if self._has_run:
            return
        if self.vgic is not None:
            self.vgic.check_resources()
            for vcpu in self._vcpus.values():
                vcpu.timer.check_ppis()
            self.vgic.map_resources()
            for vcpu in self._vcpus.values():
                vcpu.timer.enable()
                vcpu.timer.repeat_levels()
        self._has_run = True

    @property
    def has_gicv3(self) -> bool:
        """Whether the guest has ICC_*_EL1 (kvm_has_gicv3)."""
        return self.vgic is not None and self.vgic.model == 3

    # -- interrupts --

    def signal_msi(self, address: int, data: int, devid: int | None = None) -> int:
        """KVM_SIGNAL_MSI: write ``data`` to the MSI doorbell at ``address``. ``devid`` is the
        DeviceID of the writer; None if the MSI has no DeviceID. Return 1 if the MSI was delivered,
        0 if the guest has blocked the MSI.

        KvmError: the errors of `Vgic.signal_msi`; EINVAL without an interrupt controller.
        """
        if self.vgic is None:
            raise KvmError("EINVAL", "this VM has no interrupt controller")
        self.host.check_thread()
        return int(self.vgic.signal_msi(address, data, devid))

    def irq_line(self, intid: int, level: bool, vcpu_id: int | None = None) -> None:
        """KVM_IRQ_LINE: set the level of an SPI or a PPI. ``vcpu_id`` is the vCPU of the PPI; it is
        None for an SPI. KvmError EINVAL for an INTID that is not implemented or is an LPI, and for
        a PPI of a vCPU that does not exist; EBUSY before a GICv3 is initialised; ENXIO without a
        GIC."""
        if self.vgic is None:
            raise KvmError("ENXIO", "this VM has no interrupt controller")
        self.host.check_thread()
        self.vgic.inject(vcpu_id, intid, level)

    def irq_line_raw(self, word: int, level: bool) -> None:
        """KVM_IRQ_LINE with its packed word (see `irq_line_word`).

        The type CPU is for a VM without an interrupt controller. It sets the level of an interrupt
        input of a vCPU: input 0 is IRQ, input 1 is FIQ.

        KvmError ENXIO for SPIs and PPIs in a VM without an interrupt controller. KvmError ENXIO
        also for the type CPU in a VM with an interrupt controller, because the interrupt controller
        drives the inputs. KvmError EINVAL for an unknown type, for a vCPU that does not exist, and
        for an INTID that does not belong to the type or is not implemented.
        """
        kind, number, vcpu_id = irq_line_fields(word)
        if kind not in (IRQ_TYPE_CPU, IRQ_TYPE_SPI, IRQ_TYPE_PPI):
            raise KvmError("EINVAL", f"KVM_IRQ_LINE: no interrupt type {kind}")
        if kind == IRQ_TYPE_CPU and self.vgic is None:
            if vcpu_id not in self._vcpus or number not in CPU_LINES:
                raise KvmError("EINVAL", f"no input {number} of vCPU {vcpu_id}")
            self._vcpus[vcpu_id].set_line(number, level)
            return
        if self.vgic is None or kind == IRQ_TYPE_CPU:
            raise KvmError("ENXIO", "interrupt lines belong to the interrupt controller")
        if kind == IRQ_TYPE_SPI:
            if number < NR_PRIVATE:
                raise KvmError("EINVAL", f"INTID {number} is no SPI")
            self.vgic.inject(None, number, level)
            return
        if vcpu_id not in self._vcpus or not is_ppi(number):
            raise KvmError("EINVAL", f"no PPI {number} of vCPU {vcpu_id}")
        self.vgic.inject(vcpu_id, number, level)

    def set_gsi_routing(self, entries: Iterable[GsiRoute]) -> None:
        """Replace the routes of all GSIs (KVM_SET_GSI_ROUTING), see `IrqRouter.set_routing`. Before
        the first call, GSI n is routed to the SPI with the INTID 32 + n."""
        self._irqs.set_routing(entries)

    def irqfd(self, gsi: int, resample: Callable[[], None] | None = None) -> Callable[[], None]:
        """Add an irqfd (KVM_IRQFD), and return a function that raises the GSI, see
        `IrqRouter.irqfd`."""
        return self._irqs.irqfd(gsi, resample)

    def irqfd_deassign(self, gsi: int, resample: Callable[[], None]) -> None:
        """Remove an irqfd that was added with ``resample`` (KVM_IRQFD_FLAG_DEASSIGN), see
        `IrqRouter.deassign`."""
        self._irqs.deassign(gsi, resample)

    def ioeventfd(
        self, address: int, length: int, signal: Callable[[], None], datamatch: int | None = None, *,
        deassign: bool = False,
    ) -> None:  # fmt: skip
        """Add an ioeventfd (KVM_IOEVENTFD): a guest's store of ``length`` bytes to ``address``
        calls ``signal()`` and does not exit to the VMM. If ``length`` is 0, a store of any length
        matches. With ``datamatch``, only a store of this value matches. With ``deassign``, remove
        the ioeventfd. KvmError: the errors of `IoEventFds.assign` and `IoEventFds.deassign`."""
        change = self.devices.ioeventfds.deassign if deassign else self.devices.ioeventfds.assign
        change(address, length, signal, datamatch)

    # -- diagnosis --

    def why_idle(self) -> list[IdleCause]:
        """The causes why no vCPU wakes up (`armvirt.hyp.diagnosis.vcpu`)."""
        from armvirt.hyp.diagnosis import vcpu as diagnosis

        return diagnosis.idle_causes(self)

    def diagnose(self, vcpu_id: int, intid: int) -> list[Finding]:
        """Check each condition that an interrupt must meet to reach a vCPU, in the order of
        delivery. Each result says whether the condition blocks the interrupt, and why
        (`armvirt.hyp.diagnosis.vcpu`)."""
        from armvirt.hyp.diagnosis import vcpu as diagnosis

        return diagnosis.trace(self, vcpu_id, intid)

    def compare(self, vcpu_id: int, taken: int, other: int) -> Comparison:
        """Explain why a vCPU takes one interrupt and not another interrupt. ``taken`` is the INTID
        of the interrupt that the vCPU takes. ``other`` is the INTID of the other interrupt."""
        from armvirt.hyp.diagnosis import vcpu as diagnosis

        return diagnosis.compare(self, vcpu_id, taken, other)
