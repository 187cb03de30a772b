"""Time that the hypervisor reports to a guest: the stolen time of a vCPU (Arm DEN 0057;
arch/arm64/kvm/pvtime.c), and KVM's PTP hypercall (Documentation/virt/kvm/arm/ptp_kvm.rst).

The VMM sets the address of a vCPU's stolen time structure by a device attribute. The guest gets the
address by hypercalls. The structure has the time for which the vCPU was runnable but did not run,
because no physical CPU was free.

The PTP hypercall returns the wall clock and a counter at the same moment. The wall clock is a start
date, which the VMM sets, plus virtual time. The clock of the real machine is not used, so a run
does not depend on the date.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from enum import IntEnum
from typing import Protocol

from armvirt.arch.bits import MASK32, MASK64
from armvirt.arch.psci import SmcccFunction, SmcccResult
from armvirt.arch.timer import NS_PER_SECOND
from armvirt.errors import KvmError
from armvirt.hyp.firmware.psci import Args
from armvirt.state import State, checked

STATE_VERSION = 1

ATTR_IPA = 0  # KVM_ARM_VCPU_PVTIME_IPA
STRUCTURE = struct.Struct("<IIQ48x")  # revision, attributes, stolen time in ns (DEN 0057, 3.2.2)
STOLEN, STOLEN_SIZE = 8, 8  # offset and size of the field "stolen time"
ALIGNMENT = 64


class Memory(Protocol):
    """Guest memory, addressed by IPA. KvmError EFAULT if an address is outside the memory slots."""

    def read(self, ipa: int, size: int) -> bytes: ...

    def write(self, ipa: int, data: bytes) -> None: ...


class StolenTime:
    """The stolen time structure of one vCPU. ``run_delay()`` returns the total time for which the
    vCPU has waited for a physical CPU, in ns of virtual time."""

    def __init__(self, memory: Memory, run_delay: Callable[[], int]) -> None:
        self._memory, self._run_delay = memory, run_delay
        self.base: int | None = None
        self._last = 0

    # KVM_ARM_VCPU_PVTIME_CTRL

    def set_attr(self, attr: int, value: int | None) -> None:
        """Set the address of the structure to ``value``. KvmError ENXIO if the attribute does not
        exist, EFAULT if ``value`` is None (user space's buffer cannot be read). KvmError EINVAL if
        the address is not a multiple of 64 bytes or is in no memory slot. KvmError EEXIST if the
        address is set already."""
        self.has_attr(attr)
        if value is None:
            raise KvmError("EFAULT", "no value")
        if value % ALIGNMENT:
            raise KvmError(
                "EINVAL", f"the stolen time structure must be aligned to {ALIGNMENT} bytes"
            )
        if self.base is not None:
            raise KvmError("EEXIST", f"the stolen time structure is at {self.base:#x} already")
        try:
            self._memory.read(value, 1)
        except KvmError as error:
            raise KvmError("EINVAL", f"no memory slot at {value:#x}") from error
        self.base, self._last = value, self._run_delay()

    def get_attr(self, attr: int) -> int:
        """The address of the structure. All bits are 1 (INVALID_GPA) if the VMM has not set the
        address. KvmError ENXIO if the attribute does not exist."""
        self.has_attr(attr)
        return MASK64 if self.base is None else self.base

    def has_attr(self, attr: int) -> None:
        if attr != ATTR_IPA:
            raise KvmError("ENXIO", f"no attribute {attr} of PV time")

    # Hypercalls

    def features(self, function: int) -> int:
        """PV_TIME_FEATURES. The result is SUCCESS if the vCPU has a structure and ``function`` is
        PV_TIME_FEATURES or PV_TIME_ST. Otherwise the result is NOT_SUPPORTED."""
        known = function in (SmcccFunction.PV_TIME_FEATURES, SmcccFunction.PV_TIME_ST)
        return SmcccResult.SUCCESS if known and self.base is not None else SmcccResult.NOT_SUPPORTED

    def start(self) -> int:
        """PV_TIME_ST: set the stolen time to zero, and return the address of the structure. The
        result is NOT_SUPPORTED if the vCPU has no structure."""
        if self.base is None:
            return SmcccResult.NOT_SUPPORTED
        self._last = self._run_delay()
        self._write(self.base, STRUCTURE.pack(0, 0, 0))
        return self.base

    # Accounting

    def update(self) -> None:
        """Increase the vCPU's stolen time by the time for which the vCPU has waited since the last
        update (kvm_update_stolen_time). vcpu_load calls this method before the guest is entered.

        The time is added to the value in guest memory. Therefore the stolen time of a VM that was
        migrated to this host continues from its old value.
        """
        base, delay = self.base, self._run_delay()
        if base is None or delay == self._last:
            return
        try:
            stolen = int.from_bytes(self._memory.read(base + STOLEN, STOLEN_SIZE), "little")
        except KvmError:
            return  # the VMM has deleted the memory slot
        grown = stolen + delay - self._last & MASK64
        self._last = delay
        self._write(base + STOLEN, grown.to_bytes(STOLEN_SIZE, "little"))

    def _write(self, ipa: int, data: bytes) -> None:
        try:
            self._memory.write(ipa, data)
        except KvmError:
            pass  # as in KVM: no stolen time after the VMM has deleted the memory slot

    def reset(self) -> None:
        """Do nothing. A vCPU reset does not change the address, which the VMM has set. It does not
        change the run delay, which the scheduler of the emulated host counts."""

    def state(self) -> dict[str, object]:
        return {"version": STATE_VERSION, "base": self.base, "last": self._last}

    def load(self, state: State) -> None:
        checked(state, "StolenTime", STATE_VERSION)
        base, last = state["base"], state["last"]
        assert (base is None or isinstance(base, int)) and isinstance(last, int)
        self.base, self._last = base, last


Words = tuple[int, int, int, int]


def calls(of: Callable[[int], StolenTime]) -> Iterable[tuple[int, Callable[[int, Args], Words]]]:
    """The stolen time hypercalls of a VM, as pairs of function id and handler for `Smccc.add`.
    ``of(vcpu_id)`` returns the `StolenTime` of a vCPU."""
    yield (
        SmcccFunction.PV_TIME_FEATURES,
        lambda vcpu_id, args: (of(vcpu_id).features(args[0] & MASK32), 0, 0, 0),
    )
    yield SmcccFunction.PV_TIME_ST, lambda vcpu_id, args: (of(vcpu_id).start(), 0, 0, 0)


WALL_CLOCK_START = 1_704_067_200 * NS_PER_SECOND
"""The default value of the wall clock at virtual time 0: 2024-01-01T00:00:00Z, in ns since 1970."""


class PtpCounter(IntEnum):
    """The counter that the guest requests (KVM_PTP_VIRT_COUNTER, KVM_PTP_PHYS_COUNTER)."""

    VIRTUAL = 0
    PHYSICAL = 1


def ptp_answer(which: int, wall_ns: int, counts: Callable[[PtpCounter], int]) -> Words:
    """The results x0 to x3 of the PTP hypercall.

    x0 and x1 have the high and the low 32 bits of ``wall_ns``, the wall clock in ns since 1970. x2
    and x3 have the high and the low 32 bits of a counter, in ticks. ``which`` is the value of
    `PtpCounter` that selects the counter. ``counts(counter)`` returns the value that the guest
    would read from a counter. x0 is NOT_SUPPORTED if the counter does not exist.
    """
    if which not in tuple(PtpCounter):
        return SmcccResult.NOT_SUPPORTED, 0, 0, 0
    count = counts(PtpCounter(which))
    return wall_ns >> 32 & MASK32, wall_ns & MASK32, count >> 32, count & MASK32
