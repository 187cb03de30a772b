"""The device attributes of a vCPU: a table of the handlers by group (arch/arm64/kvm/guest.c)."""

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
    """The attributes of one group. Each method raises KvmError ENXIO for an unknown attribute."""

    def set_attr(self, attr: int, value: int | None) -> None: ...

    def get_attr(self, attr: int) -> int: ...

    def has_attr(self, attr: int) -> None: ...


class TimerAttributes:
    """KVM_ARM_VCPU_TIMER_CTRL: the PPI of each timer, see `ArchTimer.set_attr`. Without a vGIC the
    PPIs cannot be set."""

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
    """The attributes of a group; KvmError ENXIO for an unknown group."""
    find = GROUPS.get(group)
    if find is None:
        raise KvmError("ENXIO", f"a vCPU has no attribute group {group}")
    return find(vcpu)
