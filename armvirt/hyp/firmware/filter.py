"""The SMCCC filter of the VMM: which calls a guest may make. It is the VM attribute
KVM_ARM_VM_SMCCC_FILTER (arch/arm64/kvm/hypercalls.c). The filter is applied before the firmware
bitmaps (`armvirt.hyp.firmware.service_bitmaps`)."""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

from armvirt.errors import KvmError

MAX_FUNCTION = (1 << 32) - 1

VM_SMCCC_CTRL = 0  # KVM_ARM_VM_SMCCC_CTRL, a group of VM attributes
SMCCC_FILTER = 0  # KVM_ARM_VM_SMCCC_FILTER, its only attribute


class FilterAction(IntEnum):
    """KVM_SMCCC_FILTER_*: handle the call, return NOT_SUPPORTED, or forward the call to the VMM as
    a `HypercallExit`."""

    HANDLE = 0
    DENY = 1
    FWD_TO_USER = 2


class FilterRange(NamedTuple):
    """struct kvm_smccc_filter: functions ``base`` to ``base + nr_functions - 1``."""

    base: int
    nr_functions: int
    action: int

    @property
    def end(self) -> int:
        """The last function id of the range, modulo 2**32 (a u32 in the kernel)."""
        return self.base + self.nr_functions - 1 & MAX_FUNCTION


#: The calls of the Arm architecture, SMC32 and SMC64: a VMM cannot filter these calls
#: (init_smccc_filter).
RESERVED = (
    FilterRange(0x8000_0000, 0x1_0000, FilterAction.HANDLE),
    FilterRange(0xC000_0000, 0x1_0000, FilterAction.HANDLE),
)


class SmcccFilter:
    """The filter of one VM; a call in no range is handled."""

    def __init__(self) -> None:
        self._ranges: list[FilterRange] = []

    def add(self, new: FilterRange, has_run: bool) -> None:
        """Add a range. KvmError EINVAL for an invalid action or range, EBUSY after a vCPU has run,
        EEXIST if the range overlaps another range or a reserved range: checked in this order."""
        if not 0 <= new.base <= MAX_FUNCTION or not 0 <= new.nr_functions <= MAX_FUNCTION:
            raise KvmError(
                "EINVAL", f"an SMCCC filter of {new.nr_functions} functions from {new.base:#x}"
            )
        if new.end < new.base or new.action not in tuple(FilterAction):
            raise KvmError(
                "EINVAL",
                f"an SMCCC filter from {new.base:#x} to {new.end:#x} with action {new.action}",
            )
        if has_run:
            raise KvmError("EBUSY", "a vCPU has run: the SMCCC filter is fixed")
        if any(new.base <= old.end and old.base <= new.end for old in (*RESERVED, *self._ranges)):
            raise KvmError(
                "EEXIST",
                f"functions {new.base:#x} to {new.end:#x} are filtered already, or reserved",
            )
        self._ranges.append(new)

    def action(self, function: int) -> FilterAction:
        """The action for a call of ``function``."""
        for each in self._ranges:
            if each.base <= function <= each.end:
                return FilterAction(each.action)
        return FilterAction.HANDLE
