"""KVM_ARM_VCPU_INIT: the target and the features of a vCPU, its registers, and their reset
(arch/arm64/kvm/arm.c, reset.c; DDI 0487 D1.8)."""

from __future__ import annotations

from enum import IntFlag

from armvirt.arch.named import SCTLR_EE, SCTLR_KVM_RESET
from armvirt.arch.pstate import PSTATE_EL1_ENTRY
from armvirt.arch.sysregs import CONTEXT_REGISTERS
from armvirt.errors import KvmError
from armvirt.hw.context import Context
from armvirt.hyp.vcpu.parts import VcpuPart
from armvirt.records import NamedTuple
from armvirt.state import State, checked

STATE_VERSION = 1

TARGET_GENERIC_V8 = 5  # KVM_ARM_TARGET_GENERIC_V8


class Feature(IntFlag):
    """KVM_ARM_VCPU_*, as bits of ``VcpuInit.features``."""

    NONE = 0
    POWER_OFF = 1 << 0
    EL1_32BIT = 1 << 1
    PSCI_0_2 = 1 << 2
    PMU_V3 = 1 << 3
    SVE = 1 << 4
    PTRAUTH_ADDRESS = 1 << 5
    PTRAUTH_GENERIC = 1 << 6
    HAS_EL2 = 1 << 7
    HAS_EL2_E2H0 = 1 << 8


KNOWN = (1 << 9) - 1
SUPPORTED = Feature.POWER_OFF | Feature.PSCI_0_2
STICKY = ~Feature.POWER_OFF  # equal in all vCPUs of a VM; POWER_OFF is for one call


class VcpuInit(NamedTuple):
    """The target and the features of KVM_ARM_VCPU_INIT (struct kvm_vcpu_init). A guest always has
    PSCI 0.2 or later, even without the feature KVM_ARM_VCPU_PSCI_0_2."""

    target: int
    features: int = 0

    def check(self) -> Feature:
        """Check the target and the features, and return the features. The checks are in this order
        (kvm_vcpu_init_check_features). First, KvmError EINVAL for an unsupported target. Second,
        KvmError ENOENT for an unknown feature. Third, KvmError EINVAL for a feature that this CPU
        does not have."""
        if self.target != TARGET_GENERIC_V8:
            raise KvmError(
                "EINVAL",
                f"there is no target {self.target}; the preferred one is {TARGET_GENERIC_V8}",
            )
        if self.features & ~KNOWN:
            raise KvmError("ENOENT", f"there are no vCPU features {self.features & ~KNOWN:#x}")
        if self.features & ~SUPPORTED:
            raise KvmError(
                "EINVAL", f"this CPU does not have {Feature(self.features) & ~SUPPORTED!r}"
            )
        return Feature(self.features)


def preferred_target() -> VcpuInit:
    """The preferred target (KVM_ARM_PREFERRED_TARGET)."""
    return VcpuInit(TARGET_GENERIC_V8)


class Start(NamedTuple):
    """The state in which a vCPU starts: ``entry`` is the PC, ``context_id`` is x0, and
    ``big_endian`` is SCTLR_EL1.EE. A vCPU that PSCI CPU_ON starts has the endianness of the caller
    of CPU_ON."""

    entry: int
    context_id: int
    big_endian: bool = False


class Registers(VcpuPart):
    """The registers of one vCPU. ``context`` has the general, SIMD and system registers. ``spsr32``
    has SPSR_abt, SPSR_und, SPSR_irq and SPSR_fiq of AArch32, which only the VMM can access.

    ``reset_state`` is the state in which the vCPU starts after the next reset (struct
    vcpu_reset_state).
    """

    __slots__ = ("context", "reset_state", "spsr32")

    def __init__(self, context: Context) -> None:
        self.context = context
        self.reset_state = Start(0, 0)
        self.spsr32 = [0, 0, 0, 0]

    def reset(self) -> None:
        """Reset the registers. The vCPU starts in EL1h; interrupts are masked, and the MMU and the
        caches are off. PC, x0 and SCTLR_EL1.EE get the values of ``reset_state``. The other
        general-purpose registers are zero, and the other system registers have their reset
        values."""
        start = self.reset_state
        system = {row.name: row.reset for row in CONTEXT_REGISTERS}
        system["SCTLR_EL1"] = SCTLR_KVM_RESET | (SCTLR_EE if start.big_endian else 0)
        self.context.reset(start.entry, start.context_id, PSTATE_EL1_ENTRY, system)
        self.spsr32 = [0, 0, 0, 0]

    def state(self) -> State:
        return {
            "version": STATE_VERSION,
            "context": self.context.state(),
            "spsr32": list(self.spsr32),
        }

    def load(self, state: State) -> None:
        checked(state, "Registers", STATE_VERSION)
        self.context.load(state["context"])
        self.spsr32 = list(state["spsr32"])
