"""The functions of the board that a semihosting call of a vCPU uses."""

from __future__ import annotations

from typing import TYPE_CHECKING

from armvirt.arch.timer import NS_PER_SECOND
from armvirt.board.semihosting import BadAddressError, Heap

if TYPE_CHECKING:
    from armvirt.board.board import Board
    from armvirt.hyp.kvm import Vcpu


class VcpuMemory:
    """The `SemihostingHost` of one vCPU: memory by virtual address of the vCPU, the console, the
    time."""

    def __init__(self, board: Board, vcpu: Vcpu) -> None:
        self.board, self.vcpu = board, vcpu

    def _pieces(self, address: int, size: int) -> list[tuple[int, int]]:
        pieces = []
        while size:
            count = min(size, 0x1000 - (address & 0xFFF))
            ipa = self.vcpu.translate(address)
            if ipa is None or not self.board.in_memory(ipa, count):
                raise BadAddressError(f"no memory at {address:#x}")
            pieces.append((ipa, count))
            address, size = address + count, size - count
        return pieces

    def read_memory(self, address: int, size: int) -> bytes:
        return b"".join(
            self.board.vm.read_memory(ipa, count) for ipa, count in self._pieces(address, size)
        )

    def write_memory(self, address: int, data: bytes) -> None:
        done = 0
        for ipa, count in self._pieces(address, len(data)):
            self.board.vm.write_memory(ipa, data[done : done + count])
            done += count

    def write_console(self, data: bytes) -> None:
        for byte in data:
            self.board.console.transmit(byte)

    def read_console(self) -> int | None:
        return self.board.console.receive()

    @property
    def input_closed(self) -> bool:
        return self.board.console.closed

    @property
    def now(self) -> int:
        return self.board.vm.timers.now

    @property
    def date(self) -> int:
        return self.board.date_at_start + self.now // NS_PER_SECOND

    @property
    def command_line(self) -> str:
        return self.board.command_line

    @property
    def heap(self) -> Heap:
        ram_end = self.board.ram_end
        return Heap(self.board.heap_start, ram_end - (1 << 20), ram_end, ram_end - (1 << 20))
