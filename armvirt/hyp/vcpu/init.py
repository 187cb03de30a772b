"""KVM_ARM_VCPU_INIT: the target and the features of a vCPU (arch/arm64/kvm/arm.c)."""

from __future__ import annotations

from enum import IntFlag
from typing import NamedTuple

from armvirt.errors import KvmError

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
STICKY = ~Feature.POWER_OFF  # features that all vCPUs share; POWER_OFF is for one call


class VcpuInit(NamedTuple):
    """struct kvm_vcpu_init. Guests get PSCI 0.2 or later whether or not the KVM_ARM_VCPU_PSCI_0_2
    feature is requested."""

    target: int
    features: int = 0

    def check(self) -> Feature:
        """The features. KvmError EINVAL for an unsupported target, ENOENT for an unknown feature,
        EINVAL for a feature that this CPU does not have: checked in this order
        (kvm_vcpu_init_check_features)."""
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
