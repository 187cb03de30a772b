"""The in-kernel devices on a VM's bus: GIC frames and ioeventfds (struct kvm_io_bus)."""

from __future__ import annotations

from armvirt.hyp.vcpu.exit_types import MmioExit
from armvirt.hyp.vgic.registers.frames import Frame
from armvirt.hyp.vgic.vgic import Vgic
from armvirt.hyp.vm.ioeventfd import IoEventFds


class Devices:
    """The devices of one VM. ``vgic`` is its interrupt controller, None while there is none."""

    __slots__ = ("_frames", "ioeventfds", "vgic")

    def __init__(self) -> None:
        self.vgic: Vgic | None = None
        self._frames: list[tuple[int, int, Frame]] = []
        self.ioeventfds = IoEventFds()

    def forget_frames(self) -> None:
        """A frame was added: ask the vGIC anew at the next access."""
        self._frames.clear()

    def gic_access(self, vcpu_id: int, mmio: MmioExit) -> bool:
        """Complete an access to a frame of the GIC; False where the address is in no frame."""
        if not self._frames:
            if self.vgic is None:
                return False
            self._frames = [
                (base, base + size, frame) for base, size, frame in self.vgic.mmio_frames()
            ]
        address = mmio.phys_addr
        for base, end, frame in self._frames:
            if base <= address < end:
                if mmio.is_write:
                    frame.write(vcpu_id, address - base, mmio.size, mmio.data)
                else:
                    mmio.data = frame.read(vcpu_id, address - base, mmio.size)
                return True
        return False

    def signal(self, mmio: MmioExit) -> bool:
        """Whether an ioeventfd has consumed a store."""
        return self.ioeventfds.store(mmio.phys_addr, mmio.size, mmio.data)
