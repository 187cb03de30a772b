"""The calls from an engine to the PE that runs it, for type checkers only."""

from __future__ import annotations

from typing import Protocol

from armvirt.hw.engine.state import EventRecord


class PeCallbacks(Protocol):
    """The callbacks from an engine to the PE that runs it. Each returned int is an `Action` of
    `armvirt.hw.engine.state`, whose structure `EngineState` has the inputs and outputs."""

    def el2_exit(self) -> int:
        """A synchronous exception to EL2. Input: state.esr, far, hpfar, pc, rt, rt_value."""

    def undefined(self) -> int:
        """An UNDEFINED MRS, MSR or HLT at state.pc. Input: state.insn, rt, rt_value, el."""

    def timer_access(self) -> None:
        """An access to CNTV_* or CNTP_* (state.timer_encoding). state.value is input or output.

        Only registers may change; to stop the run, set state.stop.
        """

    def poll(self) -> bool:
        """Called about every 20 ms of host time; True stops the run."""

    def entries(self, records: list[EventRecord]) -> None:
        """The exception entries since the last call, oldest first (only while state.trace is
        set)."""

    def broadcast(self, encoding: int, value: int) -> None:
        """Maintenance for all CPUs: TLBI by its encoding, IC IVAU with a physical address, or IC
        IALLUIS."""

    def send_event(self, count: int) -> None:
        """SEV, for the other CPUs; called only while state.broadcast is set. ``count`` is the
        instruction count at which SEV retired; the engine may be up to one translated block
        further."""
