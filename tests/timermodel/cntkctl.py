"""CNTKCTL_EL1: EL0 access to the timer registers, and the event stream of the virtual count.

DDI 0487 D12.2.3 ("Event streams") and the description of CNTKCTL_EL1, HCR_EL2.{E2H, TGE} not {1,
1}. What CNTHCTL_EL2 traps is another matter: only the traps of CNTKCTL_EL1 are told here.
"""

from dataclasses import dataclass

EL0PCTEN = 1 << 0
EL0VCTEN = 1 << 1
EVNTEN = 1 << 2
EVNTDIR = 1 << 3
EVNTI_SHIFT, EVNTI_MASK = 4, 0xF
EL0VTEN = 1 << 8
EL0PTEN = 1 << 9
EVNTIS = 1 << 17

WRITABLE = 0x3FF | EVNTIS

# An access is allowed when any of the bits is set: CNTFRQ_EL0 traps only if {EL0PCTEN, EL0VCTEN} is
# {0, 0}.
EL0_ENABLES: dict[str, int] = {
    "CNTFRQ_EL0": EL0PCTEN | EL0VCTEN,
    "CNTPCT_EL0": EL0PCTEN,
    "CNTPCTSS_EL0": EL0PCTEN,
    "CNTVCT_EL0": EL0VCTEN,
    "CNTVCTSS_EL0": EL0VCTEN,
    "CNTP_CTL_EL0": EL0PTEN,
    "CNTP_CVAL_EL0": EL0PTEN,
    "CNTP_TVAL_EL0": EL0PTEN,
    "CNTV_CTL_EL0": EL0VTEN,
    "CNTV_CVAL_EL0": EL0VTEN,
    "CNTV_TVAL_EL0": EL0VTEN,
}


@dataclass
class KernelControl:
    """CNTKCTL_EL1 of one PE; `ecv`: FEAT_ECV is implemented, without it EVNTIS is RES0."""

    ecv: bool = True
    value: int = 0

    def write(self, value: int) -> None:
        """RES0 bits are dropped."""
        self.value = value & (WRITABLE if self.ecv else WRITABLE & ~EVNTIS)

    def el0_access_allowed(self, register: str) -> bool:
        """Whether CNTKCTL_EL1 lets EL0 access `register` (an architectural name, any case);
        ValueError if unknown."""
        enables = EL0_ENABLES.get(register.upper())
        if enables is None:
            raise ValueError(f"CNTKCTL_EL1 does not control {register}")
        return bool(self.value & enables)

    @property
    def trigger_bit(self) -> int:
        """EVNTI selects among CNTVCT_EL0[15:0], with EVNTIS among CNTVCT_EL0[23:8]."""
        return (self.value >> EVNTI_SHIFT & EVNTI_MASK) + (8 if self.value & EVNTIS else 0)

    def ticks_to_event(self, view: int) -> int | None:
        """Ticks (at least 1) until the trigger bit next makes its transition; None when EVNTEN is
        0.

        With EVNTDIR 0 the bit goes from 0 to 1: the low bits of the count become 1 followed by
        zeros. With EVNTDIR 1 it goes from 1 to 0: they become all zeros. A count that stands at
        such a value has made its transition; the next is a period away. The period divides 2^64, so
        a roll-over of the count is no exception.
        """
        if not self.value & EVNTEN:
            return None
        period = 2 << self.trigger_bit
        edge = 0 if self.value & EVNTDIR else period >> 1
        return (edge - view) % period or period
