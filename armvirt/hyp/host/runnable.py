"""The interface between the host's scheduler and a vCPU: the protocol `Runnable`, and the outcome
of a guest entry."""

from __future__ import annotations

from enum import Enum
from typing import Protocol

from armvirt.hw.clock import NEVER
from armvirt.hw.context import Context
from armvirt.hw.exit import ExitKind
from armvirt.hw.pe import Pe
from armvirt.hyp.host.sched import SchedEntity


class Request(Enum):
    """The request of an exit handler to the host. NONE: no request. WAIT: block the vCPU (WFI,
    CPU_SUSPEND). SLEEP: the vCPU sleeps until `EntryOutcome.until`, and stays loaded on its PE."""

    NONE = "none"
    WAIT = "wait"
    SLEEP = "sleep"


class EntryOutcome(Protocol):
    """How one guest entry of a vCPU ended. ``kind`` is the reason why the PE left the guest, or the
    request of an exit handler to the host. ``until`` is the time in ns at which a SLEEP ends."""

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
        """Start the wait of the vCPU for an event."""
        ...

    def turn_over(self) -> None:
        """Compare the contents of the monitored granule, at the end of another vCPU's time
        slice."""
        ...

    def take_for_lost(self) -> bool:
        """Clear the exclusive monitor and wake the vCPU up, if other vCPUs have run since the wait
        began. Return whether the monitor was cleared."""
        ...


class Enter(Protocol):
    """The type of `Runnable.enter`, which runs a loaded vCPU once."""

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
        """Run the guest up to ``until`` ns, or up to an exit that EL2 does not finish at once. If
        ``alone`` is true, no other vCPU can run, and the vCPU may sleep without a return to the
        caller. A YIELD instruction at or after ``yield_at`` ns also ends this guest entry."""
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
        """The vCPU sleeps until ``until`` ns (None: no limit) or an earlier `wake`, and stays
        loaded on its PE."""
        ...

    def wake(self) -> None:
        """Make the vCPU runnable if it is blocked (kvm_vcpu_wake_up)."""
        ...

    def next_rise(self) -> int | None:
        """The ns at which the next of the vCPU's timer lines rises; None if no line will rise."""
        ...

    def stuck(self, cause: str) -> None:
        """Report to the VMM that the guest cannot make progress. ``cause`` says why, in words."""
        ...
