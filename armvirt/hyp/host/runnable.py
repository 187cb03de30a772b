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
    """The request of an exit handler to the host. NONE is no request. WAIT blocks the vCPU (WFI,
    CPU_SUSPEND). SLEEP makes the vCPU sleep until the virtual time `EntryOutcome.until`; the vCPU
    stays loaded on its PE."""

    NONE = "none"
    WAIT = "wait"
    SLEEP = "sleep"


class EntryOutcome(Protocol):
    """How one guest entry of a vCPU ended. ``kind`` is either the reason why the PE left the guest,
    or a request of an exit handler to the host. ``until`` is the virtual time in ns at which a
    SLEEP ends; None if only a wake-up ends the SLEEP."""

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
        """Start the wait for an event (WFE)."""
        ...

    def turn_over(self) -> None:
        """End the wait if the contents of the granule that the exclusive monitor marks have changed
        since the start of the wait. After many calls, end the wait in any case. The host calls this
        method at the end of each time slice of another vCPU."""
        ...

    def take_for_lost(self) -> bool:
        """Clear the exclusive monitor and wake the vCPU up, if other vCPUs have executed
        instructions since the wait began. Return whether the monitor was cleared."""
        ...


class Enter(Protocol):
    """The type of `Runnable.enter`, which runs a loaded vCPU once."""

    def __call__(self, until: int, alone: bool = False, yield_at: int = NEVER) -> EntryOutcome: ...


class Runnable(Protocol):
    """The interface of a vCPU to the scheduler.

    ``index`` is the vCPU's index in `Host.vcpus`. ``pe`` is the PE on which the vCPU is loaded;
    None if the vCPU is not loaded.
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
        """Whether an exit of the vCPU can be delivered to a VMM."""
        ...

    @property
    def enter(self) -> Enter:
        """Run the guest until the virtual time ``until`` (ns), or until an exit that EL2 does not
        complete itself. The guest entry also ends at a YIELD instruction, if the virtual time is
        ``yield_at`` (ns) or more. ``alone`` allows the vCPU to sleep without a return to the
        caller. The caller sets ``alone`` only if no other vCPU can run."""
        ...

    def load(self, pe: Pe) -> None:
        """Load the vCPU's registers on a PE (vcpu_load)."""
        ...

    def put(self) -> None:
        """Save the vCPU's registers from the PE (vcpu_put)."""
        ...

    def attach(self, pe: Pe) -> None:
        """Bind the vCPU to a PE after the restore of a saved state. The vCPU loads no register,
        because the registers of the PE have been restored, too."""
        ...

    def detach(self) -> None:
        """Unbind the vCPU from the PE without saving its registers."""
        ...

    def block(self) -> None:
        """Block the vCPU, unless an interrupt can be delivered (kvm_vcpu_block)."""
        ...

    def sleep(self, until: int | None) -> None:
        """Block the vCPU. `wake`, or the virtual time ``until`` (ns), ends the sleep. If ``until``
        is None, only `wake` ends the sleep. The vCPU stays loaded on its PE."""
        ...

    def wake(self) -> None:
        """Make the vCPU runnable if it is blocked (kvm_vcpu_wake_up)."""
        ...

    def next_rise(self) -> int | None:
        """The virtual time in ns of the next rising edge of a timer line of the vCPU; None if no
        timer line will rise."""
        ...

    def stuck(self, cause: str) -> None:
        """Report to the VMM that the guest cannot make progress. ``cause`` is a text that says
        why."""
        ...
