"""The host: one clock, physical CPUs (PEs), and the loop that runs vCPUs on them.

The loop has one thread and is deterministic. The PEs that have a runnable vCPU run one after
another, each for a time slice (a quantum of virtual time). The time slices model PEs that run at
the same time, so a vCPU stays loaded while other PEs run. `Host.run` may stop at any time. The next
call then continues, with the same result as without the stop.
"""

from __future__ import annotations

from _thread import get_ident
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from time import monotonic
from typing import TypeVar

from armvirt.arch.gic import PPI_MAINTENANCE
from armvirt.arch.timer import PPI_PTIMER, PPI_VTIMER
from armvirt.errors import KvmError
from armvirt.events import EventBus, Stamp
from armvirt.hw.clock import NEVER, Clock
from armvirt.hw.config import HostConfig
from armvirt.hw.context import CLOSED, OTHER_THREAD, EngineFactory
from armvirt.hw.exit import ExitKind
from armvirt.hw.gic import PhysicalGic
from armvirt.hw.pe import Pe
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
from armvirt.hyp.host.standstill import Standstill, Stuck
from armvirt.state import State, Stateful, check_versions, checked, load_states, states_of

STATE_VERSION = 4

HOST_PPIS = (PPI_MAINTENANCE, PPI_VTIMER, PPI_PTIMER)
LOOK_S = 0.02

F = TypeVar("F")


class Stop(Enum):
    """Why `Host.run` returned."""

    UNTIL = "until"  # the given time was reached
    HANDLER = "handler"  # a stop was requested, for example by an exit handler
    IDLE = "idle"  # no vCPU is runnable, and no event is due


Poll = Callable[[], bool]
Idle = Callable[[int, int | None], int | None]
Skip = Callable[[int], None]


def _add(functions: list[F], function: F) -> Callable[[], None]:
    """Append a function to ``functions``. A call of the returned function removes ``function`` from
    the list."""
    functions.append(function)
    return lambda: functions.remove(function)


def _all(functions: Sequence[Callable[[], None]]) -> Callable[[], None]:
    """Return a function that calls all ``functions``."""

    def call() -> None:
        for function in functions:
            function()

    return call


class Host:
    """The host kernel of KVM, with the physical CPUs (PEs) that ``config`` describes. ValueError if
    a number in ``config`` is out of range.

    ``turn`` is the PE that has the present time slice. The slice ends at the virtual time
    ``turn_end`` (ns). ``driving`` is true while `run` is in progress. ``stuck`` is the reason if
    the last `run` found the guest stuck, otherwise None.
    """

    def __init__(self, config: HostConfig, bus: EventBus | None = None) -> None:
        self.config = config
        pcpus = config.pcpus
        quantum_ns = default_quantum(pcpus) if config.quantum_ns is None else config.quantum_ns
        if pcpus < 1 or quantum_ns < MIN_QUANTUM_NS:
            raise ValueError(f"a host needs a CPU, and a quantum of {MIN_QUANTUM_NS} ns or more")
        self.bus = (bus if bus is not None else EventBus()).view(self._stamp)
        self.clock = Clock()
        self.engines = EngineFactory(config.engine, config.cpu, config.skip)
        self.gic = PhysicalGic(pcpus)
        self.quantum_ns = quantum_ns
        self.vcpus: list[Runnable] = []
        self.pcpus = [
            Pcpu(Pe(n, self.clock, self.gic, self.bus, config), self.vcpus) for n in range(pcpus)
        ]
        for n in range(pcpus):
            for intid in HOST_PPIS:
                self.gic.enable(n, intid, True)
        self.turn = self.pcpus[-1]  # so that PE 0 has the first time slice
        self.turn_end = 0
        self._standstill = Standstill(self)
        self.stuck: Stuck | None = None
        self._stop = False
        self._polls: list[Poll] = []
        self._idles: list[Idle] = []
        self._skips: list[Skip] = []
        for pcpu in self.pcpus:
            pcpu.pe.on_poll = self._poll
        self._look_at = 0.0  # the host time (s) at which `_look` is due
        self.closed = False
        self._thread = 0  # the id of the thread that is in `run`
        self.driving = False
        self._displaced: list[Runnable] = []  # vCPUs whose affinity has changed during `run`

    def __repr__(self) -> str:
        return f"<Host with {len(self.pcpus)} physical CPUs and {len(self.vcpus)} vCPUs, at {self.clock.now:,} ns>"

    @property
    def pe(self) -> Pe:
        """PE 0. All PEs have the same list registers, priority bits and system counter."""
        return self.pcpus[0].pe

    @property
    def current(self) -> Runnable | None:
        """The vCPU of the PE that has the present time slice; None if the PE has no vCPU. During
        `run`, this is the vCPU that runs; otherwise it is the vCPU that ran last."""
        return self.turn.vcpu

    def _stamp(self) -> Stamp:
        return self.turn.pe.stamp()

    def add_poll(self, poll: Poll) -> Callable[[], None]:
        """Call ``poll()`` about every 20 ms of real time, while `run` is in progress. If ``poll``
        returns true, the run stops at once. A call of the returned function removes ``poll``.

        The engine (the CPU emulator) reads the real time every few thousand instructions and after
        each exit, because one instruction may take as much real time as a million others. `_loop`
        also reads the real time before each guest entry, because a guest may exit so often that the
        engine does not read the time.
        """
        return _add(self._polls, poll)

    def add_idle(self, idle: Idle) -> Callable[[], None]:
        """Call ``idle(now, due)`` when no vCPU can run. ``now`` is the present virtual time in ns.
        ``due`` is the virtual time of the next event in ns; None if no event is due. ``idle``
        returns the virtual time to which the clock advances, or None if no vCPU can ever run.

        If several functions are added, the first function gets the time of the next event as
        ``due``. Each further function gets the result of the function before it. A call of the
        returned function removes ``idle``.
        """
        return _add(self._idles, idle)

    def idle_until(self, due: int | None) -> int | None:
        """The virtual time in ns to which the clock advances while no vCPU can run. ``due`` is the
        virtual time of the next event in ns; None if no event is due.

        The functions that were added with `add_idle` decide the result, as described there. If no
        function was added, the result is ``due``.
        """
        for idle in self._idles:
            due = idle(self.clock.now, due)
        return due

    def add_skip(self, skip: Skip) -> Callable[[], None]:
        """Call ``skip(ns)`` each time the engine has skipped a part of a polled wait. ``ns`` is the
        skipped virtual time, at most 10 ms. A call of the returned function removes ``skip``.

        ``skip`` may let real time pass. It cannot change the run: the guest continues at the same
        virtual time.
        """
        remove = _add(self._skips, skip)
        self._route_skips()

        def stop() -> None:
            remove()
            self._route_skips()

        return stop

    def _route_skips(self) -> None:
        for pcpu in self.pcpus:
            pcpu.pe.on_skip = self._skipped if self._skips else None

    def _skipped(self, ns: int) -> None:
        for skip in self._skips:
            skip(ns)

    def _poll(self) -> bool:
        for poll in self._polls:
            self._stop = poll() or self._stop
        return self._stop

    def _look(self) -> None:
        """Call the functions that were added with `add_poll`. `_loop` calls this method between two
        guest entries."""
        self._look_at = monotonic() + LOOK_S
        self._poll()

    def add(self, vcpu: Runnable) -> None:
        """Append a new vCPU to `vcpus`. Its index in the list is ``vcpu.index``."""
        self.vcpus.append(vcpu)

    def woken(self, vcpu: Runnable) -> None:
        """Choose the PE for a vCPU that became runnable. Then make the running vCPU leave the
        guest, so that its time slice can end at ``turn_end``. (The time slice of a vCPU that runs
        alone has no end.)"""
        if vcpu.pe is None:
            loads = self._loads(vcpu)
            self._migrate(vcpu, place(vcpu.sched.home, loads, vcpu.sched.affinity))
            if loads[vcpu.sched.home or 0]:
                vcpu.sched.queue(self.clock.now)
        if self.current is not vcpu:
            self.turn.pe.request_stop()

    def _loads(self, without: Runnable | None = None) -> list[int]:
        """The number of runnable vCPUs at each PE. ``without`` is a vCPU that is not counted; None
        counts all vCPUs."""
        loads = [0] * len(self.pcpus)
        for vcpu in self.vcpus:
            if vcpu.runnable and vcpu is not without:
                loads[vcpu.sched.home or 0] += 1
        return loads

    def _migrate(self, vcpu: Runnable, pe: int) -> None:
        if vcpu.sched.home != pe:
            if vcpu.sched.home is not None:
                self.pcpus[vcpu.sched.home].leave(vcpu)
            vcpu.sched.home = pe

    def affinity_changed(self, index: int) -> None:
        """Move the vCPU ``vcpus[index]``, if its new affinity requires a move. During `run`, the
        move is after the next exit; otherwise it is at once."""
        vcpu = self.vcpus[index]
        if not self.driving:
            self._move(vcpu)
        elif vcpu not in self._displaced:
            self._displaced.append(vcpu)
            self.turn.pe.request_stop()

    def _move(self, vcpu: Runnable) -> None:
        """If the vCPU's PE is not in its affinity, move the vCPU to a PE that is in its affinity
        (migrate_task)."""
        if vcpu.sched.home is None or vcpu.sched.may_be_on(vcpu.sched.home):
            return
        if vcpu.pe is not None:
            vcpu.put()
            vcpu.wake()  # a wait in WFE may end at any time (DDI 0487 D1.6.1)
        if vcpu.runnable:
            self.woken(vcpu)

    def give_way(self, vcpu: Runnable) -> None:
        """If another vCPU can run, end the time slice of ``vcpu``. The caller has detected that
        ``vcpu`` polls the state of another vCPU.

        A hypercall takes the virtual time of one instruction, but microseconds on hardware. Without
        `give_way`, a guest that polls by hypercalls would make tens of thousands of hypercalls in
        one time slice.
        """
        if vcpu is self.current and self._others(vcpu):
            self.turn_end = self.clock.now
            self.turn.pe.request_stop()

    def stop(self) -> None:
        """Make `run` return after the present exit."""
        self._stop = True
        self.turn.pe.request_stop()

    def stop_at(self, address: int) -> Callable[[], None]:
        """Make `run` return whenever a vCPU is about to execute the instruction at a virtual
        address. A call of the returned function removes this stop."""
        return _all([v.context.stop_at(address, self.stop) for v in self.vcpus])

    def stop_in(self, addresses: range) -> Callable[[], None]:
        """Make `run` return whenever a vCPU is about to enter a range of virtual addresses (whole
        pages) from outside the range. A call of the returned function removes this stop."""
        return _all([v.context.stop_in(addresses, self.stop) for v in self.vcpus])

    # -- state --

    def unload(self) -> None:
        """Detach all loaded vCPUs. Their registers are not saved, because the caller restores
        another state next."""
        for pcpu in self.pcpus:
            pcpu.unload()

    @property
    def parts(self) -> Mapping[str, Stateful]:
        """The objects of the host that have saved state (clock, GIC, physical CPUs and so on), by
        name. `load` restores the objects in this order."""
        pcpus = {f"pcpu{pcpu.index}": pcpu for pcpu in self.pcpus}
        return {"clock": self.clock, "gic": self.gic, **pcpus, "standstill": self._standstill}

    def state(self) -> State:
        """The present time slice, and the saved state of each object in `parts`. This method does
        not unload vCPUs."""
        return {
            "version": STATE_VERSION, "turn": self.turn.index, "turn_end": self.turn_end,
            "parts": states_of(self.parts),
        }  # fmt: skip

    def check_shape(self, state: State) -> None:
        """Check that `load` can restore ``state``. StateError if a version in ``state`` differs
        from the version that this code writes. ValueError if ``state`` has another number of PEs
        than this host."""
        check_versions(state, self.state(), "the host")
        if state["parts"].keys() != self.parts.keys():
            raise ValueError("saved state is of another shape: the number of physical CPUs")

    def load(self, state: State) -> None:
        """Restore what `state` returned. Before this call, the caller calls `check_shape` and
        restores the vCPUs."""
        checked(state, "the host", STATE_VERSION)
        load_states(self.parts, state["parts"], "the host")
        self.turn, self.turn_end = self.pcpus[state["turn"]], state["turn_end"]

    # -- the loop --

    @property
    def insns(self) -> int:
        """The number of instructions that all vCPUs together have retired since their creation."""
        return sum(v.context.insns for v in self.vcpus)

    def run(self, until: int = NEVER, insns: int = NEVER) -> Stop:
        """Run all vCPUs until one of four conditions is true. First, the virtual time is ``until``
        ns or more. Second, the total `Host.insns` is ``insns`` or more. Third, a stop was
        requested. Fourth, no vCPU can ever run.

        KvmError: the errors of `check_standing`. If a trace sink (a receiver of trace events)
        raises an exception during an exit, `run` raises the exception after this exit.
        """
        self.check_standing()
        self.stuck = None
        self._stop, self.driving, self.bus.late.stop = False, True, self.stop
        self._thread = get_ident()
        try:
            stop = self._loop(until, insns)
        finally:
            self.driving, self.bus.late.stop = False, None
        self.bus.late.over()
        return stop

    def check_standing(self) -> None:
        """Raise KvmError EBUSY if `run` is in progress, and KvmError EBADF after `close`."""
        if self.driving:
            raise KvmError(
                "EBUSY",
                "it runs already: this is a sink, an exit handler, a timer or another thread",
            )
        if self.closed:
            raise KvmError("EBADF", CLOSED)

    def check_thread(self) -> None:
        """Raise KvmError EBUSY if another thread is in `run`, because the hypervisor has no
        locks."""
        if self.driving and self._thread != get_ident():
            raise KvmError("EBUSY", OTHER_THREAD)

    def check_open(self) -> None:
        """Raise the errors of `check_thread`, and KvmError EBADF after `close`."""
        self.check_thread()
        if self.closed:
            raise KvmError("EBADF", CLOSED)

    def close(self) -> None:
        """Free the engines (CPU emulators) of all vCPUs. After `close`, a call that needs an engine
        raises KvmError EBADF. A second `close` has no effect. KvmError EBUSY during `run`."""
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
                due = self.idle_until(due if due is None else min(due, until))
                if due is None:
                    return self._report(self._standstill.nobody_wakes())
                clock.advance_to(min(due, until))
            else:
                watched = insns != NEVER or bool(self._idles)
                self._round(
                    vcpu, min(until, self._time_of(insns)) if insns != NEVER else until, watched
                )

    def _time_of(self, insns: int) -> int:
        """The virtual time in ns at which `Host.insns` will reach ``insns``, which is a total
        number of instructions. The calculation assumes that only the current vCPU runs."""
        return self.clock.now + (insns - self.insns) * self.pe.ns_per_insn

    def _schedule(self) -> Runnable | None:
        """Choose the vCPU to enter: the current vCPU until its time slice ends, then a vCPU of the
        next PE. Return None if no vCPU is runnable."""
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
            )  # a new time slice: at its end, `turn_over` detects the vCPU's stores
            return self._keep(current)
        return self._next_turn(runnable) if runnable else None

    def _keep(self, current: Runnable) -> Runnable:
        if current.pe is None:
            self.turn.switch(current, self.clock.now)
        return current

    def _look_at_lines(self) -> bool:
        """At the end of a time slice, let each vCPU that waits in WFE with a marked exclusive
        monitor compare the marked granule (`EventWaiter.turn_over`). A changed granule ends the
        wait. Return whether one of these vCPUs still waits for a store."""
        waiting = [
            v.event_wait for v in self.vcpus if v.event_wait.watches and v is not self.current
        ]
        for each in waiting:
            each.turn_over()
        return any(each.watches for each in waiting)

    def _next_turn(self, runnable: list[Runnable]) -> Runnable:
        """Give a time slice to the next PE that has a runnable vCPU, or that can pull a vCPU from
        another PE. Return the vCPU."""
        before = self.current
        pcpu = self._next_pcpu(self._loads())
        mine = [v.index for v in runnable if v.sched.home == pcpu.index]
        index = pick_next(mine, pcpu.last)
        assert index is not None
        pcpu.last, self.turn, self.turn_end = index, pcpu, self.clock.now + self.quantum_ns
        chosen, now = self.vcpus[index], self.clock.now
        for each in mine:
            if each != index:
                self.vcpus[each].sched.queue(now)
        if pcpu.vcpu is not chosen or chosen.pe is None:
            pcpu.switch(chosen, now)
        if (
            before is not None
            and before is not chosen
            and before.pe is not None
            and not before.event_wait.active
        ):
            # The engine's monitor compares values, so it would miss a store of another vCPU that a
            # second store reverts. An implementation may clear the monitor at any time (DDI 0487
            # B2.12). A time slice is long enough for a loop of exclusives to complete once
            # (MIN_QUANTUM_NS).
            before.context.clear_exclusive()
        return chosen

    def _next_pcpu(self, loads: list[int]) -> Pcpu:
        """Choose the PE for the next time slice. The PEs are considered in circular order, from the
        PE after ``turn``, which had the last time slice. The first PE that has a runnable vCPU, or
        that can pull one from a busier PE, is chosen."""
        count = len(self.pcpus)
        for step in range(1, count + 1):
            pe = (self.turn.index + step) % count
            if (source := donor(pe, loads)) is not None and self._pull(pe, source):
                return self.pcpus[pe]
            if loads[pe]:
                return self.pcpus[pe]
        raise AssertionError("somebody can run")

    def _pull(self, pe: int, source: int) -> bool:
        """Move a waiting vCPU from PE ``source`` to PE ``pe``. The candidates are the vCPUs of PE
        ``source`` that are runnable, not loaded, and allowed on PE ``pe``. The next candidate in
        round-robin order is moved. Return False if there is no candidate."""
        waiting = [
            v.index
            for v in self.vcpus
            if v.runnable and v.sched.home == source and v.pe is None and v.sched.may_be_on(pe)
        ]
        index = pick_next(waiting, self.pcpus[source].last)
        if index is not None:
            self._migrate(self.vcpus[index], pe)
        return index is not None

    def _round(self, vcpu: Runnable, until: int, watched: bool) -> None:
        """Let a vCPU enter the guest once, and handle the outcome. ``watched`` is true if `_loop`
        has an instruction limit, or if a function was added with `add_idle`. If ``watched`` is
        true, the guest entry ends each time the vCPU sleeps."""
        others = len(self.vcpus) > 1 and self._others(vcpu)
        if (
            vcpu.sched.faults_until
            and vcpu.sched.faults_until > self.clock.now
            and not vcpu.suspended
        ):
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
        if retired and self._standstill.still:
            self._standstill.ran(vcpu, outcome.kind, retired)
        self._act_on(outcome, vcpu, others, until)

    def _others(self, vcpu: Runnable) -> bool:
        """Whether another vCPU is runnable, or waits in WFE for a store by this vCPU."""
        return any(v is not vcpu and (v.runnable or v.event_wait.watches) for v in self.vcpus)

    def _act_on(self, outcome: EntryOutcome, vcpu: Runnable, others: bool, until: int) -> None:
        """Handle the outcome of a guest entry. If `run` is about to return, the vCPU is not
        blocked, even if the outcome is the request WAIT."""
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
            if (stuck := self._standstill.spin(vcpu, others, until)) is not None:
                self._report(stuck)
        elif kind is ExitKind.VECTOR_LOOP:
            if (stuck := self._standstill.vector_loop(vcpu, others, until)) is not None:
                self._report(stuck)

    def _report(self, stuck: Stuck) -> Stop:
        """Store why the guest is stuck, and return the `Stop` for `run`. If the cause is about one
        vCPU, report the cause to the VMM of this vCPU; the result is `Stop.HANDLER`. If the cause
        is about all vCPUs, the result is `Stop.IDLE`, and the caller of `run` reads
        ``Host.stuck``."""
        self.stuck = stuck
        if stuck.vcpu is None:
            return Stop.IDLE
        self.stop()
        stuck.vcpu.stuck(stuck.cause)
        return Stop.HANDLER

    def _put_stopped(self, vcpu: Runnable) -> None:
        """Put ``vcpu``, which is not runnable any more. Also put every loaded vCPU that is off,
        because a system event powers off all vCPUs of the VM."""
        for pcpu in self.pcpus:
            there = pcpu.vcpu
            if (
                there is not None
                and pcpu.loaded
                and not there.runnable
                and (there is vcpu or there.is_off)
            ):
                there.put()
