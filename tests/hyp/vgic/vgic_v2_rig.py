"""The rig with a GICv2: banked registers, GICC, a CPU number for every SGI."""

from __future__ import annotations

from vgic_rig import Rig

from armvirt.arch.gic import GICC_ROWS
from armvirt.events import EventBus
from armvirt.hw.gic import PhysicalGic
from armvirt.hw.ich import VirtualCpuInterface
from armvirt.hyp.vgic import Vgic
from armvirt.hyp.vgic.device import AddrType, Group, VgicDevice
from armvirt.hyp.vgic.registers.frames import Frame

GICD, GICC = 0x0800_0000, 0x0801_0000
OFFSETS = {row.name.removeprefix("GICC_"): row.offset for row in GICC_ROWS}
ALL_OTHERS, SELF = 1 << 24, 2 << 24
SGIR = 0xF00


class V2Rig(Rig):
    """As `Rig`. All interrupts are in group 0, which every guest has enabled in both places."""

    def __init__(
        self,
        vcpus: int = 1,
        list_registers: int = 4,
        nr_irqs: int = 96,
        enable: bool = True,
        prebits: int = 5,
    ) -> None:
        self.shape = (vcpus, list_registers, nr_irqs)
        self.bus, self.gic = EventBus(), PhysicalGic(vcpus)
        self.vifs = [
            VirtualCpuInterface(n, self.gic, self.bus, list_registers, prebits)
            for n in range(vcpus)
        ]
        self.pe_of: dict[int, int] = {}
        self.kicked: list[int] = []
        self.vgic = Vgic(self.bus, self, 2)
        self.device = VgicDevice(self.vgic)
        for n in range(vcpus):
            self.vgic.add_vcpu(n, 1 << 31 | n)
        self.device.set_attr(Group.ADDR, AddrType.V2_DIST, GICD)
        self.device.set_attr(Group.ADDR, AddrType.V2_CPU, GICC)
        self.device.set_attr(Group.NR_IRQS, 0, nr_irqs)
        self.vgic.map_resources()
        self.dist: Frame
        self.cpuif: Frame
        self.dist, self.cpuif = (frame.frame for frame in self.vgic.mmio_frames())
        for n in range(vcpus):
            self.load(n, n)
        if enable:
            self.dist.write(0, 0, 4, 1)
            for n in range(vcpus):
                self.gicc(n, "PMR", 0xF8)
                self.gicc(n, "CTLR", 1)

    def gicc(self, vcpu: int, name: str, value: int | None = None) -> int:
        """An access of a guest to its CPU interface."""
        if value is None:
            result = self.cpuif.read(vcpu, OFFSETS[name], 4)
        else:
            result = 0
            self.cpuif.write(vcpu, OFFSETS[name], 4, value)
        self.settle()
        return result

    def gicd(self, vcpu: int, offset: int, value: int | None = None, size: int = 4) -> int:
        """An access of a guest to the distributor."""
        result = 0
        if value is None:
            result = self.dist.read(vcpu, offset, size)
        else:
            self.dist.write(vcpu, offset, size, value)
        self.settle()
        return result

    def sgi(self, sender: int, intid: int, targets: int = 0, target_filter: int = 0) -> None:
        """A write of GICD_SGIR; ``targets`` is the list, the filter is ALL_OTHERS or SELF."""
        self.gicd(sender, SGIR, intid | targets << 16 | target_filter)

    def ack(self, vcpu: int = 0) -> int:
        return self.gicc(vcpu, "IAR")

    def eoi(self, intid: int, vcpu: int = 0) -> None:
        self.gicc(vcpu, "EOIR", intid)

    def dir(self, intid: int, vcpu: int = 0) -> None:
        self.gicc(vcpu, "DIR", intid)

    def _bit_register(self, base: int, intid: int, vcpu: int) -> tuple[Frame, int]:
        return self.dist, base + intid // 32 * 4

    def set_priority(self, intid: int, priority: int, vcpu: int = 0) -> None:
        self.gicd(vcpu, 0x400 + intid, priority, 1)

    def set_targets(self, intid: int, targets: int) -> None:
        self.gicd(0, 0x800 + intid, targets, 1)
