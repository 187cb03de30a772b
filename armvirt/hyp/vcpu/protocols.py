"""The interfaces between a vCPU and its VM, its VMM and its parts (registers, timers and so on), as
protocols. Other modules import these protocols for annotations only."""

from __future__ import annotations

from typing import Protocol

from armvirt.hw.clock import NEVER
from armvirt.hw.context import ShareableDomain
from armvirt.hyp.firmware.smccc import Smccc
from armvirt.hyp.host.host import Host
from armvirt.hyp.host.runnable import Runnable
from armvirt.hyp.memory.mmu import Mmu
from armvirt.hyp.timer.arch_timer import ArchTimer
from armvirt.hyp.timer.context import ArchTimerVmData, TimerVgic
from armvirt.hyp.vcpu.exit_types import Exit, MmioExit, NisvExit, Outcome
from armvirt.hyp.vcpu.reset import Feature, Registers
from armvirt.hyp.vcpu.traps import Traps
from armvirt.hyp.vgic.registers.frames import PlacedFrame
from armvirt.hyp.vgic.vgic import Vgic


class VmDevices(Protocol):
    """The in-kernel devices on a VM's bus (struct kvm_io_bus): GIC frames and ioeventfds."""

    def frame_at(self, address: int) -> PlacedFrame | None:
        """The GIC frame that contains the IPA ``address``; None if no GIC frame does."""
        ...

    def signal(self, mmio: MmioExit) -> bool:
        """Signal the ioeventfd that matches a store. Return False if no ioeventfd matches."""
        ...


class Vm(Protocol):
    """The attributes and methods of a VM that its vCPUs use (struct kvm, struct kvm_arch).

    ``id_base`` plus the number of a vCPU in its VM is a number that is unique among all VMs of the
    host. ``vcpu_features`` are the features with which all vCPUs were initialised; None before the
    first `Vcpu.vcpu_init`.
    """

    id: int
    id_base: int
    host: Host
    domain: ShareableDomain
    mmu: Mmu
    timer_data: ArchTimerVmData
    vgic: Vgic | None
    smccc: Smccc
    semihosting: bool
    vcpu_features: Feature | None

    @property
    def devices(self) -> VmDevices: ...

    @property
    def timer_vgic(self) -> TimerVgic: ...

    @property
    def online_vcpus(self) -> int:
        """The number of vCPUs."""
        ...

    @property
    def has_run(self) -> bool:
        """Whether a vCPU of the VM has run (kvm_vm_has_ran_once)."""
        ...

    @property
    def has_gicv3(self) -> bool:
        """Whether the guest has ICC_*_EL1 (kvm_has_gicv3)."""
        ...

    @property
    def returns_nisv(self) -> bool:
        """Whether the VMM has enabled KVM_CAP_ARM_NISV_TO_USER."""
        ...

    def vgic_of(self) -> Vgic:
        """The vGIC of the VM; the VM must have a vGIC."""
        ...

    def first_run(self) -> None:
        """Check the GIC and the PPIs of the timers, and map these PPIs. After a call has succeeded,
        further calls have no effect."""
        ...


class Vmm(Protocol):
    """The interface from EL2 to the VMM of one vCPU. ``abortable`` is the exit for whose access the
    VMM can inject an external abort; None if there is no such exit."""

    abortable: MmioExit | NisvExit | None

    @property
    def present(self) -> bool:
        """Whether an exit can be delivered: a caller is in `Vcpu.run`, or the vCPU has an exit
        handler."""
        ...

    def tell(self, exit: Exit) -> int:
        """Deliver an exit to the VMM. Return the `Action` that the PE takes next."""
        ...

    def forget(self) -> None:
        """Discard the answers that the VMM has given to accesses. A reset or a restore of the vCPU
        makes the answers invalid."""
        ...

    def run(self, until: int = NEVER) -> Exit | None:
        """Run the vCPU (KVM_RUN), see `Vcpu.run`."""
        ...


class VcpuCore(Runnable, Protocol):
    """The attributes and methods of a vCPU that the parts of its state (registers, timers and so
    on) and the modules of its ioctls use."""

    id: int
    uid: int
    mpidr: int
    host: Host
    outcome: Outcome
    registers: Registers
    timer: ArchTimer
    traps: Traps
    fault_address: int
    vmm: Vmm

    @property
    def vm(self) -> Vm: ...

    def runnable_interrupt(self) -> bool:
        """Whether an interrupt can be delivered, or an SError is pending (kvm_arch_vcpu_runnable).
        The mask bits in PSTATE do not count."""
        ...

    def wake_at(self, when: int) -> None:
        """Wake the vCPU up at the virtual time ``when`` (ns) at the latest."""
        ...

    def request_stop(self) -> None:
        """Request that the PE leaves the guest after the exit that is handled at present."""
        ...
