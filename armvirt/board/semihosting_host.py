"""The functions of the board that a semihosting call of a vCPU uses."""

from __future__ import annotations

from typing import TYPE_CHECKING

from armvirt.arch.timer import NS_PER_SECOND
from armvirt.board.semihosting import BadAddressError, Heap

if TYPE_CHECKING:
    from armvirt.board.console import Console
    from armvirt.hyp.kvm import Vcpu, Vm


class VcpuMemory:
    """The `SemihostingHost` of one vCPU. Guest memory is accessed by the virtual addresses of this
    vCPU. ``start`` is the date at virtual time 0, in seconds since 1970."""

    def __init__(
        self, vcpu: Vcpu, vm: Vm, console: Console, start: int, command_line: str, heap: Heap
    ) -> None:
        self.vcpu, self.vm, self.console, self.start = vcpu, vm, console, start
        self.command_line, self.heap = command_line, heap

    def _pieces(self, address: int, size: int) -> list[tuple[int, int]]:
        pieces = []
        while size:
            count = min(size, 0x1000 - (address & 0xFFF))
            ipa = self.vcpu.translate(address)
            if ipa is None or not self.vm.has_memory(ipa, count):
                raise BadAddressError(f"no memory at {address:#x}")
            pieces.append((ipa, count))
            address, size = address + count, size - count
        return pieces

    def read_memory(self, address: int, size: int) -> bytes:
        return b"".join(
            self.vm.read_memory(ipa, count) for ipa, count in self._pieces(address, size)
        )

    def write_memory(self, address: int, data: bytes) -> None:
        done = 0
        for ipa, count in self._pieces(address, len(data)):
            self.vm.write_memory(ipa, data[done : done + count])
            done += count

    def write_console(self, data: bytes) -> None:
        for byte in data:
            self.console.transmit(byte)

    def read_console(self) -> int | None:
        return self.console.receive()

    @property
    def input_closed(self) -> bool:
        return self.console.closed

    @property
    def now(self) -> int:
        return self.vm.timers.now

    @property
    def date(self) -> int:
        return self.start + self.now // NS_PER_SECOND
