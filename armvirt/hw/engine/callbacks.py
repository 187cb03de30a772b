"""The protocol of the calls from an engine to the PE. Only type checkers use this module."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from armvirt.hw.engine.state import EventRecord


class PeCallbacks(Protocol):
    """The callbacks from an engine to the PE that runs the engine.

    Inputs and outputs of the callbacks are fields of the engine's state
    (`armvirt.hw.engine.state.EngineState`). A callback that returns an int returns bits of
    `armvirt.hw.engine.state.Action`.
    """

    def el2_exit(self) -> int:
        """Handle a synchronous exception to EL2. Inputs: the fields of `SyncExit` in the state,
        which begin at state.esr. For HVC and SMC state.arguments is an input too."""

    def undefined(self) -> int:
        """Emulate an instruction that is UNDEFINED in Unicorn's core: MRS, MSR, HLT, WFET or WFIT.
        Inputs: state.pc, state.insn, state.rt, state.rt_value and state.el."""

    def timer_access(self) -> None:
        """Complete an access to a CNTV_* or CNTP_* register. Inputs: state.timer_encoding,
        state.timer_write, and for a write state.value. Output of a read: state.value.

        The callback returns no `Action`. It can change registers, and it can set state.stop to stop
        the run.
        """

    def comparator(self, encoding: int) -> tuple[int, int] | None:
        """Return (CTL, CVAL) of a timer. CTL is without ISTATUS. ``encoding`` is the packed
        encoding of the timer's control register or of its counter. Returns None if EL2 traps an
        access to this register. The callback has no side effects."""

    on_skip: Callable[[int], None] | None
    """If not None, the engine calls this function after each skip, with the skipped virtual time in
    ns. A skip is then at most `armvirt.hw.engine.waits.LONGEST_PACED_SKIP_NS` long."""

    def poll(self) -> bool:
        """Handle requests from outside the guest, such as a request to stop. Called about every 20
        ms of wall-clock time. Returns True to stop the run."""

    def entries(self, records: list[EventRecord]) -> None:
        """Write exception entries to the trace. ``records`` has the entries since the last call,
        oldest first. Called only while state.trace is set."""

    def broadcast(self, encoding: int, value: int) -> None:
        """Send a maintenance operation of this CPU to the other CPUs. ``encoding`` is the packed
        encoding of a TLBI, IC IVAU or IC IALLUIS. ``value`` is the operand of a TLBI, or the
        physical address of an IC IVAU."""

    def send_event(self, count: int) -> None:
        """Send an event to the other CPUs, because this CPU executed SEV. Called only while
        state.broadcast is set. ``count`` is the instruction count at which the SEV retired. At the
        call, the engine may already have executed the rest of the translated block."""
