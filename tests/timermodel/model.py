"""TimerModel: the EL1 timers of a VM's vCPUs over one physical counter, at any instant, without
stepping time."""

from timermodel.cntkctl import KernelControl
from timermodel.counter import MASK64, Counter
from timermodel.ppi import CpuInterface, Ppi
from timermodel.timer import Readable, Register, Timer, Which

TIMERS: tuple[Which, Which] = ("v", "p")


class _Vcpu:
    """The banked state of one vCPU."""

    def __init__(self, ecv: bool) -> None:
        self.timers: dict[Which, Timer] = {which: Timer() for which in TIMERS}
        self.offsets: dict[Which, int] = dict.fromkeys(TIMERS, 0)
        self.cntkctl = KernelControl(ecv)
        self.interface = CpuInterface()


class TimerModel:
    """The oracle. Times are ns from the model's creation, whole and unbounded; instants asked for
    are absolute.

    `voffset` is CNTVOFF_EL2 for every vCPU. `ecv`: FEAT_ECV, for CNTKCTL_EL1.EVNTIS. Everything
    resets to zero, where the architecture mostly says UNKNOWN. Writes act at once, as after a
    Context synchronization event. Instants hold on the condition that nothing is written before
    them.
    """

    def __init__(
        self,
        vcpus: int,
        frequency_hz: int,
        counter_start: int = 0,
        voffset: int = 0,
        *,
        ecv: bool = True,
    ) -> None:
        self.counter = Counter(frequency_hz, counter_start)
        self.offsets: dict[Which, int] = {"v": voffset & MASK64, "p": 0}
        self._vcpus = [_Vcpu(ecv) for _ in range(vcpus)]

    # Time and counts

    @property
    def now(self) -> int:
        """ns since creation."""
        return self.counter.now

    @property
    def physical_count(self) -> int:
        """The counter before any offset."""
        return self.counter.count

    def advance(self, ns: int) -> None:
        """Let `ns` nanoseconds pass."""
        self.counter.advance(ns)

    def set_voffset(self, value: int) -> None:
        """CNTVOFF_EL2 of the VM (D12.2.2, "The virtual counter"): moves CNTVCT_EL0 and the virtual
        condition."""
        self.offsets["v"] = value & MASK64

    def set_poffset(self, value: int) -> None:
        """CNTPOFF_EL2 of the VM with CNTHCTL_EL2.ECV set (D12.2.1): moves CNTPCT_EL0 and the
        physical condition."""
        self.offsets["p"] = value & MASK64

    def set_vcpu_offset(self, vcpu: int, which: Which, value: int) -> None:
        """A further offset of one vCPU's timer, as a guest hypervisor sets one; the two add up
        modulo 2^64."""
        self._vcpus[vcpu].offsets[which] = value & MASK64

    def view(self, vcpu: int, which: Which) -> int:
        """The count the timer compares with: physical count - offsets, modulo 2^64."""
        return (
            self.counter.count - self.offsets[which] - self._vcpus[vcpu].offsets[which]
        ) & MASK64

    # Registers

    def read(self, vcpu: int, which: Which, register: Readable) -> int:
        """CTL, CVAL, TVAL or CNT as EL1 reads it; leave out of a comparison what `unknown_bits`
        tells."""
        return self.timer(vcpu, which).read(register, self.view(vcpu, which))

    def write(self, vcpu: int, which: Which, register: Register, value: int) -> None:
        """Write CTL, CVAL or TVAL from EL1; ValueError for any other (the count is read-only)."""
        self.timer(vcpu, which).write(register, value, self.view(vcpu, which))

    def unknown_bits(self, vcpu: int, which: Which, register: Readable) -> int:
        """The bits of `read` that are architecturally UNKNOWN in the present state."""
        return self.timer(vcpu, which).unknown_bits(register)

    def set_cntkctl(self, vcpu: int, value: int) -> None:
        """Write CNTKCTL_EL1."""
        self._vcpus[vcpu].cntkctl.write(value)

    def el0_access_allowed(self, vcpu: int, register: str) -> bool:
        """Whether CNTKCTL_EL1 lets EL0 access `register`, such as CNTVCT_EL0 (else: EC 0x18 to
        EL1)."""
        return self._vcpus[vcpu].cntkctl.el0_access_allowed(register)

    # Lines and instants

    def istatus(self, vcpu: int, which: Which) -> bool:
        """The timer condition, whatever IMASK says; False while ENABLE is 0."""
        return self.timer(vcpu, which).condition_met(self.view(vcpu, which))

    def line(self, vcpu: int, which: Which) -> bool:
        """The level of the timer's interrupt output."""
        return self.timer(vcpu, which).line(self.view(vcpu, which))

    def next_rise(self, vcpu: int, which: Which) -> int | None:
        """The first ns from now on at which the line is high: now if it is; None if ENABLE or IMASK
        keep it low."""
        return self._when(self.timer(vcpu, which).ticks_to_rise(self.view(vcpu, which)))

    def next_fall(self, vcpu: int, which: Which) -> int | None:
        """The first ns from now on at which the line is low: now, or the roll-over of the view;
        None if never."""
        return self._when(self.timer(vcpu, which).ticks_to_fall(self.view(vcpu, which)))

    def event_stream_next(self, vcpu: int) -> int | None:
        """The first ns after now at which the vCPU's virtual count generates an event; None without
        EVNTEN."""
        return self._when(self._vcpus[vcpu].cntkctl.ticks_to_event(self.view(vcpu, "v")))

    def _when(self, ticks: int | None) -> int | None:
        return None if ticks is None else self.counter.when(ticks)

    def timer(self, vcpu: int, which: Which) -> Timer:
        """The stored state of a timer."""
        return self._vcpus[vcpu].timers[which]

    # Interrupts

    def ppi(self, vcpu: int, which: Which) -> Ppi:
        """The stored state of a timer's PPI: enabled, priority, active and latch may be written."""
        return self._vcpus[vcpu].interface.ppis[which]

    def interface(self, vcpu: int) -> CpuInterface:
        """The vCPU's CPU interface: priority_mask, group_enabled and group_priority_mask may be
        written."""
        return self._vcpus[vcpu].interface

    def enable(
        self, vcpu: int, which: Which, enabled: bool = True, priority: int | None = None
    ) -> None:
        """ISENABLER or ICENABLER for the timer's PPI, and its priority where given."""
        ppi = self.ppi(vcpu, which)
        ppi.enabled = enabled
        if priority is not None:
            ppi.priority = priority & 0xFF

    def pending(self, vcpu: int, which: Which) -> bool:
        """ISPENDR as read: the line, or the latch."""
        return self.ppi(vcpu, which).pending(self.line(vcpu, which))

    def deliverable(self, vcpu: int) -> set[Which]:
        """The timers whose interrupt the CPU interface may signal now; PSTATE.I plays no part."""
        return self.interface(vcpu).deliverable(self._lines(vcpu))

    def candidates(self, vcpu: int) -> set[Which]:
        """Those `ack` may return: deliverable and of the highest priority."""
        return self.interface(vcpu).candidates(self._lines(vcpu))

    def ack(self, vcpu: int, prefer: Which | None = None) -> Which | None:
        """Acknowledge: of equal priorities `prefer`, else the lowest INTID; None for a spurious
        interrupt."""
        return self.interface(vcpu).ack(self._lines(vcpu), prefer)

    def eoi(self, vcpu: int, which: Which) -> None:
        """End of interrupt with EOImode 0; ValueError unless it was the last acknowledged."""
        self.interface(vcpu).eoi(which)

    def delivery_instant(self, vcpu: int, which: Which, *, pstate_i: bool = False) -> int | None:
        """The first ns from now on at which this timer's IRQ is asserted to the PE and PSTATE.I
        lets it in.

        None if never: PSTATE.I set, the PPI disabled or active, PMR, group enable, running
        priority, or a line that does not rise. With `pstate_i` False it is also the instant at
        which the interrupt wakes a WFI. The other timer counts only as what is active already;
        `next_delivery` tells which comes first.
        """
        if pstate_i or not self.interface(vcpu).accepts(which):
            return None
        return self.now if self.ppi(vcpu, which).latch else self.next_rise(vcpu, which)

    def next_delivery(self, vcpu: int, *, pstate_i: bool = False) -> tuple[int, set[Which]] | None:
        """The first IRQ of either timer: (ns, the timers it may be), several only at equal time and
        priority."""
        instants = {
            which: self.delivery_instant(vcpu, which, pstate_i=pstate_i) for which in TIMERS
        }
        known = [instant for instant in instants.values() if instant is not None]
        if not known:
            return None
        first = [which for which in TIMERS if instants[which] == min(known)]
        best = min(self.ppi(vcpu, which).priority for which in first)
        return min(known), {which for which in first if self.ppi(vcpu, which).priority == best}

    def _lines(self, vcpu: int) -> dict[Which, bool]:
        return {which: self.line(vcpu, which) for which in TIMERS}
