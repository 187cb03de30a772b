"""Guest memory as the GIC sees it: its tables and the command queue lie there, wherever the guest
says."""

from __future__ import annotations

from typing import Protocol

from armvirt.errors import KvmError


class GuestMemory(Protocol):
    """``ipa`` is an address, ``size`` in bytes. Both raise KvmError EFAULT where there is no memory
    for that."""

    def read(self, ipa: int, size: int) -> bytes: ...

    def write(self, ipa: int, data: bytes) -> None: ...


class NoMemory:
    """A VM without memory."""

    def read(self, ipa: int, size: int) -> bytes:
        raise KvmError("EFAULT", f"no memory at {ipa:#x}")

    def write(self, ipa: int, data: bytes) -> None:
        raise KvmError("EFAULT", f"no memory at {ipa:#x}")


def fetch(memory: GuestMemory, ipa: int, size: int) -> bytes | None:
    """What is there, None where nothing is: a guest's bad address must not end the run."""
    try:
        return memory.read(ipa, size)
    except KvmError:
        return None


def store(memory: GuestMemory, ipa: int, data: bytes) -> bool:
    """Write; False where nothing can be written."""
    try:
        memory.write(ipa, data)
    except KvmError:
        return False
    return True


def fetch_entry(memory: GuestMemory, ipa: int) -> int | None:
    """A table entry of eight bytes."""
    data = fetch(memory, ipa, 8)
    return None if data is None else int.from_bytes(data, "little")
