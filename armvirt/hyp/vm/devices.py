"""The in-kernel devices on a VM's bus: GIC frames, and ioeventfds (struct kvm_io_bus,
virt/kvm/eventfd.c).

KVM_IOEVENTFD: a guest's store to an address calls a function at once, without an exit to the VMM.
"""

from __future__ import annotations

from collections.abc import Callable

from armvirt.arch.bits import MASK64
from armvirt.arch.translation import PAGE_SHIFT
from armvirt.errors import KvmError
from armvirt.hyp.vcpu.exit_types import MmioExit
from armvirt.hyp.vgic.registers.frames import PlacedFrame
from armvirt.hyp.vgic.vgic import Vgic
from armvirt.records import NamedTuple

ANY_LENGTH = 0
LENGTHS = (ANY_LENGTH, 1, 2, 4, 8)
MAX_PAGES = 10_000  # the guest chooses the pages that it accesses


class IoEventFd(NamedTuple):
    """An ioeventfd. A store to ``address`` calls ``signal`` if its length is ``length`` bytes and
    its data are ``datamatch``. If ``length`` is 0, a store of any length matches. If ``datamatch``
    is None, any data match."""

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
        """Remove an ioeventfd (KVM_IOEVENTFD_FLAG_DEASSIGN). KvmError ENOENT if no ioeventfd was
        assigned with the same address, length, signal and datamatch. KvmError EINVAL for arguments
        for which `assign` raises EINVAL."""
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

    __slots__ = ("_pages", "ioeventfds", "vgic")

    def __init__(self) -> None:
        self.vgic: Vgic | None = None
        self._pages: dict[int, PlacedFrame | None] = {}
        self.ioeventfds = IoEventFds()

    def forget_frames(self) -> None:
        """Discard the stored list of GIC frames. The caller has added a frame. The next access to a
        device gets the new list from the vGIC."""
        self._pages.clear()

    def frame_at(self, address: int) -> PlacedFrame | None:
        """The GIC frame that contains the IPA ``address``; None if no GIC frame does."""
        page = address >> PAGE_SHIFT
        try:
            return self._pages[page]
        except KeyError:
            if len(self._pages) >= MAX_PAGES:
                self._pages.clear()
            placed = self._pages[page] = self._find(address)
            return placed

    def _find(self, address: int) -> PlacedFrame | None:
        frames = [] if self.vgic is None else self.vgic.mmio_frames()
        return next((f for f in frames if f.base <= address < f.base + f.size), None)

    def signal(self, mmio: MmioExit) -> bool:
        """Signal the ioeventfd that matches a store. Return False if no ioeventfd matches."""
        return self.ioeventfds.store(mmio.phys_addr, mmio.size, mmio.data)
