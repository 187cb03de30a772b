"""The Generic Timer as data: encodings, control bits, interrupt numbers (DDI 0487 D12; BSA for the
PPIs)."""

from __future__ import annotations

from enum import IntFlag

from armvirt.arch.bits import MASK32, MASK64, shift_of
from armvirt.arch.sysregs import encoding_of, field
from armvirt.records import NamedTuple

NS_PER_SECOND = 1_000_000_000

CNTFRQ_EL0 = encoding_of("CNTFRQ_EL0")
CNTPCT_EL0 = encoding_of("CNTPCT_EL0")
CNTVCT_EL0 = encoding_of("CNTVCT_EL0")
CNTPCTSS_EL0 = encoding_of("CNTPCTSS_EL0")
CNTVCTSS_EL0 = encoding_of("CNTVCTSS_EL0")
CNTP_TVAL_EL0 = encoding_of("CNTP_TVAL_EL0")
CNTP_CTL_EL0 = encoding_of("CNTP_CTL_EL0")
CNTP_CVAL_EL0 = encoding_of("CNTP_CVAL_EL0")
CNTV_TVAL_EL0 = encoding_of("CNTV_TVAL_EL0")
CNTV_CTL_EL0 = encoding_of("CNTV_CTL_EL0")
CNTV_CVAL_EL0 = encoding_of("CNTV_CVAL_EL0")
CNTKCTL_EL1 = encoding_of("CNTKCTL_EL1")
CNTHCTL_EL2 = encoding_of("CNTHCTL_EL2")
CNTVOFF_EL2 = encoding_of("CNTVOFF_EL2")
CNTPOFF_EL2 = encoding_of("CNTPOFF_EL2")

#: INTIDs of the timers' PPIs. The interrupt number in a device tree is INTID - 16.
PPI_HPTIMER = 26
PPI_VTIMER = 27
PPI_HVTIMER = 28
PPI_STIMER = 29
PPI_PTIMER = 30

DEFAULT_FREQUENCY_HZ = 62_500_000
MAX_FREQUENCY_HZ = MASK32  # CNTFRQ_EL0 holds 32 bits
TVAL_SIGN = 1 << 31  # TVAL is a signed number of 32 bits (DDI 0487 D12.2.4)


class Ctl(IntFlag):
    """CNT*_CTL_EL0 (DDI 0487 D23.9, CNTV_CTL_EL0). ISTATUS is read-only, and UNKNOWN while ENABLE
    is 0."""

    ENABLE = field("CNTV_CTL_EL0.ENABLE")
    IMASK = field("CNTV_CTL_EL0.IMASK")
    ISTATUS = field("CNTV_CTL_EL0.ISTATUS")


class CntHctl(IntFlag):
    """CNTHCTL_EL2 with HCR_EL2.E2H = 0.

    EL1PCTEN = 0 traps accesses to the physical counter. EL1PCEN = 0 traps accesses to the physical
    timer. EL1TVCT = 1 traps accesses to the virtual counter. EL1TVT = 1 traps accesses to the
    virtual timer. With E2H = 1, EL1PCTEN and EL1PCEN are ten bits higher (`EL1_ENABLES_E2H_SHIFT`).
    ECV, EL1TVT, EL1TVCT and EVNTIS need FEAT_ECV.
    """

    EL1PCTEN = field("CNTHCTL_EL2.EL1PCTEN")
    EL1PCEN = field("CNTHCTL_EL2.EL1PCEN")
    EVNTEN = field("CNTHCTL_EL2.EVNTEN")
    EVNTDIR = field("CNTHCTL_EL2.EVNTDIR")
    ECV = field("CNTHCTL_EL2.ECV")
    EL1TVT = field("CNTHCTL_EL2.EL1TVT")
    EL1TVCT = field("CNTHCTL_EL2.EL1TVCT")
    EVNTIS = field("CNTHCTL_EL2.EVNTIS")


EL1_ENABLES_E2H_SHIFT = 10


class CntKctl(IntFlag):
    """CNTKCTL_EL1. It permits EL0 to access the counters and timers, and configures the event
    stream. EVNTIS needs FEAT_ECV."""

    EL0PCTEN = field("CNTKCTL_EL1.EL0PCTEN")
    EL0VCTEN = field("CNTKCTL_EL1.EL0VCTEN")
    EVNTEN = field("CNTKCTL_EL1.EVNTEN")
    EVNTDIR = field("CNTKCTL_EL1.EVNTDIR")
    EL0VTEN = field("CNTKCTL_EL1.EL0VTEN")
    EL0PTEN = field("CNTKCTL_EL1.EL0PTEN")
    EVNTIS = field("CNTKCTL_EL1.EVNTIS")


EVNTI_MASK = field("CNTKCTL_EL1.EVNTI")
EVNTI_SHIFT = shift_of(EVNTI_MASK)
EVNTIS_SHIFT = 8  # with EVNTIS = 1, EVNTI selects one of the bits 8 to 23 instead of 0 to 15
KCTL_BITS = 0x3FF  # the bits that are implemented without FEAT_ECV
HCTL_BITS = 0xFFF  # the same of CNTHCTL_EL2; bits 11:10 are EL1PCEN and EL1PCTEN with E2H = 1
KCTL_BITS_ECV = KCTL_BITS | int(CntKctl.EVNTIS)

# Plain integers for the code that runs at each access: an IntFlag operation costs a microsecond.
CTL_ENABLE = int(Ctl.ENABLE)
CTL_IMASK = int(Ctl.IMASK)
CTL_ISTATUS = int(Ctl.ISTATUS)
CTL_WRITABLE = CTL_ENABLE | CTL_IMASK
CNTHCTL_PCTEN, CNTHCTL_PCEN = int(CntHctl.EL1PCTEN), int(CntHctl.EL1PCEN)
CNTKCTL_PCTEN, CNTKCTL_VCTEN = int(CntKctl.EL0PCTEN), int(CntKctl.EL0VCTEN)
CNTKCTL_PTEN, CNTKCTL_VTEN = int(CntKctl.EL0PTEN), int(CntKctl.EL0VTEN)
CNTHCTL_ECV = int(CntHctl.ECV)
CNTHCTL_TVT, CNTHCTL_TVCT = int(CntHctl.EL1TVT), int(CntHctl.EL1TVCT)


#: The encodings of the counters. A self-synchronised counter (FEAT_ECV) reads the same value,
#: because all reads are in program order here.
PHYSICAL_COUNTERS = frozenset((CNTPCT_EL0, CNTPCTSS_EL0))
VIRTUAL_COUNTERS = frozenset((CNTVCT_EL0, CNTVCTSS_EL0))


#: The prefix of the register names of each timer.
TIMER_PREFIXES = {"vtimer": "CNTV", "ptimer": "CNTP"}


class TimerRegister(NamedTuple):
    """A register of a comparator. ``timer`` is vtimer or ptimer; ``register`` is ctl, cval or
    tval."""

    timer: str
    register: str


#: The comparators' registers by encoding.
TIMER_REGISTERS: dict[int, TimerRegister] = {
    CNTV_CTL_EL0: TimerRegister("vtimer", "ctl"),
    CNTV_CVAL_EL0: TimerRegister("vtimer", "cval"),
    CNTV_TVAL_EL0: TimerRegister("vtimer", "tval"),
    CNTP_CTL_EL0: TimerRegister("ptimer", "ctl"),
    CNTP_CVAL_EL0: TimerRegister("ptimer", "cval"),
    CNTP_TVAL_EL0: TimerRegister("ptimer", "tval"),
}

#: The CNTKCTL_EL1 bit that permits EL0 to access a register. CNTFRQ_EL0 needs one of the two
#: counter bits (DDI 0487 D23.9).
EL0_ENABLES: dict[int, CntKctl] = {
    CNTFRQ_EL0: CntKctl.EL0PCTEN | CntKctl.EL0VCTEN,
    CNTPCT_EL0: CntKctl.EL0PCTEN,
    CNTPCTSS_EL0: CntKctl.EL0PCTEN,
    CNTVCT_EL0: CntKctl.EL0VCTEN,
    CNTVCTSS_EL0: CntKctl.EL0VCTEN,
    **{
        encoding: CntKctl.EL0VTEN
        for encoding, which in TIMER_REGISTERS.items()
        if which.timer == "vtimer"
    },
    **{
        encoding: CntKctl.EL0PTEN
        for encoding, which in TIMER_REGISTERS.items()
        if which.timer == "ptimer"
    },
}


def ticks_to_edge(control: int, count: int) -> int | None:
    """Return the ticks from ``count`` to the next event of an event stream, at least 1. Returns
    None if the event stream is disabled.

    ``control`` is CNTKCTL_EL1 or CNTHCTL_EL2, which have the same fields for the event stream.
    EVNTI and EVNTIS select a bit of the count. The event is the transition of this bit from 0 to 1,
    or with EVNTDIR = 1 from 1 to 0 (DDI 0487 D12.2.3).
    """
    if not control & CntKctl.EVNTEN:
        return None
    bit = ((control & EVNTI_MASK) >> EVNTI_SHIFT) + (
        EVNTIS_SHIFT if control & CntKctl.EVNTIS else 0
    )
    edge = 0 if control & CntKctl.EVNTDIR else 1 << bit
    period = 2 << bit
    return (edge - count) % period or period


def sign_extend_32(value: int) -> int:
    """Sign-extend the low 32 bits of ``value`` to 64 bits. The result is an unsigned number (modulo
    2**64)."""
    low = value & 0xFFFF_FFFF
    return low | 0xFFFF_FFFF_0000_0000 if low >> 31 else low


def signed_tval(tval: int) -> int:
    """Return the ticks until the condition of a timer is met: the low 32 bits of its TVAL as a
    signed number (DDI 0487 D12.2.4)."""
    return ((tval & MASK32) ^ TVAL_SIGN) - TVAL_SIGN


def tval_of(cval: int, now: int) -> int:
    """Return the value that a read of TVAL returns: (CVAL - ``now``) modulo 2**32. ``now`` is the
    present count of the timer in ticks (DDI 0487 D12.2.4)."""
    return cval - now & 0xFFFF_FFFF


def cval_from_tval(tval: int, now: int) -> int:
    """Return the CVAL that a write of TVAL stores: ``now`` plus the written value as a signed
    32-bit number, modulo 2**64. ``now`` is the present count of the timer in ticks (DDI 0487
    D12.2.4)."""
    return now + sign_extend_32(tval) & MASK64


def condition_met(cval: int, now: int) -> bool:
    """Return TimerConditionMet: whether ``now`` is greater than or equal to ``cval``. ``now`` is
    the present count of the timer in ticks. Both numbers are unsigned 64-bit values (DDI 0487
    D12.2.4)."""
    return now >= cval
