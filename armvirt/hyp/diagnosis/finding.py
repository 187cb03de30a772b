"""The plain data of a diagnosis: the state of a vCPU and of a timer, registers, and the results of
checks."""

from __future__ import annotations

from enum import Enum

from armvirt.hyp.vcpu.power import Power
from armvirt.records import NamedTuple


class Check(str, Enum):
    """The checks of an interrupt from its source to a vCPU, in the order of delivery. The value of
    a member is the name of the check in messages and tables."""

    TIMER = "timer"
    LPIS = "LPIs"
    ITS = "ITS"
    EVENT = "event"
    PENDING = "pending"
    ENABLE = "enable"
    DISTRIBUTOR = "distributor"
    GROUP = "group"
    ROUTE = "route"
    VCPU = "vCPU"
    ACTIVE = "active"
    GROUP_ENABLE = "group enable"
    MASK = "mask"
    RUNNING = "running"
    LOADED = "loaded"
    LIST_REGISTER = "list register"
    HIGHEST = "highest"
    HYPERVISOR = "hypervisor"
    VIRTUAL_LINE = "virtual line"
    PSTATE = "PSTATE"

    def __str__(self) -> str:
        return self.value


class TimerView(NamedTuple):
    """One timer of a vCPU. ``prefix`` is CNTV or CNTP, ``ctl`` has the writable bits of CTL,
    ``cval`` is CVAL, and ``now`` is the count of the timer. ``cval`` and ``now`` are in ticks.

    ``fires_in_ns`` is the time in ns until the timer condition is met. It is 0 while the condition
    is met, and None while the timer is disabled or masked.
    """

    prefix: str
    ctl: int
    cval: int
    now: int
    fires_in_ns: int | None


class CpuView(NamedTuple):
    """The state of a vCPU outside the vGIC.

    ``pstate`` (in the format of an SPSR) and ``vbar`` (VBAR_EL1) are None if they are unknown.
    ``timer`` is the timer that drives the interrupt, None if no timer drives the interrupt.
    ``waking`` is True for a runnable vCPU that is on no PE yet, but will be loaded on a PE before
    any other event.
    """

    power: Power = Power.RUNNABLE
    pstate: int | None = None
    vbar: int | None = None
    timer: TimerView | None = None
    waking: bool = False


class Register(NamedTuple):
    """A register, or a field of a register. ``name`` is for example GICD_ISENABLER1 or ICC_PMR_EL1.
    ``field`` is for example "bit 8" or "EnableGrp1"; an empty string means the whole register.

    A memory-mapped register has a ``frame`` (GICD, GICR, GICC), an ``offset`` in the frame in
    bytes, and the ``size`` of an access in bytes. In a register with one bit per INTID, ``bit`` is
    the number of the bit; otherwise ``bit`` is -1. ``cpu`` is the vCPU that has the register; -1 if
    all vCPUs share the register.
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
        """The frame and the offset, such as ``GICD+0x104``. The text is empty for a system
        register."""
        return f"{self.frame}+{self.offset:#x}" if self.frame else ""

    def __str__(self) -> str:
        where = f" ({self.address})" if self.frame else ""
        return self.name + where + (f" {self.field}" if self.field else "")


class Write(NamedTuple):
    """A write by the guest that would make a check pass."""

    register: Register
    value: int

    def __str__(self) -> str:
        """The write as text, such as ``write 1 to bit 8 of GICD_ISENABLER1 (GICD+0x104)``."""
        register = self.register
        if register.bit >= 0:
            return f"write 1 to {register.field} of {register._replace(field='')}"
        decimal = self.value < 10 or register.field == "INTID"
        where = f"{register.field} of " if register.field.startswith("byte") else ""
        value = str(self.value) if decimal else f"{self.value:#x}"
        return f"write {value} to {where}{register._replace(field='')}"


class Finding(NamedTuple):
    """The result of one check of an interrupt. ``station`` is the check. ``passed`` is False if the
    check blocks the interrupt.

    ``text`` describes the result. ``register`` is the register that was checked. ``value`` is the
    value that the guest would read from the register. If the register has one byte for each INTID,
    ``value`` is the byte of the interrupt. ``remedy`` tells the user how to make the check pass.
    ``fix`` is the write of the remedy; None if the remedy is not a write.
    """

    station: Check
    passed: bool
    text: str
    register: Register | None = None
    value: int | None = None
    remedy: str = ""
    fix: Write | None = None

    def row(self) -> dict[str, object]:
        """The finding as plain data for a table."""
        return {
            "station": self.station.value, "passed": self.passed, "text": self.text,
            "register": None if self.register is None else str(self.register),
            "value": None if self.value is None else hex(self.value), "remedy": self.remedy,
        }  # fmt: skip


DAY, YEAR = 86_400 * 10**9, 365 * 86_400 * 10**9  # ns


def span(ns: int) -> str:
    """Return a duration as text with four digits, such as ``312.4 us``. ``ns`` is the duration in
    ns. For one day or more, the text is in days or years."""
    if ns >= DAY:
        return f"{ns // YEAR:,} years" if ns >= 2 * YEAR else f"{ns // DAY:,} days"
    for unit, scale in (("s", 10**9), ("ms", 10**6), ("us", 10**3)):
        if ns >= scale * 0.99995:  # else 999.99 us would be shown as 1000 us
            return f"{ns / scale:.4g} {unit}"
    return f"{ns} ns"
