"""PSCI and SMCCC as data: function ids and return codes (Arm DEN 0022 and DEN 0028)."""

from __future__ import annotations

from enum import IntEnum

SMCCC_FAST = 1 << 31
SMCCC_64 = 1 << 30
SMCCC_OWNER_SHIFT = 24

PSCI_0_2 = 0x0000_0002
PSCI_1_0 = 0x0001_0000
PSCI_1_1 = 0x0001_0001
PSCI_1_2 = 0x0001_0002
PSCI_1_3 = 0x0001_0003
SMCCC_1_1 = 0x0001_0001
TRNG_1_0 = 0x0001_0000


class PsciFunction(IntEnum):
    """PSCI function ids (DEN 0022, 5.1). Function n has the id 0x84000000 + n. Its 64-bit form has
    the id 0xC4000000 + n."""

    VERSION = 0x8400_0000
    CPU_SUSPEND = 0x8400_0001
    CPU_OFF = 0x8400_0002
    CPU_ON = 0x8400_0003
    AFFINITY_INFO = 0x8400_0004
    MIGRATE = 0x8400_0005
    MIGRATE_INFO_TYPE = 0x8400_0006
    MIGRATE_INFO_UP_CPU = 0x8400_0007
    SYSTEM_OFF = 0x8400_0008
    SYSTEM_RESET = 0x8400_0009
    FEATURES = 0x8400_000A
    CPU_FREEZE = 0x8400_000B
    CPU_DEFAULT_SUSPEND = 0x8400_000C
    NODE_HW_STATE = 0x8400_000D
    SYSTEM_SUSPEND = 0x8400_000E
    SET_SUSPEND_MODE = 0x8400_000F
    STAT_RESIDENCY = 0x8400_0010
    STAT_COUNT = 0x8400_0011
    SYSTEM_RESET2 = 0x8400_0012
    MEM_PROTECT = 0x8400_0013
    MEM_PROTECT_CHECK_RANGE = 0x8400_0014
    SYSTEM_OFF2 = 0x8400_0015
    CPU_SUSPEND_64 = 0xC400_0001
    CPU_ON_64 = 0xC400_0003
    AFFINITY_INFO_64 = 0xC400_0004
    MIGRATE_64 = 0xC400_0005
    MIGRATE_INFO_UP_CPU_64 = 0xC400_0007
    CPU_DEFAULT_SUSPEND_64 = 0xC400_000C
    NODE_HW_STATE_64 = 0xC400_000D
    SYSTEM_SUSPEND_64 = 0xC400_000E
    STAT_RESIDENCY_64 = 0xC400_0010
    STAT_COUNT_64 = 0xC400_0011
    SYSTEM_RESET2_64 = 0xC400_0012
    MEM_PROTECT_CHECK_RANGE_64 = 0xC400_0014
    SYSTEM_OFF2_64 = 0xC400_0015


class PsciResult(IntEnum):
    """PSCI return codes (DEN 0022, 5.2.2), as signed numbers."""

    SUCCESS = 0
    NOT_SUPPORTED = -1
    INVALID_PARAMETERS = -2
    DENIED = -3
    ALREADY_ON = -4
    ON_PENDING = -5
    INTERNAL_FAILURE = -6
    NOT_PRESENT = -7
    DISABLED = -8
    INVALID_ADDRESS = -9


class AffinityState(IntEnum):
    """AFFINITY_INFO results (DEN 0022, 5.7)."""

    ON = 0
    OFF = 1
    ON_PENDING = 2


MIGRATE_INFO_NOT_REQUIRED = 2  # no Trusted OS needs migration (DEN 0022, 5.9)
RESET2_WARM = 0  # SYSTEM_RESET2: the architectural reset SYSTEM_WARM_RESET
RESET2_VENDOR = 1 << 31
OFF2_HIBERNATE = 1 << 0  # SYSTEM_OFF2: the only type; 0 selects this type, too (DEN 0022, 5.11)
SYSTEM_EVENT_RESET_FLAG_PSCI_RESET2 = 1 << 0  # uapi/linux/kvm.h
SYSTEM_EVENT_SHUTDOWN_FLAG_PSCI_OFF2 = 1 << 0


class SmcccFunction(IntEnum):
    """SMCCC calls outside PSCI (DEN 0028 chapter 7; TRNG: DEN 0098; PV time: DEN 0057). Members
    whose names begin with VENDOR_ are defined by KVM."""

    VERSION = 0x8000_0000
    ARCH_FEATURES = 0x8000_0001
    SOC_ID = 0x8000_0002
    WORKAROUND_3 = 0x8000_3FFF
    WORKAROUND_2 = 0x8000_7FFF
    WORKAROUND_1 = 0x8000_8000
    TRNG_VERSION = 0x8400_0050
    TRNG_FEATURES = 0x8400_0051
    TRNG_GET_UUID = 0x8400_0052
    TRNG_RND32 = 0x8400_0053
    TRNG_RND64 = 0xC400_0053
    VENDOR_FEATURES = 0x8600_0000
    VENDOR_PTP = 0x8600_0001
    VENDOR_UID = 0x8600_FF01
    PV_TIME_FEATURES = 0xC500_0020
    PV_TIME_ST = 0xC500_0021


class SmcccResult(IntEnum):
    """SMCCC return codes (DEN 0028, 7.1), as signed numbers."""

    SUCCESS = 0
    NOT_SUPPORTED = -1
    NOT_REQUIRED = -2
    INVALID_PARAMETER = -3


class TrngResult(IntEnum):
    """TRNG return codes (DEN 0098), as signed numbers. The same numbers have other meanings in
    SMCCC."""

    SUCCESS = 0
    NOT_SUPPORTED = -1
    INVALID_PARAMETERS = -2
    NO_ENTROPY = -3


def is_64bit(function: int) -> bool:
    """Return whether a function id uses the 64-bit convention. A call with a 32-bit function id
    truncates its arguments to 32 bits."""
    return bool(function & SMCCC_64)


def owner(function: int) -> int:
    """Return the owning entity of a function id: 0 Arm architecture, 1 CPU, 2 SiP, 3 OEM, 4
    standard service, 5 standard hypervisor service, 6 vendor hypervisor service."""
    return function >> SMCCC_OWNER_SHIFT & 0x3F


def function_name(function: int) -> str:
    """Return the name of a function id for traces, such as ``PSCI_CPU_ON_64``. The name of an
    unknown id is its value in hex."""
    for table, prefix in ((PsciFunction, "PSCI_"), (SmcccFunction, "SMCCC_")):
        for member in table:
            if member == function:
                return f"{prefix}{member.name}"
    return f"{function:#010x}"
