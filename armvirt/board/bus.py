"""The MMIO bus: finds the device that has an address."""

from __future__ import annotations

from bisect import bisect_right

from armvirt.board.devices.device import MmioDevice


class MmioBus:
    """The devices by address. If no device has the address of an access, the caller has to inject
    an external abort into the vCPU. On hardware, the bus returns this abort."""

    def __init__(self) -> None:
        self._bases: list[int] = []
        self._devices: list[MmioDevice] = []
        self._sizes: list[int] = []

    def __repr__(self) -> str:
        return f"<MmioBus with {len(self._devices)} devices>"

    def add(self, base: int, size: int, device: MmioDevice) -> None:
        """Put ``device`` at the addresses [base, base + size). ValueError if this range is empty or
        overlaps another device."""
        index = bisect_right(self._bases, base)
        after = self._bases[index] if index < len(self._bases) else base + size
        before = self._bases[index - 1] + self._sizes[index - 1] if index else 0
        if size <= 0 or before > base or base + size > after:
            raise ValueError(
                f"{device.name} at {base:#x}, {size:#x} bytes, overlaps another device"
            )
        self._bases.insert(index, base)
        self._devices.insert(index, device)
        self._sizes.insert(index, size)

    def lookup(self, address: int, size: int = 1) -> tuple[MmioDevice, int] | None:
        """The device that has all ``size`` bytes at ``address``, and the offset of ``address`` in
        the device. None if there is no such device."""
        index = bisect_right(self._bases, address) - 1
        if index < 0:
            return None
        offset = address - self._bases[index]
        return (self._devices[index], offset) if offset + size <= self._sizes[index] else None

    def read(self, address: int, size: int) -> int | None:
        """Load ``size`` bytes from the device at the address, and return the value. Return None if
        there is no device at the address."""
        found = self.lookup(address, size)
        return None if found is None else found[0].read(found[1], size)

    def write(self, address: int, size: int, value: int) -> bool:
        """Store ``size`` bytes to the device at the address. Return False if there is no device at
        the address."""
        found = self.lookup(address, size)
        if found is None:
            return False
        found[0].write(found[1], size, value)
        return True

    def devices(self) -> list[tuple[int, int, MmioDevice]]:
        """All devices as (base, size, device), in the order of their addresses."""
        return list(zip(self._bases, self._sizes, self._devices, strict=True))
