"""The protocol of the calls from an engine to the PE. Only type checkers use this module."""

from __future__ import annotations

from typing import Protocol

from armvirt.hw.engine.state import EventRecord


class PeCallbacks(Protocol):
    """The callbacks from an engine to the PE that runs the engine.

    Inputs and outputs are fields of the engine's state (`armvirt.hw.engine.state.EngineState`). An
    int that is returned is an `Action` of the same module.
    """

    def el2_exit(self) -> int:
        """Handle a synchronous exception to EL2. Input: state.esr, far, hpfar, pc, rt, rt_value."""

    def undefined(self) -> int:
        """Emulate an instruction that is UNDEFINED in the engine: MRS, MSR, HLT, WFET, WFIT. Input:
        state.pc, insn, rt, rt_value, el."""

    def timer_access(self) -> None:
        """Complete an access to CNTV_* or CNTP_*. Input: state.timer_encoding, timer_write, and
        state.value of a write. Output: state.value of a read.

        Only registers may change. To stop the run, set state.stop.
        """

    def comparator(self, encoding: int) -> tuple[int, int] | None:
        """CTL (ENABLE and IMASK) and CVAL of the timer whose control register or counter this is;
        None if EL2 traps an access to the register. No effect."""

    def poll(self) -> bool:
        """Look for requests of the host, about every 20 ms of host time. True stops the run."""

    def entries(self, records: list[EventRecord]) -> None:
        """Take the exception entries since the last call, oldest first. Called only while
        state.trace is set."""

    def broadcast(self, encoding: int, value: int) -> None:
        """Send a maintenance operation to the other CPUs: a TLBI, IC IVAU or IC IALLUIS by its
        encoding. ``value`` is the operand of a TLBI, or the physical address of an IC IVAU."""

    def send_event(self, count: int) -> None:
        """Send an event to the other CPUs, for SEV. Called only while state.broadcast is set.
        ``count`` is the instruction count at which SEV retired; the engine may be up to one
        translated block further."""
