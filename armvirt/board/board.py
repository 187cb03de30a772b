"""The interface of the board (protocol `Board`) that `armvirt.machine` uses."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from armvirt.state import Stateful

if TYPE_CHECKING:
    from armvirt.board.boot import Loaded
    from armvirt.board.config import BoardConfig
    from armvirt.board.console import Console
    from armvirt.board.devices.device import MmioDevice, Wire
    from armvirt.board.semihosting import Exit, Semihosting
    from armvirt.hyp.kvm import HostMemory, Kvm, Stop, StuckExit, SystemEventExit, Vcpu, Vm


class Receiver(Protocol):
    """The device that receives console input."""

    @property
    def listens(self) -> bool:
        """Whether the arrival of a byte would raise the interrupt line."""

    def poll_input(self) -> None:
        """Check for input."""


class Board(Stateful, Protocol):
    """A virtual machine on the KVM API: memory, vCPUs, interrupt controller, devices, a loaded
    guest.

    ``loaded`` are the image and the ROM; the first CPU starts in the last of them. ``devices`` are
    the devices by name; ``its`` is None without an ITS. ``heap_start`` and ``ram_end`` are
    addresses.
    """

    config: BoardConfig
    console: Console
    kvm: Kvm
    vm: Vm
    ram: HostMemory
    gic: Any
    its: Any
    date_at_start: int

    @property
    def vcpus(self) -> Sequence[Vcpu]: ...

    @property
    def loaded(self) -> Sequence[Loaded]: ...

    @property
    def devices(self) -> Mapping[str, MmioDevice]: ...

    @property
    def receiver(self) -> Receiver:
        """The device that receives console input."""

    @property
    def semihosting(self) -> Sequence[Semihosting]:
        """The semihosting of each CPU; empty if semihosting is off."""

    @property
    def own_parts(self) -> Mapping[str, Stateful]:
        """The parts of the VMM that have state, by name: the devices, the console, semihosting."""

    @property
    def insns(self) -> int:
        """The number of instructions that all vCPUs have retired."""

    @property
    def heap_start(self) -> int: ...

    @property
    def ram_end(self) -> int: ...

    @property
    def command_line(self) -> str:
        """The command line of a semihosting guest."""

    def wires(self) -> list[Wire]:
        """The devices that drive an SPI."""

    def in_memory(self, ipa: int, size: int) -> bool:
        """Whether a whole range of IPAs is in memory slots."""

    def dump_dtb(self) -> bytes:
        """The device tree that the guest gets."""

    def final_state(self, tick: Callable[[], None] = lambda: None) -> bytes:
        """A digest of the registers of every CPU and of RAM."""

    def run(self, until: int, insns: int) -> Stop:
        """Run the machine until ``until`` ns, until all vCPUs have retired ``insns`` instructions,
        until an event, or until every vCPU is idle."""

    def take_event(self) -> SystemEventExit | StuckExit | Exit | None:
        """Return and clear the event that ended the last `run`; None if there was no event."""

    def reset(self) -> None:
        """Reset the machine (PSCI SYSTEM_RESET)."""
