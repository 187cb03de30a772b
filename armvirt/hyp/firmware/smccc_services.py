"""The SMCCC services and calls that a VM offers (arch/arm64/kvm/hypercalls.c): the SMCCC filter and
the firmware bitmap registers.

The VMM sets the filter with the VM attribute KVM_ARM_VM_SMCCC_FILTER. The filter has ranges of
functions that the VMM handles itself or denies. The filter is applied before the bitmaps.

Each bit of a firmware bitmap register enables a service. PSCI, and the calls that discover SMCCC,
are always enabled. The VMM can disable services before the first run. A guest then finds the same
services on every host to which the guest is migrated.
"""

from __future__ import annotations

from enum import IntEnum

from armvirt.arch.bits import MASK32
from armvirt.arch.psci import SmcccFunction
from armvirt.errors import KvmError
from armvirt.records import NamedTuple
from armvirt.state import State, checked

MAX_FUNCTION = MASK32

VM_SMCCC_CTRL = 0  # KVM_ARM_VM_SMCCC_CTRL, a group of VM attributes
SMCCC_FILTER = 0  # KVM_ARM_VM_SMCCC_FILTER, its only attribute


class FilterAction(IntEnum):
    """The action for the calls in a range of functions (KVM_SMCCC_FILTER_*). HANDLE: the hypervisor
    handles the call. DENY: the call returns NOT_SUPPORTED. FWD_TO_USER: the call exits to the VMM
    with a `HypercallExit`."""

    HANDLE = 0
    DENY = 1
    FWD_TO_USER = 2


class FilterRange(NamedTuple):
    """A range of function ids and its action (struct kvm_smccc_filter). The range has the function
    ids ``base`` to ``base + nr_functions - 1``."""

    base: int
    nr_functions: int
    action: int

    @property
    def end(self) -> int:
        """The last function id of the range, modulo 2**32, because the kernel uses a u32."""
        return self.base + self.nr_functions - 1 & MAX_FUNCTION


#: The calls of the Arm architecture, SMC32 and SMC64: a VMM cannot filter these calls
#: (init_smccc_filter).
RESERVED = (
    FilterRange(0x8000_0000, 0x1_0000, FilterAction.HANDLE),
    FilterRange(0xC000_0000, 0x1_0000, FilterAction.HANDLE),
)


class SmcccFilter:
    """The SMCCC filter of one VM. If no range of the filter contains a call, the hypervisor handles
    the call."""

    def __init__(self) -> None:
        self.ranges: list[FilterRange] = []

    def add(self, new: FilterRange, has_run: bool) -> None:
        """Add a range to the filter. The errors are checked in this order: KvmError EINVAL if the
        action or the range is invalid, EBUSY if a vCPU has run (``has_run``), EEXIST if the range
        overlaps another range or a reserved range."""
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
        if any(new.base <= old.end and old.base <= new.end for old in (*RESERVED, *self.ranges)):
            raise KvmError(
                "EEXIST",
                f"functions {new.base:#x} to {new.end:#x} are filtered already, or reserved",
            )
        self.ranges.append(new)

    def action(self, function: int) -> FilterAction:
        """The action for a call. ``function`` is the function id of the call. The action is HANDLE
        if no range contains the function id."""
        for each in self.ranges:
            if each.base <= function <= each.end:
                return FilterAction(each.action)
        return FilterAction.HANDLE


STATE_VERSION = 1


class Bitmap(IntEnum):
    """The firmware bitmap registers. The value of a member is the register's number in the ONE_REG
    id (KVM_REG_ARM_FW_FEAT_BMAP)."""

    STD = 0
    STD_HYP = 1
    VENDOR_HYP = 2
    VENDOR_HYP_2 = 3


STD_TRNG = 1 << 0
STD_HYP_PV_TIME = 1 << 0
VENDOR_FEATURES, VENDOR_PTP = 1 << 0, 1 << 1
VENDOR_2_DISCOVER_IMPL_VER, VENDOR_2_DISCOVER_IMPL_CPUS = 1 << 0, 1 << 1

#: The bits of each register that can be set.
SUPPORTED = {
    Bitmap.STD: STD_TRNG,
    Bitmap.STD_HYP: STD_HYP_PV_TIME,
    Bitmap.VENDOR_HYP: VENDOR_FEATURES | VENDOR_PTP,
    Bitmap.VENDOR_HYP_2: VENDOR_2_DISCOVER_IMPL_VER | VENDOR_2_DISCOVER_IMPL_CPUS,
}

#: The bitmaps of a new VM: all services that the hypervisor implements. The hypervisor does not
#: implement the calls of VENDOR_HYP_2; a VMM can do so.
DEFAULT = {**SUPPORTED, Bitmap.VENDOR_HYP_2: 0}

#: The functions that a bit enables (kvm_smccc_test_fw_bmap).
GATES: dict[int, tuple[Bitmap, int]] = {
    SmcccFunction.TRNG_VERSION: (Bitmap.STD, STD_TRNG),
    SmcccFunction.TRNG_FEATURES: (Bitmap.STD, STD_TRNG),
    SmcccFunction.TRNG_GET_UUID: (Bitmap.STD, STD_TRNG),
    SmcccFunction.TRNG_RND32: (Bitmap.STD, STD_TRNG),
    SmcccFunction.TRNG_RND64: (Bitmap.STD, STD_TRNG),
    SmcccFunction.PV_TIME_FEATURES: (Bitmap.STD_HYP, STD_HYP_PV_TIME),
    SmcccFunction.PV_TIME_ST: (Bitmap.STD_HYP, STD_HYP_PV_TIME),
    SmcccFunction.VENDOR_UID: (Bitmap.VENDOR_HYP, VENDOR_FEATURES),
    SmcccFunction.VENDOR_FEATURES: (Bitmap.VENDOR_HYP, VENDOR_FEATURES),
    SmcccFunction.VENDOR_PTP: (Bitmap.VENDOR_HYP, VENDOR_PTP),
}


class ServiceMask:
    """The firmware bitmap registers of one VM."""

    def __init__(self) -> None:
        self._bitmaps = dict(DEFAULT)

    def get(self, bitmap: Bitmap) -> int:
        """The value of a bitmap register (KVM_GET_ONE_REG)."""
        return self._bitmaps[bitmap]

    def set(self, bitmap: Bitmap, value: int, has_run: bool) -> None:
        """Set a bitmap register to ``value`` (KVM_SET_ONE_REG). ``has_run`` is True if a vCPU has
        run. In this case a write must not change the register.

        KvmError EINVAL if ``value`` has a bit of a service that does not exist. KvmError EBUSY if
        ``has_run`` is True and ``value`` differs from the present value.
        """
        if value & ~SUPPORTED[bitmap]:
            raise KvmError(
                "EINVAL", f"{bitmap.name} has no services {value & ~SUPPORTED[bitmap]:#x}"
            )
        if has_run and value != self._bitmaps[bitmap]:
            raise KvmError("EBUSY", "the services of a VM are fixed once a vCPU has run")
        self._bitmaps[bitmap] = value

    def allows(self, function: int) -> bool:
        """Whether the guest may call an SMCCC function. ``function`` is its function id. If no
        bitmap bit controls the function, the result is True."""
        gate = GATES.get(function)
        return gate is None or bool(self._bitmaps[gate[0]] & gate[1])

    def reset(self) -> None:
        """Do nothing, because a reboot of the VM does not change the bitmaps."""

    def state(self) -> dict[str, object]:
        return {
            "version": STATE_VERSION,
            **{bitmap.name.lower(): value for bitmap, value in self._bitmaps.items()},
        }

    def load(self, state: State) -> None:
        checked(state, "ServiceMask", STATE_VERSION)
        for bitmap in Bitmap:
            value = state[bitmap.name.lower()]
            assert isinstance(value, int)
            self._bitmaps[bitmap] = value
