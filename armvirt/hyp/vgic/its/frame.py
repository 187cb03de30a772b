"""The register frame GITS of an ITS, as a vCPU accesses the frame by MMIO."""

from __future__ import annotations

from functools import cached_property
from types import ModuleType
from typing import TYPE_CHECKING

from armvirt.arch.gic import GITS_TRANSLATER
from armvirt.events import GicAccess

if TYPE_CHECKING:
    from armvirt.hyp.vgic.its.its import Its

CPU_DEVICE_ID = 0  # the DeviceID of a GITS_TRANSLATER write by a CPU


class ItsFrame:
    """The frame GITS: the page of control registers, then the page of GITS_TRANSLATER. A write of
    16 or 32 bits to GITS_TRANSLATER is a message, whose EventID is the written value.

    If a CPU writes GITS_TRANSLATER, the DeviceID of the message depends on the board. In armvirt
    the DeviceID is 0, as in QEMU's virt board. (KVM ignores the write.)
    """

    name = "GITS"

    def __init__(self, its: Its) -> None:
        self._its = its

    @cached_property
    def _registers(self) -> ModuleType:
        """The module `armvirt.hyp.vgic.its.registers`. The module is imported at the first access
        to the frame, because few guests use the ITS."""
        from armvirt.hyp.vgic.its import registers

        return registers

    def read(self, vcpu_id: int, offset: int, size: int) -> int:
        bus = self._its.dist.bus
        value: int = self._registers.read(self._its, offset, size)
        if bus.active:
            bus.emit(GicAccess(self.name, offset, size, value, 0))
        return value

    def stable(self, offset: int, size: int) -> bool:
        return False

    def write(self, vcpu_id: int, offset: int, size: int, value: int) -> None:
        bus = self._its.dist.bus
        if bus.active:
            bus.emit(GicAccess(self.name, offset, size, value, 1))
        if offset != GITS_TRANSLATER:
            self._registers.write(self._its, offset, size, value)
        elif size in (2, 4):
            self._its.trigger(CPU_DEVICE_ID, value)
