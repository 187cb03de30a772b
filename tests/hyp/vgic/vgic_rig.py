"""A vGIC without an engine: a physical GIC and virtual CPU interfaces; the test acts for every
guest."""

from __future__ import annotations

import json
from typing import TypeVar

from armvirt.arch.gic import ICC_REGISTERS
from armvirt.events import EventBus
from armvirt.hw.gic import PhysicalGic
from armvirt.hw.ich import IccAction, VirtualCpuInterface
from armvirt.hyp.vgic import Vgic
from armvirt.hyp.vgic.device import AddrType, Ctrl, Group, VgicDevice
from armvirt.hyp.vgic.registers.frames import Frame

GICD, GICR = 0x0800_0000, 0x080A_0000
SGI_BASE = 0x1_0000
SPURIOUS = 1023
AnyRig = TypeVar("AnyRig", bound="Rig")
VTIMER = 27


class QuietVm:
    """The VM of a vGIC that does nothing for it."""

    def kick(self, vcpu_id: int) -> None: ...

    def set_phys_active(self, vcpu_id: int, host_intid: int, active: bool) -> None: ...

    def irq_ended(self, intid: int) -> None: ...

    def lpi_work_left(self) -> None: ...


def make_device(vcpus: int = 4, ipa_bits: int = 40, model: int = 3) -> VgicDevice:
    """The KVM device of a vGIC (``model`` 2 or 3) with so many vCPUs, none of them loaded."""
    vgic = Vgic(EventBus(), QuietVm(), model=model)
    for n in range(vcpus):
        vgic.add_vcpu(n, 1 << 31 | n)
    return VgicDevice(vgic, ipa_bits)


class Rig(QuietVm):
    """As many PEs as vCPUs; vCPU n starts loaded on PE n. ``kicked`` collects the kicks."""

    def __init__(
        self,
        vcpus: int = 1,
        list_registers: int = 4,
        nr_irqs: int = 96,
        priority_bits: int = 5,
        enable: bool = True,
    ) -> None:
        self.shape = (vcpus, list_registers, nr_irqs, priority_bits)
        self.bus, self.gic = EventBus(), PhysicalGic(vcpus)
        self.vifs = [
            VirtualCpuInterface(n, self.gic, self.bus, list_registers, priority_bits)
            for n in range(vcpus)
        ]
        self.pe_of: dict[int, int] = {}
        self.kicked: list[int] = []
        self.vgic = Vgic(self.bus, self, num_pri_bits=priority_bits)
        self.device = VgicDevice(self.vgic)
        for n in range(vcpus):
            self.vgic.add_vcpu(n, 1 << 31 | n)
        self.device.set_attr(Group.ADDR, AddrType.V3_DIST, GICD)
        self.device.set_attr(Group.ADDR, AddrType.V3_REDIST, GICR)
        self.device.set_attr(Group.NR_IRQS, 0, nr_irqs)
        self.device.set_attr(Group.CTRL, Ctrl.INIT)
        self.vgic.map_resources()
        self.dist: Frame
        self.redist: Frame
        self.dist, self.redist = (frame.frame for frame in self.vgic.mmio_frames())
        for n in range(vcpus):
            self.load(n, n)
        if enable:
            self.dist.write(0, 0, 4, 3)
            for n in range(vcpus):
                self.icc(n, "PMR", 0xF8)
                self.icc(n, "IGRPEN1", 1)

    # The host

    def kick(self, vcpu_id: int) -> None:
        self.kicked.append(vcpu_id)

    def set_phys_active(self, vcpu_id: int, host_intid: int, active: bool) -> None:
        if vcpu_id in self.pe_of:
            self.gic.set_active(self.pe_of[vcpu_id], host_intid, active)

    def load(self, vcpu: int, pe: int) -> None:
        self.pe_of[vcpu] = pe
        self.vgic.load(vcpu, self.vifs[pe])

    def put(self, vcpu: int) -> None:
        self.vgic.put(vcpu)
        del self.pe_of[vcpu]

    def vif(self, vcpu: int) -> VirtualCpuInterface:
        return self.vifs[self.pe_of[vcpu]]

    def settle(self) -> None:
        """What the run loop does before it enters a guest again, until nothing is left to do."""
        for _ in range(20):
            busy = [vcpu for vcpu in self.pe_of if self.vgic.dirty(vcpu)]
            for vcpu in busy:
                self.vgic.sync(vcpu)
                self.vgic.flush(vcpu)
            if not busy:
                return
        raise AssertionError("the vGIC never comes to rest")

    def inject(self, intid: int, level: bool = True, vcpu: int | None = None) -> None:
        self.vgic.inject(vcpu, intid, level)
        self.settle()

    def pulse(self, intid: int) -> None:
        self.inject(intid)

    def another(self: AnyRig) -> AnyRig:
        """A new rig of the same shape."""
        return type(self)(*self.shape, enable=False)

    def clone(self: AnyRig) -> AnyRig:
        """A rig of the same shape with this one's state, through JSON."""
        other = self.another()
        for vcpu in list(other.pe_of):
            other.vgic.detach(vcpu)
        other.pe_of = dict(self.pe_of)
        saved = json.loads(
            json.dumps([self.vgic.state(), self.gic.state(), [vif.state() for vif in self.vifs]])
        )
        other.vgic.load_state(saved[0])
        other.gic.load(saved[1])
        for vif, state in zip(other.vifs, saved[2], strict=True):
            vif.load(state)
        for vcpu, pe in other.pe_of.items():
            other.vgic.attach(vcpu, other.vifs[pe])
        return other

    # The guests

    def icc(self, vcpu: int, name: str, value: int | None = None) -> int:
        """A CPU interface access, trapped ones included."""
        encoding = ICC_REGISTERS[f"ICC_{name}_EL1"]
        outcome = self.vif(vcpu).icc_access(encoding, value is not None, value or 0, 1, True, True)
        if outcome.action is IccAction.TRAP:
            assert value is not None
            if name == "DIR":
                self.vgic.dir(vcpu, value)
            else:
                self.vgic.sgi(vcpu, encoding, value)
        else:
            assert outcome.action is IccAction.DONE
        self.settle()
        return outcome.value

    def ack(self, vcpu: int = 0) -> int:
        return self.icc(vcpu, "IAR1")

    def eoi(self, intid: int, vcpu: int = 0) -> None:
        self.icc(vcpu, "EOIR1", intid)

    def dir(self, intid: int, vcpu: int = 0) -> None:
        self.icc(vcpu, "DIR", intid)

    def serve(self, vcpu: int = 0) -> int:
        """Take one interrupt from acknowledge to end."""
        intid = self.ack(vcpu)
        if intid != SPURIOUS:
            self.eoi(intid, vcpu)
        return intid

    def _bit_register(self, base: int, intid: int, vcpu: int) -> tuple[Frame, int]:
        if intid < 32:
            return self.redist, vcpu * 0x2_0000 + SGI_BASE + base
        return self.dist, base + intid // 32 * 4

    def set_bit(self, base: int, intid: int, vcpu: int = 0) -> None:
        """Write a 1 for one INTID into a set or clear register (offset ``base``, such as 0x100)."""
        frame, offset = self._bit_register(base, intid, vcpu)
        frame.write(vcpu, offset, 4, 1 << intid % 32)
        self.settle()

    def get_bit(self, base: int, intid: int, vcpu: int = 0) -> int:
        frame, offset = self._bit_register(base, intid, vcpu)
        value = frame.read(vcpu, offset, 4) >> intid % 32 & 1
        self.settle()
        return value

    def enable(self, intid: int, vcpu: int = 0) -> None:
        self.set_bit(0x100, intid, vcpu)

    def disable(self, intid: int, vcpu: int = 0) -> None:
        self.set_bit(0x180, intid, vcpu)

    def pending(self, intid: int, vcpu: int = 0) -> int:
        return self.get_bit(0x200, intid, vcpu)

    def active(self, intid: int, vcpu: int = 0) -> int:
        return self.get_bit(0x300, intid, vcpu)

    def set_priority(self, intid: int, priority: int, vcpu: int = 0) -> None:
        frame, offset = (self.redist, vcpu * 0x2_0000 + SGI_BASE) if intid < 32 else (self.dist, 0)
        frame.write(vcpu, offset + 0x400 + intid, 1, priority)
        self.settle()

    def configure(self, intid: int, level: bool) -> None:
        """GICD_ICFGR of an SPI."""
        offset, shift = 0xC00 + intid // 16 * 4, intid % 16 * 2
        old = self.dist.read(0, offset, 4) & ~(3 << shift)
        self.dist.write(0, offset, 4, old | (0 if level else 2) << shift)
        self.settle()

    def route(self, intid: int, affinity: int) -> None:
        self.dist.write(0, 0x6000 + 8 * intid, 8, affinity)
        self.settle()
