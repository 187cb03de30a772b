"""The system counter as an exact function of time, and its inverse (DDI 0487 D12.1.2, "The system
counter")."""

MASK64 = (1 << 64) - 1
NS_PER_S = 10**9


class Counter:
    """A 64-bit up-counter: `start + ns * frequency_hz // 10**9`, modulo 2^64; time only goes
    forward.

    `now` is the time in ns. Above 1 GHz a nanosecond would hold several ticks and counts would pass
    unseen between two instants, so such a frequency is refused (ValueError).
    """

    def __init__(self, frequency_hz: int, start: int) -> None:
        if not 1 <= frequency_hz <= NS_PER_S:
            raise ValueError(f"a counter of {frequency_hz} Hz: 1 Hz to 1 GHz")
        self.frequency_hz = frequency_hz
        self.start = start & MASK64
        self.now = 0

    def advance(self, ns: int) -> None:
        """Let `ns` nanoseconds pass; ValueError when negative (D12.1.2: the counter counts up)."""
        if ns < 0:
            raise ValueError(f"time does not go back: {ns} ns")
        self.now += ns

    @property
    def elapsed_ticks(self) -> int:
        """Ticks since time 0, not reduced modulo 2^64."""
        return self.now * self.frequency_hz // NS_PER_S

    @property
    def count(self) -> int:
        """The physical count, 64 bits: what CNTPCT_EL0 holds when no offset applies (D12.2.1)."""
        return (self.start + self.elapsed_ticks) & MASK64

    def when(self, ticks: int) -> int:
        """The first ns (`now` or later) at which the counter has moved `ticks` ticks on from its
        present count."""
        if ticks <= 0:
            return self.now
        # floor(ns * f / 10**9) >= k  <=>  ns >= k * 10**9 / f, and ns is whole: round up.
        return -(-(self.elapsed_ticks + ticks) * NS_PER_S // self.frequency_hz)
