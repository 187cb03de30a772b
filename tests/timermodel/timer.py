"""One EL1 timer as a function of the count it sees (DDI 0487 D12.2.4, "Timers").

The timer is CTL.{ENABLE, IMASK} and a 64-bit CompareValue; everything else is computed. No time in
here: callers pass `view`, the count less its offset modulo 2^64, and convert ticks to ns.
"""

from dataclasses import dataclass
from typing import Literal

from timermodel.counter import MASK64

Which = Literal["v", "p"]
Register = Literal["ctl", "cval", "tval"]
Readable = Literal["ctl", "cval", "tval", "cnt"]

ENABLE = 1 << 0
IMASK = 1 << 1
ISTATUS = 1 << 2
MASK32 = (1 << 32) - 1


def sign_extend_32(value: int) -> int:
    """SignExtend(value<31:0>, 64), as a Python integer that may be negative."""
    return ((value & MASK32) ^ (1 << 31)) - (1 << 31)


@dataclass
class Timer:
    """CNTV_* or CNTP_* of one PE. Reset: all zero (the architecture leaves IMASK and CompareValue
    UNKNOWN)."""

    ctl: int = 0
    cval: int = 0

    @property
    def enabled(self) -> bool:
        return bool(self.ctl & ENABLE)

    @property
    def output_enabled(self) -> bool:
        """The condition reaches the interrupt line: ENABLE and not IMASK."""
        return self.ctl & (ENABLE | IMASK) == ENABLE

    def condition_met(self, view: int) -> bool:
        """D12.2.4, CompareValue view: (Counter - Offset) - CompareValue >= 0, all 64-bit unsigned
        values.

        Unsigned, so a roll-over of the count ends the condition, and a CompareValue of 0 is always
        met. With ENABLE 0 "the timer condition is not met" (CNTV_CVAL_EL0, CompareValue).
        """
        return self.enabled and view >= self.cval

    def line(self, view: int) -> bool:
        """The timer's output: a level, ISTATUS and not IMASK (CNTV_CTL_EL0, ISTATUS)."""
        return self.output_enabled and self.condition_met(view)

    def ticks_to_rise(self, view: int) -> int | None:
        """Ticks until the line is high (0: it is); None when ENABLE or IMASK keep it low for
        good."""
        return max(0, self.cval - view) if self.output_enabled else None

    def ticks_to_fall(self, view: int) -> int | None:
        """Ticks until the line is low (0: it is): a high line falls when the view rolls over to 0.

        None when it never will: a CompareValue of 0 is met by every count.
        """
        if not self.line(view):
            return 0
        return (1 << 64) - view if self.cval else None

    def read(self, register: Readable, view: int) -> int:
        """CTL with ISTATUS; CVAL; TVAL, the low 32 bits of CompareValue - view, [63:32] RES0; or
        the view itself."""
        if register == "ctl":
            return self.ctl | (ISTATUS if self.condition_met(view) else 0)
        if register == "cval":
            return self.cval
        if register == "tval":
            return (self.cval - view) & MASK32
        if register == "cnt":
            return view
        raise ValueError(f"no timer register {register!r}")

    def write(self, register: Register, value: int, view: int) -> None:
        """CTL keeps ENABLE and IMASK (ISTATUS is RO, the rest RES0); TVAL sets CompareValue to view
        + SignExtend."""
        if register == "ctl":
            self.ctl = value & (ENABLE | IMASK)
        elif register == "cval":
            self.cval = value & MASK64
        elif register == "tval":
            self.cval = (view + sign_extend_32(value)) & MASK64
        else:
            raise ValueError(f"{register!r} is not a writable timer register")

    def unknown_bits(self, register: Readable) -> int:
        """The bits of a read that the architecture leaves UNKNOWN now: a comparison must leave them
        out.

        With ENABLE 0: ISTATUS (CNTV_CTL_EL0) and all of TimerValue (CNTV_TVAL_EL0).
        """
        if self.enabled:
            return 0
        return {"ctl": ISTATUS, "tval": MASK32}.get(register, 0)
