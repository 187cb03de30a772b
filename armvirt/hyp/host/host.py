"""The host: one clock, physical CPUs, and the loop that gives them to vCPUs.

One thread, and deterministic: the PEs take turns of a quantum of virtual time, in order, as long as
they have a vCPU that can run. Turns stand for CPUs that run at the same time: a vCPU stays loaded
while other PEs have theirs. A stop at any time only splits the loop.
"""

from __future__ import annotations

from _thread import get_ident
from collections.abc import Callable, Iterable, Sequence
from enum import Enum
from time import monotonic
from typing import Any

from armvirt.arch.gic import PPI_MAINTENANCE
from armvirt.arch.timer import DEFAULT_FREQUENCY_HZ, PPI_PTIMER, PPI_VTIMER
from armvirt.errors import KvmError
from armvirt.events import EventBus, Stamp
from armvirt.hw.clock import NEVER, Clock
from armvirt.hw.engine import CLOSED, OTHER_THREAD, EngineFactory
from armvirt.hw.exit import ExitKind
from armvirt.hw.gic import PhysicalGic
from armvirt.hw.pe import Pe
from armvirt.hw.timer import COUNTER_START
from armvirt.hyp.host.pcpu import Pcpu
from armvirt.hyp.host.runnable import EntryOutcome, Request, Runnable
from armvirt.hyp.host.sched import (
    MIN_QUANTUM_NS,
    QUANTUM_NS,
    default_quantum,
    donor,
    pick_next,
    place,
)
from armvirt.hyp.host.standstill import Standstill

HOST_PPIS = (PPI_MAINTENANCE, PPI_VTIMER, PPI_PTIMER)
LOOK_S = 0.02


class Stop(Enum):
    """Why `Host.run` came back."""

    UNTIL = "until"  # the given time was reached
    HANDLER = "handler"  # an exit handler asked for it
    IDLE = "idle"  # no vCPU can run and nothing is due, ever


def _all(functions: Sequence[Callable[[], None]]) -> Callable[[], None]:
    """One function that calls each."""

    def call() -> None:
        for function in functions:
            function()

    return call


class Host:
    """What the host kernel is to KVM, on ``pcpus`` physical CPUs (PEs) that take turns of
    ``quantum_ns`` (None: 1 ms on one PE, 100 us on several).

    ``frequency_hz`` is CNTFRQ_EL0; ``list_registers`` (1 to 16) and ``priority_bits`` (5 to 7) are
    what ICH_VTR_EL2 says; ``counter_start`` is the physical count at time 0, in ticks. ``vhe``: the
    host runs at EL2 (HCR_EL2.E2H); ``cntpoff``: it has FEAT_ECV_POFF; ``cpu_features``
    (`armvirt.hyp.vcpu.idregs.FEATURES`) are given to the guests. ValueError for a host that cannot
    be.
    """

    def __init__(
        self, *, engine: str = "auto", cpu: str = "cortex-a72", frequency_hz: int = DEFAULT_FREQUENCY_HZ,
        bus: EventBus | None = None, list_registers: int = 4, priority_bits: int = 5,
        pcpus: int = 1, quantum_ns: int | None = None, counter_start: int = COUNTER_START,
        vhe: bool = False, cntpoff: bool = False, cpu_features: Iterable[str] = (),
    ) -> None:  # fmt: skip
        self.vhe, self.cntpoff, self.cpu_features = vhe, cntpoff, frozenset(cpu_features)
        if quantum_ns is None:
            quantum_ns = default_quantum(pcpus)
        if pcpus < 1 or quantum_ns < MIN_QUANTUM_NS:
            raise ValueError(f"a host needs a CPU, and a quantum of {MIN_QUANTUM_NS} ns or more")
        self.bus = bus if bus is not None else EventBus()
        self.clock = Clock()
        self.engines = EngineFactory(engine, cpu)
        self.gic = PhysicalGic(pcpus)
        self.quantum_ns = quantum_ns
        self.pcpus = [
            Pcpu(Pe(n, self.clock, self.gic, self.bus, frequency_hz,
                    list_registers=list_registers, priority_bits=priority_bits, counter_start=counter_start,
                    ecv="ecv" in self.cpu_features, wfxt="wfxt" in self.cpu_features, cntpoff=cntpoff))
            for n in range(pcpus)
        ]  # fmt: skip
        self.bus.stamp = self._stamp
        for n in range(pcpus):
            for intid in HOST_PPIS:
                self.gic.enable(n, intid, True)
        self.vcpus: list[Runnable] = []
        self.turn = self.pcpus[-1]  # so that PE 0 has the first turn
        self.turn_end = 0
        self.on_idle: Callable[[int, int | None], int | None] | None = None
        self._standstill = Standstill(self)
        self._stop = False
        self._poll: Callable[[], bool] = lambda: False
        self._look_at = 0.0  # the host's clock when `_look` is due
        self.closed = False
        self._thread = 0  # of `run`
        self.driving = False  # `run` is under way: in exit handlers and in what the clock calls
        self._displaced: list[Runnable] = []  # on a PE that their affinity has left out since

    def __repr__(self) -> str:
        return f"<Host with {len(self.pcpus)} physical CPUs and {len(self.vcpus)} vCPUs, at {self.clock.now:,} ns>"

    @property
    def pe(self) -> Pe:
        """PE 0: the shape that all PEs have, and the counter that they share."""
        return self.pcpus[0].pe

    @property
    def current(self) -> Runnable | None:
        """The vCPU that runs, or did last: the one on the PE that has its turn."""
        return self.turn.vcpu

    def _stamp(self) -> Stamp:
        return self.turn.pe.stamp()

    def on_poll(self, function: Callable[[], bool]) -> None:
        """Called about every 20 ms of host time; a true answer stops the run where it is.

        The host's clock is looked at wherever a run can stay: the engines look every few thousand
        instructions and after each exit, for an instruction may take as long as a million others;
        `_loop` looks at every round, for a guest may leave the engine, or only sleep, faster than
        the engine would look.
        """

        def poll() -> bool:
            self._stop = function() or self._stop
            return self._stop

        self._poll = poll
        for pcpu in self.pcpus:
            pcpu.pe.on_poll = poll

    def _look(self) -> None:
        """The round's own look, between two entries."""
        self._look_at = monotonic() + LOOK_S
        self._poll()

    def add(self, vcpu: Runnable) -> None:
        """A vCPU is created; its place in `vcpus` is its index."""
        self.vcpus.append(vcpu)

    def woken(self, vcpu: Runnable) -> None:
        """A vCPU became runnable: give it a PE to queue at. The one that runs must leave the guest,
        for its turn has an end now."""
        if vcpu.pe is None:
            loads = self._loads(vcpu)
            self._migrate(vcpu, place(vcpu.home, loads, vcpu.affinity))
            if loads[vcpu.home or 0]:
                vcpu.delay.queue(self.clock.now)
        if self.current is not vcpu:
            self.turn.pe.request_stop()

    def _loads(self, without: Runnable | None = None) -> list[int]:
        """How many vCPUs can run on each PE."""
        loads = [0] * len(self.pcpus)
        for vcpu in self.vcpus:
            if vcpu.runnable and vcpu is not without:
                loads[vcpu.home or 0] += 1
        return loads

    def _migrate(self, vcpu: Runnable, pe: int) -> None:
        if vcpu.home != pe:
            if vcpu.home is not None:
                self.pcpus[vcpu.home].leave(vcpu)
            vcpu.home = pe

    def affinity_changed(self, index: int) -> None:
        """A vCPU may not be where it is any more: it moves now, or as soon as it is out of the
        guest."""
        vcpu = self.vcpus[index]
        if not self.driving:
            self._move(vcpu)
        elif vcpu not in self._displaced:
            self._displaced.append(vcpu)
            self.turn.pe.request_stop()

    def _move(self, vcpu: Runnable) -> None:
        """Off a PE that its affinity leaves out (migrate_task): it queues at another one, where it
        can run."""
        if vcpu.home is None or vcpu.may_be_on(vcpu.home):
            return
        if vcpu.pe is not None:
            vcpu.put()
            vcpu.wake()  # asleep in WFE, which may end at any time (DDI 0487 D1.6.1)
        if vcpu.runnable:
            self.woken(vcpu)

    def give_way(self, vcpu: Runnable) -> None:
        """The vCPU that runs waits for another: its turn ends here, if others could use it.

        A call takes an instruction here, and microseconds on a machine: a guest that polls would
        fill its turn with tens of thousands of them.
        """
        if vcpu is self.current and self._others(vcpu):
            self.turn_end = self.clock.now
            self.turn.pe.request_stop()

    def stop(self) -> None:
        """Make `run` come back after the present exit."""
        self._stop = True
        self.turn.pe.request_stop()

    def stop_at(self, address: int) -> Callable[[], None]:
        """Make `run` come back before any vCPU executes the instruction at a virtual address; the
        function that is returned ends that."""
        return _all([v.context.stop_at(address, self.stop) for v in self.vcpus])

    def stop_in(self, addresses: range) -> Callable[[], None]:
        """Make `run` come back before any vCPU executes an instruction in a range of virtual
        addresses, of whole pages, that it enters from outside; the function that is returned ends
        that."""
        return _all([v.context.stop_in(addresses, self.stop) for v in self.vcpus])

    # -- state --

    def unload(self) -> None:
        """Forget which vCPUs are loaded: what is on the CPUs is about to be replaced."""
        for pcpu in self.pcpus:
            pcpu.unload()

    def state(self) -> dict[str, object]:
        """The clock, the physical CPUs and the scheduler; who is loaded stays loaded."""
        return {
            "version": 3, "clock": self.clock.state(), "gic": self.gic.state(),
            "pcpus": [pcpu.state() for pcpu in self.pcpus], "turn": self.turn.index, "turn_end": self.turn_end,
            "standstill": self._standstill.state(),
        }  # fmt: skip

    def check_shape(self, state: dict[str, Any]) -> None:
        """ValueError unless `state` is of a host with as many PEs."""
        if len(state["pcpus"]) != len(self.pcpus):
            raise ValueError("saved state is of another shape: the number of physical CPUs")

    def load(self, state: dict[str, Any]) -> None:
        """Take over `state` of a host with as many PEs (else ValueError); the vCPUs' own state is
        there already."""
        self.check_shape(state)
        self.clock.load(state["clock"])
        self.gic.load(state["gic"])
        for pcpu, saved in zip(self.pcpus, state["pcpus"], strict=True):
            pcpu.load(saved, self.vcpus)
        self.turn, self.turn_end = self.pcpus[state["turn"]], state["turn_end"]
        self._standstill.load(state["standstill"])

    # -- the loop --

    @property
    def insns(self) -> int:
        """Instructions that all vCPUs have retired."""
        return sum(v.context.insns for v in self.vcpus)

    def run(self, until: int = NEVER, insns: int = NEVER) -> Stop:
        """Drive all vCPUs to ``until`` ns of virtual time, to ``insns`` retired in all, a stop, or
        a dead end.

        KvmError as `check_standing`. An exception of a sink is raised from here, after the exit in
        which it happened.
        """
        self.check_standing()
        self._stop, self.driving, self.bus.late.stop = False, True, self.stop
        self._thread = get_ident()
        try:
            stop = self._loop(until, insns)
        finally:
            self.driving, self.bus.late.stop = False, None
        self.bus.late.over()
        return stop

    def check_standing(self) -> None:
        """KvmError EBUSY while `run` is under way, EBADF after `close`."""
        if self.driving:
            raise KvmError(
                "EBUSY",
                "it runs already: this is a sink, an exit handler, a timer or another thread",
            )
        if self.closed:
            raise KvmError("EBADF", CLOSED)

    def check_thread(self) -> None:
        """KvmError EBUSY in another thread than that in which `run` is under way: nothing here
        takes a lock."""
        if self.driving and self._thread != get_ident():
            raise KvmError("EBUSY", OTHER_THREAD)

    def check_open(self) -> None:
        """KvmError as `check_thread`, EBADF after `close`."""
        self.check_thread()
        if self.closed:
            raise KvmError("EBADF", CLOSED)

    def close(self) -> None:
        """Free the engines of all vCPUs: what needs one is refused from now on (EBADF). Closing
        once more does nothing. KvmError EBUSY while `run` is under way."""
        if not self.closed:
            self.check_standing()
        self.closed = True
        for vcpu in self.vcpus:
            vcpu.context.close()

    def _loop(self, until: int, insns: int) -> Stop:
        clock = self.clock
        while True:
            while self._displaced:
                self._move(self._displaced.pop())
            if clock.run_due():
                self._standstill.happened()
            if monotonic() >= self._look_at:
                self._look()
            if self._stop:
                return Stop.HANDLER
            if clock.now >= until or (insns != NEVER and self.insns >= insns):
                return Stop.UNTIL
            vcpu = self._schedule()
            if vcpu is None:
                due = self._standstill.due()
                if due is None and self._standstill.rescue():
                    continue
                if self.on_idle is not None:
                    due = self.on_idle(clock.now, due if due is None else min(due, until))
                if due is None:
                    return Stop.HANDLER if self._standstill.stuck_in_wfe() else Stop.IDLE
                clock.advance_to(min(due, until))
            else:
                watched = insns != NEVER or self.on_idle is not None
                self._round(
                    vcpu, min(until, self._time_of(insns)) if insns != NEVER else until, watched
                )

    def _time_of(self, insns: int) -> int:
        """The ns at which so many instructions will have retired, if only the present vCPU runs."""
        return self.clock.now + (insns - self.insns) * self.pe.ns_per_insn

    def _schedule(self) -> Runnable | None:
        """Keep the current vCPU until its turn ends, then the next PE's turn; there the next
        vCPU's, if there are several."""
        current = self.turn.vcpu
        if current is not None and current.runnable and self.clock.now < self.turn_end:
            if current.pe is None:
                self.turn.switch(current, self.clock.now)
            return current
        watched = self._look_at_lines()
        runnable = [v for v in self.vcpus if v.runnable]
        if current is not None and runnable == [current] and not watched:
            return self._keep(current)
        if current is not None and current.runnable:
            self._standstill.busy()
        if current is not None and runnable == [current]:
            self.turn_end = (
                self.clock.now + self.quantum_ns
            )  # another turn, so that its stores are seen
            return self._keep(current)
        return self._next_turn(runnable) if runnable else None

    def _keep(self, current: Runnable) -> Runnable:
        if current.pe is None:
            self.turn.switch(current, self.clock.now)
        return current

    def _look_at_lines(self) -> bool:
        """A turn is over: has it stored to what others in WFE wait for? Whether any of them still
        waits so."""
        waiting = [
            v.event_wait for v in self.vcpus if v.event_wait.watches and v is not self.current
        ]
        for each in waiting:
            each.turn_over()
        return any(each.watches for each in waiting)

    def _next_turn(self, runnable: list[Runnable]) -> Runnable:
        """Give the turn to the next PE that has something to run, or can take it from another."""
        before = self.current
        pcpu = self._next_pcpu(self._loads())
        mine = [v.index for v in runnable if v.home == pcpu.index]
        index = pick_next(mine, pcpu.last)
        assert index is not None
        pcpu.last, self.turn, self.turn_end = index, pcpu, self.clock.now + self.quantum_ns
        chosen, now = self.vcpus[index], self.clock.now
        for each in mine:
            if each != index:
                self.vcpus[each].delay.queue(now)
        if pcpu.vcpu is not chosen or chosen.pe is None:
            pcpu.switch(chosen, now)
        if (
            before is not None
            and before is not chosen
            and before.pe is not None
            and not before.event_wait.active
        ):
            # The engine's monitor compares values and would miss that others store A, B, A. It may
            # be cleared at any time (DDI 0487 B2.12); a turn is long enough for every loop to get
            # through once (MIN_QUANTUM_NS).
            before.context.clear_exclusive()
        return chosen

    def _next_pcpu(self, loads: list[int]) -> Pcpu:
        """The first PE after the one that had its turn that has a vCPU to run, or takes one from a
        busier PE."""
        count = len(self.pcpus)
        for step in range(1, count + 1):
            pe = (self.turn.index + step) % count
            if (source := donor(pe, loads)) is not None and self._pull(pe, source):
                return self.pcpus[pe]
            if loads[pe]:
                return self.pcpus[pe]
        raise AssertionError("somebody can run")

    def _pull(self, pe: int, source: int) -> bool:
        """Take over the vCPU that would be next at PE ``source``, but for the one that is loaded
        there."""
        waiting = [
            v.index
            for v in self.vcpus
            if v.runnable and v.home == source and v.pe is None and v.may_be_on(pe)
        ]
        index = pick_next(waiting, self.pcpus[source].last)
        if index is not None:
            self._migrate(self.vcpus[index], pe)
        return index is not None

    def _round(self, vcpu: Runnable, until: int, watched: bool) -> None:
        """Enter a vCPU once and act on how it came back. ``watched``: how it sleeps matters to
        somebody."""
        others = len(self.vcpus) > 1 and self._others(vcpu)
        if vcpu.faults_until and vcpu.faults_until > self.clock.now and not vcpu.suspended:
            self._standstill.go_on_faulting(vcpu, others, until)
            return
        before = vcpu.context.insns
        if others:
            outcome = vcpu.enter(
                min(until, self.turn_end), yield_at=self.turn_end - self.quantum_ns + QUANTUM_NS
            )
        else:
            outcome = vcpu.enter(until, not watched)
        retired = vcpu.context.insns - before
        if retired:
            self._standstill.ran(vcpu, outcome.kind, retired)
        self._act_on(outcome, vcpu, others, until)

    def _others(self, vcpu: Runnable) -> bool:
        """Whether another vCPU can run, or waits for a store of this one."""
        return any(v is not vcpu and (v.runnable or v.event_wait.watches) for v in self.vcpus)

    def _act_on(self, outcome: EntryOutcome, vcpu: Runnable, others: bool, until: int) -> None:
        """Do what an entry led to. A vCPU does not block while `run` is about to come back."""
        kind = outcome.kind
        if kind is Request.WAIT:
            outcome.kind = Request.NONE
            if not self._stop:
                vcpu.block()
                return
        elif kind is Request.SLEEP:
            outcome.kind = Request.NONE
            vcpu.sleep(outcome.until)
            return
        if not vcpu.runnable:
            self._put_stopped(vcpu)
        elif kind is ExitKind.YIELD:
            self.give_way(vcpu)
        elif kind is ExitKind.WFE:
            vcpu.event_wait.begin()
        elif kind is ExitKind.SPIN:
            self._standstill.spin(vcpu, others, until)
        elif kind is ExitKind.VECTOR_LOOP:
            self._standstill.vector_loop(vcpu, others, until)

    def _put_stopped(self, vcpu: Runnable) -> None:
        """CPU_OFF, or a system event, which switches off every vCPU of the VM: none of them keeps
        its PE."""
        for pcpu in self.pcpus:
            there = pcpu.vcpu
            if (
                there is not None
                and pcpu.loaded
                and not there.runnable
                and (there is vcpu or there.is_off)
            ):
                there.put()
