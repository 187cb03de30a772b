"""What a PE lends to the core that it runs: registers whose accesses concern nobody but the guest.

An interrupt costs a guest an acknowledge, an end, and a write or two of a timer. Each of them would
leave the native engine for Python, for what is arithmetic on registers of one PE. So these
registers are copied into the engine's state for the time of a run: list registers and active
priorities, both comparators, the PE's private interrupts. The core does what `VirtualCpuInterface`,
`GenericTimer` and `PhysicalGic` would do (silicon.h), and says so (state.dirty). They are taken
back before anybody here looks: at each callback and at the end of the run.

Nothing is lent while somebody watches (these accesses are trace events), and to the portable engine
nothing ever.
"""

from __future__ import annotations

from collections.abc import Callable

from armvirt.hw.clock import Clock
from armvirt.hw.engine.state import EngineState, Silicon
from armvirt.hw.gic import PhysicalGic
from armvirt.hw.ich import VirtualCpuInterface
from armvirt.hw.timer import GenericTimer

LEND_ICC, LEND_TIMERS = 1, 2
OnNaps = Callable[[int], None]


class Loan:
    """The registers of one PE, and the state of the engine that borrows them, if one that can is
    bound."""

    __slots__ = ("_on_naps", "_posted", "_silicon", "_state", "clock", "cpu", "gic", "timer", "vif")

    def __init__(
        self,
        cpu: int,
        clock: Clock,
        vif: VirtualCpuInterface,
        timer: GenericTimer,
        gic: PhysicalGic,
    ) -> None:
        self.cpu, self.clock, self.vif, self.timer, self.gic = cpu, clock, vif, timer, gic
        self._state: EngineState | None = None
        self._silicon: Silicon | None = None
        self._posted = False
        self._on_naps: OnNaps = lambda _: None

    def open(self, state: EngineState) -> None:
        """A context is bound whose engine borrows."""
        self._state, self._silicon = state, state.silicon
        self.vif.changed = self.timer.changed = self.gic.changed[self.cpu] = True

    def close(self) -> None:
        """It is bound no more."""
        if self._silicon is not None:
            self._silicon.lent = 0
        self._state = self._silicon = None

    def begin(self, lent: int, own_virq: bool, own_vfiq: bool) -> None:
        """A run begins: ``lent`` says which accesses are the core's; the rest is HCR_EL2.VI and
        VF."""
        silicon = self._silicon
        if silicon is not None:
            silicon.lent, silicon.own_virq, silicon.own_vfiq = lent, own_virq, own_vfiq
            self.resume()

    def until(self, ns: int) -> None:
        """The run ends at ``ns``, or at the clock's next entry: the comparators are the core's to
        look at."""
        if self._silicon is not None:
            due = self.clock.deadline()
            self._silicon.soft_ns = ns if due is None else min(due, ns)

    def post(self, on_naps: OnNaps) -> None:
        """EL2 asks not to be woken for what it would do again as it just did: when the guest is in
        WFI, and the line of the virtual timer rises next, what is in list register 0 now is put
        there.

        Good for one run, until EL2 is entered for anything. It is then told by ``on_naps(n)`` that
        the core did it n times, before it looks at anything else. List register 0 is shown to it as
        when the guest has ended the interrupt; the real registers follow.
        """
        silicon = self._silicon
        if silicon is not None:
            self._on_naps, self._posted = on_naps, True
            silicon.nap, silicon.nap_lr, silicon.nap_hcr = 1, self.vif.lr[0], self.vif.hcr

    def settle(self) -> None:
        """Somebody outside the core is about to look: take back what was lent, and what was
        posted."""
        state = self._state
        if state is None:
            return
        if self._posted:
            self._withdraw(state)
        if state.dirty:
            self._take_back(state)

    def resume(self) -> None:
        """The core goes on: lend what has changed here since it was lent or taken back."""
        silicon = self._silicon
        if silicon is None:
            return
        if self.vif.changed:
            self._lend_interface(silicon)
        if self.timer.changed:
            self.timer.changed = False
            for n, timer in enumerate((self.timer.vtimer, self.timer.ptimer)):
                silicon.ctl[n], silicon.cval[n], silicon.line[n] = timer.ctl, timer.cval, timer.line
        if self.gic.changed[self.cpu]:
            self.gic.changed[self.cpu] = False
            silicon.ppi_line, silicon.ppi_latch, silicon.ppi_active, silicon.ppi_enabled = (
                self.gic.words(self.cpu)
            )

    def _lend_interface(self, silicon: Silicon) -> None:
        vif = self.vif
        vif.changed = False
        silicon.lrs, silicon.prebits = len(vif.lr), vif.prebits
        silicon.lr[: len(vif.lr)] = vif.lr
        silicon.ap0r[: len(vif.ap0r)] = vif.ap0r
        silicon.ap1r[: len(vif.ap1r)] = vif.ap1r
        silicon.hcr, silicon.vmcr, silicon.waiting = vif.hcr, vif.vmcr, vif.waiting
        silicon.mask0, silicon.mask1 = vif.group_masks
        silicon.candidate, silicon.signalled, silicon.maintenance = (
            vif.candidate,
            vif.signalled >= 0,
            vif.maintenance,
        )

    def _withdraw(self, state: EngineState) -> None:
        silicon, self._posted = state.silicon, False
        naps, silicon.nap, silicon.naps = silicon.naps, 0, 0
        if naps:
            self.clock.base += state.slept
            state.slept = 0
            self.vif.end(0)
            self._on_naps(naps)

    def _take_back(self, state: EngineState) -> None:
        """Copy what the core has changed; the outputs follow, as at every mutation."""
        silicon, vif, timer = state.silicon, self.vif, self.timer
        state.dirty = 0
        for n, comparator in enumerate((timer.vtimer, timer.ptimer)):
            comparator.ctl, comparator.cval, comparator.line = (
                silicon.ctl[n],
                silicon.cval[n],
                bool(silicon.line[n]),
            )
        self.gic.take(self.cpu, silicon.ppi_line, silicon.ppi_active)
        lrs, aprs = len(vif.lr), len(vif.ap0r)
        vif.take(
            silicon.hcr, silicon.vmcr, silicon.lr[:lrs], silicon.ap0r[:aprs], silicon.ap1r[:aprs]
        )
        vif.changed = timer.changed = self.gic.changed[self.cpu] = False
