"""Device attributes of a vCPU: one table from group to what answers (arch/arm64/kvm/guest.c)."""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from typing import TYPE_CHECKING, Protocol

from armvirt.errors import KvmError

if TYPE_CHECKING:
    from armvirt.hyp.vcpu.vcpu import Vcpu


class VcpuGroup(IntEnum):
    """Attribute groups (uapi/asm/kvm.h): KVM_ARM_VCPU_TIMER_CTRL, KVM_ARM_VCPU_PVTIME_CTRL."""

    TIMER_CTRL = 1
    PVTIME_CTRL = 2


class AttrGroup(Protocol):
    """What answers for a group. Each raises KvmError ENXIO for an attribute that it does not
    have."""

    def set_attr(self, attr: int, value: int | None) -> None: ...

    def get_attr(self, attr: int) -> int: ...

    def has_attr(self, attr: int) -> None: ...


class TimerAttributes:
    """Which PPI a timer has, see `ArchTimer.set_attr`; it depends on whether the VM has a vGIC."""

    def __init__(self, vcpu: Vcpu) -> None:
        self._vcpu = vcpu

    def set_attr(self, attr: int, value: int | None) -> None:
        self._vcpu.timer.set_attr(attr, value, self._vcpu.vm.vgic is not None)

    def get_attr(self, attr: int) -> int:
        return self._vcpu.timer.get_attr(attr)

    def has_attr(self, attr: int) -> None:
        self._vcpu.timer.has_attr(attr)


GROUPS: dict[int, Callable[[Vcpu], AttrGroup]] = {
    VcpuGroup.TIMER_CTRL: TimerAttributes,
    VcpuGroup.PVTIME_CTRL: lambda vcpu: vcpu.stolen_time,
}


def group_of(vcpu: Vcpu, group: int) -> AttrGroup:
    """What answers for a group of a vCPU; ENXIO for a group that is not there."""
    find = GROUPS.get(group)
    if find is None:
        raise KvmError("ENXIO", f"a vCPU has no attribute group {group}")
    return find(vcpu)
