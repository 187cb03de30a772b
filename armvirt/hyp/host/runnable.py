"""What the host's scheduler knows of a vCPU: the protocol `Runnable`, and how an entry ended."""

from __future__ import annotations

from enum import Enum
from typing import Protocol

from armvirt.hw.clock import NEVER
from armvirt.hw.context import Context
from armvirt.hw.exit import ExitKind
from armvirt.hw.pe import Pe
from armvirt.hyp.host.sched import RunDelay


class Request(Enum):
    """What an exit handler asks of the host. NONE: nothing. WAIT: the vCPU blocks (WFI,
    CPU_SUSPEND). SLEEP: the vCPU sleeps, loaded, until `EntryOutcome.until`."""

    NONE = "none"
    WAIT = "wait"
    SLEEP = "sleep"


class EntryOutcome(Protocol):
    """How one entry of the guest ended: why the PE left the guest, or what an exit handler asks of
    the host. ``until``: the ns at which a SLEEP ends."""

    kind: ExitKind | Request
    until: int


class EventWaiter(Protocol):
    """The wait of a vCPU in WFE."""

    active: bool

    @property
    def watches(self) -> bool:
        """Whether a store of another vCPU may end the wait."""
        ...

    def begin(self) -> None:
        """The vCPU waits for an event from now on."""
        ...

    def turn_over(self) -> None:
        """A turn of another vCPU is over: compare the monitored granule."""
        ...

    def take_for_lost(self) -> bool:
        """Set the event register if other vCPUs have run since the wait began; whether they
        have."""
        ...


class Enter(Protocol):
    """Runs a loaded vCPU once, see `Runnable.enter`."""

    def __call__(self, until: int, alone: bool = False, yield_at: int = NEVER) -> EntryOutcome: ...


class Runnable(Protocol):
    """A vCPU as the host schedules it.

    ``index`` is its place in `Host.vcpus`; ``home`` the PE at which it queues, None before it first
    could run; ``pe`` the PE on which it is loaded. ``faults_until`` is the ns up to which its
    vectors are known to fault.
    """

    home: int | None
    faults_until: int

    @property
    def index(self) -> int: ...

    @property
    def pe(self) -> Pe | None: ...

    @property
    def context(self) -> Context: ...

    @property
    def delay(self) -> RunDelay: ...

    @property
    def event_wait(self) -> EventWaiter: ...

    @property
    def affinity(self) -> frozenset[int] | None: ...

    @property
    def runnable(self) -> bool:
        """Whether it wants a PE."""
        ...

    @property
    def is_off(self) -> bool: ...

    @property
    def is_blocked(self) -> bool:
        """Whether it sleeps until an interrupt, an event or its input."""
        ...

    @property
    def suspended(self) -> bool:
        """Whether its MP state is SUSPENDED."""
        ...

    @property
    def hears(self) -> bool:
        """Whether PSTATE lets a virtual interrupt in."""
        ...

    @property
    def has_vmm(self) -> bool:
        """Whether there is a VMM that takes its exits."""
        ...

    def may_be_on(self, pe: int) -> bool:
        """Whether its affinity has a PE."""
        ...

    @property
    def enter(self) -> Enter:
        """Run the guest to ``until`` ns or to an exit that EL2 does not finish at once. ``alone``:
        no other vCPU can run, and nobody observes when this one sleeps. YIELD is such an exit from
        ``yield_at`` ns on."""
        ...

    def load(self, pe: Pe) -> None:
        """Load its registers on a PE (vcpu_load)."""
        ...

    def put(self) -> None:
        """Save its registers from the PE (vcpu_put)."""
        ...

    def attach(self, pe: Pe) -> None:
        """Bind it to a PE whose registers were restored already."""
        ...

    def detach(self) -> None:
        """Leave the PE without saving."""
        ...

    def block(self) -> None:
        """Block, unless an interrupt can be delivered (kvm_vcpu_block)."""
        ...

    def sleep(self, until: int | None) -> None:
        """Sleep, loaded, until ``until`` ns (None: for ever) or until it is woken."""
        ...

    def wake(self) -> None:
        """Make it runnable if it is blocked (kvm_vcpu_wake_up)."""
        ...

    def next_rise(self) -> int | None:
        """The ns at which the next of its timer lines rises."""
        ...

    def stuck(self, cause: str) -> None:
        """Tell its VMM that the guest cannot go on."""
        ...
