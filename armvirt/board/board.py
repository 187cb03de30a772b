"""The board, as the front uses it."""

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
    """The device at which console input arrives."""

    @property
    def listens(self) -> bool:
        """Whether a byte that arrives would raise the interrupt line."""

    def poll_input(self) -> None:
        """Look for input."""


class Board(Stateful, Protocol):
    """A virtual machine on the KVM API: memory, vCPUs, interrupt controller, devices, a loaded
    guest.

    ``loaded`` are the image and the ROM, of which the last is entered. ``devices`` are the devices
    by name; ``its`` is None without one. ``heap_start`` and ``ram_end`` are addresses.
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
        """The device at which console input arrives."""

    @property
    def semihosting(self) -> Sequence[Semihosting]:
        """The semihosting of each CPU; empty where the guest has none."""

    @property
    def own_parts(self) -> Mapping[str, Stateful]:
        """The stateful parts of the VMM's own, by name: the devices, the console, semihosting."""

    @property
    def insns(self) -> int:
        """Instructions that all vCPUs have retired."""

    @property
    def heap_start(self) -> int: ...

    @property
    def ram_end(self) -> int: ...

    @property
    def command_line(self) -> str:
        """The command line of a semihosting guest."""

    def wires(self) -> list[Wire]:
        """The devices that drive an SPI each."""

    def in_memory(self, ipa: int, size: int) -> bool:
        """Whether all of a range is in memory slots."""

    def dump_dtb(self) -> bytes:
        """The device tree that the guest gets."""

    def final_state(self, tick: Callable[[], None] = lambda: None) -> bytes:
        """A digest of the registers of every CPU and of RAM."""

    def run(self, until: int, insns: int) -> Stop:
        """Drive the machine to ``until`` ns, to ``insns`` retired in all, to an event, or to
        idleness."""

    def take_event(self) -> SystemEventExit | StuckExit | Exit | None:
        """The event that ended the last `run`, once; None if there was none."""

    def reset(self) -> None:
        """SYSTEM_RESET."""
