"""The plain data of a diagnosis: what is looked at from outside the vGIC, which register, and what
was found."""

from __future__ import annotations

from typing import NamedTuple


class TimerView(NamedTuple):
    """One timer of a vCPU: ``prefix`` CNTV or CNTP, CTL (writable bits) and CVAL, and its count
    now.

    ``fires_in_ns`` is 0 while its condition holds, None while it cannot fire.
    """

    prefix: str
    ctl: int
    cval: int
    now: int
    fires_in_ns: int | None


class CpuView(NamedTuple):
    """What the vGIC does not know of a vCPU: ``power`` is off, blocked (in WFI or WFE), waking (on
    no PE yet, but it gets one before anything else happens) or runnable.

    ``pstate`` (an SPSR) and ``vbar`` are None if unknown. ``timer`` is the one behind the interrupt
    in question.
    """

    power: str = "runnable"
    pstate: int | None = None
    vbar: int | None = None
    timer: TimerView | None = None


class Register(NamedTuple):
    """Where to look: ``name`` (GICD_ISENABLER1, ICC_PMR_EL1), ``field`` in it (bit 8, EnableGrp1;
    "" for all of it).

    Memory-mapped registers have a ``frame`` (GICD, GICR, GICC) and an ``offset`` in it, in bytes,
    of an access of ``size`` bytes. ``bit`` is the bit of a register with a bit per INTID, -1 for
    others. ``cpu`` is the vCPU that it belongs to, -1 for one that all share.
    """

    name: str
    field: str = ""
    frame: str = ""
    offset: int = 0
    size: int = 4
    bit: int = -1
    cpu: int = -1

    @property
    def address(self) -> str:
        """``GICD+0x104``; empty for a system register."""
        return f"{self.frame}+{self.offset:#x}" if self.frame else ""

    def __str__(self) -> str:
        where = f" ({self.address})" if self.frame else ""
        return self.name + where + (f" {self.field}" if self.field else "")


class Write(NamedTuple):
    """A guest's write that would change a finding."""

    register: Register
    value: int

    def __str__(self) -> str:
        """As an instruction to a person: ``write 1 to bit 8 of GICD_ISENABLER1 (GICD+0x104)``."""
        register = self.register
        if register.bit >= 0:
            return f"write 1 to {register.field} of {register._replace(field='')}"
        decimal = self.value < 10 or register.field == "INTID"
        where = f"{register.field} of " if register.field.startswith("byte") else ""
        value = str(self.value) if decimal else f"{self.value:#x}"
        return f"write {value} to {where}{register._replace(field='')}"


class Finding(NamedTuple):
    """One station on the way of an interrupt. ``passed``: it gets past it.

    ``text`` says what is so. ``register`` holds it, with ``value`` as the guest would read it (for
    an array of bytes the byte). ``remedy`` is what would change it, in the imperative; ``fix`` the
    write behind that, if it is one.
    """

    station: str
    passed: bool
    text: str
    register: Register | None = None
    value: int | None = None
    remedy: str = ""
    fix: Write | None = None

    def row(self) -> dict[str, object]:
        """As plain data for a table."""
        return {
            "station": self.station, "passed": self.passed, "text": self.text,
            "register": None if self.register is None else str(self.register),
            "value": None if self.value is None else hex(self.value), "remedy": self.remedy,
        }  # fmt: skip


DAY, YEAR = 86_400 * 10**9, 365 * 86_400 * 10**9  # ns


def span(ns: int) -> str:
    """A time for people, exact to four digits: ``312.4 us``; where nobody will wait for it, in days
    or years."""
    if ns >= DAY:
        return f"{ns // YEAR:,} years" if ns >= 2 * YEAR else f"{ns // DAY:,} days"
    for unit, scale in (("s", 10**9), ("ms", 10**6), ("us", 10**3)):
        if ns >= scale * 0.99995:  # not 1000 us, which 999.99 would be
            return f"{ns / scale:.4g} {unit}"
    return f"{ns} ns"
