"""KVM_CHECK_EXTENSION and KVM_ENABLE_CAP: the capabilities and their values (uapi/linux/kvm.h,
arch/arm64/kvm/arm.c)."""

from __future__ import annotations

from enum import IntEnum

from armvirt.errors import KvmError
from armvirt.hyp.memory.dirty_log import ManualProtect
from armvirt.hyp.memory.memslot import NR_MEMSLOTS
from armvirt.hyp.memory.mmu import Mmu
from armvirt.hyp.vgic.vgic import MAX_VCPUS


class Cap(IntEnum):
    """The capabilities (KVM_CAP_*, uapi/linux/kvm.h)."""

    IRQCHIP = 0
    USER_MEMORY = 3
    NR_VCPUS = 9
    NR_MEMSLOTS = 10
    MP_STATE = 14
    DESTROY_MEMORY_REGION_WORKS = 21
    SET_GUEST_DEBUG = 23
    IRQ_ROUTING = 25
    IRQFD = 32
    IOEVENTFD = 36
    VCPU_EVENTS = 41
    MAX_VCPUS = 66
    ONE_REG = 70
    SIGNAL_MSI = 77
    READONLY_MEM = 81
    IRQFD_RESAMPLE = 82
    ARM_PSCI = 87
    DEVICE_CTRL = 89
    ARM_EL1_32BIT = 93
    ENABLE_CAP_VM = 98
    IOEVENTFD_NO_LENGTH = 100
    VM_ATTRIBUTES = 101
    ARM_PSCI_0_2 = 102
    CHECK_EXTENSION_VM = 105
    GUEST_DEBUG_HW_BPS = 119
    GUEST_DEBUG_HW_WPS = 120
    IOEVENTFD_ANY_LENGTH = 122
    ARM_PMU_V3 = 126
    VCPU_ATTRIBUTES = 127
    MAX_VCPU_ID = 128
    MSI_DEVID = 131
    IMMEDIATE_EXIT = 136
    ARM_INJECT_SERROR_ESR = 158
    ARM_VM_IPA_SIZE = 165
    MANUAL_DIRTY_LOG_PROTECT2 = 168
    ARM_SVE = 170
    ARM_USER_IRQ = 144
    ARM_IRQ_LINE_LAYOUT_2 = 174
    ARM_NISV_TO_USER = 177
    ARM_INJECT_EXT_DABT = 178
    STEAL_TIME = 187
    DIRTY_LOG_RING = 192
    SET_GUEST_DEBUG2 = 195
    PTP_KVM = 198
    SYSTEM_EVENT_DATA = 215
    ARM_SYSTEM_SUSPEND = 216
    COUNTER_OFFSET = 227


_HAVE_ONE = (
    Cap.IRQCHIP, Cap.USER_MEMORY, Cap.MP_STATE, Cap.DESTROY_MEMORY_REGION_WORKS, Cap.SET_GUEST_DEBUG, Cap.IRQFD,
    Cap.IOEVENTFD, Cap.VCPU_EVENTS, Cap.ONE_REG, Cap.SIGNAL_MSI, Cap.READONLY_MEM, Cap.IRQFD_RESAMPLE, Cap.ARM_PSCI,
    Cap.DEVICE_CTRL, Cap.ENABLE_CAP_VM, Cap.IOEVENTFD_NO_LENGTH, Cap.VM_ATTRIBUTES, Cap.ARM_PSCI_0_2,
    Cap.CHECK_EXTENSION_VM, Cap.IOEVENTFD_ANY_LENGTH, Cap.VCPU_ATTRIBUTES, Cap.MSI_DEVID, Cap.IMMEDIATE_EXIT,
    Cap.ARM_IRQ_LINE_LAYOUT_2, Cap.ARM_NISV_TO_USER, Cap.ARM_INJECT_EXT_DABT, Cap.ARM_SYSTEM_SUSPEND,
    Cap.SYSTEM_EVENT_DATA, Cap.ARM_USER_IRQ, Cap.STEAL_TIME, Cap.PTP_KVM, Cap.COUNTER_OFFSET,
)  # fmt: skip

#: The results of KVM_CHECK_EXTENSION. A capability without a row, such as hardware breakpoints, SVE
#: or the PMU, is 0.
EXTENSIONS: dict[int, int] = {
    **dict.fromkeys(_HAVE_ONE, 1),
    Cap.MAX_VCPUS: MAX_VCPUS[3],
    Cap.MAX_VCPU_ID: MAX_VCPUS[3],
    Cap.NR_MEMSLOTS: NR_MEMSLOTS,
    Cap.IRQ_ROUTING: 4096,
    Cap.ARM_VM_IPA_SIZE: 40,
    Cap.MANUAL_DIRTY_LOG_PROTECT2: ManualProtect.ENABLE | ManualProtect.INITIALLY_SET,
    Cap.SET_GUEST_DEBUG2: 0x1_0003,
}

#: The capabilities without an argument that a VMM has to enable (kvm_vm_ioctl_enable_cap).
SWITCHES = frozenset({Cap.ARM_NISV_TO_USER, Cap.ARM_SYSTEM_SUSPEND})


class Capabilities:
    """The capabilities that the VMM of one VM has enabled."""

    def __init__(self, mmu: Mmu) -> None:
        self._mmu = mmu
        self._enabled: set[int] = set()

    def __contains__(self, cap: Cap) -> bool:
        return cap in self._enabled

    def enable(self, cap: int, argument: int, flags: int) -> None:
        """Enable a capability (KVM_ENABLE_CAP). KvmError EINVAL for a capability that cannot be
        enabled, for flags other than 0, and for an invalid argument."""
        if flags or (cap not in SWITCHES and cap != Cap.MANUAL_DIRTY_LOG_PROTECT2):
            raise KvmError(
                "EINVAL", f"capability {cap} cannot be enabled, or not with flags {flags:#x}"
            )
        if cap == Cap.MANUAL_DIRTY_LOG_PROTECT2:
            self._mmu.manual_protect = ManualProtect.checked(argument)
        else:
            self._enabled.add(cap)


def check_extension(cap: int, pcpus: int, gic: int | None = None) -> int:
    """The value of a capability (KVM_CHECK_EXTENSION) on a host with ``pcpus`` physical CPUs.
    ``gic`` is the GIC version of the VM; None if there is no VM, or if the VM has no GIC. The value
    of MAX_VCPUS is the limit of the GIC version (kvm_vgic_create sets max_vcpus). The value of
    NR_VCPUS, the recommended number of vCPUs, is ``pcpus``."""
    if cap == Cap.NR_VCPUS:
        return min(pcpus, MAX_VCPUS[3])
    if cap == Cap.MAX_VCPUS and gic is not None:
        return MAX_VCPUS[gic]
    return EXTENSIONS.get(cap, 0)
