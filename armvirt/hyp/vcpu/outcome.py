"""How an entry of the guest ended, as the run loop, the exit handlers and the host hand it on."""

from __future__ import annotations

from armvirt.hw.exit import ExitKind
from armvirt.hyp.host.runnable import OutcomeKind
from armvirt.hyp.vcpu.exit_types import Exit

KINDS: dict[ExitKind, OutcomeKind] = {
    ExitKind.IRQ: OutcomeKind.IRQ,
    ExitKind.BUDGET: OutcomeKind.BUDGET,
    ExitKind.WFE: OutcomeKind.WFE,
    ExitKind.YIELD: OutcomeKind.YIELD,
    ExitKind.STOPPED: OutcomeKind.STOPPED,
    ExitKind.SPIN: OutcomeKind.SPIN,
    ExitKind.VECTOR_LOOP: OutcomeKind.VECTOR_LOOP,
}
"""What the PE's report means to the host, unless an exit handler has said WAIT or SLEEP."""


class Outcome:
    """The outcome of the last entry of one vCPU: one object, used again for every entry.

    ``kind`` says what the host does next; ``until`` is the ns at which a SLEEP ends. A WAIT or a
    SLEEP stays until the host has acted on it. ``exit`` is what the VMM is told once the PE has left
    the guest: the VMM may change any register then.
    """

    __slots__ = ("exit", "kind", "until")

    def __init__(self) -> None:
        self.kind = OutcomeKind.NONE
        self.until = 0
        self.exit: Exit | None = None

    def __repr__(self) -> str:
        return f"<Outcome: {self.kind.value}, exit {self.exit!r}>"

    def wait(self) -> None:
        """The vCPU blocks."""
        self.kind = OutcomeKind.WAIT

    def sleep(self, until: int) -> None:
        """The vCPU sleeps, loaded, until ``until`` ns."""
        self.kind, self.until = OutcomeKind.SLEEP, until

    @property
    def waits(self) -> bool:
        return self.kind is OutcomeKind.WAIT

    def cancel_wait(self) -> None:
        """A change of the power state takes the place of a wait."""
        if self.kind is OutcomeKind.WAIT:
            self.kind = OutcomeKind.NONE

    def restore(self, waits: bool) -> None:
        """Take over saved state."""
        self.kind, self.exit = OutcomeKind.WAIT if waits else OutcomeKind.NONE, None
