"""The in-kernel devices on a VM's bus: GIC frames, and ioeventfds (struct kvm_io_bus,
virt/kvm/eventfd.c).

KVM_IOEVENTFD: a guest's store to an address calls a function at once, without an exit to the VMM.
"""

from __future__ import annotations

from collections.abc import Callable

from armvirt.arch.bits import MASK64
from armvirt.errors import KvmError
from armvirt.hyp.vcpu.exit_types import MmioExit
from armvirt.hyp.vgic.registers.frames import Frame
from armvirt.hyp.vgic.vgic import Vgic
from armvirt.records import NamedTuple

ANY_LENGTH = 0
LENGTHS = (ANY_LENGTH, 1, 2, 4, 8)


class IoEventFd(NamedTuple):
    """An ioeventfd. A store of ``length`` bytes to ``address`` with the data ``datamatch`` calls
    ``signal``. If ``length`` is 0, a store of any length matches. If ``datamatch`` is None, any
    data match."""

    address: int
    length: int
    datamatch: int | None
    signal: Callable[[], None]

    def matches(self, address: int, length: int, data: int) -> bool:
        """Whether a store matches the ioeventfd (ioeventfd_in_range)."""
        return (
            address == self.address
            and self.length in (ANY_LENGTH, length)
            and (self.datamatch is None or self.datamatch == data)
        )

    def collides(self, other: IoEventFd) -> bool:
        """Whether one store could match both ioeventfds (ioeventfd_check_collision)."""
        if self.address != other.address:
            return False
        if ANY_LENGTH in (self.length, other.length):
            return True
        if self.length != other.length:
            return False
        return None in (self.datamatch, other.datamatch) or self.datamatch == other.datamatch


class IoEventFds:
    """The ioeventfds of one VM."""

    def __init__(self) -> None:
        self._all: list[IoEventFd] = []

    def assign(
        self, address: int, length: int, signal: Callable[[], None], datamatch: int | None = None
    ) -> None:
        """Add an ioeventfd (KVM_IOEVENTFD). KvmError EINVAL for an invalid length, for
        ``datamatch`` with length 0, and for a range that wraps around; EEXIST if a store could
        match another ioeventfd too."""
        new = self._checked(address, length, signal, datamatch)
        if any(new.collides(each) for each in self._all):
            raise KvmError("EEXIST", f"an ioeventfd takes stores to {address:#x} already")
        self._all.append(new)

    def deassign(
        self, address: int, length: int, signal: Callable[[], None], datamatch: int | None = None
    ) -> None:
        """Remove an ioeventfd (KVM_IOEVENTFD_FLAG_DEASSIGN). KvmError ENOENT if no ioeventfd with
        the same four values is assigned, and EINVAL for the same reasons as in `assign`."""
        gone = self._checked(address, length, signal, datamatch)
        if gone not in self._all:
            raise KvmError("ENOENT", f"there is no such ioeventfd at {address:#x}")
        self._all.remove(gone)

    @staticmethod
    def _checked(
        address: int, length: int, signal: Callable[[], None], datamatch: int | None
    ) -> IoEventFd:
        if length not in LENGTHS:
            raise KvmError(
                "EINVAL", f"an ioeventfd has 1, 2, 4 or 8 bytes, or 0 for any, not {length}"
            )
        if not 0 <= address <= MASK64 or address + length > MASK64:
            raise KvmError("EINVAL", f"an ioeventfd at {address:#x} wraps around")
        if datamatch is not None and not length:
            raise KvmError("EINVAL", "an ioeventfd of any length has no data to match")
        return IoEventFd(address, length, datamatch, signal)

    def store(self, address: int, length: int, data: int) -> bool:
        """Handle a guest's store: signal the first ioeventfd that matches. Return False if no
        ioeventfd matches."""
        if not self._all:
            return False
        hit = next((each for each in self._all if each.matches(address, length, data)), None)
        if hit is not None:
            hit.signal()
        return hit is not None


class Devices:
    """The in-kernel devices of one VM. ``vgic`` is the interrupt controller of the VM, None if the
    VM has none."""

    __slots__ = ("_frames", "ioeventfds", "vgic")

    def __init__(self) -> None:
        self.vgic: Vgic | None = None
        self._frames: list[tuple[int, int, Frame]] = []
        self.ioeventfds = IoEventFds()

    def forget_frames(self) -> None:
        """Discard the list of GIC frames, because a frame was added. The next access gets the new
        list from the vGIC."""
        self._frames.clear()

    def gic_access(self, vcpu_id: int, mmio: MmioExit) -> bool:
        """Complete an access to a GIC frame. Return False if the address is not in a GIC frame."""
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
        """Signal the ioeventfd that matches a store. Return False if no ioeventfd matches."""
        return self.ioeventfds.store(mmio.phys_addr, mmio.size, mmio.data)
