"""The interfaces of the VM that the vGIC uses: the callbacks of the VM, and the guest memory, which
contains the tables of LPIs and ITSs."""

from __future__ import annotations

from typing import Protocol

from armvirt.errors import KvmError


class VgicCallbacks(Protocol):
    """The functions of the VM that the vGIC calls."""

    def kick(self, vcpu_id: int) -> None:
        """Wake a blocked vCPU (kvm_vcpu_kick). The vGIC calls this method when the vCPU may have a
        new interrupt."""

    def set_phys_active(self, vcpu_id: int, host_intid: int, active: bool) -> None:
        """Write the active state of a host interrupt in the physical GIC of the vCPU's PE.
        ``host_intid`` is the INTID of the host interrupt."""

    def irq_ended(self, intid: int) -> None:
        """Handle the end of a level-sensitive SPI in `Distributor.watched` (kvm_notify_acked_irq).
        The guest has deactivated the SPI."""

    def lpi_work_left(self) -> None:
        """Arm a timer that calls `Vgic.go_on` after `backlog.SLICE_NS` ns of virtual time. The vGIC
        calls this method if it stops with unfinished work on LPIs (`armvirt.hyp.vgic.backlog`)."""


class GuestMemory(Protocol):
    """Guest memory, addressed by IPA. Sizes are in bytes. KvmError EFAULT if an address is outside
    the memory slots."""

    def read(self, ipa: int, size: int) -> bytes: ...

    def write(self, ipa: int, data: bytes) -> None: ...


class NoMemory:
    """The guest memory of a VM without memory slots."""

    def read(self, ipa: int, size: int) -> bytes:
        raise KvmError("EFAULT", f"no memory at {ipa:#x}")

    def write(self, ipa: int, data: bytes) -> None:
        raise KvmError("EFAULT", f"no memory at {ipa:#x}")


def fetch(memory: GuestMemory, ipa: int, size: int) -> bytes | None:
    """Read ``size`` bytes of guest memory. None if the address is outside the memory slots.

    The guest chooses the address, so a wrong address must not raise an error that ends the run.
    """
    try:
        return memory.read(ipa, size)
    except KvmError:
        return None


def store(memory: GuestMemory, ipa: int, data: bytes) -> bool:
    """Write guest memory. Return False if the address is outside the memory slots or in a read-only
    slot."""
    try:
        memory.write(ipa, data)
    except KvmError:
        return False
    return True


def fetch_entry(memory: GuestMemory, ipa: int) -> int | None:
    """Read a table entry of eight bytes. None if the address is outside the memory slots."""
    data = fetch(memory, ipa, 8)
    return None if data is None else int.from_bytes(data, "little")
