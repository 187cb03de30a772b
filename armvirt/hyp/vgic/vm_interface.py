"""The interfaces that the vGIC uses of its VM: callbacks, and the guest memory with the tables of
LPIs and ITSs."""

from __future__ import annotations

from typing import Protocol

from armvirt.errors import KvmError


class VgicCallbacks(Protocol):
    """The functions of the VM that the vGIC calls."""

    def kick(self, vcpu_id: int) -> None:
        """A vCPU may have a new interrupt: wake the vCPU if it is blocked (kvm_vcpu_kick)."""

    def set_phys_active(self, vcpu_id: int, host_intid: int, active: bool) -> None:
        """Write the active state of a host interrupt on the PE of a vCPU."""

    def irq_ended(self, intid: int) -> None:
        """The guest ended a level-sensitive SPI of `Distributor.watched` (kvm_notify_acked_irq)."""

    def lpi_work_left(self) -> None:
        """The backlog has jobs left: call `Vgic.go_on` after some guest time."""


class GuestMemory(Protocol):
    """Guest memory by IPA; sizes are in bytes. KvmError EFAULT outside the memory slots."""

    def read(self, ipa: int, size: int) -> bytes: ...

    def write(self, ipa: int, data: bytes) -> None: ...


class NoMemory:
    """The guest memory of a VM without memory slots."""

    def read(self, ipa: int, size: int) -> bytes:
        raise KvmError("EFAULT", f"no memory at {ipa:#x}")

    def write(self, ipa: int, data: bytes) -> None:
        raise KvmError("EFAULT", f"no memory at {ipa:#x}")


def fetch(memory: GuestMemory, ipa: int, size: int) -> bytes | None:
    """Read guest memory; None if the address is outside the memory slots.

    The guest chooses the address, so a bad address must not end the run.
    """
    try:
        return memory.read(ipa, size)
    except KvmError:
        return None


def store(memory: GuestMemory, ipa: int, data: bytes) -> bool:
    """Write guest memory; False if the address is outside the memory slots."""
    try:
        memory.write(ipa, data)
    except KvmError:
        return False
    return True


def fetch_entry(memory: GuestMemory, ipa: int) -> int | None:
    """Read a table entry of eight bytes; None if the address is outside the memory slots."""
    data = fetch(memory, ipa, 8)
    return None if data is None else int.from_bytes(data, "little")
