"""The KVM API in Pythonic form: Kvm, Vm, Vcpu, Device. The only door between a VMM and the
hypervisor.

Names and semantics follow the ioctls (Documentation/virt/kvm/api.rst); errors are `KvmError` with
the errno's name. The classes are public: a VMM, or a KVM selftest, can be written against them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal, overload

from armvirt.arch.timer import DEFAULT_FREQUENCY_HZ
from armvirt.errors import KvmError
from armvirt.events import Console as ConsoleEvent
from armvirt.events import EventBus
from armvirt.hw.clock import Clock
from armvirt.hw.context import ShareableDomain
from armvirt.hw.timer import COUNTER_START
from armvirt.hyp.firmware import pvtime
from armvirt.hyp.firmware.filter import SMCCC_FILTER, VM_SMCCC_CTRL, FilterAction, FilterRange
from armvirt.hyp.firmware.ptp import WALL_CLOCK_START
from armvirt.hyp.firmware.smccc import Smccc
from armvirt.hyp.host.host import Host, Stop
from armvirt.hyp.host.sched import MIN_QUANTUM_NS
from armvirt.hyp.memory.dirty_log import ManualProtect
from armvirt.hyp.memory.memslot import MEM_LOG_DIRTY_PAGES, MEM_READONLY, HostMemory
from armvirt.hyp.memory.mmu import BusMaster, Mmu
from armvirt.hyp.timer.arch_timer import ArchTimerVmData
from armvirt.hyp.vcpu import idregs
from armvirt.hyp.vcpu.attributes import VcpuGroup
from armvirt.hyp.vcpu.debug import GuestDebug
from armvirt.hyp.vcpu.events import InFlight, VcpuEvents
from armvirt.hyp.vcpu.exit_types import (
    DebugExit,
    Exit,
    HypercallExit,
    IntrExit,
    MmioExit,
    NisvExit,
    SemihostingExit,
    StuckExit,
    SystemEventExit,
)
from armvirt.hyp.vcpu.features import Feature, MpState, VcpuInit, preferred_target
from armvirt.hyp.vcpu.reset import Start
from armvirt.hyp.vcpu.vcpu import ExitHandler, Power, Vcpu
from armvirt.hyp.vgic.backlog import SLICE_NS
from armvirt.hyp.vgic.device.gic import AddrType as VgicAddress
from armvirt.hyp.vgic.device.gic import Ctrl as VgicCtrl
from armvirt.hyp.vgic.device.gic import Group as VgicGroup
from armvirt.hyp.vgic.device.gic import VgicDevice
from armvirt.hyp.vgic.registers.frames import Frame
from armvirt.hyp.vgic.vgic import MAX_VCPUS, Vgic
from armvirt.hyp.vm.capabilities import Cap, Capabilities, check_extension
from armvirt.hyp.vm.ioeventfd import IoEventFds
from armvirt.hyp.vm.irqfd import GsiRoute, IrqRouter
from armvirt.hyp.vm.irqs import IRQ_TYPE_CPU, IRQ_TYPE_PPI, IRQ_TYPE_SPI, VmIrq, irq_line_word
from armvirt.hyp.vm.memory import VmMemory
from armvirt.hyp.vm.services import VmServices

if TYPE_CHECKING:
    from armvirt.hyp.vgic.device.its import ItsDevice

__all__ = [
    "COUNTER_START",
    "CPU_FEATURES",
    "IRQ_TYPE_CPU",
    "IRQ_TYPE_PPI",
    "IRQ_TYPE_SPI",
    "MEM_LOG_DIRTY_PAGES",
    "MEM_READONLY",
    "MIN_QUANTUM_NS",
    "PVTIME_IPA",
    "SMCCC_FILTER",
    "VM_SMCCC_CTRL",
    "Cap",
    "Clock",
    "ConsoleEvent",
    "DebugExit",
    "EventBus",
    "Exit",
    "ExitHandler",
    "Feature",
    "FilterAction",
    "FilterRange",
    "GsiRoute",
    "GuestDebug",
    "Host",
    "HostMemory",
    "HypercallExit",
    "InFlight",
    "IntrExit",
    "Kvm",
    "KvmError",
    "ManualProtect",
    "MmioExit",
    "MpState",
    "NisvExit",
    "SemihostingExit",
    "Start",
    "Stop",
    "StuckExit",
    "SystemEventExit",
    "Vcpu",
    "VcpuEvents",
    "VcpuGroup",
    "VcpuInit",
    "VgicAddress",
    "VgicCtrl",
    "VgicDevice",
    "VgicGroup",
    "Vm",
    "irq_line_word",
]

ONE_REG_ARM64_SYSREG = 0x6030_0000_0013_0000
ONE_REG_ARM64_CORE = 0x6030_0000_0010_0000
VM_ID_SHIFT = 16
"""Trace events name vCPU n of VM m as m << 16 | n."""
MAX_VMID = 0xFF  # 8 bits, which every CPU has (ID_AA64MMFR1_EL1.VMIDBits = 0)
CPU_FEATURES = tuple(idregs.FEATURES)
DEVICE_TYPES = {"arm-vgic-v2": 2, "arm-vgic-v3": 3}
ITS_DEVICE = "arm-its"
PVTIME_IPA = pvtime.ATTR_IPA


class Kvm:
    """/dev/kvm: creates VMs on one host. ``engine`` is auto, native or portable;
    ``wall_clock_start`` is the date at virtual time 0 in ns since 1970, which guests get by the PTP
    call; the rest as `Host`."""

    def __init__(
        self, *, engine: str = "auto", cpu: str = "cortex-a72", frequency_hz: int = DEFAULT_FREQUENCY_HZ,
        bus: EventBus | None = None, list_registers: int = 4, priority_bits: int = 5,
        pcpus: int = 1, quantum_ns: int | None = None, counter_start: int = COUNTER_START,
        vhe: bool = False, cntpoff: bool = False, cpu_features: Iterable[str] = (),
        wall_clock_start: int = WALL_CLOCK_START,
    ) -> None:  # fmt: skip
        self.wall_clock_start = wall_clock_start
        self.host = Host(
            engine=engine, cpu=cpu, frequency_hz=frequency_hz, bus=bus,
            list_registers=list_registers, priority_bits=priority_bits, pcpus=pcpus, quantum_ns=quantum_ns,
            vhe=vhe, cntpoff=cntpoff, cpu_features=cpu_features,
            counter_start=counter_start,
        )  # fmt: skip
        self.vms: list[Vm] = []

    def __repr__(self) -> str:
        return f"<Kvm with {len(self.vms)} VMs on {self.host!r}>"

    def create_vm(self, *, virtual_start: int = 0, trng_seed: int = 0) -> Vm:
        """KVM_CREATE_VM. CNTVOFF is set so that the guest's virtual count starts at
        ``virtual_start`` ticks."""
        vm = Vm(self.host, len(self.vms), virtual_start, trng_seed)
        vm.wall_clock_start = self.wall_clock_start
        self.vms.append(vm)
        return vm

    def state(self) -> dict[str, object]:
        """The host and all of its VMs, but for memory."""
        return {"version": 1, "host": self.host.state(), "vms": [vm.own_state() for vm in self.vms]}

    def load(self, state: dict[str, object]) -> None:
        """Take over what `state` gave, on a host that was built the same way and has the same
        memory contents.

        ValueError, and nothing is changed, for the state of a host or VM of another shape.
        """
        self.host.check_standing()
        saved_vms = state["vms"]
        assert isinstance(saved_vms, list)
        self.host.check_shape(state["host"])  # type: ignore[arg-type]
        if len(saved_vms) != len(self.vms):
            raise ValueError("saved state is of another shape: the number of VMs")
        for vm, saved in zip(self.vms, saved_vms, strict=True):
            vm.check_shape(saved)
        self.host.unload()
        for vm, saved in zip(self.vms, state["vms"], strict=True):  # type: ignore[call-overload]
            vm.load_own(saved)
        self.host.load(state["host"])  # type: ignore[arg-type]

    def check_extension(self, cap: int) -> int:
        """KVM_CHECK_EXTENSION: 0 for what is not there, else 1 or what the capability counts (see
        `Cap`)."""
        return check_extension(cap, len(self.host.pcpus))


class Vm(VmMemory, VmIrq, VmServices):
    """A virtual machine. Its memory is in `VmMemory`, how interrupts are raised in `VmIrq`, and
    what the rest of the hypervisor asks of it in `VmServices`."""

    def __init__(self, host: Host, vm_id: int, virtual_start: int, trng_seed: int) -> None:
        self.host, self.id = host, vm_id
        self.id_base = vm_id << VM_ID_SHIFT
        self.domain = ShareableDomain(host.engines)
        self.mmu = Mmu(self.domain, vm_id % MAX_VMID + 1)
        self.timer_data = ArchTimerVmData(
            host.pe.timer.counter, virtual_start, vhe=host.vhe, cntpoff=host.cntpoff
        )
        self.caps = Capabilities(self.mmu)
        self.vcpu_features: Feature | None = None
        self.ioeventfds = IoEventFds()
        self.vgic: Vgic | None = None
        self.smccc = Smccc(self, trng_seed, host.bus)
        self.wall_clock_start = WALL_CLOCK_START
        self._add_services()
        self.semihosting = False
        self._vcpus: dict[int, Vcpu] = {}
        self._frames: list[tuple[int, int, Frame]] = []
        self._its_devices: list[ItsDevice] = []
        self._irqs = IrqRouter(lambda: self.vgic)
        self._has_run = False

    def __repr__(self) -> str:
        return f"<Vm {self.id} with {len(self._vcpus)} vCPUs, {self.vgic!r}>"

    # -- capabilities and attributes --

    def check_extension(self, cap: int) -> int:
        """KVM_CHECK_EXTENSION on a VM: as `Kvm.check_extension`, but MAX_VCPUS depends on its
        interrupt controller."""
        return check_extension(
            cap, len(self.host.pcpus), None if self.vgic is None else self.vgic.model
        )

    def enable_cap(self, cap: int, argument: int = 0, flags: int = 0) -> None:
        """KVM_ENABLE_CAP. Errors as `Capabilities.enable`."""
        self.caps.enable(cap, argument, flags)
        if cap == Cap.ARM_SYSTEM_SUSPEND:
            self.smccc.psci.suspend_enabled = True

    def has_device_attr(self, group: int, attr: int) -> None:
        """KVM_HAS_DEVICE_ATTR on a VM: KvmError ENXIO if there is no such attribute."""
        if (group, attr) != (VM_SMCCC_CTRL, SMCCC_FILTER):
            raise KvmError("ENXIO", f"a VM has no attribute {attr:#x} in group {group}")

    def set_device_attr(self, group: int, attr: int, value: FilterRange) -> None:
        """KVM_SET_DEVICE_ATTR on a VM: a range of the SMCCC filter. Errors as `has_device_attr`,
        `SmcccFilter.add`."""
        self.has_device_attr(group, attr)
        self.smccc.filter.add(value, self._has_run)

    def preferred_target(self) -> VcpuInit:
        """KVM_ARM_PREFERRED_TARGET."""
        return preferred_target()

    @property
    def has_run(self) -> bool:
        """kvm_vm_has_ran_once: whether a vCPU of it has."""
        return self._has_run

    def set_counter_offset(self, offset: int, reserved: int = 0) -> None:
        """KVM_ARM_SET_COUNTER_OFFSET: ``offset`` (modulo 2**64) is subtracted from both counters of
        all vCPUs.

        Afterwards setting a counter by its register has no effect. EINVAL for ``reserved`` other
        than 0, EBUSY where a vCPU beside the one whose exit this is runs at this moment (not every
        vCPU's lock can be had).
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
        """Virtual time and its queue, for the VMM's devices."""
        return self.host.clock

    def reset(self) -> None:
        """What a VMM does with its VM at a reboot: GIC and services as at the start; vCPUs are
        started by it."""
        if self.vgic is not None:
            self.vgic.reset()
        self.smccc.reset()

    def state(self) -> dict[str, object]:
        """Everything of this VM and its host but memory; for a host with several VMs there is
        `Kvm.state`."""
        return {**self.own_state(), "host": self.host.state()}

    def own_state(self) -> dict[str, object]:
        """Everything of this VM alone but memory."""
        return {
            "version": 1, "has_run": self._has_run,
            "timers": self.timer_data.state(), "smccc": self.smccc.state(),
            "vcpus": {str(v.id): v.state() for v in self._vcpus.values()},
            "vgic": None if self.vgic is None else self.vgic.state(),
        }  # fmt: skip

    def load(self, state: dict[str, object]) -> None:
        """Take over what `state` gave, in a VM that was created the same way and has the same
        memory contents.

        ValueError as `Kvm.load`.
        """
        self.host.check_standing()
        self.check_shape(state)
        self.host.check_shape(state["host"])  # type: ignore[arg-type]
        self.host.unload()
        self.load_own(state)
        self.host.load(state["host"])  # type: ignore[arg-type]

    def check_shape(self, state: dict[str, object]) -> None:
        """ValueError unless `own_state` is of a VM with the same vCPUs and the same interrupt
        controller."""
        vcpus, vgic = state["vcpus"], state["vgic"]
        assert isinstance(vcpus, dict)
        if list(vcpus) != [str(vcpu_id) for vcpu_id in self._vcpus]:
            raise ValueError("saved state is of another shape: the vCPUs")
        if (vgic is None) != (self.vgic is None):
            raise ValueError("saved state is of another shape: the interrupt controller")
        if self.vgic is not None:
            self.vgic.check_shape(vgic)  # type: ignore[arg-type]

    def load_own(self, state: dict[str, object]) -> None:
        """Take over `own_state`. Nothing may be loaded on the host's PEs (`Host.unload`); they
        follow."""
        vcpus, vgic = state["vcpus"], state["vgic"]
        assert isinstance(vcpus, dict)
        self._has_run = bool(state["has_run"])
        self.timer_data.load(state["timers"])  # type: ignore[arg-type]
        self.smccc.load(state["smccc"])  # type: ignore[arg-type]
        if self.vgic is not None:
            self.vgic.load_state(vgic)  # type: ignore[arg-type]
        for key, saved in vcpus.items():
            self._vcpus[int(key)].load_state(saved)

    # -- vCPUs --

    def create_vcpu(self, vcpu_id: int) -> Vcpu:
        """KVM_CREATE_VCPU. The vCPU is off until `Vcpu.init`.

        KvmError EINVAL for an id out of range, and where there are as many as there can be; EBUSY
        once the GIC is initialised, EINVAL for an id beyond what it can address; EEXIST for an id
        that is taken. They are looked for in this order (kvm_vm_ioctl_create_vcpu).
        """
        most = self.check_extension(Cap.MAX_VCPUS)
        if not 0 <= vcpu_id < self.check_extension(Cap.MAX_VCPU_ID) or len(self._vcpus) >= most:
            raise KvmError("EINVAL", f"vCPU {vcpu_id}: there are {most} at most, from 0")
        if self.vgic is not None:
            self.vgic.precreate(vcpu_id)
        if vcpu_id in self._vcpus:
            raise KvmError("EEXIST", f"vCPU {vcpu_id} exists")
        vcpu = Vcpu(self, vcpu_id)
        self._vcpus[vcpu_id] = vcpu
        self.host.add(vcpu)
        if self.vgic is not None:
            self.vgic.add_vcpu(vcpu_id, vcpu.mpidr)
        return vcpu

    @property
    def vcpus(self) -> Iterable[Vcpu]:
        return self._vcpus.values()

    def vcpu(self, vcpu_id: int) -> Vcpu:
        """A vCPU by its id; KvmError ENOENT for one that was not created."""
        if vcpu_id not in self._vcpus:
            raise KvmError("ENOENT", f"there is no vCPU {vcpu_id}")
        return self._vcpus[vcpu_id]

    # -- interrupts --

    @overload
    def create_device(self, kind: Literal["arm-its"]) -> ItsDevice: ...

    @overload
    def create_device(self, kind: Literal["arm-vgic-v2", "arm-vgic-v3"]) -> VgicDevice: ...

    @overload
    def create_device(self, kind: str) -> VgicDevice | ItsDevice: ...

    @overload
    def create_device(self, kind: str, *, test: bool) -> VgicDevice | ItsDevice | None: ...

    def create_device(self, kind: str, *, test: bool = False) -> VgicDevice | ItsDevice | None:
        """KVM_CREATE_DEVICE: ``arm-vgic-v2`` or ``arm-vgic-v3``, and any number of ``arm-its``.
        ``test`` (KVM_CREATE_DEVICE_TEST) asks whether the kind exists and creates nothing.

        KvmError ENODEV for another kind, EEXIST for a second interrupt controller of whatever kind,
        EBUSY once a vCPU has run, E2BIG for a GICv2 with too many vCPUs (kvm_vgic_create).
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
        self.vgic = Vgic(
            self.host.bus, self._kick, self._set_phys_active, model, self.host.pe.vif.prebits
        )
        self.vgic.id_base = self.id_base
        for vcpu in self._vcpus.values():
            self.vgic.add_vcpu(vcpu.id, vcpu.mpidr)
        self.vgic.memory = BusMaster(self.mmu)
        self._let_work_go_on(self.vgic)
        for its in self._its_devices:
            its.connect()
        return VgicDevice(self.vgic)

    def _let_work_go_on(self, vgic: Vgic) -> None:
        """What is left of the GIC's work on LPIs is done a slice at a time, as guest time goes
        on."""
        clock, owner = self.host.clock, f"vm{self.id}-vgic"
        clock.register(owner, lambda _: vgic.go_on())

        def later() -> None:
            if clock.armed(owner) is None:
                clock.arm(clock.now + SLICE_NS, owner)

        vgic.backlog.later = later

    def _create_its(self) -> ItsDevice:
        from armvirt.hyp.vgic.device.its import ItsDevice

        its = ItsDevice(lambda: self.vgic, lambda: self._frames.clear())
        self._its_devices.append(its)
        return its

    def first_run(self) -> None:
        """What KVM does when a vCPU runs for the first time: check the GIC's frames, map the
        timers' PPIs.

        ENXIO, EINVAL for frames that are missing or overlap; EBUSY for a GIC that is not
        initialised; EINVAL for timers that share a PPI. It has not run then, and the next time is
        as the first.
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

    def gic_access(self, vcpu: Vcpu, mmio: MmioExit) -> bool:
        """The in-kernel GIC frames; False where the address is none of theirs."""
        vgic = self.vgic_of()
        if not self._frames:
            self._frames = [(base, base + size, frame) for base, size, frame in vgic.mmio_frames()]
        address = mmio.phys_addr
        for base, end, frame in self._frames:
            if base <= address < end:
                offset = address - base
                if mmio.is_write:
                    frame.write(vcpu.id, offset, mmio.size, mmio.data)
                else:
                    mmio.data = frame.read(vcpu.id, offset, mmio.size)
                return True
        return False
