"""What the host's scheduler uses of a vCPU: the protocol `Runnable`, and the outcome of an
entry."""

from __future__ import annotations

from enum import Enum
from typing import Protocol

from armvirt.hw.clock import NEVER
from armvirt.hw.context import Context
from armvirt.hw.exit import ExitKind
from armvirt.hw.pe import Pe
from armvirt.hyp.host.sched import SchedEntity


class Request(Enum):
    """What an exit handler requests from the host. NONE: nothing. WAIT: the vCPU blocks (WFI,
    CPU_SUSPEND). SLEEP: the vCPU sleeps and stays loaded until `EntryOutcome.until`."""

    NONE = "none"
    WAIT = "wait"
    SLEEP = "sleep"


class EntryOutcome(Protocol):
    """How one entry of the guest ended: why the PE left the guest, or what an exit handler requests
    from the host. ``until``: the ns at which a SLEEP ends."""

    kind: ExitKind | Request
    until: int


class EventWaiter(Protocol):
    """The wait of a vCPU in WFE."""

    active: bool

    @property
    def watches(self) -> bool:
        """Whether a store by another vCPU can end the wait."""
        ...

    def begin(self) -> None:
        """The vCPU starts to wait for an event."""
        ...

    def turn_over(self) -> None:
        """At the end of another vCPU's time slice: compare the monitored granule."""
        ...

    def take_for_lost(self) -> bool:
        """Set the event register if other vCPUs have run since the wait began. Returns whether they
        have."""
        ...


class Enter(Protocol):
    """Runs a loaded vCPU once, see `Runnable.enter`."""

    def __call__(self, until: int, alone: bool = False, yield_at: int = NEVER) -> EntryOutcome: ...


class Runnable(Protocol):
    """The interface of a vCPU to the scheduler.

    ``index`` is the vCPU's index in `Host.vcpus`; ``pe`` is the PE on which the vCPU is loaded.
    """

    @property
    def index(self) -> int: ...

    @property
    def pe(self) -> Pe | None: ...

    @property
    def context(self) -> Context: ...

    @property
    def sched(self) -> SchedEntity: ...

    @property
    def event_wait(self) -> EventWaiter: ...

    @property
    def runnable(self) -> bool:
        """Whether the vCPU can run on a PE."""
        ...

    @property
    def is_off(self) -> bool: ...

    @property
    def is_blocked(self) -> bool:
        """Whether the vCPU sleeps until an interrupt, an event or console input."""
        ...

    @property
    def suspended(self) -> bool:
        """Whether the vCPU's MP state is SUSPENDED."""
        ...

    @property
    def hears(self) -> bool:
        """Whether virtual IRQs or virtual FIQs are unmasked (PSTATE.I or PSTATE.F is 0)."""
        ...

    @property
    def has_vmm(self) -> bool:
        """Whether a VMM can get the vCPU's exits."""
        ...

    @property
    def enter(self) -> Enter:
        """Run the guest up to ``until`` ns or up to an exit that EL2 does not finish at once.
        ``alone``: no other vCPU can run, and the caller needs no return at each sleep. From
        ``yield_at`` ns on, YIELD is such an exit."""
        ...

    def load(self, pe: Pe) -> None:
        """Load the vCPU's registers on a PE (vcpu_load)."""
        ...

    def put(self) -> None:
        """Save the vCPU's registers from the PE (vcpu_put)."""
        ...

    def attach(self, pe: Pe) -> None:
        """Bind the vCPU to a PE whose registers were restored already."""
        ...

    def detach(self) -> None:
        """Unbind the vCPU from the PE without saving its registers."""
        ...

    def block(self) -> None:
        """Block the vCPU, unless an interrupt can be delivered (kvm_vcpu_block)."""
        ...

    def sleep(self, until: int | None) -> None:
        """Let the vCPU sleep, loaded, until ``until`` ns (None: no limit) or an earlier `wake`."""
        ...

    def wake(self) -> None:
        """Make the vCPU runnable if it is blocked (kvm_vcpu_wake_up)."""
        ...

    def next_rise(self) -> int | None:
        """The ns at which the next of the vCPU's timer lines rises; None if no line will rise."""
        ...

    def stuck(self, cause: str) -> None:
        """Report to the VMM that the guest cannot make progress, with the cause."""
        ...
