"""KVM's PTP hypercall: wall clock and counter at the same moment
(Documentation/virt/kvm/arm/ptp_kvm.rst).

The wall clock is a start date that the VMM sets, plus virtual time. The host's clock is not used,
so a run does not depend on the date.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum

from armvirt.arch.psci import SmcccResult
from armvirt.arch.timer import NS_PER_SECOND

WALL_CLOCK_START = 1_704_067_200 * NS_PER_SECOND
"""The default wall clock at virtual time 0: 2024-01-01T00:00:00Z, in ns since 1970."""

_LOW = 0xFFFF_FFFF
Words = tuple[int, int, int, int]


class PtpCounter(IntEnum):
    """The counter that the guest requests (KVM_PTP_VIRT_COUNTER, KVM_PTP_PHYS_COUNTER)."""

    VIRTUAL = 0
    PHYSICAL = 1


def answer(which: int, wall_ns: int, counts: Callable[[PtpCounter], int]) -> Words:
    """The results x0 to x3: wall clock (ns since 1970) and count, each as high and low 32 bits;
    NOT_SUPPORTED for an unknown counter.

    ``counts`` returns the count that the guest itself would read.
    """
    if which not in tuple(PtpCounter):
        return SmcccResult.NOT_SUPPORTED, 0, 0, 0
    count = counts(PtpCounter(which))
    return wall_ns >> 32 & _LOW, wall_ns & _LOW, count >> 32, count & _LOW
