"""The interfaces that a vCPU uses of its VM and its VMM, as protocols."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Protocol

from armvirt.hw.clock import NEVER
from armvirt.hw.context import ShareableDomain
from armvirt.hyp.firmware.smccc import Smccc
from armvirt.hyp.host.host import Host
from armvirt.hyp.memory.mmu import Mmu
from armvirt.hyp.timer.arch_timer import ArchTimerVmData
from armvirt.hyp.timer.context import TimerVgic
from armvirt.hyp.vcpu.exit_types import Exit, ExitHandler, MmioExit, NisvExit
from armvirt.hyp.vcpu.init import Feature
from armvirt.hyp.vgic.vgic import Vgic

if TYPE_CHECKING:
    from armvirt.hyp.vcpu.vcpu import Vcpu


class VmDevices(Protocol):
    """The in-kernel devices on a VM's bus (struct kvm_io_bus): GIC frames and ioeventfds."""

    def gic_access(self, vcpu_id: int, mmio: MmioExit) -> bool:
        """Complete an access to a frame of the GIC; False if the address is not in a frame."""
        ...

    def signal(self, mmio: MmioExit) -> bool:
        """Signal the ioeventfd that matches a store. Returns whether there is one."""
        ...


class Vm(Protocol):
    """The interface of a VM to its vCPUs (struct kvm, struct kvm_arch).

    ``id_base`` makes vCPU ids unique on the host. ``vcpu_features`` are the features with which all
    vCPUs were initialised, None before the first `Vcpu.vcpu_init`.
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
    def vcpus(self) -> Iterable[Vcpu]: ...

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

    def vcpu(self, vcpu_id: int) -> Vcpu:
        """The vCPU with an id; KvmError ENOENT if it was not created."""
        ...

    def first_run(self) -> None:
        """Check and map the GIC and the timers' PPIs, unless a vCPU has run before."""
        ...


class Vmm(Protocol):
    """The interface of a VMM to EL2, for one vCPU.

    ``handler`` gets the exits while no caller is in `run`. ``abortable`` is the exit for whose
    access the VMM can inject an external abort.
    """

    handler: ExitHandler | None
    abortable: MmioExit | NisvExit | None

    @property
    def present(self) -> bool:
        """Whether exits can be delivered: a caller is in `run`, or ``handler`` is set."""
        ...

    def tell(self, exit: Exit) -> int:
        """Deliver an exit; returns an `Action`."""
        ...

    def forget(self) -> None:
        """Discard the answers to accesses, because they belong to the state before a reset or a
        restore."""
        ...

    def run(self, until: int = NEVER) -> Exit | None:
        """KVM_RUN, see `Vcpu.run`."""
        ...
