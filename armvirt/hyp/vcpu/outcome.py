"""How an entry of the guest ended, as the run loop, the exit handlers and the host hand it on."""

from __future__ import annotations

from armvirt.hw.exit import ExitKind
from armvirt.hyp.host.runnable import Request
from armvirt.hyp.vcpu.exit_types import Exit


class Outcome:
    """The outcome of the last entry of one vCPU: one object, used again for every entry.

    ``kind`` says why the PE left the guest, or what an exit handler asks of the host; ``until`` is
    the ns at which a SLEEP ends. A WAIT or a
    SLEEP stays until the host has acted on it. ``exit`` is what the VMM is told once the PE has left
    the guest: the VMM may change any register then.
    """

    __slots__ = ("exit", "kind", "until")

    def __init__(self) -> None:
        self.kind: ExitKind | Request = Request.NONE
        self.until = 0
        self.exit: Exit | None = None

    def __repr__(self) -> str:
        return f"<Outcome: {self.kind.value}, exit {self.exit!r}>"

    def wait(self) -> None:
        """The vCPU blocks."""
        self.kind = Request.WAIT

    def sleep(self, until: int) -> None:
        """The vCPU sleeps, loaded, until ``until`` ns."""
        self.kind, self.until = Request.SLEEP, until

    @property
    def waits(self) -> bool:
        return self.kind is Request.WAIT

    def cancel_wait(self) -> None:
        """A change of the power state takes the place of a wait."""
        if self.kind is Request.WAIT:
            self.kind = Request.NONE

    def restore(self, waits: bool) -> None:
        """Take over saved state."""
        self.kind, self.exit = Request.WAIT if waits else Request.NONE, None
