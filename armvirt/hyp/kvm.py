"""The KVM API in Python: Kvm, Vm, Vcpu, devices. This is the only module of the hypervisor that a
VMM imports.

Names and semantics follow the ioctls (Documentation/virt/kvm/api.rst). Errors are `KvmError` with
the name of the errno. The classes are public, so users can write a VMM or a KVM selftest with them.
"""

from __future__ import annotations

from typing import Any

from armvirt.errors import KvmError
from armvirt.events import Console as ConsoleEvent
from armvirt.events import EventBus
from armvirt.hw.clock import Clock
from armvirt.hw.config import COUNTER_START, HostConfig
from armvirt.hyp.firmware import pvtime
from armvirt.hyp.firmware.pvtime import WALL_CLOCK_START
from armvirt.hyp.firmware.smccc_services import (
    SMCCC_FILTER,
    VM_SMCCC_CTRL,
    FilterAction,
    FilterRange,
)
from armvirt.hyp.host.host import Host, Stop
from armvirt.hyp.host.sched import MIN_QUANTUM_NS
from armvirt.hyp.memory.dirty_log import ManualProtect
from armvirt.hyp.memory.memslot import MEM_LOG_DIRTY_PAGES, MEM_READONLY, HostMemory
from armvirt.hyp.run.loop import RunLoop
from armvirt.hyp.vcpu import idregs, onereg
from armvirt.hyp.vcpu.events import GuestDebug, InFlight, VcpuEvents
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
from armvirt.hyp.vcpu.parts import VcpuGroup
from armvirt.hyp.vcpu.power import MpState
from armvirt.hyp.vcpu.reset import Feature, Start, VcpuInit
from armvirt.hyp.vcpu.vcpu import ExitHandler, Vcpu
from armvirt.hyp.vgic.device import AddrType as VgicAddress
from armvirt.hyp.vgic.device import Ctrl as VgicCtrl
from armvirt.hyp.vgic.device import Group as VgicGroup
from armvirt.hyp.vgic.device import VgicDevice
from armvirt.hyp.vm.capabilities import Cap, check_extension
from armvirt.hyp.vm.irqs import IRQ_TYPE_CPU, IRQ_TYPE_PPI, IRQ_TYPE_SPI, GsiRoute, irq_line_word
from armvirt.hyp.vm.vm import Vm
from armvirt.state import State, checked

STATE_VERSION = 1

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
    "WALL_CLOCK_START",
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
    "HostConfig",
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

ONE_REG_ARM64_SYSREG = onereg.U64 | onereg.SYSTEM
ONE_REG_ARM64_CORE = onereg.U64 | onereg.CORE
CPU_FEATURES = tuple(idregs.FEATURES)
PVTIME_IPA = pvtime.ATTR_IPA


def new_vcpu(vm: Vm, vcpu_id: int) -> Vcpu:
    """Create a vCPU and its run loop. The vCPU's ``enter`` becomes the method of the run loop that
    enters the guest. The vCPU's ``vmm`` becomes the object that reports exits to the VMM."""
    vcpu = Vcpu(vm, vcpu_id)
    loop = RunLoop(vcpu)
    vcpu.enter, vcpu.vmm = loop.enter, loop.vmm
    return vcpu


class Kvm:
    """/dev/kvm of one emulated host: creates VMs on this host. ``config`` has the parameters of the
    host. A keyword argument in ``fields`` replaces one parameter of ``config``, for example
    ``Kvm(pcpus=2)``. ``wall_clock_start`` is the date at virtual time 0, in ns since 1970. The PTP
    hypercall returns this date plus the virtual time. ValueError if a parameter does not exist or a
    number is out of range."""

    def __init__(
        self,
        config: HostConfig | None = None,
        *,
        bus: EventBus | None = None,
        wall_clock_start: int = WALL_CLOCK_START,
        **fields: Any,
    ) -> None:
        self.wall_clock_start = wall_clock_start
        self.host = Host((HostConfig() if config is None else config)._replace(**fields), bus)
        self.vms: list[Vm] = []

    def __repr__(self) -> str:
        return f"<Kvm with {len(self.vms)} VMs on {self.host!r}>"

    def create_vm(self, *, virtual_start: int = 0, trng_seed: int = 0) -> Vm:
        """Create a VM (KVM_CREATE_VM). CNTVOFF is set so that the guest's virtual count starts at
        ``virtual_start`` ticks. ``trng_seed`` is the seed of the random numbers that the guest gets
        from the TRNG hypercalls."""
        vm = Vm(
            self.host,
            len(self.vms),
            virtual_start,
            trng_seed,
            self.wall_clock_start,
            new_vcpu,
        )
        self.vms.append(vm)
        return vm

    def state(self) -> dict[str, object]:
        """The state of the host and of all VMs as plain data. The state does not contain guest
        memory."""
        return {
            "version": STATE_VERSION,
            "host": self.host.state(),
            "vms": [vm.own_state() for vm in self.vms],
        }

    def load(self, state: State) -> None:
        """Restore the result of `state`. This host must have been created with the same parameters
        as the saved host. The guest memory must already have the same contents as at the save.

        StateError if a version in ``state`` (at any depth) differs from the version that this code
        writes. ValueError if the saved host has another number of PEs, VMs or vCPUs than this host,
        or another interrupt controller. KvmError EBUSY while the host runs, EBADF after the host
        was closed. After an error nothing is changed.
        """
        self.host.check_standing()
        checked(state, "Kvm", STATE_VERSION)
        saved_vms = state["vms"]
        self.host.check_shape(state["host"])
        if len(saved_vms) != len(self.vms):
            raise ValueError("saved state is of another shape: the number of VMs")
        for vm, saved in zip(self.vms, saved_vms, strict=True):
            vm.check_shape(saved)
        self.host.unload()
        for vm, saved in zip(self.vms, state["vms"], strict=True):
            vm.load_own(saved)
        self.host.load(state["host"])

    def check_extension(self, cap: int) -> int:
        """The value of a capability (KVM_CHECK_EXTENSION). The result is 0 if the capability is not
        supported, else 1 or a larger value (see `Cap`)."""
        return check_extension(cap, len(self.host.pcpus))
